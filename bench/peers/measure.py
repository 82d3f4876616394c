"""Terrace and one peer, in turns."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.peers.peer import Peer, PeerError
from bench.peers.side import Side
from bench.peers.terrace import Terrace

CLIENTS = (1, 2)
OPERATIONS = ("get", "put")
TURNS = 7


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
    PeerError
        When Terrace itself fails: there is nothing to compare with.
    """
    results = Results(working_set_bytes, tuple(sizes))
    wanted = []
    for peer in peers:
        reason = peer.missing()
        if reason is None:
            wanted.append(peer)
        else:
            results.skipped[peer.name] = reason
    for chunk_bytes in sizes:
        with Side(Terrace, chunk_bytes, working_set_bytes, max(CLIENTS)) as terrace:
            for peer in wanted:
                if peer.name in results.skipped:
                    continue
                _say(f"{peer.name}, {chunk_bytes >> 10} KiB")
                try:
                    results.cells += _beside(terrace, peer, chunk_bytes, working_set_bytes, seconds)
                except _TerraceFailed as failure:
                    raise PeerError(f"terrace: {failure}") from failure
                except PeerError as error:
                    results.skipped[peer.name] = f"at {chunk_bytes >> 10} KiB: {error}"
                    _say(f"{peer.name} skipped: {error}")
    return results


class _TerraceFailed(RuntimeError):
    pass


def _beside(
    terrace: Side, peer: type[Peer], chunk_bytes: int, working_set_bytes: int, seconds: float
) -> list[Cell]:
    cells = []
    with Side(peer, chunk_bytes, working_set_bytes, max(CLIENTS)) as other:
        # Gets first: a store that cannot remove may push its working set out for what is put.
        for operation in OPERATIONS:
            for clients in CLIENTS:
                ours, theirs = [], []
                for turn in range(TURNS + 1):
                    pair = [_terrace_slice, _peer_slice]
                    if turn % 2:
                        pair.reverse()
                    took = {
                        act: act(terrace, other, operation, clients, seconds / TURNS)
                        for act in pair
                    }
                    if turn > 0:  # the first warms both
                        ours.append(took[_terrace_slice])
                        theirs.append(took[_peer_slice])
                cells.append(
                    Cell(
                        peer=peer.name,
                        operation=operation,
                        clients=clients,
                        chunk_bytes=chunk_bytes,
                        p50_us=statistics.median(theirs),
                        terrace_p50_us=statistics.median(ours),
                    )
                )
    return cells


def _terrace_slice(
    terrace: Side, other: Side, operation: str, clients: int, seconds: float
) -> float:
    try:
        return terrace.slice(operation, clients, seconds)
    except PeerError as error:
        raise _TerraceFailed(str(error)) from error


def _peer_slice(terrace: Side, other: Side, operation: str, clients: int, seconds: float) -> float:
    return other.slice(operation, clients, seconds)


def _say(text: str) -> None:
    print(f"bench-peers: {text}", file=sys.stderr, flush=True)
