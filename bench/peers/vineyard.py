"""Vineyard: blobs in shared memory, mapped by the client; a Unix socket for the rest."""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

import numpy as np

from bench.peers.peer import Kind, Peer, PeerError, Place, Servers, Words


class Vineyard(Peer):
    """Blobs have ids of its choice and no names.  The ids are handed over in files, before any
    clock runs: a lookup by key would cost it one call more."""

    name = "vineyard"
    kind = Kind.ZERO_COPY
    remark = "shared memory, by id"
    environment = "vineyard"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._socket = place.folder + "/vineyard.sock"
        self._ids: dict[bytes, Any] = {}

    def serve(self, servers: Servers) -> None:
        servers.start(
            [
                str(self.package("vineyard/bdist/vineyardd")),
                *("--meta", "local", "--rpc=false", "--socket", self._socket),
                *("--size", str(self.place.capacity_bytes)),
            ],
            socket=self._socket,
        )

    def connect(self, number: int) -> None:
        self._vineyard = importlib.import_module("vineyard")
        self._client = self._vineyard.connect(self._socket)
        self._number = number

    def put(self, key: bytes, payload: Words) -> None:
        blob = self._client.create_blob(self.place.chunk_bytes)
        np.copyto(np.frombuffer(memoryview(blob), np.uint64), payload)
        self._ids[key] = blob.seal(self._client).id

    def get(self, key: bytes) -> Words:
        identity = self._ids.get(key)
        if identity is None:
            identity = self._read_ids(key)
        return np.frombuffer(memoryview(self._client.get_blob(identity)), np.uint64)

    def remove(self, key: bytes) -> None:
        self._client.delete([self._ids.pop(key)])

    def share(self) -> None:
        lines = [f"{key.decode()} {int(identity)}\n" for key, identity in self._ids.items()]
        (pathlib.Path(self.place.folder) / f"ids-{self._number}").write_text("".join(lines))

    def close(self) -> None:
        self._client.close()

    def _read_ids(self, key: bytes) -> Any:
        for path in pathlib.Path(self.place.folder).glob("ids-*"):
            for line in path.read_text().splitlines():
                name, identity = line.split()
                self._ids[name.encode()] = self._vineyard.ObjectID(int(identity))
        if key not in self._ids:
            raise PeerError("a get missed")
        return self._ids[key]
