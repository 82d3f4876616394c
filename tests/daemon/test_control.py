"""The control plane as a client with none of our code sees it: pycapnp and the schema file."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
from typing import Any

import capnp
import pytest
from control_rpc import key, run

BIN = pathlib.Path(os.environ["TERRACE_BIN"])


def test_put_match_get_prefetch_without_our_library(daemon: Any) -> None:
    async def work(terrace: Any) -> None:
        opened = await terrace.open(clientName="foreign", layoutVersion=0)
        assert str(opened.status.code) == "ok"
        assert not opened.info.sharedMemory
        session = opened.session
        info = (await session.registerNamespace(spec={"label": "n", "model": "m"})).info
        data = {n: os.urandom(50_000 + n) for n in range(4)}
        chunks = [{"key": key(n), "data": bytes_} for n, bytes_ in data.items()]
        put = await session.put(namespaceId=info.id, chunks=chunks)
        assert [str(code) for code in put.codes] == ["ok"] * 4
        again = await session.put(namespaceId=info.id, chunks=chunks[:1])
        assert [str(code) for code in again.codes] == ["exists"]
        keys = [key(n) for n in range(6)]
        match = await session.match(namespaceId=info.id, keys=keys)
        assert match.prefix == 4
        got = await session.get(namespaceId=info.id, keys=keys)
        assert [str(code) for code in got.codes] == ["ok"] * 4 + ["notFound"] * 2
        assert all(bytes(got.data[n]) == data[n] for n in range(4))
        fetched = await session.prefetch(namespaceId=info.id, keys=keys)
        assert [str(code) for code in fetched.codes] == ["ok"] * 4 + ["notFound"] * 2
        removed = await session.remove(namespaceId=info.id, keys=keys[:1])
        assert [str(code) for code in removed.codes] == ["ok"]
        assert (await session.match(namespaceId=info.id, keys=keys)).prefix == 0

    run(daemon[0], work)


def test_differing_namespace_is_refused_by_field(daemon: Any) -> None:
    async def work(terrace: Any) -> None:
        session = (await terrace.open(clientName="a", layoutVersion=0)).session
        await session.registerNamespace(spec={"label": "n", "dtype": "f16"})
        refused = await session.registerNamespace(spec={"label": "n", "dtype": "bf16"})
        assert str(refused.status.code) == "invalid"
        assert "dtype" in refused.status.message

    run(daemon[0], work)


def test_epoch_bump_makes_everything_a_miss(daemon: Any) -> None:
    async def work(terrace: Any) -> None:
        session = (await terrace.open(clientName="a", layoutVersion=0)).session
        old = (await session.registerNamespace(spec={"label": "n"})).info
        await session.put(namespaceId=old.id, chunks=[{"key": key(1), "data": b"x" * 5000}])
        admin = (await terrace.admin()).admin
        new = (await admin.bumpEpoch(label="n")).info
        assert new.id != old.id
        for namespace, code in ((old.id, "stale"), (new.id, "notFound")):
            got = await session.get(namespaceId=namespace, keys=[key(1)])
            assert [str(c) for c in got.codes] == [code]

    run(daemon[0], work)


def test_oversized_message_names_the_limit(daemon: Any) -> None:
    async def work(terrace: Any) -> None:
        session = (await terrace.open(clientName="a", layoutVersion=0)).session
        info = (await session.registerNamespace(spec={"label": "n"})).info
        chunks = [{"key": key(n), "data": bytes(900_000)} for n in range(40)]
        with pytest.raises(capnp.KjException, match="32 MiB"):
            await session.put(namespaceId=info.id, chunks=chunks)

    run(daemon[0], work)


def test_second_instance_is_refused_and_sigterm_ends_cleanly(daemon: Any) -> None:
    socket, process = daemon
    second = subprocess.run(
        [BIN / "terraced", "--socket", socket, "--dram", "64MiB"], capture_output=True, text=True
    )
    assert second.returncode == 1
    assert f"pid {process.pid}" in second.stderr
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert not pathlib.Path(socket).exists()


def test_killed_daemons_socket_is_taken_over(daemon: Any) -> None:
    socket, process = daemon
    process.kill()
    process.wait()
    assert pathlib.Path(socket).exists()
    heir = subprocess.Popen(
        [BIN / "terraced", "--socket", socket, "--dram", "64MiB", "--segment", "2MiB"]
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                run(socket, lambda terrace: terrace.status())
                break
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        heir.terminate()
        assert heir.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dram", "banana"], '--dram: "banana" is not a size'),
        (["--dram", "900GiB"], "free"),
        (["--policy", "fifo"], "gittins"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_bad_flags_are_named(arguments: list[str], message: str, tmp_path: pathlib.Path) -> None:
    ended = subprocess.run(
        [BIN / "terraced", "--socket", str(tmp_path / "t.sock"), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert ended.returncode != 0
    assert message in ended.stderr
