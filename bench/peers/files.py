"""A file a chunk in /dev/shm: read() into a buffer, create, write and rename."""

from __future__ import annotations

import os

import numpy as np

from bench.peers.peer import Kind, Peer, PeerError, Words


class Files(Peer):
    """What an engine does with a folder in memory."""

    name = "files"
    kind = Kind.FILES
    remark = "a file a chunk in /dev/shm"

    def connect(self, number: int) -> None:
        self._folder = os.fsencode(self.place.memory_folder) + b"/"
        self._unfinished = self._folder + b"unfinished-%d" % number
        self._into = np.empty(self.place.words, np.uint64)
        self._buffers = [self._into.data]

    def put(self, key: bytes, payload: Words) -> None:
        file = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            written = os.write(file, payload.data)
        finally:
            os.close(file)
        if written != self.place.chunk_bytes:
            raise PeerError(f"write() took {written} bytes of {self.place.chunk_bytes}")
        os.rename(self._unfinished, self._folder + key)

    def get(self, key: bytes) -> Words:
        file = os.open(self._folder + key, os.O_RDONLY)
        try:
            read = os.readv(file, self._buffers)
        finally:
            os.close(file)
        if read != self.place.chunk_bytes:
            raise PeerError(f"read() gave {read} bytes of {self.place.chunk_bytes}")
        return self._into

    def remove(self, key: bytes) -> None:
        os.unlink(self._folder + key)
