"""bench/peers on the sides that are always there: that it runs, compares and names wrong words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
def test_files_on_disk_stand_beside_terrace_and_fio(tmp_path: Path) -> None:
    run = peers(
        *("--disk", str(tmp_path), "--peers", "files,files-direct", "--sizes", "1MiB"),
        *("--working-set", "64MiB", "--json"),
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    cells = {(cell["peer"], cell["operation"]) for cell in found["cells"]}
    assert cells == {(p, o) for p in ("files", "files-direct") for o in ("put", "get")}
    for cell in found["cells"]:
        assert cell["mbps"] > 0 and cell["fio_mbps"] > 0 and cell["terrace_mbps"] > 0
        assert cell["vs_fio"] == pytest.approx(cell["mbps"] / cell["fio_mbps"], rel=0.01)
        assert cell["ratio"] == pytest.approx(cell["terrace_mbps"] / cell["mbps"], rel=0.01)
        assert cell["batch"] == 4 and cell["cold"]
    assert found["skipped"] == {}
    assert list(tmp_path.iterdir()) == []


def test_a_disk_peer_that_is_not_installed_is_skipped_with_the_mend(tmp_path: Path) -> None:
    if shutil.which("fio") is None:
        assert "scripts/setup --bench" in peers("--disk", str(tmp_path)).stderr
        return
    if (ROOT / "build" / "peers" / "nixl" / ".installed").exists():
        pytest.skip("nixl is installed")
    run = peers("--disk", str(tmp_path), "--peers", "nixl", "--sizes", "1MiB",
                "--working-set", "32MiB")  # fmt: skip
    assert run.returncode == 0 and "skipped: nixl: not installed" in run.stdout


def test_wrong_words_are_named() -> None:
    for arguments, named in [
        (("--peers", "none"), "'none'"),
        (("--sizes", "3KiB"), "3 KiB"),
        (("--seconds", "0"), "'0'"),
        (("--disk", "/nowhere"), "'/nowhere'"),
    ]:
        run = peers(*arguments)
        assert run.returncode == 2 and named in run.stderr
