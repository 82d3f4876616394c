"""Terrace and each peer, in turns."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.peers.peer import Peer, PeerError
from bench.peers.side import Side
from bench.peers.terrace import Terrace

CLIENTS = (1, 2)
# Gets first: a store that cannot remove may push its working set out for what is put.
OPERATIONS = ("get", "put")
TURNS = 7


class BenchError(RuntimeError):
    """Terrace itself failed: there is nothing to compare with."""


@dataclass(frozen=True)
class Cell:
    """One figure: medians over the turns, and Terrace's in the same turns."""

    peer: str
    operation: str
    clients: int
    chunk_bytes: int
    p50_us: float
    terrace_p50_us: float

    @property
    def ratio(self) -> float:
        """How many times faster Terrace is."""
        return self.p50_us / self.terrace_p50_us


@dataclass
class Results:
    """All figures of a run, and why peers have none."""

    working_set_bytes: int
    sizes: tuple[int, ...]
    cells: list[Cell] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def find(self, peer: str, operation: str, clients: int, chunk_bytes: int) -> Cell | None:
        """Finds a figure."""
        wanted = (peer, operation, clients, chunk_bytes)
        for cell in self.cells:
            if (cell.peer, cell.operation, cell.clients, cell.chunk_bytes) == wanted:
                return cell
        return None


def measure(
    peers: Sequence[type[Peer]], sizes: Sequence[int], working_set_bytes: int, seconds: float
) -> Results:
    """Runs every peer beside Terrace; ``seconds`` are each side's in each figure.

    Raises
    ------
    BenchError
        When Terrace fails; a peer that fails is skipped with its reason.
    """
    results = Results(working_set_bytes, tuple(sizes))
    for peer in peers:
        reason = peer.missing()
        if reason is not None:
            results.skipped[peer.name] = reason
    for chunk_bytes in sizes:
        wanted = [peer for peer in peers if peer.name not in results.skipped]
        try:
            terrace = Side(Terrace, chunk_bytes, working_set_bytes, max(CLIENTS))
        except PeerError as error:
            raise BenchError(f"terrace: {error}") from error
        with terrace:
            for peer in wanted:
                say(f"{peer.name}, {chunk_bytes >> 10} KiB")
                try:
                    with Side(peer, chunk_bytes, working_set_bytes, max(CLIENTS)) as other:
                        for operation in OPERATIONS:
                            for clients in CLIENTS:
                                cell = _in_turns(terrace, other, operation, clients, seconds)
                                results.cells.append(cell)
                except PeerError as error:
                    results.skipped[peer.name] = f"at {chunk_bytes >> 10} KiB: {error}"
                    say(f"{peer.name} is skipped: {error}")
    return results


def say(text: str) -> None:
    """Tells how far the bench is, on standard error."""
    print(f"bench-peers: {text}", file=sys.stderr, flush=True)


def _in_turns(terrace: Side, other: Side, operation: str, clients: int, seconds: float) -> Cell:
    took: dict[str, list[float]] = {terrace.peer.name: [], other.peer.name: []}
    for turn in range(TURNS + 1):
        for side in (terrace, other) if turn % 2 else (other, terrace):
            p50_us = _timed(side, operation, clients, seconds / TURNS)
            if turn > 0:  # the first warms both
                took[side.peer.name].append(p50_us)
    return Cell(
        peer=other.peer.name,
        operation=operation,
        clients=clients,
        chunk_bytes=other.chunk_bytes,
        p50_us=statistics.median(took[other.peer.name]),
        terrace_p50_us=statistics.median(took[terrace.peer.name]),
    )


def _timed(side: Side, operation: str, clients: int, seconds: float) -> float:
    try:
        return side.slice(operation, clients, seconds)
    except PeerError as error:
        if side.peer is Terrace:
            raise BenchError(f"terrace: {error}") from error
        raise
