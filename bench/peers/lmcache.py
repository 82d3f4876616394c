"""LMCache's multi-process server, through the client that its own server bench uses: ZeroMQ for
the calls, shared memory for the bytes."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
from typing import Any

import numpy as np

from bench.peers.peer import Kind, Peer, PeerError, Servers, Words

CHUNK_TOKENS = 256
BLOCK_TOKENS = 16
CHUNK_BLOCKS = CHUNK_TOKENS // BLOCK_TOKENS
GIB = 1 << 30


class LMCache(Peer):
    """A chunk is 256 tokens of one layer of MLA, whose blocks lie one behind the other; the
    client's "paged KV cache" is what puts read from, and one chunk more to get into."""

    name = "lmcache"
    kind = Kind.COPYING
    remark = "ZeroMQ, shared memory; lookup and retrieve"
    environment = "lmcache"

    def serve(self, servers: Servers) -> None:
        gib = -(-self.place.capacity_bytes // GIB) + 1
        servers.start(
            [
                str(self.folder() / "bin" / "lmcache"),
                *("server", "--host", "127.0.0.1", "--port", str(self.place.port)),
                *("--http-host", "127.0.0.1", "--http-port", str(self.place.port + 1)),
                *("--l1-size-gb", str(gib), "--l1-init-size-gb", str(gib)),
                *("--eviction-policy", "LRU", "--chunk-size", str(CHUNK_TOKENS)),
                *("--supported-transfer-mode", "auto"),
                *("--shm-name", self._memory_name(), "--disable-observability"),
            ],
            port=self.place.port,
        )

    def clean(self) -> None:
        for pool in pathlib.Path("/dev/shm").glob(f"*{self._memory_name()}"):
            pool.unlink(missing_ok=True)

    def connect(self, number: int) -> None:
        bench = "lmcache.cli.commands.bench.server_bench."
        # Two processes of its bench would register as the same worker.
        helpers: Any = importlib.import_module(bench + "helpers")
        helpers._INSTANCE_ID_BASE = 1000 + number
        self._number = number
        rows = self.place.source_rows + 1
        head = self.place.chunk_bytes // CHUNK_TOKENS // 2
        blocks = rows * CHUNK_BLOCKS
        config = importlib.import_module(bench + "config").BenchConfig(
            rpc_url=f"tcp://127.0.0.1:{self.place.port}",
            http_url=f"http://127.0.0.1:{self.place.port + 1}",
            mode="cpu",
            transfer_mode="auto",
            tp_size=1,
            use_mla=True,
            num_tokens=CHUNK_TOKENS,
            kvcache_shape_spec=f"(1,{blocks},{BLOCK_TOKENS},1,{head}):float16:1",
            num_blocks=blocks,
            block_size=BLOCK_TOKENS,
        )
        self._client: Any = importlib.import_module(bench + "client").ServerBenchClient(
            config, lambda line: None
        )
        self._client.start()
        [tensor] = self._client._workers[0].kv_caches.values()
        self._memory: Words = tensor.numpy().reshape(-1).view(np.uint64).reshape(rows, -1)
        self._begin = self._memory.__array_interface__["data"][0]
        self._sessions = 0

    def source(self) -> Words:
        return self._memory[:-1]

    def put(self, key: bytes, payload: Words) -> None:
        begin: int = payload.__array_interface__["data"][0]
        request = self._request(key, (begin - self._begin) // self.place.chunk_bytes)
        stored = self._client.store(request, 0, CHUNK_TOKENS)
        self._client.end_session(request)
        if stored is None or not stored.succeeded:
            raise PeerError("a store failed")

    def get(self, key: bytes) -> Words:
        request = self._request(key, len(self._memory) - 1)
        if self._client.lookup(request).hit_chunks != 1:
            raise PeerError("a lookup missed")
        got = self._client.retrieve(request, 0, CHUNK_TOKENS)
        self._client.end_session(request)
        if got is None or not got.succeeded:
            raise PeerError("a retrieve failed")
        words: Words = self._memory[-1]
        return words

    def remove(self, key: bytes) -> None:
        """Has no such call for a chunk; its LRU makes room."""

    def close(self) -> None:
        self._client.close()

    def _memory_name(self) -> str:
        return f"bench-peers-{self.place.port}"

    def _request(self, key: bytes, row: int) -> Any:
        self._sessions += 1
        name = f"{self._number}-{self._sessions}"
        request = self._client.create_request(int(key), name, "bench")
        return dataclasses.replace(request, block_offset=row * CHUNK_BLOCKS)
