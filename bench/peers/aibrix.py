"""AIBrix' L1: a pool of memory inside the engine's own process."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from bench.peers.peer import Kind, Peer, PeerError, Words

BLOCK_TOKENS = 16


class AIBrix(Peer):
    """A chunk is one block of one layer; a get is a handle to the pool's own bytes."""

    name = "aibrix"
    kind = Kind.IN_PROCESS
    remark = "L1 pool"
    environment = "aibrix"

    def connect(self, number: int) -> None:
        capacity_gib = self.place.capacity_bytes / 2**30
        os.environ["AIBRIX_KV_CACHE_OL_L1_CACHE_CAPACITY_GB"] = str(capacity_gib)
        os.environ["AIBRIX_KV_CACHE_OL_L1_CACHE_EVICTION_POLICY"] = "LRU"
        package: Any = importlib.import_module("aibrix_kvcache")
        spec: Any = importlib.import_module("aibrix_kvcache.spec")
        manager: Any = importlib.import_module("aibrix_kvcache.cache_manager")
        torch: Any = importlib.import_module("torch")
        manager.TESTING_DISABLE_PIN_MEMORY = True  # pinning needs a GPU's driver
        block = spec.KVCacheBlockSpec(
            block_ntokens=BLOCK_TOKENS,
            block_dtype=torch.float16,
            block_layout=spec.KVCacheBlockLayout.NCLD,
            tensor_spec=spec.KVCacheTensorSpec(
                heads=[0], layers=[0], head_size=self.place.chunk_bytes // BLOCK_TOKENS // 4
            ),
        )
        config = package.KVCacheConfig(block, spec.ModelSpec(max_model_len=1 << 20))
        self._manager: Any = package.BaseKVCacheManager(config)
        self._tokens: Any = package.TokenListView
        self._handle: Any = None

    def put(self, key: bytes, payload: Words) -> None:
        query = self._query(key)
        allocated = self._manager.allocate_for(None, query)
        if not allocated.is_ok():
            raise PeerError(f"an allocation ended as {allocated}")
        handle = allocated.get()
        np.copyto(self._words(handle), payload)
        put = self._manager.put(None, query, handle)
        if not put.is_ok():
            raise PeerError(f"a put ended as {put}")

    def get(self, key: bytes) -> Words:
        if self._handle is not None:
            self._handle.release()
            self._handle = None
        got = self._manager.acquire(None, self._query(key))
        if not got.is_ok():
            raise PeerError(f"a get ended as {got}")
        _, self._handle = got.get()
        return self._words(self._handle)

    def remove(self, key: bytes) -> None:
        self._manager.delete(None, self._query(key))

    def _query(self, key: bytes) -> Any:
        return self._tokens([int(key)] * BLOCK_TOKENS)

    @staticmethod
    def _words(handle: Any) -> Words:
        words: Words = handle.to_tensors()[0].numpy().reshape(-1).view(np.uint64)
        return words
