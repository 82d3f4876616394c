"""redhare: each client's process keeps its own chunks, others fetch them over TCP; Redis knows who
has what."""

from __future__ import annotations

import importlib
import shutil
from typing import Any

import numpy as np

from bench.peers.peer import LOADER, Kind, Peer, PeerError, Place, Servers, Words, address_of

# What was removed makes room late, and a full pool first slows puts, then refuses them: room for
# all that one client puts in a run.
PUTS_BYTES = 3 << 30


class Redhare(Peer):
    """The chunks that clients get lie in the process that loaded them."""

    name = "redhare"
    kind = Kind.COPYING
    remark = "TCP between processes; puts stay in the client's own"
    environment = "redhare"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._redis_port = place.port

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("redis-server") is None:
            return "no redis-server: scripts/setup --bench installs it"
        return super().missing()

    def serve(self, servers: Servers) -> None:
        servers.start(
            [
                *("redis-server", "--port", str(self._redis_port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", self.place.folder),
            ],
            port=self._redis_port,
        )

    def connect(self, number: int) -> None:
        capacity = self.place.capacity_bytes if number == LOADER else PUTS_BYTES
        self._store: Any = importlib.import_module("redhare").KvStore(
            redis_url=f"redis://127.0.0.1:{self._redis_port}",
            client_id=f"bench-{number}",
            data_plane_addr=f"127.0.0.1:{self.place.port + 1 + number}",
            capacity=capacity,
            cluster="bench",
            transport="tcp",
        )
        self._into = np.empty(self.place.words, np.uint64)
        self._into_address = address_of(self._into)

    def put(self, key: bytes, payload: Words) -> None:
        [end] = self._store.batch_put_from_multi_buffers(
            [key.decode()], [[address_of(payload)]], [[self.place.chunk_bytes]]
        )
        if end != 0:
            raise PeerError(f"a put answered {end}")

    def get(self, key: bytes) -> Words:
        [end] = self._store.batch_get_into_multi_buffers(
            [key.decode()], [[self._into_address]], [[self.place.chunk_bytes]]
        )
        if end != 0:
            raise PeerError(f"a get answered {end}")
        return self._into

    def remove(self, key: bytes) -> None:
        self._store.remove(key.decode())

    def close(self) -> None:
        self._store.close()
