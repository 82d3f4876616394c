"""The Python package against a real daemon."""

from __future__ import annotations

import gc
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
import pytest
import terrace_kv
from terraced import Terraced


def random_chunks(count: int, size: int) -> list[tuple[bytes, bytes]]:
    return [(f"key {n}".encode(), os.urandom(size + n)) for n in range(count)]


def wait_until(condition: Any, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stop(daemon: Any) -> None:
    """Stops the daemon; none of its threads runs any more."""
    daemon.process.send_signal(signal.SIGSTOP)
    tasks = pathlib.Path(f"/proc/{daemon.process.pid}/task")

    def stopped() -> bool:
        words = [(task / "stat").read_text().rpartition(")")[2].split() for task in tasks.iterdir()]
        return all(word[0] == "T" for word in words)

    wait_until(stopped)


def test_put_match_get_are_the_same_bytes(daemon: Any) -> None:
    with terrace_kv.Client(daemon.socket) as client:
        ns = client.namespace("n", model="m", tokens_per_chunk=64)
        items = random_chunks(40, 50_000)
        assert ns.put(items) == ["ok"] * 40
        assert ns.put(items[:2]) == ["exists"] * 2
        keys = [key for key, _ in items]
        assert ns.match([*keys, b"absent"]) == 40
        assert ns.states([keys[0], b"absent"]) == ["ready", "absent"]
        for pin, (_, payload) in zip(ns.get(keys, verify=True), items, strict=True):
            assert pin is not None and bytes(pin) == payload
        assert ns.get([b"absent"]) == [None]
        assert ns.prefetch([keys[0], b"absent"]) == ["ok", "not found"]
        assert ns.lease([keys[0]], 60.0) == ["ok"]
        assert ns.remove([keys[1]]) == ["ok"]
        assert ns.match(keys) == 1


def test_leases_take_half_of_the_pool_and_then_are_busy(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket)
    ns = client.namespace("n")
    payload = bytes(client.chunk_bytes_max)  # with its header 1 MiB of the pool's 64
    keys = [f"{n}".encode() for n in range(34)]
    assert ns.put([(key, payload) for key in keys]) == ["ok"] * 34
    assert ns.lease(keys, 60.0) == ["ok"] * 32 + ["busy"] * 2
    assert ns.lease([keys[0]], 120.0) == ["ok"]  # takes nothing more
    assert ns.remove([keys[1]]) == ["ok"]
    assert ns.lease([*keys[32:], b"absent"], 60.0) == ["ok", "busy", "not found"]


def test_another_client_reads_what_one_put(daemon: Any) -> None:
    first, second = terrace_kv.Client(daemon.socket), terrace_kv.Client(daemon.socket)
    assert first.namespace("n").put([(b"k", b"payload" * 1000)]) == ["ok"]
    pin = second.namespace("n").get([b"k"])[0]
    assert pin is not None and bytes(pin) == b"payload" * 1000


def test_long_keys_and_parts_are_told_apart(daemon: Any) -> None:
    ns = terrace_kv.Client(daemon.socket).namespace("n", ranks=2)
    long_key = b"x" * 100
    assert ns.put([(long_key, b"a")]) == ["ok"]
    assert ns.put([(long_key, b"b")], part=1) == ["ok"]
    assert [bytes(ns.get([long_key], part=part)[0] or b"") for part in (0, 1)] == [b"a", b"b"]
    assert ns.get([b"x" * 99]) == [None]


def test_arrays_share_the_pins_memory_and_hold_it(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket)
    ns = client.namespace("n")
    payload = np.arange(50_000, dtype=np.float32)
    assert ns.put([(b"k", payload)]) == ["ok"]
    pin = ns.get([b"k"])[0]
    assert pin is not None
    array = np.frombuffer(memoryview(pin), dtype=np.float32)
    again = np.frombuffer(memoryview(pin), dtype=np.float32)
    assert array.ctypes.data == again.ctypes.data
    assert not array.flags.writeable
    with pytest.raises(BufferError):
        pin.release()
    del pin, again, ns
    client.close()
    gc.collect()
    assert np.array_equal(array, payload)


def test_released_pin_has_no_bytes(daemon: Any) -> None:
    ns = terrace_kv.Client(daemon.socket).namespace("n")
    ns.put([(b"k", b"payload")])
    pin = ns.get([b"k"])[0]
    assert pin is not None
    with pin:
        assert memoryview(pin).readonly
    with pytest.raises(BufferError):
        memoryview(pin)


def test_wrong_use_is_an_error(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket)
    client.namespace("n", dtype="f16")
    with pytest.raises(ValueError, match="dtype"):
        client.namespace("n", dtype="bf16")
    ns = client.namespace("n", dtype="f16")
    with pytest.raises(ValueError):
        ns.match([b""])
    with pytest.raises(TypeError):
        ns.match(["text"])  # type: ignore[list-item]
    with pytest.raises(ValueError):
        ns.get([b"k"], timeout=-1)
    with pytest.raises(TypeError, match="key"):
        ns.put([("text", b"v")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="tuple"):
        ns.put([[b"k", b"v"]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="tuple"):
        ns.put([(b"k",)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="contiguous"):
        ns.put([(b"k", np.arange(10)[::2])])
    with pytest.raises(BufferError, match="contiguous"):
        ns.put([(b"k", memoryview(bytes(10))[::2])])
    with pytest.raises(ValueError, match="tokens_per_chunk = -1"):
        client.namespace("other", tokens_per_chunk=-1)
    with pytest.raises(TypeError, match="ranks = '2'"):
        client.namespace("other", ranks="2")  # type: ignore[arg-type]
    assert ns.put([(b"k", b"")]) == ["invalid"]
    assert ns.put([(b"k", bytes(2 << 20))]) == ["invalid"]


ARRAY = np.arange(10)
WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("key", lambda ns: ns.match(["text"]), TypeError, "keys[0] = 'text': use bytes of"),
    ("later key", lambda ns: ns.get([b"k", 5]), TypeError, "keys[1] = 5: use bytes of"),
    ("empty key", lambda ns: ns.states([b""]), ValueError, "keys[0] = b'': use bytes of length 1"),
    ("long key", lambda ns: ns.remove(["é" * 99]), TypeError, "...: use bytes of"),
    ("no list", lambda ns: ns.get(b"k"), TypeError, "keys = b'k': use a sequence of bytes"),
    ("no keys", lambda ns: ns.lease(5, 1.0), TypeError, "keys = 5: use a sequence of bytes"),
    ("part", lambda ns: ns.match([], part=-1), ValueError, "part = -1: use an int from 0 to 65535"),
    ("part", lambda ns: ns.put([], part="a"), TypeError, "part = 'a': use an int from 0 to 65535"),
    ("timeout", lambda ns: ns.get([b"k"], timeout=-1), ValueError, "timeout = -1: use a number of"),
    ("nan", lambda ns: ns.put([], timeout=float("nan")), ValueError, "timeout = nan: use a number"),
    ("type", lambda ns: ns.prefetch([], timeout="1"), TypeError, "timeout = '1': use a number of"),
    ("ttl", lambda ns: ns.lease([b"k"], -0.5), ValueError, "ttl = -0.5: use a number of seconds"),
    ("flag", lambda ns: ns.get([], verify="no"), TypeError, "verify = 'no': use True or False"),
    ("item", lambda ns: ns.put([b"k"]), TypeError, "items[0] = b'k': use a tuple (key, buffer)"),
    ("items", lambda ns: ns.put("k"), TypeError, "items = 'k': use a sequence of tuples"),
    ("put key", lambda ns: ns.put([("k", b"v")]), TypeError, "key of items[0] = 'k': use bytes"),
    ("buffer", lambda ns: ns.put([(b"k", 5)]), TypeError, "buffer of items[0]: a bytes-like"),
    ("sliced", lambda ns: ns.put([(b"k", ARRAY[::2])]), ValueError, "buffer of items[0]: ndarray"),
    ("dtype", lambda ns: ns.put([(b"a", b"v"), (b"k", ARRAY.astype(object))]), TypeError,
     "buffer of items[1]: an array of dtype object has no bytes of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), [wrong[1:] for wrong in WRONG])
def test_a_wrong_argument_is_named_with_what_is_right(
    daemon: Any, call: Any, error: type[Exception], message: str
) -> None:
    ns = terrace_kv.Client(daemon.socket).namespace("n")
    with pytest.raises(error, match=re.escape(message)):
        call(ns)
    assert ns.states([b"a", b"k"]) == ["absent", "absent"]


def test_a_wrong_argument_of_a_client_is_named(daemon: Any) -> None:
    with pytest.raises(TypeError, match="socket = 5: use a str"):
        terrace_kv.Client(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout = -1: use a number of seconds, 0 or more"):
        terrace_kv.Client(daemon.socket, timeout=-1)
    client = terrace_kv.Client(daemon.socket)
    with pytest.raises(TypeError, match=r"name = b'n': use a str"):
        client.namespace(b"n")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"dtype = dtype\('float32'\): use a str"):
        client.namespace("n", dtype=np.dtype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layer_bytes = 'ab': use a sequence of ints"):
        client.namespace("n", layer_bytes="ab")  # type: ignore[arg-type]


def test_any_iterable_names_keys_and_items(daemon: Any) -> None:
    ns = terrace_kv.Client(daemon.socket).namespace("n")
    assert ns.put((key, b"v") for key in (b"a", b"b")) == ["ok"] * 2  # type: ignore[arg-type]
    assert ns.states({b"a": 0, b"b": 1}.keys()) == ["ready"] * 2  # type: ignore[arg-type]


def test_waiting_call_releases_the_interpreter(daemon: Any) -> None:
    ns = terrace_kv.Client(daemon.socket).namespace("n")
    ticks = 0
    ended = threading.Event()

    def count() -> None:
        nonlocal ticks
        while not ended.wait(0.001):
            ticks += 1

    daemon.process.send_signal(signal.SIGSTOP)  # its answer never comes: the call waits
    counting = threading.Thread(target=count)
    counting.start()
    try:
        before = ticks
        assert ns.put([(b"k", b"payload")], timeout=0.5) == ["deadline"]
        assert ticks - before > 10
    finally:
        ended.set()
        counting.join()
        daemon.process.send_signal(signal.SIGCONT)


def test_close_is_safe_while_other_threads_wait(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket)
    ends: list[type[BaseException]] = []

    def ask(call: Any) -> None:
        try:
            call()
        except (terrace_kv.Unavailable, ValueError) as error:
            ends.append(type(error))

    daemon.process.send_signal(signal.SIGSTOP)
    asking = [
        threading.Thread(target=ask, args=(call,))
        for call in (client.status, lambda: client.namespace("n"))
    ]
    try:
        for thread in asking:
            thread.start()
        time.sleep(0.1)
        client.close()
        for thread in asking:
            thread.join(timeout=10)
            assert not thread.is_alive()
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert len(ends) == 2
    with pytest.raises(ValueError, match="closed"):
        client.status()


def test_daemon_away_is_a_miss_and_it_comes_back(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket)
    ns = client.namespace("n")
    ns.put([(b"k", b"payload")])
    pin = ns.get([b"k"])[0]
    daemon.kill()
    wait_until(lambda: not client.available)
    began = time.monotonic()
    assert ns.get([b"k"]) == [None]
    assert ns.put([(b"k", b"payload")]) == ["unavailable"]
    assert ns.match([b"k"]) == 0
    assert time.monotonic() - began < 1.0
    with pytest.raises(terrace_kv.Unavailable):
        client.status()
    assert pin is not None and bytes(pin) == b"payload"  # mapped reads still work
    daemon.start()
    wait_until(lambda: ns.put([(b"k", b"new")]) == ["ok"])
    got = ns.get([b"k"])[0]
    assert got is not None and bytes(got) == b"new"
    assert bytes(pin) == b"payload"


def test_forked_child_connects_anew(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket)
    ns = client.namespace("n")
    ns.put([(b"k", b"payload")])
    child = os.fork()
    if child == 0:
        try:
            pin = ns.get([b"k"], timeout=10)[0]
            fresh = ns.put([(b"from the child", b"c")], timeout=10)
            os._exit(0 if pin is not None and bytes(pin) == b"payload" and fresh == ["ok"] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    pin = ns.get([b"from the child"])[0]
    assert pin is not None and bytes(pin) == b"c"


def test_a_call_in_a_forked_child_releases_the_interpreter(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket, timeout=0.5)
    assert client.available
    stop(daemon)  # the child's connecting takes its timeout
    try:
        child = os.fork()
        if child == 0:
            try:
                ticks: list[float] = []
                ended = threading.Event()

                def count() -> None:
                    while not ended.wait(0.001):
                        ticks.append(0.0)

                counting = threading.Thread(target=count)
                counting.start()
                before = len(ticks)
                there = client.available
                during = len(ticks) - before
                ended.set()
                counting.join()
                os._exit(0 if not there and during > 10 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        daemon.process.send_signal(signal.SIGCONT)


def test_zero_timeout_connects_behind(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket, timeout=0)
    wait_until(lambda: client.available)
    assert client.namespace("n").put([(b"k", b"payload")]) == ["ok"]


def test_a_registration_that_fails_says_why(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket)
    stop(daemon)
    try:
        with pytest.raises(terrace_kv.Unavailable, match="did not answer in time") as late:
            client.namespace("n")
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert late.value.status == "deadline"
    daemon.kill()
    wait_until(lambda: not client.available)
    with pytest.raises(terrace_kv.Unavailable, match=daemon.socket) as away:
        client.namespace("n")
    assert away.value.status == "unavailable"


REFUSED = """
import os, sys
import terrace_kv
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
client = terrace_kv.Client(sys.argv[1])
for call in (client.status, lambda: client.namespace("n")):
    try:
        call()
    except terrace_kv.Unavailable as error:
        print(error.status, error, sep="|")
"""


def test_a_socket_that_does_not_admit_us_is_denied(daemon: Any) -> None:
    pathlib.Path(daemon.socket).chmod(0)
    ended = subprocess.run(
        [sys.executable, "-c", REFUSED, daemon.socket], capture_output=True, text=True, timeout=30
    )
    lines = ended.stdout.splitlines()
    assert len(lines) == 2, ended.stderr
    for line in lines:
        assert line.startswith("denied|denied: ") and "socket_mode = 0o666" in line
        assert daemon.socket in line and "Permission denied" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_uid_of_no_tenant_is_denied_by_name() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o711)
        daemon = Terraced(pathlib.Path(folder))
        try:
            pathlib.Path(daemon.socket).chmod(0o666)
            ended = subprocess.run(
                [sys.executable, "-c", REFUSED, daemon.socket],
                capture_output=True, text=True, timeout=30,
            )  # fmt: skip
        finally:
            daemon.kill()
    (line, again) = ended.stdout.splitlines()
    assert line == again and line.startswith("denied|denied: ")
    assert "uid 65534 belongs to no tenant" in line


def test_a_full_session_table_is_busy(daemon: Any) -> None:
    clients: list[terrace_kv.Client] = []
    while len(clients) < 300:
        clients.append(terrace_kv.Client(daemon.socket))
        if not clients[-1].available:
            break
    with pytest.raises(terrace_kv.Unavailable, match=r"all .* sessions of tenant") as refused:
        clients[-1].namespace("n")
    assert refused.value.status == "busy"


def test_the_largest_chunk_is_told(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket)
    largest = client.chunk_bytes_max
    assert largest == client.status()["tenants"][0]["chunk_bytes_max"]
    ends = client.namespace("n").put([(b"a", bytes(largest)), (b"b", bytes(largest + 1))])
    assert ends == ["ok", "invalid"]
    assert terrace_kv.Client("/none.sock", timeout=0).chunk_bytes_max == 0


BESIDE = """
import sys
for name in sys.argv[2:]:
    __import__(name)
import terrace_kv
client = terrace_kv.Client(sys.argv[1])
ns = client.namespace("n")
assert ns.put([(name.encode(), b"payload") for name in sys.argv[2:]]) == ["ok", "ok"]
assert client.status()["pid"]
client.close()
"""


@pytest.mark.parametrize("modules", [["capnp", "terrace_kv"], ["terrace_kv", "capnp"]])
def test_it_lives_beside_another_capnp(daemon: Any, modules: list[str]) -> None:
    pytest.importorskip("capnp")
    ended = subprocess.run(
        [sys.executable, "-c", BESIDE, daemon.socket, *modules], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_status_names_the_session(daemon: Any) -> None:
    client = terrace_kv.Client(daemon.socket, name="my engine")
    assert "my engine" in [session["name"] for session in client.status()["sessions"]]


def test_what_left_memory_is_on_nvme_until_a_get_brings_it_back(tmp_path: pathlib.Path) -> None:
    daemon = Terraced(tmp_path, dram="16MiB", nvme="256MiB")
    try:
        ns = terrace_kv.Client(daemon.socket).namespace("n")
        chunks = random_chunks(60, 900_000)
        keys = [key for key, _ in chunks]

        def written() -> bool:
            (tenant,) = ns._client.status()["tenants"]
            (tier,) = [tier for tier in tenant["tiers"] if tier["tier"] == "nvme"]
            return bool(tier["demote_queue"] + tier["demoting"] == 0)

        for at in range(0, len(chunks), 6):  # not faster than the device
            ns.put(chunks[at : at + 6])
            wait_until(written)
        assert ns.match(keys) == len(keys)
        states = ns.states(keys)
        out = states.index("nvme")
        with_bytes = ns.get([keys[out]], timeout=10.0)[0]
        assert with_bytes is not None and bytes(with_bytes) == chunks[out][1]
        assert ns.states([keys[out]]) == ["ready"]
    finally:
        daemon.kill()
