"""The workloads of `terrace bench`, small: that they run, count right, and leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from terraced import Terraced

BIN = Path(os.environ["TERRACE_BIN"])


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "terrace", "bench", *arguments], capture_output=True, text=True, timeout=200
    )


def leftovers() -> set[Path]:
    return set(Path("/tmp").glob("terrace-bench-*"))


def test_hit_counts_no_system_call_and_no_miss() -> None:
    run = bench("hit", "--entries", "2000", "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["entries"] == 2000 and found["misses"] == 0
    assert found["syscalls_per_op"] in (0, None)
    assert 0 < found["p50_ns"] <= found["p99_ns"]
    assert found["judged"] == (found["page_bytes"] == 2 << 20)


def test_trace_finds_exactly_what_was_there_before(tmp_path: Path) -> None:
    # 0-9, the same again, 0-4 and 20-24: with room for all, 10 + 5 of 30 references are hits.
    requests = [list(range(10)), list(range(10)), [*range(5), *range(20, 25)]]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps({"hash_ids": ids}) + "\n" for ids in requests))
    run = bench("trace", str(trace), "--share", "1", "--json")
    assert run.returncode == 0, run.stderr
    (found,) = json.loads(run.stdout)
    assert found["prefix_hit_ratio"] == found["lru_prefix_hit_ratio"] == 0.5
    assert found["wrong_bytes"] == 0 and found["moved_per_put"] == 0


def test_trace_counts_what_left_memory_by_tier(tmp_path: Path) -> None:
    # Twice through more than memory has; DRAM alone has lost the start when it comes again.
    requests = [list(range(at, at + 100)) for at in range(0, 2000, 100)] * 2
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps({"hash_ids": ids}) + "\n" for ids in requests))
    nvme = tmp_path / "nvme"
    nvme.mkdir()
    run = bench("trace", str(trace), "--share", "0.2", "--nvme", str(nvme), "--nvme-bytes",
                "256MiB", "--json")  # fmt: skip
    assert run.returncode == 0, run.stderr
    (found,) = json.loads(run.stdout)
    assert found["tiered_prefix_hit_ratio"] == pytest.approx(0.5, abs=0.01)
    assert found["dram_hit_ratio"] + found["nvme_hit_ratio"] == found["tiered_prefix_hit_ratio"]
    assert found["nvme_hit_ratio"] > 0.2 > 0.5 * found["prefix_hit_ratio"]
    assert found["wrong_bytes"] == 0 and found["nvme_written_bytes"] >= 1600 * 68 << 10
    assert list(nvme.iterdir()) == []


def test_churn_keeps_log_and_catalog_within_the_cap(tmp_path: Path) -> None:
    run = bench(
        "churn", "--nvme", str(tmp_path), "--nvme-bytes", "256MiB", "--pools", "1", "--json"
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["cap_bytes"] == 256 << 20
    # The log is allocated at the start, and the catalog lies beside it.
    assert 200 << 20 < found["du_max_bytes"] <= found["cap_bytes"]
    assert 0 < found["catalog_bytes"] <= 8 << 20 and found["du_samples"] > 10
    assert found["wrong_bytes"] == found["refused_not_busy"] == 0
    assert found["reclaims"] > 0 and found["written_bytes"] > found["cap_bytes"]
    for phase in ("mixed", "smaller", "restarted"):
        assert 0 < found[phase]["nvme_hit_ratio"] < found[phase]["hit_ratio"] < 1
    assert found["dram_alone"]["nvme_hit_ratio"] == 0
    assert found["dram_alone"]["requests"] == found["mixed"]["requests"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--nvme-bytes", "1GiB"), "--nvme"),
        (("--nvme", "/nowhere"), "/nowhere"),
        (("--nvme", "/tmp", "--nvme-bytes", "1MiB"), "--nvme-bytes"),
        (("--nvme", "/tmp", "--nvme-bytes", "banana"), "banana"),
    ],
)
def test_wrong_nvme_flags_are_named(arguments: tuple[str, ...], named: str) -> None:
    run = bench("churn", *arguments)
    assert run.returncode == 2 and named in run.stderr


def test_wrong_trace_is_named_with_its_line(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"hash_ids": [1]}\n{"ids": [1]}\n')
    run = bench("trace", str(trace))
    assert run.returncode == 2 and f"{trace}:2" in run.stderr
    assert "/nowhere" in bench("trace", "/nowhere").stderr
    trace.write_text("")
    run = bench("trace", str(trace))
    assert run.returncode == 2 and "no requests" in run.stderr


def test_put_measures_a_daemon_that_runs(tmp_path: Path) -> None:
    daemon = Terraced(tmp_path, dram="1GiB", segment="16MiB")
    try:
        run = bench("put", "--clients", "1", "--rounds", "1", "--socket", daemon.socket, "--json")
        assert run.returncode == 0, run.stderr
        (found,) = json.loads(run.stdout)
        assert found["clients"] == 1 and found["failures"] == 0 and found["vs_copy_hash"] > 0
        assert daemon.process.poll() is None
    finally:
        daemon.kill()


def test_nvme_without_fio_says_how_to_get_it(tmp_path: Path) -> None:
    run = subprocess.run(
        [BIN / "terrace", "bench", "nvme"],
        capture_output=True, text=True, timeout=60, env={"PATH": str(tmp_path)},
    )  # fmt: skip
    assert run.returncode == 1 and "scripts/setup --bench" in run.stderr


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
def test_nvme_gets_come_from_the_device_with_right_bytes(tmp_path: Path) -> None:
    run = bench("nvme", "--folder", str(tmp_path), "--mib", "256", "--rounds", "1", "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["wrong_bytes"] == 0 and found["refused"] == 0
    assert found["gets"] > 0 and found["missed"] + found["not_loaded"] <= found["gets"] / 100
    assert found["judged"] == (found["page_bytes"] == 2 << 20)
    assert found["write_amplification"] >= 1
    for name in ("get_1m_qd4_vs_fio", "get_64k_qd16_vs_fio", "demote_vs_fio",
                 "read_while_demoting_vs_alone", "payload_get_1m_vs_fio", "get_1m_qd4_vs_ring",
                 "get_64k_qd16_vs_ring", "demote_vs_ring"):  # fmt: skip
        least, most = found["spread"][name]
        assert 0 < least <= found[name] <= most
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_ends_without_leftovers_when_told(told: signal.Signals) -> None:
    before = leftovers()
    run = subprocess.Popen(
        [BIN / "terrace", "bench", "hit", "--entries", "200000"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert run.stderr is not None
    assert "putting" in run.stderr.readline()
    assert len(running(run.pid)) >= 3  # it, its run, the daemon
    run.send_signal(told)
    assert run.wait(30) == 128 + told
    assert leftovers() <= before
    until = time.monotonic() + 10
    while time.monotonic() < until and running(run.pid):
        time.sleep(0.02)
    assert running(run.pid) == []


def running(group: int) -> list[str]:
    """Names the processes of a group that are no zombies."""
    names = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, rest = (folder / "stat").read_text().rsplit(")", 1)
        except OSError:
            continue
        state, _, process_group = rest.split()[:3]
        if state != "Z" and int(process_group) == group:
            names.append(name)
    return names
