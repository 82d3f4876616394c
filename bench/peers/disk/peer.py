"""What the bench asks of a peer's disk side: one small class each.

Every chunk is put once and got once, in another order, after `DiskPeer.cool`: what a get gives
comes from the device, as far as the peer keeps it nowhere else.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pathlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bench.peers.peer import Contender, PeerError, Words

PAGE_BYTES = 4096
BATCH_BYTES = 4 << 20
BATCH_MAX = 16  # chunks that are put or got at once
ZEROS_BYTES = 1 << 20
HUGE_BYTES = 2 << 20
MAP_HUGETLB = 0x40000


def batch_of(chunk_bytes: int) -> int:
    """Tells how many chunks are asked for at once: 16 of 64 KiB, 4 of 1 MiB."""
    return max(1, min(BATCH_MAX, BATCH_BYTES // chunk_bytes))


class DiskPeer(Contender):
    """A store of chunks on disk.

    Life of a client: ``connect --> (put | settle)* --> cool --> get* --> close``.
    """

    client = "bench.peers.disk.client"
    # By what a get finds nothing in memory.
    cold: ClassVar[str]
    # Its servers and its client end and start anew before the gets.
    restarts: ClassVar[bool] = False

    # In the bench's process.

    def prepare(self) -> None:
        """Makes files that are there before the servers are."""

    @property
    def batch(self) -> int:
        """Chunks of a put or a get."""
        return batch_of(self.place.chunk_bytes)

    # In a client's process.

    @abstractmethod
    def connect(self, rows: Words) -> None:
        """Connects; ``rows`` is the memory, for O_DIRECT, that puts read from and gets write to.

        Its first half is the rows of a put, its second those of a get.
        """

    @abstractmethod
    def put(self, serials: Sequence[int], rows: Words) -> None:
        """Stores a row under each of these numbers, which it does not hold."""

    def settle(self) -> None:
        """Waits until all that was put is on stable storage."""
        sync_file_system(self.place.folder)

    def cool(self) -> None:
        """Lets go of what memory holds."""
        drop_cached(self.place.folder)

    @abstractmethod
    def get(self, serials: Sequence[int], rows: Words) -> Sequence[Words]:
        """Gives the chunks of these numbers: in ``rows``, or where the peer has them."""

    def close(self) -> None:
        """Ends the connection."""


def direct_memory(rows: int, words: int) -> Words:
    """Makes memory that O_DIRECT takes, on 2 MiB pages where there are any: they are faster."""
    size = -(-rows * words * 8 // HUGE_BYTES) * HUGE_BYTES
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, size, flags | MAP_HUGETLB)
    except OSError:
        memory = mmap.mmap(-1, size, flags)
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint64)[: rows * words].reshape(rows, words)


def write_zeros(path: str, size: int) -> None:
    """Makes a file of ``size`` bytes that was written from end to end, as fio's is."""
    zeros = memoryview(mmap.mmap(-1, ZEROS_BYTES))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
    try:
        for at in range(0, size, ZEROS_BYTES):
            os.pwrite(file, zeros, at)
        os.fsync(file)
    finally:
        os.close(file)


def sync_file_system(folder: str) -> None:
    """Waits until the folder's file system has written all that is dirty."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle) != 0:
            raise PeerError(f"syncfs: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)


def drop_cached(folder: str) -> None:
    """Drops the pages of all files below from the page cache; they must be clean."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
