"""Terrace side by side with its peers; scripts/bench-peers runs this."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType

from bench.peers.disk import measure as disk_measure
from bench.peers.disk import report as disk_report
from bench.peers.disk.registry import PEERS as DISK_PEERS
from bench.peers.install import install
from bench.peers.measure import BenchError, measure, say
from bench.peers.peer import Contender
from bench.peers.registry import PEERS
from bench.peers.report import GIB, KIB, MIB, as_json, as_text, size_text

SIZES = (64 * KIB, MIB, 4 * MIB)
DISK_SIZES = (64 * KIB, MIB)
SIZE_MIN, SIZE_MAX = 64 * KIB, 16 * MIB
WORKING_SET_MAX = 4 * GIB
SECONDS = 1.4
UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB}


def size(text: str) -> int:
    """Reads 64KiB, 1MiB or 1GiB."""
    unit = UNITS.get(text[-3:])
    digits = text[:-3].strip()
    if unit is None or not digits.isdecimal() or int(digits) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no size: write 64KiB, 1MiB or 1GiB")
    return int(digits) * unit


def sizes(text: str) -> list[int]:
    """Reads chunk sizes, with commas between."""
    found = [size(word.strip()) for word in text.split(",")]
    for each in found:
        if each & (each - 1) or not SIZE_MIN <= each <= SIZE_MAX:
            raise argparse.ArgumentTypeError(
                f"{size_text(each)} is no chunk size: a power of two"
                f" from {size_text(SIZE_MIN)} to {size_text(SIZE_MAX)}"
            )
    return sorted(set(found))


def working_set(text: str) -> int:
    """Reads the bytes that gets range over."""
    found = size(text)
    if found < 2 * SIZE_MAX or found > WORKING_SET_MAX:
        raise argparse.ArgumentTypeError(
            f"{size_text(found)} is not from {size_text(2 * SIZE_MAX)}"
            f" to {size_text(WORKING_SET_MAX)}"
        )
    return found


def seconds(text: str) -> float:
    """Reads a time."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0.1 <= found <= 60:
        raise argparse.ArgumentTypeError(f"'{text}' is no time from 0.1 to 60 seconds")
    return found


def peers(text: str) -> list[str]:
    """Reads peers' names, with commas between; all is every one."""
    if text == "all":
        return list(dict.fromkeys([*PEERS, *DISK_PEERS]))
    names = [word.strip() for word in text.split(",")]
    for name in names:
        if name not in PEERS and name not in DISK_PEERS:
            raise argparse.ArgumentTypeError(
                f"'{name}' is no peer: {', '.join(PEERS)}; with --disk: {', '.join(DISK_PEERS)}"
            )
    return names


def folder(text: str) -> str:
    """Reads a folder."""
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no folder")
    return os.path.realpath(text)


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command line."""
    out = argparse.ArgumentParser(
        prog="scripts/bench-peers",
        description="Times get and put of Terrace and its peers, side by side, in turns.",
        epilog=f"peers: {', '.join(PEERS)}; with --disk: {', '.join(DISK_PEERS)}",
    )
    out.add_argument(
        "--install",
        metavar="NAME",
        nargs="+",
        type=peers,
        help="make the Python environments of these peers, or of all, and end",
    )
    out.add_argument("--peers", type=peers, metavar="NAME,…", help="all unless told")
    out.add_argument("--sizes", type=sizes, metavar="SIZE,…")
    out.add_argument(
        "--disk",
        type=folder,
        metavar="FOLDER",
        help="the disk sides instead, with fio, on this folder's file system",
    )
    out.add_argument(
        "--seconds",
        type=seconds,
        default=SECONDS,
        help=f"each side's time in each figure; {SECONDS} unless told",
    )
    out.add_argument(
        "--working-set",
        type=working_set,
        default=GIB,
        metavar="SIZE",
        help="what gets range over; less than the 1GiB that it is unless told is not judged",
    )
    out.add_argument("--json", action="store_true", help="the figures as JSON")
    # The script asks this first: a wrong value is told before minutes of building.
    out.add_argument("--only-parse", action="store_true", help=argparse.SUPPRESS)
    return out


def main() -> int:
    """Installs or measures; answers the exit status."""
    told = parser().parse_args()
    if told.only_parse:
        return 0
    if told.install:
        return 0 if all([install(each) for each in _environments(told.install)]) else 1
    try:
        return _disk(told) if told.disk else _memory(told)
    except BenchError as error:
        say(str(error))
        return 1


def _environments(groups: list[list[str]]) -> list[type[Contender]]:
    """Gives a peer of each environment that is named, its own name's or a peer's."""
    wanted: dict[str, type[Contender]] = {}
    for name in dict.fromkeys(name for group in groups for name in group):
        peer = PEERS[name] if name in PEERS else DISK_PEERS[name]
        wanted.setdefault(peer.environment or peer.name, peer)
    return list(wanted.values())


def _memory(told: argparse.Namespace) -> int:
    names = [name for name in told.peers or PEERS if _is_there(name, PEERS, "--disk")]
    chosen = [PEERS[name] for name in names]
    results = measure(chosen, told.sizes or SIZES, told.working_set, told.seconds)
    print(as_json(results) if told.json else as_text(results))
    return 0


def _disk(told: argparse.Namespace) -> int:
    names = [name for name in told.peers or DISK_PEERS if _is_there(name, DISK_PEERS, "memory")]
    chosen = [DISK_PEERS[name] for name in names]
    sizes = told.sizes or DISK_SIZES
    results = disk_measure.measure(chosen, sizes, told.working_set, told.disk)
    print(disk_report.as_json(results) if told.json else disk_report.as_text(results))
    return 0


def _is_there(name: str, among: Mapping[str, object], other: str) -> bool:
    if name not in among:
        say(f"{name} is left out: it is measured with {other} only")
    return name in among


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
