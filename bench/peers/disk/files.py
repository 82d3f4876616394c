"""A file a chunk, as a file-system cache of an engine has it: create, write and rename, open and
read, by as many threads as there are chunks in a batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.peers.disk.peer import DiskPeer
from bench.peers.peer import PeerError, Words

FOLDERS = 256


class Files(DiskPeer):
    """Through the page cache."""

    name = "files"
    remark = "a file a chunk, buffered; puts end with syncfs"
    cold = "page cache dropped"
    flags = 0

    def connect(self, rows: Words) -> None:
        self._folder = self.place.folder + "/chunks"
        for number in range(FOLDERS):
            os.makedirs(f"{self._folder}/{number}")
        self._threads = ThreadPoolExecutor(self.batch)

    def put(self, serials: Sequence[int], rows: Words) -> None:
        list(self._threads.map(self._write, serials, rows))

    def get(self, serials: Sequence[int], rows: Words) -> Sequence[Words]:
        list(self._threads.map(self._read, serials, rows))
        return list(rows)

    def close(self) -> None:
        self._threads.shutdown()

    def _path(self, serial: int) -> str:
        return f"{self._folder}/{serial % FOLDERS}/{serial}"

    def _write(self, serial: int, row: Words) -> None:
        unfinished = self._path(serial) + ".tmp"
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | self.flags, 0o600)
        try:
            written = os.write(file, row.data)
        finally:
            os.close(file)
        if written != self.place.chunk_bytes:
            raise PeerError(f"write() took {written} bytes of {self.place.chunk_bytes}")
        os.rename(unfinished, self._path(serial))

    def _read(self, serial: int, row: Words) -> None:
        file = os.open(self._path(serial), os.O_RDONLY | self.flags)
        try:
            read = os.readv(file, [row.data])
        finally:
            os.close(file)
        if read != self.place.chunk_bytes:
            raise PeerError(f"read() gave {read} bytes of {self.place.chunk_bytes}")


class DirectFiles(Files):
    """Past the page cache."""

    name = "files-direct"
    remark = "a file a chunk, O_DIRECT; puts end with syncfs"
    cold = "O_DIRECT"
    flags = os.O_DIRECT
