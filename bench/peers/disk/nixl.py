"""NIXL's POSIX plugin: transfers between registered memory and a file.  It keeps no index and no
checksums; a chunk's place in the file is its number."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from typing import Any

from bench.peers.disk.peer import DiskPeer, write_zeros
from bench.peers.peer import PeerError, Words, address_of

TRANSFER_SECONDS = 30.0


class Nixl(DiskPeer):
    """One transfer of a batch, on a file that was written before."""

    name = "nixl"
    remark = "POSIX plugin, io_uring; no index, no checksums"
    environment = "nixl"
    cold = "O_DIRECT"

    def prepare(self) -> None:
        write_zeros(self._path(), self.place.working_set_bytes)

    def connect(self, rows: Words) -> None:
        api = importlib.import_module("nixl_cu12._api")
        self._agent: Any = api.nixl_agent("bench", api.nixl_agent_config(backends=[]))
        self._agent.create_backend("POSIX", {"use_uring": "true", "use_aio": "false"})
        self._file = os.open(self._path(), os.O_RDWR | os.O_DIRECT)
        memory = [(address_of(rows), rows.nbytes, 0, "")]
        places = [(0, self.place.working_set_bytes, self._file, "")]
        if not self._agent.register_memory(memory, "DRAM"):
            raise PeerError("the memory could not be registered")
        if not self._agent.register_memory(places, "FILE"):
            raise PeerError("the file could not be registered")

    def put(self, serials: Sequence[int], rows: Words) -> None:
        self._transfer("WRITE", serials, rows)

    def settle(self) -> None:
        os.fdatasync(self._file)

    def get(self, serials: Sequence[int], rows: Words) -> Sequence[Words]:
        self._transfer("READ", serials, rows)
        return list(rows)

    def _transfer(self, operation: str, serials: Sequence[int], rows: Words) -> None:
        size = self.place.chunk_bytes
        memory = self._agent.get_xfer_descs([(address_of(row), size, 0) for row in rows], "DRAM")
        places = [(serial * size, size, self._file) for serial in serials]
        handle = self._agent.initialize_xfer(
            operation, memory, self._agent.get_xfer_descs(places, "FILE"), "bench"
        )
        state = self._agent.transfer(handle)
        deadline = time.monotonic() + TRANSFER_SECONDS
        while state == "PROC" and time.monotonic() < deadline:
            state = self._agent.check_xfer_state(handle)
        self._agent.release_xfer_handle(handle)
        if state != "DONE":
            raise PeerError(f"a transfer ended as {state}")

    def _path(self) -> str:
        return self.place.folder + "/nixl.data"
