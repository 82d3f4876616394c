"""``terrace explain``: why a get misses, before and after the daemon's restart."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from terraced import Terraced

BIN = Path(os.environ["TERRACE_BIN"])
CHUNK = b"x" * 500_000


def terrace(
    socket: str, *arguments: str, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [BIN / "terrace", "--socket", socket, *arguments],
        input=data, capture_output=True, timeout=30,
    )  # fmt: skip


def put(socket: str, key: str, label: str = "demo", data: bytes = CHUNK) -> None:
    deadline = time.monotonic() + 20
    while (ended := terrace(socket, "put", key, "-", "-n", label, data=data)).returncode != 0:
        assert b"busy" in ended.stderr and time.monotonic() < deadline, ended.stderr
        time.sleep(0.05)  # a small pool whose chunks are on their way to the device


def first_gone(socket: str, count: int) -> str:
    """The first of so many keys that has left."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for key in range(1, count):
            if explain(socket, f"{key:02x}")["answer"] == "gone":
                return f"{key:02x}"
    raise AssertionError("nothing left")


def explain(socket: str, key: str, label: str = "demo") -> dict[str, Any]:
    ended = terrace(socket, "--json", "explain", key, "-n", label)
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    assert terrace(socket, "explain", key, "-n", label).stdout.decode().strip() != ""
    return answer


def status(socket: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(terrace(socket, "status", "--json").stdout)
    return answer


def test_ready_removed_cleared_and_bumped(daemon: Any) -> None:
    put(daemon.socket, "01")
    ready = explain(daemon.socket, "01")
    assert (ready["answer"], ready["tiers"], ready["bytes"]) == ("ready", ["dram"], len(CHUNK))
    assert abs(ready["put_ms"] / 1000 - time.time()) < 60
    terrace(daemon.socket, "rm", "01", "-n", "demo")
    removed = explain(daemon.socket, "01")
    assert (removed["answer"], removed["cause"]) == ("gone", "removed")
    assert abs(removed["when_ms"] / 1000 - time.time()) < 60
    put(daemon.socket, "02")
    terrace(daemon.socket, "clear", "demo")
    assert explain(daemon.socket, "02")["cause"] == "cleared"
    put(daemon.socket, "03")
    terrace(daemon.socket, "bump", "demo")
    assert explain(daemon.socket, "03")["cause"] == "epoch ended"


def test_never_put_says_how_far_back_is_known(daemon: Any) -> None:
    never = explain(daemon.socket, "01")
    assert (never["answer"], never["cause"]) == ("never put", None)
    assert never["namespace_known"] is False
    assert 0 <= time.time() - never["history_since_ms"] / 1000 < 600
    text = terrace(daemon.socket, "explain", "text:k", "-n", "demo").stdout.decode()
    assert text.startswith("Chunk text:k of namespace 'demo' was never put")
    assert "The history goes back to 20" in text


def test_another_namespace_is_named_with_what_differs(daemon: Any) -> None:
    put(daemon.socket, "01", "demo")
    put(daemon.socket, "02", "other")
    other = explain(daemon.socket, "01", "other")
    assert (other["answer"], other["other_namespace"]) == ("other namespace", "demo")
    assert other["other_field"] == "label"


def test_wrong_keys_and_labels_are_refused(daemon: Any) -> None:
    assert terrace(daemon.socket, "explain", "xyz", "-n", "demo").returncode == 2
    assert terrace(daemon.socket, "explain", "01").returncode == 2


def test_what_dram_reclaimed_has_its_mend(tmp_path: Path) -> None:
    daemon = Terraced(tmp_path, dram="8MiB")
    try:
        for key in range(1, 40):
            put(daemon.socket, f"{key:02x}")
        gone = explain(daemon.socket, first_gone(daemon.socket, 40))
        assert gone["cause"] == "evicted dram"
        assert "Raise dram" in gone["text"]
    finally:
        daemon.kill()


@pytest.fixture
def nvme(tmp_path: Path) -> Any:
    """A daemon with an NVMe tier of a few segments, and with a catalog of 8 MiB beside it."""
    (tmp_path / "nvme").mkdir()
    flags = ["--nvme", str(tmp_path / "nvme"), "--nvme-bytes", "32MiB", "--nvme-segment", "2MiB"]
    running = Terraced(tmp_path, dram="16MiB", flags=flags)
    yield running
    running.kill()


def test_a_restart_forgets_no_reason(nvme: Any, tmp_path: Path) -> None:
    put(nvme.socket, "aa")
    terrace(nvme.socket, "rm", "aa", "-n", "demo")
    for key in range(1, 120):
        put(nvme.socket, f"{key:02x}")
    left = first_gone(nvme.socket, 120)
    before = explain(nvme.socket, left)
    assert before["cause"].startswith("evicted")
    assert status(nvme.socket)["history"]["folder"] == str(tmp_path / "nvme" / "catalog")
    deadline = time.monotonic() + 20
    while status(nvme.socket)["history"]["events"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time_of_removal = explain(nvme.socket, "aa")["when_ms"]
    nvme.process.terminate()
    nvme.process.wait()
    nvme.start()
    after = explain(nvme.socket, left)
    assert (after["answer"], after["cause"]) == ("gone", before["cause"])
    assert after["when_ms"] == before["when_ms"] < after["daemon_started_ms"]
    assert "The daemon was started" in after["text"]
    removed = explain(nvme.socket, "aa")
    assert (removed["cause"], removed["when_ms"]) == ("removed", time_of_removal)
    assert removed["history_since_ms"] <= time_of_removal
    assert explain(nvme.socket, "bb")["answer"] == "never put"
    # What survived is ready, and says where.
    states = [explain(nvme.socket, f"{key:02x}") for key in range(60, 120)]
    assert any(state["tiers"] == ["nvme"] for state in states)


def test_a_catalog_that_cannot_be_opened_costs_only_history(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    daemon = Terraced(tmp_path, flags=["--catalog", str(tmp_path / "file" / "catalog")])
    try:
        put(daemon.socket, "01")
        terrace(daemon.socket, "rm", "01", "-n", "demo")
        assert explain(daemon.socket, "01")["cause"] == "removed"
        shown = status(daemon.socket)
        assert shown["history"]["state"] == "off"
        (warning,) = [text for text in shown["warnings"] if "catalog" in text]
        assert "why chunks left is not kept" in warning
    finally:
        daemon.kill()
