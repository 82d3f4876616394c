"""A client's process on the disk side: obeys one JSON line at a time, as `bench.peers.client`.

    {"do": "connect", "peer": NAME, "number": 0, "cpu": null, "place": {…}}
    {"do": "put", "first": N, "count": N}    puts and settles: {"seconds": S}
    {"do": "cool"}
    {"do": "get", "serials": [N, …]}         {"seconds": S}

Timed are the calls alone; every chunk's bytes are compared by their sum between them.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.peers.client import obey_lines
from bench.peers.disk.peer import DiskPeer, direct_memory
from bench.peers.disk.registry import ALL
from bench.peers.peer import PeerError, Place


class DiskClient:
    """One peer's client and the payloads it knows."""

    def __init__(self, peer: DiskPeer) -> None:
        self._peer = peer
        self._rows = direct_memory(2 * peer.batch, peer.place.words)
        peer.connect(self._rows)
        random = np.random.default_rng(20)
        self._sums = []
        for row in self._rows[: peer.batch]:
            row[:] = random.integers(0, 2**64, peer.place.words, dtype=np.uint64)
            row[0] = 0
            self._sums.append(int(np.add.reduce(row)))

    def put(self, first: int, count: int) -> dict[str, Any]:
        batch = self._peer.batch
        took = 0.0
        for at in range(first, first + count, batch):
            serials = range(at, min(at + batch, first + count))
            rows = self._rows[: len(serials)]
            for row, serial in zip(rows, serials, strict=True):
                row[0] = serial
            began = time.perf_counter()
            self._peer.put(serials, rows)
            took += time.perf_counter() - began
        began = time.perf_counter()
        self._peer.settle()
        return {"seconds": took + time.perf_counter() - began}

    def cool(self) -> dict[str, Any]:
        self._peer.cool()
        return {}

    def get(self, serials: list[int]) -> dict[str, Any]:
        batch = self._peer.batch
        took = 0.0
        for at in range(0, len(serials), batch):
            wanted = serials[at : at + batch]
            rows = self._rows[batch : batch + len(wanted)]
            rows[:, 0] = 2**64 - 1
            began = time.perf_counter()
            found = self._peer.get(wanted, rows)
            took += time.perf_counter() - began
            for words, serial in zip(found, wanted, strict=True):
                self._compare(words, serial)
            del found
        return {"seconds": took}

    def close(self) -> None:
        self._peer.close()

    def _compare(self, words: Any, serial: int) -> None:
        expected = (self._sums[serial % self._peer.batch] + serial) % 2**64
        if words.nbytes != self._peer.place.chunk_bytes or words[0] != serial:
            raise PeerError("a get gave another chunk")
        if int(np.add.reduce(words)) != expected:
            raise PeerError("a get gave wrong bytes")


def _connect(command: dict[str, Any]) -> DiskClient:
    return DiskClient(ALL[command["peer"]](Place(**command["place"])))


if __name__ == "__main__":
    obey_lines(_connect)
