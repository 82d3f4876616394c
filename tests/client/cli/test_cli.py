"""The CLI as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

BIN = Path(os.environ["TERRACE_BIN"])


def terrace(
    socket: str, *arguments: str, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [BIN / "terrace", "--socket", socket, *arguments],
        input=data, capture_output=True, timeout=30,
    )  # fmt: skip


def test_put_get_stat_list_remove(daemon: Any, tmp_path: Path) -> None:
    payload = os.urandom(200_000)
    (tmp_path / "in").write_bytes(payload)
    put = terrace(daemon.socket, "put", "text:k", str(tmp_path / "in"), "-n", "demo")
    assert put.returncode == 0, put.stderr
    assert terrace(daemon.socket, "get", "text:k", "-n", "demo").stdout == payload
    out = tmp_path / "out"
    assert terrace(daemon.socket, "get", "6b", "-n", "demo", "-o", str(out)).returncode == 0
    assert out.read_bytes() == payload
    stat = json.loads(terrace(daemon.socket, "--json", "stat", "text:k", "-n", "demo").stdout)
    assert stat["key"] == "6b" and stat["bytes"] == len(payload) and stat["state"] == "ready"
    listed = json.loads(terrace(daemon.socket, "ls", "--json").stdout)
    assert [chunk["key"] for chunk in listed] == ["6b"]
    spaces = json.loads(terrace(daemon.socket, "namespaces", "--json").stdout)
    assert [(space["label"], space["chunks"]) for space in spaces] == [("demo", 1)]
    assert terrace(daemon.socket, "rm", "text:k", "-n", "demo").returncode == 0
    missing = terrace(daemon.socket, "get", "text:k", "-n", "demo")
    assert missing.returncode == 1 and b"not found" in missing.stderr


def test_clear_and_bump(daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 5000)
    for key in ("01", "02"):
        terrace(daemon.socket, "put", key, str(tmp_path / "in"), "-n", "demo")
    assert json.loads(terrace(daemon.socket, "--json", "clear", "demo").stdout)["chunks"] == 2
    terrace(daemon.socket, "put", "03", str(tmp_path / "in"), "-n", "demo")
    assert terrace(daemon.socket, "bump", "demo").returncode == 0
    assert terrace(daemon.socket, "get", "03", "-n", "demo").returncode == 1
    unknown = terrace(daemon.socket, "bump", "nope")
    assert unknown.returncode == 1 and b"nope" in unknown.stderr


def test_status_for_people_and_programs(daemon: Any) -> None:
    status = json.loads(terrace(daemon.socket, "status", "--json").stdout)
    assert status["pid"] == daemon.process.pid
    (tier,) = status["tenants"][0]["tiers"]
    parts = ("live", "dead", "padding", "claimed", "free", "missing")
    assert sum(tier[f"{part}_bytes"] for part in parts) == tier["bytes"] == 64 << 20
    text = terrace(daemon.socket, "status").stdout.decode()
    assert "dram" in text and "[" in text and "64.0 MiB" in text


def test_watch_ends_with_ctrl_c(daemon: Any) -> None:
    watching = subprocess.Popen(
        [BIN / "terrace", "--socket", daemon.socket, "status", "--watch", "--interval", "60"],
        stdout=subprocess.PIPE,
    )
    assert watching.stdout is not None
    assert watching.stdout.read(10)
    watching.send_signal(signal.SIGINT)  # the wait of a minute ends at once
    assert watching.wait(timeout=10) == 0


def test_doctor_names_each_finding_with_its_mend(daemon: Any) -> None:
    findings = json.loads(terrace(daemon.socket, "doctor", "--json").stdout)
    by_name = {finding["check"]: finding for finding in findings}
    assert by_name["round trip"]["result"] == "ok"
    assert by_name["versions"]["result"] == "ok"
    assert "terraced 0." in by_name["versions"]["found"]
    assert all(finding["mend"] for finding in findings if finding["result"] != "ok")
    if by_name["huge pages"]["result"] == "warning":
        assert len(by_name["huge pages"]["mend"].splitlines()) == 2
    away = terrace("/nonexistent.sock", "doctor")
    assert away.returncode == 1 and b"start terraced" in away.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["frobnicate"], 2, b""),
        (["get", "zz", "-n", "n"], 2, b"'zz' is no key"),
        (["put", "01", "/none", "-n", "n"], 2, b"/none"),
        (["get", "01", "-n", "none"], 1, b"no namespace 'none'"),
        (["status", "--interval", "0"], 2, b""),
    ],
)
def test_wrong_use_is_named(daemon: Any, arguments: list[str], code: int, message: bytes) -> None:
    ended = terrace(daemon.socket, *arguments)
    assert ended.returncode == code
    assert message in ended.stderr


def test_missing_daemon_is_named() -> None:
    ended = terrace("/nonexistent.sock", "status")
    assert ended.returncode == 1
    assert b"/nonexistent.sock" in ended.stderr
