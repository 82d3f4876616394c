"""What a run found: the table, the judged lines, the same as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.peers.measure import CLIENTS, OPERATIONS, Cell, Results
from bench.peers.memory import Memory
from bench.peers.peer import Kind
from bench.peers.registry import PEERS
from bench.peers.terrace import Terrace

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
WORKING_SET_MIN = GIB  # a smaller one is not judged

NAME_WIDTH, CELL_WIDTH = 22, 16


@dataclass(frozen=True)
class Line:
    """A judged line of the comparison."""

    text: str
    kinds: tuple[Kind, ...]
    chunk_bytes: int
    times: float


LINES = (
    Line(
        "a get of 64 KiB is 5 x faster than the fastest out-of-process peer",
        (Kind.COPYING, Kind.ZERO_COPY),
        64 * KIB,
        5.0,
    ),
    Line("a get of 1 MiB is 3 x faster than the fastest that copies", (Kind.COPYING,), MIB, 3.0),
    Line(
        "a get of 1 MiB is 1.5 x faster than the fastest zero-copy path",
        (Kind.ZERO_COPY,),
        MIB,
        1.5,
    ),
)


def size_text(size: int) -> str:
    """Writes bytes as a person would."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def as_json(results: Results) -> str:
    """Writes all figures, as one object."""
    return json.dumps(
        {
            "working_set_bytes": results.working_set_bytes,
            "cells": [
                {
                    "peer": cell.peer,
                    "kind": PEERS[cell.peer].kind.value,
                    "operation": cell.operation,
                    "clients": cell.clients,
                    "chunk_bytes": cell.chunk_bytes,
                    "p50_us": round(cell.p50_us, 3),
                    "terrace_p50_us": round(cell.terrace_p50_us, 3),
                    "ratio": round(cell.ratio, 3),
                }
                for cell in results.cells
            ],
            "skipped": results.skipped,
            "judged": judge(results),
        },
        indent=1,
    )


def as_text(results: Results) -> str:
    """Writes the table and the judged lines."""
    parts = [
        f"Microseconds an operation: medians (p50), and × = peer / {Terrace.name} in the same"
        f" turns.\nEvery byte of a get is read once; working set"
        f" {size_text(results.working_set_bytes)}, put by another process."
    ]
    for clients in CLIENTS:
        parts.append("\n".join(_table(results, clients)))
    if results.skipped:
        parts.append("\n".join(f"skipped: {name}: {why}" for name, why in results.skipped.items()))
    parts.append("\n".join(_floor(results)))
    parts.append("\n".join(f"{line['verdict']}: {line['text']}" for line in judge(results)))
    return "\n\n".join(part for part in parts if part)


def judge(results: Results) -> list[dict[str, Any]]:
    """Says of each judged line and number of clients whether it holds, and by whom it stands."""
    judged = []
    for line in LINES:
        for clients in CLIENTS:
            fastest = _fastest(results, line, clients)
            text = f"{line.text}, {clients} {'client' if clients == 1 else 'clients'}"
            verdict = "not judged"
            if fastest is None:
                text += ": none ran"
            else:
                text += f": {fastest.ratio:.1f} × {fastest.peer}"
                if results.working_set_bytes < WORKING_SET_MIN:
                    text += f", but the working set is below {size_text(WORKING_SET_MIN)}"
                else:
                    verdict = "holds" if fastest.ratio >= line.times else "does not hold"
            judged.append(
                {
                    "text": text,
                    "verdict": verdict,
                    "clients": clients,
                    "times": line.times,
                    "ratio": None if fastest is None else round(fastest.ratio, 3),
                    "peer": None if fastest is None else fastest.peer,
                }
            )
    return judged


def _fastest(results: Results, line: Line, clients: int) -> Cell | None:
    cells = [
        cell
        for name, peer in PEERS.items()
        if peer.kind in line.kinds
        and (cell := results.find(name, "get", clients, line.chunk_bytes)) is not None
    ]
    return min(cells, key=lambda cell: cell.ratio, default=None)


def _table(results: Results, clients: int) -> list[str]:
    columns = [(operation, size) for operation in OPERATIONS for size in results.sizes]
    head = f"{clients} client" + ("s" if clients > 1 else "")
    lines = [_row(head, "", [f"{operation} {size_text(size)}" for operation, size in columns])]
    ours = []
    for operation, size in columns:
        beside = [
            cell.terrace_p50_us
            for name in PEERS
            if (cell := results.find(name, operation, clients, size)) is not None
        ]
        ours.append(_microseconds(statistics.median(beside)) if beside else "–")
    lines.append(_row(Terrace.name, Terrace.kind, [f"{text}       " for text in ours]))
    for name, peer in PEERS.items():
        found = [results.find(name, operation, clients, size) for operation, size in columns]
        if any(found):
            lines.append(_row(name, peer.kind, [_figure(cell) for cell in found], peer.remark))
    return lines


def _floor(results: Results) -> Iterable[str]:
    for clients in CLIENTS:
        found = [results.find(Memory.name, "get", clients, size) for size in results.sizes]
        texts = [
            f"{_microseconds(cell.p50_us)} for {size_text(cell.chunk_bytes)}"
            for cell in found
            if cell is not None
        ]
        if texts:
            head = f"read once, the floor of every get, {clients} at once"
            yield f"{head}: {', '.join(texts)}"


def _figure(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    return f"{_microseconds(cell.p50_us)} {cell.ratio:5.1f}×"


def _microseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _row(name: str, kind: str, cells: Sequence[str], remark: str = "") -> str:
    left = f"{name:10}{kind:{NAME_WIDTH - 10}}"
    return (left + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells) + f"   {remark}").rstrip()
