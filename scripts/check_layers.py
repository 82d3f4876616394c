#!/usr/bin/python3
"""Checks that every file includes only what its module may (docs/architecture.md).

``ALLOWED`` says which modules of ours a module may include, ``FOREIGN`` where each foreign library
stops.  Prints one line a violation and exits 1, or nothing and 0.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BASE = ["proto/shm", "storage/base"]
BYTES = [*BASE, "storage/mem", "storage/record"]
ALLOWED: dict[str, list[str]] = {
    "proto/shm": [],
    "kernels": [],
    "storage/base": ["proto/shm"],
    "storage/mem": BASE,
    "storage/record": BASE,
    "storage/policy": BASE,
    "storage/index": [*BASE, "storage/mem"],
    "storage/segment": BYTES,
    "storage/engine": [*BYTES, "storage/index", "storage/segment", "storage/policy"],
    "daemon/session": [*BYTES, "storage/index", "storage/engine"],
    "daemon/control": [*BYTES, "storage/index", "storage/engine", "daemon/session", "proto"],
    "daemon/app": [*BYTES, "storage/engine", "daemon/session", "daemon/control"],
    "client/core": [*BYTES, "proto"],
    "client/python": [*BYTES, "client/core"],
    "client/cli": [*BYTES, "client/core", "bench"],
    "bench": [*BYTES, "client/core"],
}

FOREIGN: dict[str, list[str]] = {
    r"kj/|capnp/": ["daemon/control", "client/core"],
    r"boost/asio": ["daemon/session", "daemon/app"],
    r"boost/json": ["daemon/control", "client/cli", "bench"],
    r"CLI/": ["daemon/app", "client/cli", "bench"],
    r"toml\+\+/": ["daemon/app"],
    r"spdlog/": ["storage/base"],
    r"nanobind/": ["client/python"],
    r"xxhash\.h": ["proto/shm", "storage/record"],
    r"openssl/": ["client/core"],
    r"systemd/": ["daemon/app"],
    r"gtest/|gmock/": [],
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def module_of(path: str) -> str | None:
    """The module a path belongs to: the longest entry of ALLOWED above it."""
    inside = [name for name in ALLOWED if path.startswith(name + "/")]
    return max(inside, key=len) if inside else None


def violations(path: str, text: str) -> list[str]:
    """One line for each include in ``text`` that the tables above do not allow."""
    module = module_of(path)
    if module is None:
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(2)
        if match.group(1) == '"':
            other = module_of(target)
            if target == "proto/terrace.capnp.h":
                other = "proto"
            if other is None:
                found.append(f"{path}:{number}: \"{target}\" is not a path from the root of a module")
            elif other != module and other not in ALLOWED[module]:
                found.append(f"{path}:{number}: {module} may not include {other} ({target})")
            continue
        for pattern, owners in FOREIGN.items():
            if re.match(pattern, target) and module not in owners:
                where = ", ".join(owners) or "tests"
                found.append(f"{path}:{number}: <{target}> stops at {where}")
    return found


def main() -> int:
    """Reads every tracked source file below the modules."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.h", "*.cc", "*.cu"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()
    found = [row for path in listed for row in violations(path, (ROOT / path).read_text())]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
