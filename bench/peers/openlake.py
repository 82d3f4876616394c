"""OpenLake: a slab in shared memory that the client copies from and to, an HTTP call each."""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

import numpy as np

from bench.peers.peer import Kind, Peer, PeerError, Place, Servers, Words, address_of

KEY_BYTES = 54  # shorter keys are stored and never found
CLIENT_ID_FIRST = 2048
GIB = 1 << 30

CONFIG = """
self_id = 0
mode = "kv"
transport = "h2"
rpc_addr = "127.0.0.1:{port}"
kv_agents = ["127.0.0.1:{port}"]
s3_addr = "127.0.0.1:{s3_port}"
region = "us-east-1"
data_dirs = []
set_drive_count = 1
default_parity_count = 1
[[credentials]]
access_key = "openlake"
secret_key = "openlake"
[[nodes]]
id = 0
rpc_addr = "127.0.0.1:{port}"
disk_count = 0
[kv_slab]
capacity_gb = {capacity_gb}
reserve_ttl_secs = 60
"""


class OpenLake(Peer):
    """Nothing is ever removed: when its slab is full the oldest must go."""

    name = "openlake"
    kind = Kind.COPYING
    remark = "shared slab, HTTP"
    environment = "openlake"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._slabs = ""
        self._address = f"127.0.0.1:{place.port}"

    def serve(self, servers: Servers) -> None:
        config = pathlib.Path(self.place.folder) / "openlake.toml"
        config.write_text(
            CONFIG.format(
                port=self.place.port,
                s3_port=self.place.port + 2,  # the one between is its agent's
                capacity_gb=-(-self.place.capacity_bytes // GIB) + 1,
            )
        )
        process = servers.start(
            [str(self.package("openlake_client/openlaked")), "--config", str(config)],
            port=self.place.port + 1,
        )
        self._slabs = f"openlake_kv_{process}_*"

    def clean(self) -> None:
        if not self._slabs:
            return
        for slab in pathlib.Path("/dev/shm").glob(self._slabs):
            slab.unlink(missing_ok=True)

    def connect(self, number: int) -> None:
        module = importlib.import_module("openlake_client")
        self._client: Any = module.Client("local", CLIENT_ID_FIRST + number)
        self._into: Words = self._registered(1)[0]
        self._client.attach(self._address, 0, self.place.chunk_bytes + KEY_BYTES)
        self._into_address = address_of(self._into)

    def source(self) -> Words:
        return self._registered(self.place.source_rows)

    def put(self, key: bytes, payload: Words) -> None:
        [end] = self._client.put_batch(
            [key.ljust(KEY_BYTES)], [[address_of(payload)]], [[self.place.chunk_bytes]]
        )
        if end != 0:
            raise PeerError(f"put_batch answered {end}")

    def get(self, key: bytes) -> Words:
        [end] = self._client.get_batch(
            [key.ljust(KEY_BYTES)], [[self._into_address]], [[self.place.chunk_bytes]]
        )
        if end != 0:
            raise PeerError(f"get_batch answered {end}")
        return self._into

    def remove(self, key: bytes) -> None:
        """Has no such call."""

    def close(self) -> None:
        self._client.close()

    def _registered(self, rows: int) -> Words:
        memory = np.empty((rows, self.place.words), np.uint64)
        self._client.register_memory(address_of(memory), memory.nbytes)
        return memory
