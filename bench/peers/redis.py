"""Redis over its Unix socket, parsed by hiredis."""

from __future__ import annotations

import importlib
import shutil

import numpy as np

from bench.peers.peer import Kind, Peer, PeerError, Place, Servers, Words


class Redis(Peer):
    """The distribution's server, in memory only."""

    name = "redis"
    kind = Kind.COPYING
    remark = "Unix socket"
    environment = "redis"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._socket = place.folder + "/redis.sock"

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("redis-server") is None:
            return "no redis-server: scripts/setup --bench installs it"
        return super().missing()

    def serve(self, servers: Servers) -> None:
        servers.start(
            [
                *("redis-server", "--port", "0", "--unixsocket", self._socket),
                *("--save", "", "--appendonly", "no", "--dir", self.place.folder),
            ],
            socket=self._socket,
        )

    def connect(self, number: int) -> None:
        self._redis = importlib.import_module("redis").Redis(unix_socket_path=self._socket)

    def put(self, key: bytes, payload: Words) -> None:
        if not self._redis.set(key, payload.data):
            raise PeerError("SET was refused")

    def get(self, key: bytes) -> Words:
        value = self._redis.get(key)
        if value is None:
            raise PeerError("a get missed")
        return np.frombuffer(value, np.uint64)

    def remove(self, key: bytes) -> None:
        self._redis.delete(key)

    def close(self) -> None:
        self._redis.close()
