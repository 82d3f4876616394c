"""``terrace fsck`` on the files of real daemons."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from terraced import Terraced

BIN = Path(os.environ["TERRACE_BIN"])
MIB = 1 << 20
BLOCK = 4096
SEGMENT = 8 * MIB  # the first one, of segments of 2 MiB
RECORD = SEGMENT + BLOCK
TRAILER = SEGMENT + 2 * MIB - BLOCK
SECOND_COPY = 4 * MIB
TABLE = 64 << 10
KEYS = [f"{number:02x}" for number in range(1, 10)]
LOG = "terrace-default.log"


def payload(key: str) -> bytes:
    return (bytes.fromhex(key) * 300_000)[:300_000]


def terrace(*arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [BIN / "terrace", *arguments], input=data, capture_output=True, timeout=60
    )


def fsck(*arguments: str, code: int) -> str:
    ended = terrace("fsck", *arguments)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout.decode()


def fsck_json(*arguments: str, code: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(fsck("--json", *arguments, code=code))
    assert answer["exit_code"] == code
    return answer


def flip(file: Path, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ 4]))


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def put_all(daemon: Terraced) -> None:
    for key in KEYS:
        ended = terrace(
            "--socket", daemon.socket, "put", key, "-", "-n", "demo", "--durable",
            data=payload(key),
        )  # fmt: skip
        assert ended.returncode == 0 or b"exists" in ended.stderr, ended.stderr


def stop(daemon: Terraced) -> None:
    daemon.process.terminate()
    assert daemon.process.wait(timeout=30) == 0


def served(daemon: Terraced) -> list[str]:
    """The keys that a daemon gives with their bytes."""
    found = []
    for key in KEYS:
        ended = terrace("--socket", daemon.socket, "get", key, "-n", "demo")
        if ended.returncode == 0:
            assert ended.stdout == payload(key)
            found.append(key)
    return found


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Terraced]:
    """One with nine chunks on NVMe."""
    running = Terraced(tmp_path, nvme="64MiB")
    put_all(running)
    yield running
    running.kill()


def test_log_of_a_running_daemon_is_refused(daemon: Terraced, tmp_path: Path) -> None:
    for more in ([], ["--repair"]):
        answer = fsck_json("--nvme", str(tmp_path), *more, code=8)
        error = answer["logs"][0]["error"]
        assert str(tmp_path / LOG) in error and "stop terraced first" in error
        assert f"pid {daemon.process.pid}" in error
    assert served(daemon) == KEYS


@pytest.mark.parametrize("end", [stop, Terraced.kill])
def test_a_daemons_end_leaves_a_clean_log_and_fsck_leaves_it_so(
    daemon: Terraced, tmp_path: Path, end: Callable[[Terraced], None]
) -> None:
    end(daemon)
    log = tmp_path / LOG
    before, state = digest(log), log.stat()
    assert "clean" in fsck("--nvme", str(tmp_path), code=0)
    answer = fsck_json("--nvme", str(log), "--quick", code=0)
    assert answer["result"] == "clean"
    assert answer["logs"][0]["records"] == len(KEYS)
    assert answer["logs"][0]["tenant"] == "default"
    now = log.stat()
    assert digest(log) == before
    assert (now.st_size, now.st_mode, now.st_mtime_ns) == (
        state.st_size, state.st_mode, state.st_mtime_ns
    )  # fmt: skip
    fsck("--nvme", str(tmp_path), "--repair", code=0)
    daemon.start()
    assert served(daemon) == KEYS


@pytest.mark.parametrize(
    ("kind", "at", "lost"),
    [
        ("superblock", 40, 0),
        ("superblock", SECOND_COPY + 40, 0),
        ("namespace_table", TABLE + 9, 0),
        ("namespace_table", SECOND_COPY + TABLE + BLOCK + 9, 0),
        ("segment_head", SEGMENT + 9, 0),
        ("footer", TRAILER + 9, 0),
        ("footer", TRAILER - BLOCK + 9, 0),
        ("record_header", RECORD + 20, 1),
        ("payload", RECORD + BLOCK + 1000, 1),
    ],
)
def test_each_kind_of_damage_is_found_and_mended(
    daemon: Terraced, tmp_path: Path, kind: str, at: int, lost: int
) -> None:
    stop(daemon)
    log = tmp_path / LOG
    flip(log, at)
    before = digest(log)
    answer = fsck_json("--nvme", str(tmp_path), code=4)
    assert answer["result"] == "damaged"
    (finding,) = answer["logs"][0]["findings"]
    assert finding["kind"] == kind and not finding["mended"]
    assert finding["file"] == str(log)
    assert 0 <= at - finding["offset"] < 2 * MIB
    if lost:
        assert finding["key"] in KEYS and finding["namespace"] == "demo"
    assert digest(log) == before
    assert "1 damaged" in fsck("--nvme", str(tmp_path), code=4)
    assert "1 mended" in fsck("--nvme", str(tmp_path), "--repair", code=1)
    fsck("--nvme", str(tmp_path), "--repair", code=0)
    daemon.start()
    assert len(served(daemon)) == len(KEYS) - lost
    put_all(daemon)  # what was lost is healed by the next put
    assert served(daemon) == KEYS


def test_config_names_every_tenants_log(tmp_path: Path) -> None:
    config = tmp_path / "terraced.toml"
    (tmp_path / "logs").mkdir()
    config.write_text(
        f'nvme = ["{tmp_path}/logs"]\nnvme_bytes = "96MiB"\nnvme_segment = "2MiB"\n'
        f'dram = "64MiB"\nsegment = "2MiB"\ncatalog = "off"\n'
        f'[[tenant]]\nname = "search"\nuids = [4711]\ndram = "16MiB"\nnvme_bytes = "32MiB"\n'
    )
    running = Terraced(tmp_path, flags=["--config", str(config)])
    put_all(running)
    stop(running)
    answer = fsck_json("--config", str(config), code=0)
    assert [log["tenant"] for log in answer["logs"]] == ["search", "default"]
    assert [log["records"] for log in answer["logs"]] == [0, len(KEYS)]
    assert answer["catalog"] is None
    flip(tmp_path / "logs" / LOG, RECORD + BLOCK + 77)
    answer = fsck_json("--config", str(config), code=4)
    assert [log["damaged"] for log in answer["logs"]] == [0, 1]


def test_stripes_are_put_together_and_damage_is_named_where_it_lies(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    config = tmp_path / "terraced.toml"
    paths = ", ".join(f'"{folder}"' for folder in folders)
    config.write_text(
        f'nvme = [{paths}]\nnvme_bytes = "64MiB"\nnvme_segment = "2MiB"\n'
        f'dram = "64MiB"\nsegment = "2MiB"\n'
    )
    running = Terraced(tmp_path, flags=["--config", str(config)])
    put_all(running)
    stop(running)
    named = [str(folder) for folder in folders]
    assert fsck_json("--nvme", *named, code=0)["logs"][0]["records"] == len(KEYS)
    # The first segment begins the second file, for a stripe has 8 MiB.
    flip(folders[1] / LOG, BLOCK + BLOCK + 5)
    (finding,) = fsck_json("--nvme", *named, code=4)["logs"][0]["findings"]
    assert (finding["kind"], finding["file"]) == ("payload", str(folders[1] / LOG))
    assert finding["offset"] == BLOCK + BLOCK
    fsck("--nvme", *named, "--repair", code=1)
    fsck("--nvme", *named, code=0)
    answer = fsck_json("--nvme", named[0], code=8)
    assert "2 files" in answer["logs"][0]["error"]


def test_damaged_catalog_is_made_anew_from_the_log(daemon: Terraced, tmp_path: Path) -> None:
    stop(daemon)
    assert fsck_json("--nvme", str(tmp_path), code=0)["catalog"]["rows"] > 0
    for file in (tmp_path / "catalog").glob("*.log"):
        file.unlink()
    for file in (tmp_path / "catalog").glob("MANIFEST-*"):
        file.write_bytes(b"x" * 100)
    assert fsck_json("--nvme", str(tmp_path), code=4)["catalog"]["error"]
    answer = fsck_json("--nvme", str(tmp_path), "--rebuild", code=1)
    rebuilt = answer["catalog"]["rebuilt"]
    assert rebuilt["done"] and rebuilt["namespaces"] == 1
    assert rebuilt["tenants"] == 1 and Path(rebuilt["set_aside"]).is_dir()
    assert "history" in rebuilt["not_in_the_logs"]
    assert fsck_json("--nvme", str(tmp_path), code=0)["catalog"]["rows"] >= 3
    # Lost altogether, it is made too; what is good is kept.
    text = fsck("--nvme", str(tmp_path), "--rebuild", "--catalog", str(tmp_path / "new"), code=0)
    assert "1 namespaces" in text and "begin anew" in text
    assert "kept as they were" in fsck("--nvme", str(tmp_path), "--rebuild", code=0)
    daemon.start()
    assert served(daemon) == KEYS


def test_rebuild_waits_for_logs_that_cannot_be_read(daemon: Terraced, tmp_path: Path) -> None:
    stop(daemon)
    flip(tmp_path / LOG, 40)
    flip(tmp_path / LOG, SECOND_COPY + 40)
    answer = fsck_json("--nvme", str(tmp_path), "--rebuild", code=4 + 8)
    assert not answer["catalog"]["rebuilt"]["done"]
    assert "neither superblock" in answer["logs"][0]["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--config"),
        (["--nvme", "/nonexistent/log"], "/nonexistent/log is not there"),
        (["--nvme", "/tmp", "--repair", "--quick"], "leave one out"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (["--fix"], "--fix"),
    ],
)
def test_wrong_use_names_value_and_mend(arguments: list[str], words: str) -> None:
    ended = terrace("fsck", *arguments)
    assert ended.returncode == 16 and words in ended.stderr.decode()


def test_other_data_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.log"
    other.write_bytes(b"somebody's" * 2_000_000)
    before = digest(other)
    fsck("--nvme", str(other), "--repair", code=4)
    assert digest(other) == before
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no log" in fsck("--nvme", str(empty), code=0)


def test_sigint_ends_it_between_two_writes(daemon: Terraced, tmp_path: Path) -> None:
    stop(daemon)
    flip(tmp_path / LOG, RECORD + BLOCK + 1000)
    before = digest(tmp_path / LOG)

    def interrupted() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)  # waits until the program is ready for it

    ended = subprocess.run(
        [BIN / "terrace", "fsck", "--json", "--repair", "--nvme", str(tmp_path)],
        capture_output=True, timeout=60, preexec_fn=interrupted,
    )  # fmt: skip
    assert ended.returncode == 32, ended.stderr
    assert json.loads(ended.stdout)["result"] == "cancelled"
    assert digest(tmp_path / LOG) == before
