#!/usr/bin/python3
"""Checks that every file includes only what its module may (docs/architecture.md).

``ALLOWED`` says which modules of ours a module may include, ``FOREIGN`` where each foreign library
stops; tests may include anything.  Prints one line a violation, naming the table's line that it
breaks, and exits 1; or nothing and 0.

    scripts/check_layers.py           check every source file of the project
    scripts/check_layers.py --list    print the tables
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "scripts/check_layers.py"

BASE = ["proto/shm", "storage/base"]
BYTES = [*BASE, "storage/mem", "storage/record"]
ALLOWED: dict[str, list[str]] = {
    "proto/shm": [],
    "kernels": [],
    "storage/base": ["proto/shm"],
    "storage/mem": BASE,
    "storage/record": BASE,
    "storage/io": BASE,
    "storage/codec": BASE,
    "storage/policy": BASE,
    "storage/index": [*BASE, "storage/mem"],
    "storage/segment": BYTES,
    "storage/tier": [*BYTES, "storage/io", "storage/codec"],
    "storage/catalog": [*BASE, "storage/record"],
    "storage/engine": [
        *BYTES,
        "storage/index",
        "storage/segment",
        "storage/policy",
        "storage/io",
        "storage/tier",
        "storage/codec",
    ],
    "daemon/session": [*BYTES, "storage/index", "storage/io", "storage/engine"],
    "daemon/history": [*BYTES, "storage/engine", "storage/catalog"],
    "daemon/control": [
        *BYTES,
        "storage/index",
        "storage/engine",
        "daemon/session",
        "daemon/history",
        "proto",
    ],
    "daemon/app": [
        *BYTES,
        "storage/io",
        "storage/tier",
        "storage/engine",
        "daemon/session",
        "daemon/history",
        "daemon/control",
    ],
    "daemon/fsck": [
        *BYTES,
        "storage/io",
        "storage/tier",
        "storage/engine",
        "daemon/history",
        "daemon/app",
    ],
    "client/core": [*BYTES, "proto"],
    "client/python": [*BYTES, "client/core"],
    "client/cli": [*BYTES, "client/core", "bench"],
    "bench": [*BYTES, "storage/codec", "storage/io", "client/core"],
}

FOREIGN: dict[str, list[str]] = {
    r"kj/|capnp/": ["daemon/control", "client/core"],
    r"boost/asio": ["daemon/session", "daemon/app"],
    r"boost/json": ["daemon/control", "daemon/fsck", "client/cli", "bench"],
    r"CLI/": ["daemon/app", "daemon/fsck", "client/cli", "bench"],
    r"toml\+\+/": ["daemon/app"],
    r"spdlog/": ["storage/base"],
    r"nanobind/": ["client/python"],
    r"liburing\.h": ["storage/io"],
    r"xxhash\.h": ["proto/shm", "storage/record", "storage/codec", "storage/catalog"],
    r"rocksdb/": ["storage/catalog"],
    r"zstd\.h": ["storage/codec"],
    r"openssl/": ["client/core"],
    r"systemd/": ["daemon/app"],
    r"gtest/|gmock/": [],
}

# Foreign headers that no library above claims: the language's and the system's.
SYSTEM = re.compile(r"[\w-]+(\.h)?$|(sys|linux|asm|net|netinet|arpa)/")

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def module_of(path: str) -> str | None:
    """The module a path belongs to: the longest entry of ALLOWED above it."""
    inside = [name for name in ALLOWED if path.startswith(name + "/")]
    return max(inside, key=len) if inside else None


@cache
def table_line(entry: str) -> str:
    """Where ``entry`` stands in this file's tables, as file:line."""
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1):
        if line.lstrip().startswith((f'"{entry}":', f'r"{entry}":')):
            return f"{NAME}:{number}"
    return NAME


def project_violation(module: str, target: str) -> str | None:
    """Why ``module`` may not include the file ``target`` of ours, or None if it may."""
    other = "proto" if target == "proto/terrace.capnp.h" else module_of(target)
    if other is None:
        return f'"{target}" is not a path from the root into a module that {NAME} lists'
    if other == module or other in ALLOWED[module]:
        return None
    allowed = ", ".join(ALLOWED[module]) or "nothing of ours"
    return f'{module} may include {allowed} ({table_line(module)}), not "{target}"'


def foreign_violation(module: str, target: str) -> str | None:
    """Why ``module`` may not include the foreign header ``target``, or None if it may."""
    for pattern, owners in FOREIGN.items():
        if re.match(pattern, target):
            if module in owners:
                return None
            return f"<{target}> stops at {', '.join(owners) or 'tests'} ({table_line(pattern)})"
    if SYSTEM.match(target):
        return None
    return f"<{target}> belongs to no library in FOREIGN ({NAME}): name it and its owner there"


def violations(path: str, text: str) -> list[str]:
    """One line for each include in ``text``, the file ``path``, that the tables do not allow."""
    if path.startswith("tests/"):
        return []
    module = module_of(path)
    if module is None:
        return [f"{path}:1: no module in ALLOWED ({NAME}) holds this file: give its folder a line"]
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        ours, foreign = match.groups()
        if ours is None and foreign and module_of(foreign):
            ours = foreign  # <storage/base/fd.h> is as much ours as with quotes
        why = project_violation(module, ours) if ours else foreign_violation(module, foreign)
        if why:
            found.append(f"{path}:{number}: {why}")
    return found


def source_files() -> list[str]:
    """Every C++ and CUDA file of the project, tracked or about to be, as paths from the root."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard"]
    patterns = ["*.h", "*.cc", "*.cpp", "*.cu", "*.cuh"]
    listed = subprocess.run([*command, *patterns], cwd=ROOT, check=True, capture_output=True)
    return [path for path in listed.stdout.decode().split("\0") if (ROOT / path).is_file()]


def print_tables() -> None:
    """Prints who may include whom, then where each foreign library stops."""
    for module, allowed in ALLOWED.items():
        print(f"{module:16} -> {', '.join(allowed) or '-'}")
    for pattern, owners in FOREIGN.items():
        print(f"<{pattern}...> {'':{max(0, 16 - len(pattern))}} {', '.join(owners) or 'tests'}")


def main() -> int:
    """Checks the project, or prints the tables; the exit status."""
    parser = argparse.ArgumentParser(description="Check that modules include only what they may.")
    parser.add_argument("--list", action="store_true", help="print the tables and stop")
    if parser.parse_args().list:
        print_tables()
        return 0
    found = [row for path in source_files() for row in violations(path, (ROOT / path).read_text())]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
