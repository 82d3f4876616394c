"""Mooncake Store with its offload to disk: what is evicted from its memory is written to files by
the node's client, which then reads it there.

As offload is set up unless told (written behind puts, every 10 s), what is evicted before is lost:
39 of 96 batches of four, when 384 MiB were put in a memory of 256 MiB."""

from __future__ import annotations

import ctypes
import importlib
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.peers.disk.peer import DiskPeer, sync_file_system
from bench.peers.mooncake import LOCAL_BUFFER_BYTES, POOL_BYTES
from bench.peers.peer import PeerError, Servers, Words, address_of

DRAM_BYTES = 256 << 20
FILLER = 10**9  # numbers of what pushes the rest out
PUT_SECONDS = 30.0


class Mooncake(DiskPeer):
    """`batch_put_from` and `batch_get_into` of a client in the process that owns the disk."""

    name = "mooncake"
    remark = "offload to files when memory is full, asked for once a second; puts end in memory"
    environment = "mooncake"
    cold = "pushed out of its memory, page cache dropped"

    def serve(self, servers: Servers) -> None:
        master, metrics, client = range(self.place.port, self.place.port + 3)
        servers.start(
            [
                str(self.package("mooncake/mooncake_master")),
                *(f"--rpc_port={master}", f"--metrics_port={metrics}", "--rpc_address=127.0.0.1"),
                *("--enable_offload=true", "--offload_on_evict=true"),
            ],
            port=master,
        )
        files = self.place.folder + "/offload"
        os.mkdir(files)
        servers.start(
            [
                str(self.package("mooncake/mooncake_client")),
                *(f"--port={client}", "--host=127.0.0.1", "--protocol=tcp"),
                f"--global_segment_size={DRAM_BYTES}",
                f"--master_server_address=127.0.0.1:{master}",
                "--metadata_server=P2PHANDSHAKE",
                "--enable_offload=true",
            ],
            port=client,
            environment={
                "MOONCAKE_OFFLOAD_FILE_STORAGE_PATH": files,
                "MOONCAKE_OFFLOAD_HEARTBEAT_INTERVAL_SECONDS": "1",
                "MOONCAKE_OFFLOAD_LOCAL_BUFFER_SIZE_BYTES": str(256 << 20),
            },
        )

    def connect(self, rows: Words) -> None:
        store = importlib.import_module("mooncake.store").MooncakeDistributedStore()
        address = f"127.0.0.1:{self.place.port + 2}"
        end = store.setup_dummy(POOL_BYTES, LOCAL_BUFFER_BYTES, address)
        if end != 0:
            raise PeerError(f"setup_dummy answered {end}")
        self._store: Any = store
        memory = store.alloc_from_mem_pool(rows.nbytes)
        if not memory or store.register_buffer(memory, rows.nbytes) != 0:
            raise PeerError("no registered memory")
        words = (ctypes.c_uint64 * (rows.nbytes // 8)).from_address(memory)
        self._memory: Words = np.ctypeslib.as_array(words).reshape(rows.shape)

    def put(self, serials: Sequence[int], rows: Words) -> None:
        mine = self._memory[: len(serials)]
        mine[:] = rows  # its memory is its own
        sizes = [self.place.chunk_bytes] * len(serials)
        deadline = time.monotonic() + PUT_SECONDS
        keys = [str(serial) for serial in serials]
        where = [address_of(row) for row in mine]
        while True:
            ends = self._store.batch_put_from(keys, where, sizes)
            left = [at for at, end in enumerate(ends) if end != 0]
            if not left:
                return
            if time.monotonic() > deadline:
                raise PeerError(f"batch_put_from answered {ends[left[0]]}")
            time.sleep(0.01)
            keys = [keys[at] for at in left]
            where = [where[at] for at in left]
            sizes = sizes[: len(left)]

    def cool(self) -> None:
        """Puts as much as its memory holds, so that what was put before is on disk alone."""
        for at in range(0, DRAM_BYTES // self.place.chunk_bytes, self.batch):
            self.put(range(FILLER + at, FILLER + at + self.batch), self._memory[: self.batch])
        sync_file_system(self.place.folder)
        super().cool()

    def get(self, serials: Sequence[int], rows: Words) -> Sequence[Words]:
        mine = self._memory[self.batch : self.batch + len(serials)]
        size = self.place.chunk_bytes
        ends = self._store.batch_get_into(
            [str(serial) for serial in serials], [address_of(row) for row in mine],
            [size] * len(serials),
        )  # fmt: skip
        if any(end != size for end in ends):
            raise PeerError(f"batch_get_into answered {min(ends)}")
        return list(mine)
