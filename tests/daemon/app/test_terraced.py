"""terraced's command line as a user sees it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

BIN = Path(os.environ["TERRACE_BIN"])


def terraced(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "terraced", *arguments], capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--segment", "banana"],
            'terraced: --segment: "banana" is not a size; write for example 32MiB, or auto\n',
        ),
        (
            ["--index-slots", "1000"],
            'terraced: --index-slots: "1000" is not "auto" or a power of two from 64 to 2^31\n',
        ),
        (["--frob"], "--frob"),
        (["--dram"], "--dram"),
        (["--config", "/none.toml"], "terraced: /none.toml: cannot be read"),
        (["--config", "/tmp"], "terraced: /tmp: is a folder"),
        (["--socket", "/tmp"], "terraced: socket = /tmp is there and is no socket"),
        (["--socket", "/" + "x" * 120], "107 bytes"),
        (["--socket", "/dev/null/t.sock"], "terraced: socket = /dev/null/t.sock"),
    ],
)
def test_wrong_use_is_named(arguments: list[str], message: str) -> None:
    ended = terraced(*arguments)
    assert ended.returncode == 2
    assert message in ended.stderr and ended.stdout == ""


def test_a_refused_socket_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "t.sock").write_text("mine")
    for name in ("t.sock", "x" * 120):
        assert terraced("--socket", str(tmp_path / name)).returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["t.sock"]
    assert (tmp_path / "t.sock").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dram", "1"], "is not within 2 MiB and"),
        (["--dram", "1GiB", "--segment", "1GiB"], "4 to 4096 are needed"),
    ],
)
def test_a_check_refuses_what_the_start_refuses(arguments: list[str], message: str) -> None:
    for checked in (["--check-config"], []):
        ended = terraced("--socket", "/tmp/terrace-none.sock", *arguments, *checked)
        assert ended.returncode == 2 and message in ended.stderr and ended.stdout == ""


def test_a_check_warns_of_uids_that_the_socket_shuts_out(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    config.write_text('dram = "1GiB"\n[[tenant]]\nname = "a"\nuids = [4242]\ndram = "512MiB"\n')
    shut = terraced("--check-config", "--config", str(config))
    assert (shut.returncode, shut.stdout) == (0, "the configuration is right\n")
    assert "warning: tenant 'a' has uid 4242" in shut.stderr
    config.write_text("socket_mode = 0o666\n" + config.read_text())
    assert terraced("--check-config", "--config", str(config)).stderr == ""


def test_a_folder_of_another_user_is_named_with_its_mend() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        other: Any = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
        ended = subprocess.run(
            [BIN / "terraced", "--dram", "64MiB", "--socket", f"{folder}/t.sock"],
            capture_output=True, text=True, timeout=30, **other,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "t.sock.lock: Permission denied: run as the folder's owner, or use" in ended.stderr


def test_flags_are_checked_with_the_file(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    config.write_text('dram = "1GiB"\n[[tenant]]\nname = "a"\nuids = [1]\ndram = "512MiB"\n')
    right = terraced("--check-config", "--config", str(config))
    assert (right.returncode, right.stdout) == (0, "the configuration is right\n")
    wrong = terraced("--check-config", "--config", str(config), "--dram", "512MiB")
    assert wrong.returncode == 2 and "leave room for the default tenant" in wrong.stderr


def test_others_data_stops_the_start_and_stays(tmp_path: Path) -> None:
    image = tmp_path / "vm.img"
    image.write_bytes(b"v" * 5000)
    ended = terraced(
        "--socket", str(tmp_path / "t.sock"), "--dram", "64MiB", "--segment", "2MiB",
        "--nvme", str(image), "--nvme-bytes", "64MiB",
    )  # fmt: skip
    assert ended.returncode != 0
    assert f"nvme of tenant 'default': {image} holds other data" in ended.stderr
    assert image.read_bytes() == b"v" * 5000


def test_a_device_that_is_away_costs_the_tier_alone(tmp_path: Path) -> None:
    socket = tmp_path / "t.sock"
    tier = ["--nvme", f"{tmp_path}/unmounted/", "--nvme-bytes", "64MiB"]
    with subprocess.Popen(
        [BIN / "terraced", "--socket", socket, "--dram", "64MiB", "--segment", "2MiB", *tier],
        stderr=subprocess.PIPE, text=True,
    ) as daemon:  # fmt: skip
        assert daemon.stderr is not None
        lines = []
        for line in daemon.stderr:
            lines.append(line)
            if "serving on" in line:
                break
        asked = subprocess.run(
            [BIN / "terrace", "--socket", socket, "status"],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        daemon.terminate()
        daemon.stderr.read()
    assert daemon.returncode == 0
    assert asked.returncode == 0 and "NVMe tier of tenant 'default' is off" in asked.stdout
    assert "nvme off" in lines[-1]
    assert any("unmounted" in line and "served from memory alone" in line for line in lines)
