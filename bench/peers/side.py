"""One side of a measurement: a store with its servers, and its clients, ready to be timed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from types import TracebackType

from bench.peers.peer import LOADER, Kind, Peer
from bench.peers.processes import ClientProcess, ServerGroup, free_place

CONNECT_SECONDS = 60.0
LOAD_SECONDS = 180.0
WARM_SECONDS = 10.0
# What one operation may take past its slice: a peer that hangs is skipped, not waited for.
OPERATION_SECONDS = 15.0


def client_cpus(count: int) -> list[int]:
    """Tells the CPU of each client; the same on every side.  Servers run where the kernel wants."""
    allowed = sorted(os.sched_getaffinity(0))
    return [allowed[i % len(allowed)] for i in range(count)]


class Side:
    """A filled store and ``clients`` connected clients; a context manager that ends them all.

    A further client fills the store, and stays: chunks that are timed were put by another process.
    In-process peers, where nothing is shared, are filled by each client.

    Raises
    ------
    PeerError
        From every method, when the peer fails, dies or hangs.
    """

    def __init__(
        self, peer: type[Peer], chunk_bytes: int, working_set_bytes: int, clients: int
    ) -> None:
        self.peer = peer
        self.chunk_bytes = chunk_bytes
        self._chunks = working_set_bytes // chunk_bytes
        self._ends = contextlib.ExitStack()
        with contextlib.ExitStack() as ends:
            folder = self._folder(ends, None)
            memory_folder = self._folder(ends, "/dev/shm")
            place = free_place(folder, memory_folder, chunk_bytes, working_set_bytes)
            server = peer(place)
            ends.callback(server.clean)
            server.serve(ends.enter_context(ServerGroup(folder)))
            own = peer.kind is Kind.IN_PROCESS
            cpus = [*([] if own else [None]), *client_cpus(clients)]
            numbers = range(LOADER + 1 if own else LOADER, LOADER + 1 + clients)
            started = []
            for number, cpu in zip(numbers, cpus, strict=True):
                client = ends.enter_context(ClientProcess(peer, number, place))
                client.connect(number, cpu, place)
                started.append(client)
            for client in started:
                client.answer(CONNECT_SECONDS)
            for client in started if own else started[:1]:
                client.send("load", chunks=self._chunks)
                client.answer(LOAD_SECONDS)
            self._clients = started if own else started[1:]
            for client in self._clients:
                client.send("warm", chunks=self._chunks, seconds=WARM_SECONDS)
                client.answer(WARM_SECONDS + OPERATION_SECONDS)
            self._ends = ends.pop_all()

    def slice(self, operation: str, clients: int, seconds: float) -> float:
        """Times ``get`` or ``put`` by that many clients at once.

        Returns
        -------
        float
            Microseconds an operation: the mean of the clients' medians.
        """
        chunks = {"chunks": self._chunks} if operation == "get" else {}
        for client in self._clients[:clients]:
            client.send(operation, seconds=seconds, **chunks)
        limit = seconds + 2 * OPERATION_SECONDS
        medians: list[float] = [
            client.answer(limit)["p50_us"] for client in self._clients[:clients]
        ]
        return sum(medians) / clients

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.__exit__(type, value, traceback)

    @staticmethod
    def _folder(ends: contextlib.ExitStack, above: str | None) -> str:
        folder = tempfile.mkdtemp(prefix="bench-peers-", dir=above)
        ends.callback(shutil.rmtree, pathlib.Path(folder), ignore_errors=True)
        return folder
