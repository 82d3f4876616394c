"""A client's process: obeys one JSON line of standard input at a time, answers with one.

    {"do": "connect", "peer": NAME, "number": N, "cpu": N or null, "place": {…}}
    {"do": "load", "chunks": N}                     puts keys 0 to N - 1
    {"do": "warm", "chunks": N, "seconds": S}       gets them in order, for S seconds at most
    {"do": "get", "chunks": N, "seconds": S}        gets them at random
    {"do": "put", "seconds": S}                     puts keys of its own, then removes them

An answer is {"ok": true, …} or {"ok": false, "reason": TEXT}.  Timed ones hold "p50_us" and
"operations".  Every get ends with each byte read once and compared by its sum.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.peers.peer import Peer, PeerError, Place, Words
from bench.peers.registry import ALL

PR_SET_PDEATHSIG = 1
PUT_SLICE_BYTES = 128 << 20  # of one client: bounds what must be removed afterwards
KEYS_EACH = 10**8  # serial numbers of a client's own keys


class Client:
    """One peer's client and the payloads it knows."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer = peer
        self._words = peer.place.words
        peer.connect(number)
        self._source = peer.source()
        # Every client knows the same payloads, apart from their first word, which is the serial.
        random = np.random.default_rng(20)
        for row in self._source:
            row[:] = random.integers(0, 2**64, self._words, dtype=np.uint64)
            row[0] = 0
        self._sums = [int(np.add.reduce(row)) for row in self._source]
        self._serial = (number + 1) * KEYS_EACH
        self._random = np.random.default_rng(number)

    def load(self, chunks: int) -> dict[str, Any]:
        for serial in range(chunks):
            self._peer.put(_key(serial), self._payload(serial))
        self._peer.share()
        return {}

    def warm(self, chunks: int, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        for serial in range(chunks):
            self._check(self._peer.get(_key(serial)), serial)
            if time.monotonic() > deadline:
                break
        return {}

    def get(self, chunks: int, seconds: float) -> dict[str, Any]:
        get, total, clock = self._peer.get, np.add.reduce, time.perf_counter_ns
        took: list[int] = []
        deadline = clock() + int(seconds * 1e9)
        ended = 0
        while ended < deadline:
            serial = int(self._random.integers(chunks))
            key = _key(serial)
            began = clock()
            found = get(key)
            got = total(found)
            del found  # lets go of what it may hold
            ended = clock()
            took.append(ended - began)
            self._compare(int(got), serial)
        return _timed(took)

    def put(self, seconds: float) -> dict[str, Any]:
        put, clock = self._peer.put, time.perf_counter_ns
        took: list[int] = []
        deadline = clock() + int(seconds * 1e9)
        limit = max(2, PUT_SLICE_BYTES // (self._words * 8))
        first, ended = self._serial, 0
        while ended < deadline and len(took) < limit:
            payload = self._payload(self._serial)
            key = _key(self._serial)
            self._serial += 1
            began = clock()
            put(key, payload)
            ended = clock()
            took.append(ended - began)
        self._check(self._peer.get(_key(self._serial - 1)), self._serial - 1)
        for serial in range(first, self._serial):
            self._peer.remove(_key(serial))
        return _timed(took)

    def close(self) -> None:
        self._peer.close()

    def _payload(self, serial: int) -> Words:
        payload: Words = self._source[serial % len(self._source)]
        payload[0] = serial
        return payload

    def _check(self, words: Words, serial: int) -> None:
        if words.nbytes != self._words * 8:
            raise PeerError(f"a get gave {words.nbytes} bytes of {self._words * 8}")
        self._compare(int(np.add.reduce(words)), serial)

    def _compare(self, total: int, serial: int) -> None:
        if total != (self._sums[serial % len(self._sums)] + serial) % 2**64:
            raise PeerError("a get gave wrong bytes")


def _key(serial: int) -> bytes:
    return b"%016d" % serial


def _timed(took_ns: list[int]) -> dict[str, Any]:
    return {"p50_us": float(np.median(took_ns)) / 1e3, "operations": len(took_ns)}


def _connect(command: dict[str, Any]) -> Client:
    if command["cpu"] is not None:
        os.sched_setaffinity(0, {command["cpu"]})
    peer = ALL[command["peer"]](Place(**command["place"]))
    return Client(peer, command["number"])


def _obey(
    command: dict[str, Any], client: Any, connect: Callable[[dict[str, Any]], Any]
) -> tuple[dict[str, Any], Any]:
    if client is None:
        return {}, connect(command)
    answer: dict[str, Any] = getattr(client, command.pop("do"))(**command)
    return answer, client


def obey_lines(connect: Callable[[dict[str, Any]], Any]) -> None:
    """Obeys until standard input ends.  ``connect`` makes a client, whose methods are commands."""
    # A bench that was killed leaves no client behind; Ctrl-C is the bench's to handle.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Peers' libraries print on standard output: that goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    client: Any = None
    for line in sys.stdin:
        try:
            answer, client = _obey(json.loads(line), client, connect)
            answer["ok"] = True
        except Exception as error:  # whatever a peer throws is the reason for its row
            text = str(error).strip().splitlines()
            reason = (text or [""])[0] if isinstance(error, PeerError) else _described(error, text)
            answer = {"ok": False, "reason": reason}
        answers.write(json.dumps(answer) + "\n")
    if client is not None:
        client.close()
    # Destructors of peers' libraries may hang or abort; nothing is left that needs them.
    os._exit(0)


def _described(error: Exception, text: list[str]) -> str:
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


if __name__ == "__main__":
    obey_lines(_connect)
