"""What a disk run found: the table, the same as JSON."""

from __future__ import annotations

import json

from bench.peers.disk.measure import OPERATIONS, Results
from bench.peers.disk.peer import batch_of
from bench.peers.disk.registry import PEERS
from bench.peers.disk.terrace import Terrace
from bench.peers.report import size_text

MB = 1e6


def as_json(results: Results) -> str:
    """Writes all figures, as one object."""
    return json.dumps(
        {
            "folder": results.folder,
            "working_set_bytes": results.working_set_bytes,
            "cells": [
                {
                    "peer": cell.peer,
                    "operation": cell.operation,
                    "chunk_bytes": cell.chunk_bytes,
                    "batch": batch_of(cell.chunk_bytes),
                    "cold": PEERS[cell.peer].cold,
                    "mbps": round(cell.rate / MB, 1),
                    "fio_mbps": round(cell.fio_rate / MB, 1),
                    "terrace_mbps": round(cell.terrace_rate / MB, 1),
                    "vs_fio": round(cell.vs_fio, 3),
                    "terrace_vs_fio": round(cell.terrace_vs_fio, 3),
                    "ratio": round(cell.ratio, 3),
                    "device_share": round(cell.device_share, 3),
                    "terrace_device_share": round(cell.terrace_device_share, 3),
                }
                for cell in results.cells
            ],
            "skipped": results.skipped,
        },
        indent=1,
    )


def as_text(results: Results) -> str:
    """Writes the tables."""
    parts = [
        f"MB/s, medians; in parentheses of fio's in the same turns.  × = {Terrace.name} / peer.\n"
        f"One client, a batch at a time, working set {size_text(results.working_set_bytes)}: put"
        " until on stable storage, then got once each in another order.\n"
        f"{Terrace.name}: {Terrace.remark}; cold: {Terrace.cold}"
    ]
    for chunk_bytes in results.sizes:
        for operation in OPERATIONS:
            parts.append("\n".join(_table(results, operation, chunk_bytes)))
    if results.skipped:
        parts.append("\n".join(f"skipped: {name}: {why}" for name, why in results.skipped.items()))
    return "\n\n".join(parts)


def _table(results: Results, operation: str, chunk_bytes: int) -> list[str]:
    lines = [f"{operation} of {size_text(chunk_bytes)}, {batch_of(chunk_bytes)} at a time"]
    for name, peer in PEERS.items():
        cell = results.find(name, operation, chunk_bytes)
        if cell is None:
            continue
        rates = [
            f"{rate / MB:6.0f} ({rate / cell.fio_rate:.2f})"
            for rate in (cell.rate, cell.terrace_rate)
        ]
        cold = f"; {peer.cold}, {cell.device_share:.2f} from the device"
        lines.append(
            f"{name:14} {rates[0]}   terrace {rates[1]}   {cell.ratio:5.2f} ×   "
            + (peer.remark + (cold if operation == "get" else ""))
        )
    return lines
