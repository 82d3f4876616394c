"""Terrace's NVMe tier, through terrace_kv."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.peers.disk.peer import DiskPeer, write_zeros
from bench.peers.peer import PeerError, Place, Servers, Words
from bench.peers.terrace import BUILD

DRAM_BYTES = 256 << 20
LOG_MARGIN_BYTES = 128 << 20
WRITTEN_SECONDS = 60.0


class Terrace(DiskPeer):
    """A private daemon; a get is a pin on verified bytes, a put waits for its chunks to persist."""

    name = "terrace"
    remark = "io_uring, O_DIRECT; bytes verified"
    cold = "O_DIRECT, the daemon started anew"
    restarts = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._socket = place.folder + "/terraced.sock"
        self._log = place.folder + "/log.terrace"
        self._log_bytes = place.working_set_bytes * 9 // 8 + LOG_MARGIN_BYTES

    def prepare(self) -> None:
        write_zeros(self._log, self._log_bytes)

    def serve(self, servers: Servers) -> None:
        servers.start(
            [
                str(BUILD / "bin" / "terraced"),
                *("--socket", self._socket, "--dram", str(DRAM_BYTES), "--segment", "16MiB"),
                *("--nvme", self._log, "--nvme-bytes", str(self._log_bytes)),
                *("--log-level", "warning"),
            ],
            socket=self._socket,
        )

    def connect(self, rows: Words) -> None:
        sys.path.insert(0, str(BUILD / "python"))
        import terrace_kv

        self._client: Any = terrace_kv.Client(self._socket)
        self._namespace: Any = self._client.namespace("bench-peers", model="bench-peers")
        self._unsettled: list[bytes] = []

    def put(self, serials: Sequence[int], rows: Words) -> None:
        items = [(_key(serial), row) for serial, row in zip(serials, rows, strict=True)]
        deadline = time.monotonic() + WRITTEN_SECONDS
        while items and time.monotonic() < deadline:
            ends = self._namespace.put(items)
            busy = [item for item, end in zip(items, ends, strict=True) if end == "busy"]
            if any(end not in ("ok", "busy") for end in ends):
                raise PeerError(f"puts ended as {set(ends)}")
            if busy:
                time.sleep(0.0005)
            items = busy
        self._unsettled += [_key(serial) for serial in serials]

    def settle(self) -> None:
        ends = set(self._namespace.persist(self._unsettled, timeout=WRITTEN_SECONDS))
        self._unsettled = []
        if ends != {"ok"}:
            raise PeerError(f"persist ended as {ends}")

    def get(self, serials: Sequence[int], rows: Words) -> Sequence[Words]:
        pins = self._namespace.get([_key(serial) for serial in serials], timeout=10.0)
        if any(pin is None for pin in pins):
            raise PeerError("a get missed")
        return [np.frombuffer(pin, np.uint64) for pin in pins]

    def close(self) -> None:
        self._client.close()


def _key(serial: int) -> bytes:
    return b"%016d" % serial
