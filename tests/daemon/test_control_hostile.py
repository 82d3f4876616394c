"""The control plane against peers that mean harm, or a machine that is short of descriptors."""

from __future__ import annotations

import array
import fcntl
import functools
import os
import pathlib
import resource
import socket as sockets
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from typing import Any

import capnp
import pytest
from control_rpc import SCHEMA, key, run

BIN = pathlib.Path(os.environ["TERRACE_BIN"])
RPC = capnp.load("/usr/include/capnp/rpc.capnp", imports=["/usr/include"])


def await_that(what: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it came true within the time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def descriptors(process: subprocess.Popen[bytes]) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


class RawClient:
    """A peer that speaks the RPC protocol by hand: it may send without reading."""

    def __init__(self, socket: str) -> None:
        self.socket = sockets.socket(sockets.AF_UNIX)
        self.socket.connect(socket)
        self.questions = 0
        message = RPC.Message.new_message()
        message.init("bootstrap").questionId = 0
        self.send(message.to_bytes())

    def send(self, message: bytes) -> None:
        self.socket.sendall(message)

    def call(self, target: int, interface: Any, method: str, params: dict[str, Any]) -> int:
        """Calls what question ``target`` answers with; its number as a question."""
        self.questions += 1
        message = RPC.Message.new_message()
        call = message.init("call")
        call.questionId = self.questions
        answer = call.target.init("promisedAnswer")
        answer.questionId = target
        if target != 0:  # open's results: the session is their second pointer
            answer.init("transform", 1)[0].getPointerField = 1
        call.interfaceId = interface.schema.node.id
        call.methodId = list(interface.schema.methods).index(method)
        content = call.params.content.as_struct(interface.schema.methods[method].param_type)
        content.from_dict(params)
        self.send(message.to_bytes())
        return self.questions

    def unsent(self) -> int:
        """Bytes that the daemon has not taken."""
        left = array.array("i", [0])
        fcntl.ioctl(self.socket, termios.TIOCOUTQ, left)
        return left[0]


def test_daemon_short_of_descriptors_serves_again_when_it_has_some(tmp_path: pathlib.Path) -> None:
    socket, log = str(tmp_path / "t.sock"), tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [BIN / "terraced", "--socket", socket, "--dram", "64MiB", "--segment", "2MiB"],
            stderr=errors,
        )
    try:
        assert await_that(pathlib.Path(socket).exists)
        run(socket, lambda terrace: terrace.status())
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1, before[1]))
        with sockets.socket(sockets.AF_UNIX) as peer:
            peer.connect(socket)
            # The second refusal is of the try that finds the peer waiting at once.
            assert await_that(lambda: log.read_text().count("a connection is refused") >= 2)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            run(socket, lambda terrace: terrace.status())
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_descriptors_in_unfinished_messages_are_not_kept(daemon: Any) -> None:
    socket, process = daemon
    run(socket, lambda terrace: terrace.status())
    before = descriptors(process)
    with open("/dev/null", "rb") as null:
        sent = array.array("i", [null.fileno()] * 128)
        peers = []
        for _ in range(8):
            peer = RawClient(socket)
            peer.socket.sendmsg(
                [struct.pack("<II", 0, 1000)], [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, sent)]
            )
            peers.append(peer)
        assert await_that(lambda: all(peer.unsent() == 0 for peer in peers))
    # A connection, its peer's pidfd, and the one descriptor that kj takes.
    assert descriptors(process) <= before + 8 * 4
    for peer in peers:
        peer.socket.close()
    assert await_that(lambda: descriptors(process) <= before)


def test_answers_that_are_not_read_are_bounded(daemon: Any) -> None:
    socket, process = daemon
    namespace = 0
    keys = [key(n) for n in range(16)]

    def resident() -> int:
        lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024

    def exceeds(amount: int) -> bool:
        return resident() > amount

    async def fill(terrace: Any) -> None:
        nonlocal namespace
        session = (await terrace.open(clientName="a", layoutVersion=0)).session
        namespace = (await session.registerNamespace(spec={"label": "n"})).info.id
        chunks = [{"key": key(n), "data": bytes(1_000_000)} for n in range(16)]
        put = await session.put(namespaceId=namespace, chunks=chunks)
        assert [str(code) for code in put.codes] == ["ok"] * 16
        await session.get(namespaceId=namespace, keys=keys)

    run(socket, fill)
    peer = RawClient(socket)
    opened = peer.call(0, SCHEMA.Terrace, "open", {"layoutVersion": 0})
    start = resident()
    for _ in range(12):
        one_more = functools.partial(exceeds, resident() + 12_000_000)
        peer.call(opened, SCHEMA.Session, "get", {"namespaceId": namespace, "keys": keys})
        await_that(one_more, seconds=0.3)
    assert resident() < start + 110_000_000
    peer.socket.close()
    run(socket, lambda terrace: terrace.status())


def test_peer_that_reads_nothing_and_goes_on_calling_is_cut_off(daemon: Any) -> None:
    socket, _ = daemon
    peer = RawClient(socket)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(100_000):
            peer.call(0, SCHEMA.Terrace, "status", {})
    run(socket, lambda terrace: terrace.status())
