"""bench/peers on the sides that are always there: that it runs, compares and names wrong words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def peers(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "TERRACE_BUILD": str(Path(os.environ["TERRACE_BIN"]).parent),
    }
    return subprocess.run(
        [sys.executable, "-m", "bench.peers", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_files_and_memory_stand_beside_terrace() -> None:
    run = peers(
        *("--peers", "files,memory", "--sizes", "64KiB", "--working-set", "32MiB"),
        *("--seconds", "0.1", "--json"),
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["working_set_bytes"] == 32 << 20
    cells = {(cell["peer"], cell["operation"], cell["clients"]) for cell in found["cells"]}
    assert cells == {
        (peer, operation, clients)
        for peer in ("files", "memory")
        for operation in ("get", "put")
        for clients in (1, 2)
    }
    assert all(cell["p50_us"] > 0 and cell["terrace_p50_us"] > 0 for cell in found["cells"])


def test_wrong_words_are_named() -> None:
    for arguments, named in [
        (("--peers", "none"), "'none'"),
        (("--sizes", "3KiB"), "3 KiB"),
        (("--seconds", "0"), "'0'"),
    ]:
        run = peers(*arguments)
        assert run.returncode == 2 and named in run.stderr
