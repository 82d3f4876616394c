"""Mooncake Store, through the shared-memory client of a node (a "dummy" client beside the node's
real one, which holds the segment and copies into memory that both map)."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np

from bench.peers.peer import Kind, Peer, PeerError, Servers, Words, address_of

POOL_BYTES = 128 << 20
LOCAL_BUFFER_BYTES = 128 << 20


class Mooncake(Peer):
    """`put_from` and `get_into` on registered memory."""

    name = "mooncake"
    kind = Kind.COPYING
    remark = "shared-memory client"
    environment = "mooncake"

    def serve(self, servers: Servers) -> None:
        master, metrics, client = range(self.place.port, self.place.port + 3)
        servers.start(
            [
                str(self.package("mooncake/mooncake_master")),
                *(f"--rpc_port={master}", f"--metrics_port={metrics}", "--rpc_address=127.0.0.1"),
            ],
            port=master,
        )
        servers.start(
            [
                str(self.package("mooncake/mooncake_client")),
                *(f"--port={client}", "--host=127.0.0.1", "--protocol=tcp"),
                f"--global_segment_size={self.place.capacity_bytes}",
                f"--master_server_address=127.0.0.1:{master}",
                "--metadata_server=P2PHANDSHAKE",
            ],
            port=client,
        )

    def connect(self, number: int) -> None:
        store = importlib.import_module("mooncake.store").MooncakeDistributedStore()
        address = f"127.0.0.1:{self.place.port + 2}"
        end = store.setup_dummy(POOL_BYTES, LOCAL_BUFFER_BYTES, address)
        if end != 0:
            raise PeerError(f"setup_dummy answered {end}")
        self._store: Any = store
        # One registration covers what puts read from and what gets write to.
        memory = store.alloc_from_mem_pool(POOL_BYTES // 2)
        if not memory or store.register_buffer(memory, POOL_BYTES // 2) != 0:
            raise PeerError("no registered memory")
        words = (ctypes.c_uint64 * (POOL_BYTES // 16)).from_address(memory)
        self._memory = np.ctypeslib.as_array(words).reshape(-1, self.place.words)
        self._into: Words = self._memory[-1]
        self._into_address = address_of(self._into)

    def source(self) -> Words:
        return self._memory[: self.place.source_rows]

    def put(self, key: bytes, payload: Words) -> None:
        end = self._store.put_from(key.decode(), address_of(payload), self.place.chunk_bytes)
        if end != 0:
            raise PeerError(f"put_from answered {end}")

    def get(self, key: bytes) -> Words:
        end = self._store.get_into(key.decode(), self._into_address, self.place.chunk_bytes)
        if end != self.place.chunk_bytes:
            raise PeerError(f"get_into answered {end}")
        return self._into

    def remove(self, key: bytes) -> None:
        self._store.remove(key.decode(), True)
