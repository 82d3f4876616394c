"""The processes of a run: servers and clients.  None outlives it, and none is waited for without
a deadline.

Threads: the bench's main thread only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import selectors
import signal
import socket as sockets
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from bench.peers.peer import PORTS_MAX, ROOT, Contender, PeerError, Place

START_SECONDS = 45.0  # LMCache's server takes up to 17
END_SECONDS = 5.0
POLL_SECONDS = 0.05
REASON_CHARS = 160

# Two OpenMP threads on two busy cores are 15 times slower than one.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def free_ports(count: int) -> int:
    """Finds ``count`` neighbouring TCP ports that nothing listens on; gives the first."""
    for first in range(21000, 32000, 10):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(sockets.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise PeerError("no free TCP ports from 21000 to 32000")


def end_group(process: subprocess.Popen[Any]) -> None:
    """Ends a process and all that it started: politely first."""
    for wanted, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, wanted)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    # What it started may outlive it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def last_words(log: pathlib.Path) -> str:
    """Gives the last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-REASON_CHARS:] if lines else "it says nothing"


class ServerGroup:
    """A peer's servers; a context manager that ends them, the last first."""

    def __init__(self, folder: str) -> None:
        self._folder = pathlib.Path(folder)
        self._ends = contextlib.ExitStack()
        self._count = 0

    def start(
        self,
        words: Sequence[str],
        *,
        socket: str | None = None,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Starts one; see `bench.peers.peer.Servers`."""
        name = pathlib.Path(words[0]).name
        self._count += 1
        log = self._folder / f"server-{self._count}.log"
        if os.path.isfile(words[0]):
            os.chmod(words[0], os.stat(words[0]).st_mode | 0o100)  # some wheels forget
        with log.open("w") as output:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *words],
                env={**os.environ, **ENVIRONMENT, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )
        self._ends.callback(end_group, process)
        deadline = time.monotonic() + START_SECONDS
        while not _listens(socket, port):
            if process.poll() is not None:
                raise PeerError(f"{name} ended: {last_words(log)}")
            if time.monotonic() > deadline:
                raise PeerError(f"{name} served nobody within {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        return process.pid

    def __enter__(self) -> ServerGroup:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.close()


def _listens(socket: str | None, port: int | None) -> bool:
    family = sockets.AF_INET if socket is None else sockets.AF_UNIX
    with sockets.socket(family, sockets.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port) if socket is None else socket) == 0


class ClientProcess:
    """A client of one peer in a process of its own; a context manager that ends it."""

    def __init__(self, peer: type[Contender], number: int, place: Place) -> None:
        self._name = peer.name
        self._log = pathlib.Path(place.folder) / f"client-{number}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [peer.folder() / "bin" / "python", "-m", peer.client],
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        self._doing = ""

    def send(self, do: str, **command: Any) -> None:
        """Begins a command; `answer` ends it."""
        self._doing = do
        line = json.dumps({"do": do, **command}).encode() + b"\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def answer(self, seconds: float) -> dict[str, Any]:
        """Waits for what the command gave.

        Raises
        ------
        PeerError
            When the client failed, died, or gave no answer within ``seconds``.
        """
        output = self._process.stdout
        assert output is not None
        deadline = time.monotonic() + seconds
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise PeerError(f"no answer to {self._doing} within {seconds:.0f} s")
                piece = os.read(output.fileno(), 1 << 16)
                if not piece:
                    raise self._ended()
                line += piece
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise PeerError(f"{self._doing}: {answer['reason'][:REASON_CHARS]}")
        return answer

    def connect(self, number: int, cpu: int | None, place: Place) -> None:
        """Begins to connect; `answer` ends it."""
        self.send(
            "connect", peer=self._name, number=number, cpu=cpu, place=dataclasses.asdict(place)
        )

    def __enter__(self) -> ClientProcess:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The end of its input lets it say goodbye to its server.
        assert self._process.stdin is not None and self._process.stdout is not None
        if value is None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        end_group(self._process)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()

    def _ended(self) -> PeerError:
        self._process.wait(END_SECONDS)
        code = self._process.returncode
        return PeerError(
            f"the client's process ended ({code}) in {self._doing}: {last_words(self._log)}"
        )


def free_place(folder: str, memory_folder: str, chunk_bytes: int, working_set_bytes: int) -> Place:
    """Makes a place with free ports, and room for the puts of two clients beside the rest."""
    return Place(
        folder=folder,
        memory_folder=memory_folder,
        port=free_ports(PORTS_MAX),
        chunk_bytes=chunk_bytes,
        working_set_bytes=working_set_bytes,
        capacity_bytes=working_set_bytes * 5 // 4 + (512 << 20),
    )
