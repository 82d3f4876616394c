"""fio, Terrace and a peer, in turns."""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.peers.disk.fio import Fio
from bench.peers.disk.peer import DiskPeer, batch_of
from bench.peers.disk.side import DiskSide
from bench.peers.disk.terrace import Terrace
from bench.peers.measure import BenchError, say
from bench.peers.peer import PeerError

OPERATIONS = ("put", "get")
TURNS = 5  # that count, after one that warms all sides
FIO = "fio"


@dataclass(frozen=True)
class Cell:
    """One figure: medians over the turns, bytes a second."""

    peer: str
    operation: str
    chunk_bytes: int
    rate: float
    fio_rate: float
    terrace_rate: float
    device_share: float  # of a get's bytes, that the device was read for
    terrace_device_share: float

    @property
    def vs_fio(self) -> float:
        """The peer's rate, of fio's."""
        return self.rate / self.fio_rate

    @property
    def terrace_vs_fio(self) -> float:
        """Terrace's rate, of fio's."""
        return self.terrace_rate / self.fio_rate

    @property
    def ratio(self) -> float:
        """How many times faster Terrace is."""
        return self.terrace_rate / self.rate


@dataclass
class Results:
    """All figures of a run, and why peers have none."""

    folder: str
    working_set_bytes: int
    sizes: tuple[int, ...]
    cells: list[Cell] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def find(self, peer: str, operation: str, chunk_bytes: int) -> Cell | None:
        """Finds a figure."""
        for cell in self.cells:
            if (cell.peer, cell.operation, cell.chunk_bytes) == (peer, operation, chunk_bytes):
                return cell
        return None


def measure(
    peers: Sequence[type[DiskPeer]], sizes: Sequence[int], working_set_bytes: int, folder: str
) -> Results:
    """Runs every peer beside Terrace and fio, on the file system of ``folder``.

    Raises
    ------
    BenchError
        When Terrace or fio fails; a peer that fails is skipped with its reason.
    """
    if (why := Fio.missing()) is not None:
        raise BenchError(why)
    results = Results(folder, working_set_bytes, tuple(sizes))
    for peer in peers:
        if (why := peer.missing()) is not None:
            results.skipped[peer.name] = why
    for chunk_bytes in sizes:
        with tempfile.TemporaryDirectory(prefix="bench-peers-", dir=folder) as own:
            try:
                fio = Fio(own, chunk_bytes, working_set_bytes)
            except PeerError as error:
                raise BenchError(str(error)) from error
            for peer in [peer for peer in peers if peer.name not in results.skipped]:
                say(f"{peer.name}, {chunk_bytes >> 10} KiB")
                try:
                    results.cells += _Turns(fio, peer, folder, chunk_bytes, working_set_bytes).run()
                except PeerError as error:
                    results.skipped[peer.name] = f"at {chunk_bytes >> 10} KiB: {error}"
                    say(f"{peer.name} is skipped: {error}")
    return results


class _Turns:
    """One peer at one size.  A turn puts, and later gets, an equal part of the working set."""

    def __init__(
        self,
        fio: Fio,
        peer: type[DiskPeer],
        folder: str,
        chunk_bytes: int,
        working_set_bytes: int,
    ) -> None:
        self._fio, self._peer, self._folder = fio, peer, folder
        self._chunk_bytes, self._working_set_bytes = chunk_bytes, working_set_bytes
        batch = batch_of(chunk_bytes)
        self._count = working_set_bytes // chunk_bytes // (TURNS + 1) // batch * batch
        self._device_shares: dict[str, list[float]] = {}

    def run(self) -> list[Cell]:
        with contextlib.ExitStack() as ends:
            try:
                terrace = ends.enter_context(self._side(Terrace))
            except PeerError as error:
                raise BenchError(f"terrace: {error}") from error
            other = ends.enter_context(self._side(self._peer))
            put = [self._turn("put", turn, terrace, other) for turn in range(TURNS + 1)]
            for side in (terrace, other):
                side.cool()
            # Every chunk once, in an order that is nobody's.
            serials = list(range(self._count * (TURNS + 1)))
            random.Random(20).shuffle(serials)
            got = [self._turn("get", turn, terrace, other, serials) for turn in range(TURNS + 1)]
            return [self._cell("put", put[1:]), self._cell("get", got[1:])]

    def _side(self, peer: type[DiskPeer]) -> DiskSide:
        return DiskSide(peer, self._folder, self._chunk_bytes, self._working_set_bytes)

    def _turn(
        self,
        operation: str,
        turn: int,
        terrace: DiskSide,
        other: DiskSide,
        serials: Sequence[int] = (),
    ) -> dict[str, float]:
        first = turn * self._count
        wanted = serials[first : first + self._count]
        rates = {}
        for side in (terrace, None, other) if turn % 2 else (other, None, terrace):
            if side is None:
                act = self._fio.write if operation == "put" else self._fio.read
                rates[FIO] = act(self._count)
                continue
            try:
                if operation == "put":
                    rates[side.peer.name] = side.put(first, self._count)
                else:
                    rates[side.peer.name], share = side.get(wanted)
                    self._device_shares.setdefault(side.peer.name, []).append(share)
            except PeerError as error:
                if side is terrace:
                    raise BenchError(f"terrace: {error}") from error
                raise
        return rates

    def _cell(self, operation: str, turns: Sequence[dict[str, float]]) -> Cell:
        def median(name: str) -> float:
            return statistics.median(turn[name] for turn in turns)

        return Cell(
            peer=self._peer.name,
            operation=operation,
            chunk_bytes=self._chunk_bytes,
            rate=median(self._peer.name),
            fio_rate=median(FIO),
            terrace_rate=median(Terrace.name),
            device_share=self._device_share(operation, self._peer.name),
            terrace_device_share=self._device_share(operation, Terrace.name),
        )

    def _device_share(self, operation: str, name: str) -> float:
        return statistics.median(self._device_shares[name][1:]) if operation == "get" else 0.0
