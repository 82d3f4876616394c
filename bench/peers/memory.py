"""The floor: the client's own memory, no store at all.  A get is a slice of an array, so its time
is that of reading every byte once; a put is one copy."""

from __future__ import annotations

import numpy as np

from bench.peers.peer import Kind, Peer, Words


class Memory(Peer):
    """A dictionary of rows."""

    name = "memory"
    kind = Kind.IN_PROCESS
    remark = "read once, copy once"

    def connect(self, number: int) -> None:
        rows = self.place.capacity_bytes // self.place.chunk_bytes
        self._memory = np.zeros((rows, self.place.words), np.uint64)
        self._free = list(range(rows))
        self._rows: dict[bytes, int] = {}

    def put(self, key: bytes, payload: Words) -> None:
        row = self._free.pop()
        np.copyto(self._memory[row], payload)
        self._rows[key] = row

    def get(self, key: bytes) -> Words:
        words: Words = self._memory[self._rows[key]]
        return words

    def remove(self, key: bytes) -> None:
        self._free.append(self._rows.pop(key))
