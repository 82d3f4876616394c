"""One side of a disk measurement: a store with its servers and one client."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from types import TracebackType

from bench.peers.disk.peer import DiskPeer
from bench.peers.processes import ClientProcess, ServerGroup, free_place

CONNECT_SECONDS = 60.0
SLICE_SECONDS = 120.0
SECTOR_BYTES = 512


class DiskSide:
    """An empty store below ``folder`` and a connected client; a context manager that ends them.

    Raises
    ------
    PeerError
        From every method, when the peer fails, dies or hangs.
    """

    def __init__(
        self, peer: type[DiskPeer], folder: str, chunk_bytes: int, working_set_bytes: int
    ) -> None:
        self.peer = peer
        self._chunk_bytes = chunk_bytes
        self._ends = contextlib.ExitStack()
        self._running = contextlib.ExitStack()
        with contextlib.ExitStack() as ends:
            own = _folder(ends, folder)
            memory = _folder(ends, "/dev/shm")
            self._place = free_place(own, memory, chunk_bytes, working_set_bytes)
            self._server = peer(self._place)
            ends.callback(self._server.clean)
            ends.callback(lambda: self._running.close())
            self._server.prepare()
            self._start()
            self._ends = ends.pop_all()

    def put(self, first: int, count: int) -> float:
        """Puts chunks, until they are on stable storage; bytes a second."""
        self._client.send("put", first=first, count=count)
        return self._rate(count)

    def cool(self) -> None:
        """Makes what was put cold."""
        if self.peer.restarts:
            self._running.close()
            self._start()
        self._client.send("cool")
        self._client.answer(SLICE_SECONDS)

    def get(self, serials: Sequence[int]) -> tuple[float, float]:
        """Gets chunks; bytes a second, and how much of them the device was read for."""
        before = _read_bytes(self._place.folder)
        self._client.send("get", serials=list(serials))
        rate = self._rate(len(serials))
        read = _read_bytes(self._place.folder) - before
        return rate, read / (len(serials) * self._chunk_bytes)

    def _rate(self, count: int) -> float:
        return count * self._chunk_bytes / float(self._client.answer(SLICE_SECONDS)["seconds"])

    def _start(self) -> None:
        with contextlib.ExitStack() as running:
            self._server.serve(running.enter_context(ServerGroup(self._place.folder)))
            self._client = running.enter_context(ClientProcess(self.peer, 0, self._place))
            self._client.connect(0, None, self._place)
            self._client.answer(CONNECT_SECONDS)
            self._running = running.pop_all()

    def __enter__(self) -> DiskSide:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.__exit__(type, value, traceback)


def _folder(ends: contextlib.ExitStack, above: str) -> str:
    folder = tempfile.mkdtemp(prefix="bench-peers-", dir=above)
    ends.callback(shutil.rmtree, pathlib.Path(folder), ignore_errors=True)
    return folder


def _read_bytes(folder: str) -> int:
    """Tells what was read of the folder's device since it is there; 0 where nobody counts it."""
    device = os.stat(folder).st_dev
    counts = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    return int(counts.read_text().split()[2]) * SECTOR_BYTES if counts.exists() else 0
