"""Terrace itself, through terrace_kv."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.peer import ROOT, Kind, Peer, PeerError, Place, Servers, Words

# What scripts/bench-peers has built, or another build.
BUILD = Path(os.environ.get("TERRACE_BUILD", ROOT / "build" / "release"))


class Terrace(Peer):
    """A private daemon on embedded defaults; a get is a pin, dropped with the array."""

    name = "terrace"
    kind = Kind.TERRACE

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._socket = place.folder + "/terraced.sock"

    def serve(self, servers: Servers) -> None:
        servers.start(
            [
                str(BUILD / "bin" / "terraced"),
                *("--socket", self._socket, "--dram", str(self.place.capacity_bytes)),
                *("--log-level", "warning"),
            ],
            socket=self._socket,
        )

    def connect(self, number: int) -> None:
        sys.path.insert(0, str(BUILD / "python"))
        import terrace_kv

        self._client = terrace_kv.Client(self._socket, name=f"bench-peers {number}")
        self._namespace = self._client.namespace("bench-peers", model="bench-peers")

    def put(self, key: bytes, payload: Words) -> None:
        [end] = self._namespace.put([(key, payload)])
        if end != "ok":
            raise PeerError(f"a put ended as {end}")

    def get(self, key: bytes) -> Words:
        pins: list[Any] = self._namespace.get([key])
        if pins[0] is None:
            raise PeerError("a get missed")
        words: Words = np.frombuffer(pins[0], np.uint64)
        return words

    def remove(self, key: bytes) -> None:
        # A put slice may have been cut short before its last key.
        deadline = time.monotonic() + 5
        while self._namespace.remove([key])[0] == "busy" and time.monotonic() < deadline:
            time.sleep(0.001)

    def close(self) -> None:
        self._client.close()
