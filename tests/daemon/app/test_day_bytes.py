"""A restart is no licence to write another day's bytes to NVMe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from terraced import Terraced

BIN = Path(os.environ["TERRACE_BIN"])


def terrace(socket: str, *arguments: str, data: bytes | None = None) -> bytes:
    ended = subprocess.run(
        [BIN / "terrace", "--socket", socket, *arguments],
        input=data, capture_output=True, timeout=30,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def nvme(daemon: Terraced) -> dict[str, Any]:
    (tenant,) = json.loads(terrace(daemon.socket, "status", "--json"))["tenants"]
    (tier,) = [tier for tier in tenant["tiers"] if tier["tier"] == "nvme"]
    answer: dict[str, Any] = tier
    return answer


def demoted_or_declined(daemon: Terraced, key: str) -> dict[str, Any]:
    """The tier's counts once the chunk was written, or was found to be too much."""
    terrace(daemon.socket, "put", key, "-", "-n", "demo", data=b"y" * 100_000)
    deadline = time.monotonic() + 20
    while (counts := nvme(daemon))["demoted"] + counts["demote_declined"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return counts


def test_what_this_day_has_written_counts_after_a_restart(tmp_path: Path) -> None:
    daemon = Terraced(tmp_path, nvme="64MiB", flags=["--nvme-admission", "1MiB/day"])
    try:
        # An hour's savings are 16 MiB at least.
        assert demoted_or_declined(daemon, "00")["demoted"] == 1
        for number in range(1, 30):  # asked for, so written whatever it costs
            terrace(
                daemon.socket, "put", f"{number:02x}", "-", "-n", "demo", "--durable",
                data=bytes([number]) * 900_000,
            )  # fmt: skip
        daemon.process.terminate()
        assert daemon.process.wait(timeout=30) == 0
        daemon.start()
        assert demoted_or_declined(daemon, "ff")["demoted"] == 0
    finally:
        daemon.kill()
