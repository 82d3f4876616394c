"""The CLI as a user runs it."""

from __future__ import annotations

import hashlib
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


def test_a_digest_is_told_from_a_key_and_is_one(daemon: Any) -> None:
    words = "w" * 33
    digest = hashlib.sha256(words.encode()).hexdigest()
    for key in (f"text:{words}", f"text:{words}@1", digest):
        assert terrace(daemon.socket, "put", key, "-", "-n", "demo", data=b"x").returncode == 0
    listed = json.loads(terrace(daemon.socket, "ls", "--json").stdout)
    assert {(chunk["key"], chunk["hashed"]) for chunk in listed} == {
        (f"sha256:{digest}", True),
        (f"sha256:{digest}@1", True),
        (digest, False),
    }
    for_people = terrace(daemon.socket, "ls").stdout.decode().split()
    for chunk in listed:
        assert chunk["key"] in for_people
        stat = terrace(daemon.socket, "stat", chunk["key"], "-n", "demo", "--json")
        assert json.loads(stat.stdout)["key"] == chunk["key"]
        assert terrace(daemon.socket, "rm", chunk["key"], "-n", "demo").returncode == 0
    assert terrace(daemon.socket, "ls").stdout == b""


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
    assert "0 pins on 0 segments" in text and "; 0 pinned" in text
    assert "dram" in text and "[" in text and "64.0 MiB" in text
    assert f"largest chunk {status['tenants'][0]['chunk_bytes_max']} bytes" in text


def test_watch_ends_with_ctrl_c(daemon: Any) -> None:
    watching = subprocess.Popen(
        [BIN / "terrace", "--socket", daemon.socket, "status", "--watch", "--interval", "60"],
        stdout=subprocess.PIPE,
    )
    assert watching.stdout is not None
    assert watching.stdout.read(10) == b"terraced 0"  # no codes for a terminal
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
    assert by_name["locked memory"]["result"] == "ok"
    status = json.loads(terrace(daemon.socket, "status", "--json").stdout)
    if status["tenants"][0]["tiers"][0]["page_bytes"] == 4096:
        # 64 MiB and a 32nd more in pages of 2 MiB, and 16.
        assert by_name["huge pages"]["mend"].startswith("sysctl -w vm.nr_hugepages=49\n")
    away = terrace("/nonexistent.sock", "doctor")
    assert away.returncode == 1 and b"start terraced" in away.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, b"no command: see `terrace --help`"),
        (["frobnicate"], 2, b"frobnicate: see `terrace --help`"),
        (["ls", "--frob"], 2, b"--frob: see `terrace ls --help`"),
        (["ls", "--limit", "few"], 2, b"--limit: Value few not in range 1 to"),
        (["stat"], 2, b"key is required: see `terrace stat --help`"),
        (["stat", "--frob"], 2, b"--frob: see `terrace stat --help`"),
        (["get", "01", "--frob"], 2, b"--frob: see `terrace get --help`"),
        (["get", "zz", "-n", "n"], 2, b"'zz' is no key"),
        (["get", "sha256:00", "-n", "n"], 2, b"'sha256:00' is no key"),
        (["put", "01", "/none", "-n", "n"], 2, b"/none"),
        (["put", "01", "/tmp", "-n", "n"], 2, b"/tmp: it is a folder"),
        (["put", "01", "/dev/null", "-n", "n"], 2, b"/dev/null is empty"),
        (["put", "01", "/dev/zero", "-n", "n"], 2, b"/dev/zero is longer than 16777216 bytes"),
        (["get", "01", "-n", "none"], 1, b"no namespace 'none'"),
        (["status", "--interval", "0"], 2, b"--interval: Value 0 not in range 0.1"),
    ],
)
def test_wrong_use_is_named(daemon: Any, arguments: list[str], code: int, message: bytes) -> None:
    ended = terrace(daemon.socket, *arguments)
    assert ended.returncode == code
    assert message in ended.stderr


NAMESPACE_COMMANDS = [
    ["ls", "-n", "nope"],
    ["get", "01", "-n", "nope"],
    ["stat", "01", "-n", "nope"],
    ["rm", "01", "02", "-n", "nope"],
    ["clear", "nope"],
    ["bump", "nope"],
]


