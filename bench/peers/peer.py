"""What the bench asks of a peer: one small class each, in a file of its own.

A peer's servers are started in the bench's process; everything else runs in a client's process,
under the Python of the peer's own environment (``build/peers/NAME``), which has numpy and the
peer's packages only.  So an adapter imports its peer's packages inside `Peer.connect`.
"""

from __future__ import annotations

import enum
import pathlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Words: TypeAlias = npt.NDArray[np.uint64]

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTS_MAX = 4  # TCP ports that a peer may use, from Place.port
SOURCE_BYTES = 32 << 20
LOADER = 0  # the number of the client that fills the store; those that are timed follow


class Kind(enum.StrEnum):
    """How a chunk comes to the client: this decides which of the judged lines holds for a peer."""

    TERRACE = "terrace"
    COPYING = "copying"  # out of process; a get ends with a copy in the client's memory
    ZERO_COPY = "zero-copy"  # out of process; a get gives the store's own memory
    FILES = "files"  # shown, not judged
    IN_PROCESS = "in-process"  # shown, not judged


class PeerError(RuntimeError):
    """A peer did not do what it was asked: its row says why."""


@dataclass(frozen=True)
class Place:
    """Where one run of a peer lives."""

    folder: str  # for sockets, configuration and logs; short, a socket's path has 107 bytes
    memory_folder: str  # a folder in /dev/shm; both are removed afterwards
    port: int  # the first of PORTS_MAX free ones
    chunk_bytes: int
    working_set_bytes: int
    capacity_bytes: int  # what the store must hold at once

    @property
    def words(self) -> int:
        """Words of a chunk."""
        return self.chunk_bytes // 8

    @property
    def source_rows(self) -> int:
        """Chunks that a client puts from, in turn: more than a core's own caches hold."""
        return max(2, SOURCE_BYTES // self.chunk_bytes)


class Servers(Protocol):
    """Starts a peer's processes, and ends them after the run."""

    def start(
        self,
        words: Sequence[str],
        *,
        socket: str | None = None,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Returns the process id once something listens on ``socket`` or ``port``.

        Raises
        ------
        PeerError
            With the end of the process' log, when it does not.
        """
        ...


class Contender(ABC):
    """What is measured: its name, where its packages are, its servers."""

    name: ClassVar[str]
    # Words that follow the name in the table.
    remark: ClassVar[str] = ""
    # Its packages are requirements/NAME.txt; None runs in the project's own environment.
    environment: ClassVar[str | None] = None
    # The module that its clients' processes run.
    client: ClassVar[str]

    def __init__(self, place: Place) -> None:
        self.place = place

    @classmethod
    def folder(cls) -> pathlib.Path:
        """Tells the folder of the Python environment."""
        if cls.environment is None:
            return ROOT / "build" / "venv"
        return ROOT / "build" / "peers" / cls.environment

    @classmethod
    def missing(cls) -> str | None:
        """Says what this machine lacks to run it; None when nothing."""
        if cls.environment is not None and not (cls.folder() / ".installed").exists():
            return f"not installed: scripts/bench-peers --install {cls.environment}"
        return None

    @classmethod
    def package(cls, path: str) -> pathlib.Path:
        """Finds a file that the peer's packages brought."""
        return next((cls.folder() / "lib").glob("python3*/site-packages")) / path

    # In the bench's process.

    def serve(self, servers: Servers) -> None:  # noqa: B027 - files and in-process peers have none
        """Starts its servers, fresh and empty."""

    def clean(self) -> None:  # noqa: B027 - most leave nothing
        """Removes what ended servers leave behind."""


class Peer(Contender):
    """A store of chunks.

    Life of a client: ``connect --> source --> (put --> share)? --> (get | put | remove)* -->
    close``.
    """

    kind: ClassVar[Kind]
    client = "bench.peers.client"

    # In a client's process.

    @abstractmethod
    def connect(self, number: int) -> None:
        """Connects a client; number LOADER fills the store and stays while others read."""

    def source(self) -> Words:
        """Gives the memory that puts read from, of shape (rows, words of a chunk).

        Where a peer wants memory registered with it, this is such memory.
        """
        return np.empty((self.place.source_rows, self.place.words), np.uint64)

    @abstractmethod
    def put(self, key: bytes, payload: Words) -> None:
        """Stores a row of `source` under a key of 16 digits that it does not hold."""

    def share(self) -> None:
        """Lets other clients find what this one put."""

    @abstractmethod
    def get(self, key: bytes) -> Words:
        """Gives the chunk's words, in the peer's fastest way.

        They stay as they are until they are dropped or the next get of this client.
        """

    @abstractmethod
    def remove(self, key: bytes) -> None:
        """Makes room for further puts; not timed."""

    def close(self) -> None:
        """Ends the connection."""


def address_of(words: Words) -> int:
    """Tells where an array begins, without the cost of ``ctypes``."""
    address: int = words.__array_interface__["data"][0]
    return address