@pytest.mark.parametrize("command", NAMESPACE_COMMANDS, ids=lambda command: str(command[0]))
def test_unknown_namespace_is_named_with_those_there_are(
    daemon: Any, tmp_path: Path, command: list[str]
) -> None:
    none = terrace(daemon.socket, *command)
    assert none.returncode == 1
    message = b"no namespace 'nope': there is none yet, `terrace put` makes one"
    assert none.stderr == b"terrace: not found: " + message + b"\n"
    assert none.stdout == b""
    (tmp_path / "in").write_bytes(b"x")
    terrace(daemon.socket, "put", "01", str(tmp_path / "in"), "-n", "demo")
    some = terrace(daemon.socket, "--json", *command)
    assert some.returncode == 1
    message = b"no namespace 'nope': there is 'demo'"
    assert some.stderr == b"terrace: not found: " + message + b"\n"
    assert json.loads(some.stdout) == {"status": "not found", "error": message.decode()}


def test_a_long_list_of_namespaces_is_cut(daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x")
    for number in range(7):
        terrace(daemon.socket, "put", "01", str(tmp_path / "in"), "-n", f"n{number}")
    ended = terrace(daemon.socket, "ls", "-n", "nope")
    assert (
        ended.stderr.count(b"'n") == 6 and b"and 2 more, see `terrace namespaces`" in ended.stderr
    )


def test_unknown_chunk_is_named_with_the_way_to_list(daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x")
    terrace(daemon.socket, "put", "01", str(tmp_path / "in"), "-n", "demo")
    for command in ("get", "stat", "rm"):
        ended = terrace(daemon.socket, command, "02", "-n", "demo")
        assert ended.returncode == 1 and ended.stdout == b""
        assert b"chunk 02 of namespace 'demo': `terrace ls -n demo` lists" in ended.stderr
        assert (
            b"chunk 02 of" in terrace(daemon.socket, "--json", command, "02", "-n", "demo").stdout
        )


def test_put_says_why_not(daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x")
    (tmp_path / "big").write_bytes(bytes(3 << 20))
    put = ["put", "01", str(tmp_path / "in"), "-n", "demo"]
    assert terrace(daemon.socket, *put).returncode == 0
    again = terrace(daemon.socket, *put)
    assert again.returncode == 1 and b"remove it first with `terrace rm`" in again.stderr
    big = terrace(daemon.socket, "put", "02", str(tmp_path / "big"), "-n", "demo")
    assert big.returncode == 2 and b"big has 3145728 bytes (3.0 MiB): the" in big.stderr
    status = json.loads(terrace(daemon.socket, "status", "--json").stdout)
    largest = f"largest chunk has {status['tenants'][0]['chunk_bytes_max']} bytes".encode()
    assert largest in big.stderr


def test_output_that_cannot_be_written_fails(daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 500_000)
    terrace(daemon.socket, "put", "01", str(tmp_path / "in"), "-n", "demo")
    for command in (["get", "01", "-n", "demo"], ["ls"], ["--json", "status"], ["--json", "ls"]):
        with open("/dev/full", "wb") as full:
            ended = subprocess.run(
                [BIN / "terrace", "--socket", daemon.socket, *command],
                stdout=full, stderr=subprocess.PIPE, timeout=30,
            )  # fmt: skip
        assert ended.returncode == 1
        assert b"cannot write to standard output" in ended.stderr


@pytest.mark.parametrize("command", [["get", "01", "-n", "demo"], ["status", "--watch"]])
def test_a_reader_that_went_away_ends_it_quietly(
    daemon: Any, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "in").write_bytes(b"x" * 500_000)
    terrace(daemon.socket, "put", "01", str(tmp_path / "in"), "-n", "demo")
    arguments = [BIN / "terrace", "--socket", daemon.socket, *command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stderr is not None
        assert writer.stdout.read(1)
        writer.stdout.close()
        assert writer.wait(timeout=30) == -signal.SIGPIPE
        assert writer.stderr.read() == b""


def test_small_pages_by_choice_are_no_warning(daemon: Any) -> None:
    daemon.kill()
    daemon.sizes += ["--huge-pages", "off"]
    daemon.start()
    assert json.loads(terrace(daemon.socket, "status", "--json").stdout)["warnings"] == []
    findings = json.loads(terrace(daemon.socket, "doctor", "--json").stdout)
    (pages,) = [finding for finding in findings if finding["check"] == "huge pages"]
    assert pages["result"] == "ok" and "huge_pages = off" in pages["found"]


def test_control_bytes_of_labels_are_escaped(daemon: Any) -> None:
    label = "a\x1b[31mb\x7f\n"
    assert terrace(daemon.socket, "put", "01", "-", "-n", label, data=b"x").returncode == 0
    shown = b"a\\x1b[31mb\\x7f\\x0a"
    for command in (["status"], ["namespaces"], ["ls"], ["stat", "01", "-n", label]):
        out = terrace(daemon.socket, *command).stdout
        assert shown in out and b"\x1b" not in out and b"\x7f" not in out
    error = terrace(daemon.socket, "ls", "-n", "nope").stderr
    assert shown in error and b"\x1b" not in error


def test_put_reads_standard_input(daemon: Any) -> None:
    put = terrace(daemon.socket, "--json", "put", "text:k", "-", "-n", "demo", data=b"payload")
    assert json.loads(put.stdout) == {"key": "text:k", "hex": "6b", "status": "ok"}
    assert terrace(daemon.socket, "get", "text:k", "-n", "demo").stdout == b"payload"
    empty = terrace(daemon.socket, "put", "02", "-", "-n", "demo", data=b"")
    assert empty.returncode == 2 and b"standard input is empty" in empty.stderr


def test_removing_several_answers_one_array(daemon: Any) -> None:
    terrace(daemon.socket, "put", "01", "-", "-n", "demo", data=b"x")
    ended = terrace(daemon.socket, "--json", "rm", "01", "text:k", "-n", "demo")
    first, second = json.loads(ended.stdout)
    assert first == {"key": "01", "hex": "01", "status": "ok"}
    assert (second["hex"], second["status"], ended.returncode) == ("6b", "not found", 1)


def test_a_list_that_was_cut_says_so(daemon: Any) -> None:
    for key in ("01", "02"):
        terrace(daemon.socket, "put", key, "-", "-n", "demo", data=b"x")
    cut = terrace(daemon.socket, "ls", "--limit", "1")
    assert len(cut.stdout.splitlines()) == 1
    assert cut.stderr == b"terrace: 1 shown, --limit for more\n"
    assert terrace(daemon.socket, "ls", "--limit", "2").stderr == b""


def test_a_socket_that_does_not_admit_us_is_named_with_its_mend(daemon: Any) -> None:
    Path(daemon.socket).chmod(0)
    other: Any = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    command = [BIN / "terrace", "--socket", daemon.socket]
    status = subprocess.run([*command, "status"], capture_output=True, timeout=30, **other)
    assert status.returncode == 1 and b"socket_mode = 0o666" in status.stderr
    assert b"start terraced" not in status.stderr
    doctor = subprocess.run([*command, "doctor"], capture_output=True, timeout=30, **other)
    assert b"`uids` of a [[tenant]]" in doctor.stdout and b"start terraced" not in doctor.stdout


def test_missing_daemon_is_named() -> None:
    ended = terrace("/nonexistent.sock", "status")
    assert ended.returncode == 1
    assert b"/nonexistent.sock" in ended.stderr
    assert b"start terraced, or name its socket with --socket" in ended.stderr
    named = subprocess.run(
        [BIN / "terrace", "--json", "ls"], capture_output=True, timeout=30,
        env={**os.environ, "TERRACE_SOCKET": "/elsewhere.sock"},
    )  # fmt: skip
    answer = json.loads(named.stdout)
    assert named.returncode == 1 and answer["status"] == "unavailable"
    assert "/elsewhere.sock" in answer["error"] and "$TERRACE_SOCKET" in answer["error"]


def test_by_default_the_users_daemon_is_asked_then_the_machines(
    daemon: Any, tmp_path: Path
) -> None:
    (tmp_path / "terrace").mkdir()
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("TERRACE_SOCKET", None)

    def status() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [BIN / "terrace", "status", "--json"],
            capture_output=True, timeout=30, env=environment,
        )  # fmt: skip

    mine = tmp_path / "terrace" / "terraced.sock"
    mine.symlink_to(daemon.socket)
    assert json.loads(status().stdout)["pid"] == daemon.process.pid
    daemon.kill()
    away = status()
    if away.returncode == 0:
        pytest.skip("this machine has a daemon of its own")
    for path in (str(mine), "/run/terrace/terraced.sock"):
        assert path in away.stderr.decode()
