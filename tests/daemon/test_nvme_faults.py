"""What becomes of the service when the NVMe tier's file system or file is taken from it.

A file system that is full, read-only, failing or away, and a log that is truncated, removed,
replaced or overwritten under the daemon: gets and puts go on from memory with right bytes, nothing
hangs, and status names the fault.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import terrace_kv
from small_file_system import SmallFileSystem, mount_namespace
from terraced import Terraced

CHUNK_BYTES = 900_000
LOG_MIB = 128
NO_MOUNTS = mount_namespace() if os.geteuid() == 0 else "only root mounts file systems"
ON_NVME = range(30)  # stored before the fault: more than memory holds


def chunk(number: int) -> tuple[bytes, bytes]:
    """Makes key and bytes of a number."""
    seed = hashlib.sha256(number.to_bytes(8, "little")).digest()
    return seed, (seed * (CHUNK_BYTES // len(seed) + 1))[:CHUNK_BYTES]


class Service:
    """A daemon of 16 MiB of memory with its log in ``folder``, and a client of it."""

    def __init__(self, socket_folder: Path, folder: Path) -> None:
        flags = ["--nvme", f"{folder}/", "--nvme-bytes", f"{LOG_MIB}MiB"]
        self.daemon = Terraced(socket_folder, dram="16MiB", segment="2MiB", flags=flags)
        self.log = folder / "terrace-default.log"
        self.connect()

    def connect(self) -> None:
        """Makes a client of the daemon that runs now."""
        self.client = terrace_kv.Client(self.daemon.socket)
        self.ns = self.client.namespace("n")

    def restart(self) -> None:
        """Ends the daemon as it is told to, and starts another."""
        self.end()
        self.daemon.start()
        self.connect()

    def end(self) -> None:
        """Tells the daemon to end; it must, though its device fails."""
        self.daemon.process.send_signal(signal.SIGTERM)
        assert self.daemon.process.wait(30) == 0

    def put(self, numbers: range, durable: bool = False) -> set[str]:
        """Puts chunks one by one, not faster than a device; answers how they ended."""
        began = time.monotonic()
        ends = {self.ns.put([chunk(n)], durable=durable, timeout=5.0)[0] for n in numbers}
        assert time.monotonic() - began < 20
        return ends

    def hits(self, numbers: range) -> int:
        """Gets chunks, every byte compared; answers how many came."""
        came = 0
        began = time.monotonic()
        for number in numbers:
            key, expected = chunk(number)
            (pin,) = self.ns.get([key], timeout=5.0)
            came += pin is not None
            assert pin is None or bytes(pin) == expected, f"wrong bytes of chunk {number}"
        assert time.monotonic() - began < 20
        return came

    def serves_from_memory(self, first: int) -> None:
        """Puts new chunks and gets each at once, as an engine whose disk is gone."""
        for number in range(first, first + 24):
            assert self.put(range(number, number + 1)) <= {"ok", "exists"}
            assert self.hits(range(number, number + 1)) == 1

    def tier(self) -> dict[str, Any]:
        """Answers the NVMe tier's status."""
        (tenant,) = self.client.status()["tenants"]
        (tier,) = [tier for tier in tenant["tiers"] if tier["tier"] == "nvme"]
        found: dict[str, Any] = tier
        return found

    def await_warning(self, words: str) -> str:
        """Waits until status warns so."""

        def look() -> str:
            return next((w for w in self.client.status()["warnings"] if words in w), "")

        found: str = until(look)
        return found

    def await_no_warning(self, words: str) -> None:
        """Waits until status does not warn so any more."""
        until(lambda: all(words not in w for w in self.client.status()["warnings"]))


def until(look: Callable[[], Any]) -> Any:
    """Looks until it finds something; 20 s at most."""
    deadline = time.monotonic() + 20
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], Service]]:
    """Starts a service on a folder, with ON_NVME stored there and partly nowhere else."""
    running: list[Service] = []

    def begin(folder: Path) -> Service:
        service = Service(tmp_path, folder)
        running.append(service)
        assert service.put(ON_NVME, durable=True) == {"ok"}
        assert service.tier()["chunks"] == len(ON_NVME)
        return service

    yield begin
    for service in running:
        service.daemon.kill()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """Makes a folder on the file system of all tests."""
    folder = tmp_path / "log"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str, int], SmallFileSystem]]:
    """Mounts a small file system, or skips with why there is none."""
    made: list[SmallFileSystem] = []

    def mount(kind: str, mib: int) -> SmallFileSystem:
        if NO_MOUNTS:
            pytest.skip(NO_MOUNTS)
        system = SmallFileSystem(tmp_path, kind, mib)
        made.append(system)
        if system.why_not:
            pytest.skip(system.why_not)
        return system

    yield mount
    for system in made:
        system.remove()


def test_full_before_the_start(mounted: Callable[..., Any], tmp_path: Path) -> None:
    system = mounted("tmpfs", 64)  # less than what stays free
    service = Service(tmp_path, system.path)
    try:
        assert "is off" in service.await_warning("NVMe tier") and service.tier()["why_off"]
        service.serves_from_memory(1000)
        assert service.put(range(1), durable=True) == {"unavailable"}
    finally:
        service.daemon.kill()


def test_full_while_running_with_its_room_taken(
    mounted: Callable[..., Any], start: Callable[[Path], Service]
) -> None:
    system = mounted("ext4", 512)
    service = start(system.path)
    system.fill()
    # The log has its room; the catalog keeps off what is left, and says so.
    assert service.put(range(100, 160), durable=True) == {"ok"}
    assert service.hits(ON_NVME) + service.hits(range(100, 160)) > len(ON_NVME)
    assert service.tier()["write_error"] == ""
    service.ns.remove([chunk(n)[0] for n in ON_NVME])  # an event each
    assert "are free" in service.await_warning("catalog")
    system.make_room()
    service.serves_from_memory(1000)


def test_full_while_running_without_preallocation(
    mounted: Callable[..., Any], start: Callable[[Path], Service]
) -> None:
    system = mounted("ext2", 512)
    service = start(system.path)
    assert "cannot preallocate" in service.tier()["device"]
    system.fill()
    service.serves_from_memory(1000)
    assert "No space left" in service.await_warning("pauses its writes")
    assert service.hits(ON_NVME) == len(ON_NVME)  # a disk that can't be written still serves
    system.make_room()
    # Without a restart: a write is tried again after a while.
    until(lambda: service.put(range(2000, 2001), durable=True) <= {"ok", "exists"})
    service.await_no_warning("pauses its writes")


def test_becomes_read_only_while_running(
    mounted: Callable[..., Any], start: Callable[[Path], Service]
) -> None:
    system = mounted("ext4", 512)
    service = start(system.path)
    system.fail()
    service.serves_from_memory(1000)
    assert "Read-only file system" in service.await_warning("pauses its writes")
    assert service.hits(ON_NVME) == len(ON_NVME)
    service.end()


def test_read_only_at_the_start(
    mounted: Callable[..., Any], start: Callable[[Path], Service]
) -> None:
    system = mounted("ext4", 512)
    service = start(system.path)
    service.end()
    system.unmount()
    until(lambda: system.mount("ro") == "")
    service.daemon.start()
    service.connect()
    assert service.await_warning("is read-only")
    assert service.hits(ON_NVME) == len(ON_NVME)
    service.serves_from_memory(1000)
    assert service.put(range(2000, 2001), durable=True) == {"denied"}
    # Mended: it is used again after a restart.
    service.end()
    system.unmount()
    until(lambda: system.mount("rw") == "")  # the kernel lets go of a ring's files a while later
    service.daemon.start()
    service.connect()
    assert service.put(range(2001, 2002), durable=True) == {"ok"}


def test_yanked(mounted: Callable[..., Any], start: Callable[[Path], Service]) -> None:
    system = mounted("ext4", 512)
    service = start(system.path)
    system.yank()
    service.serves_from_memory(1000)
    assert service.await_warning("pauses its writes")
    assert service.hits(ON_NVME) < len(ON_NVME)
    assert service.await_warning("pauses its reads")
    # Its system away as well: the daemon ends, starts, and says what is not there.
    service.end()
    system.unmount()
    system.path.rmdir()
    service.daemon.start()
    service.connect()
    assert "is off" in service.await_warning("NVMe tier")
    service.serves_from_memory(2000)


def truncate(log: Path) -> None:
    os.truncate(log, 8 << 20)


def remove(log: Path) -> None:
    log.unlink()


def replace(log: Path) -> None:
    other = log.with_name("other")
    other.write_bytes(b"other data" * 1000)
    other.chmod(0o600)
    other.replace(log)


@pytest.mark.parametrize(
    ("harm", "named"),
    [(truncate, "shrank to"), (remove, "was removed"), (replace, "was removed")],
)
def test_file_taken_away(
    own: Path, start: Callable[[Path], Service], harm: Callable[[Path], None], named: str
) -> None:
    service = start(own)
    harm(service.log)
    assert named in service.await_warning("has lost its file")
    came = service.hits(ON_NVME)
    assert came == len(ON_NVME) if harm is not truncate else came < len(ON_NVME)
    service.serves_from_memory(1000)
    assert service.hits(ON_NVME) <= len(ON_NVME)
    service.end()
    if harm is replace:
        service.log.unlink()  # others' data is refused: test_terraced.py
    service.daemon.start()
    service.connect()
    if harm is not truncate:
        assert service.hits(ON_NVME) == 0
    assert service.put(range(3000, 3010), durable=True) == {"ok"}
    assert not service.tier()["warnings"]


def test_overwritten_in_place(own: Path, start: Callable[[Path], Service]) -> None:
    service = start(own)
    in_memory = service.ns.states([chunk(n)[0] for n in ON_NVME]).count("ready")
    with service.log.open("r+b") as log:
        log.write(bytes(service.log.stat().st_size))
    assert service.hits(ON_NVME) <= in_memory + 2
    assert service.tier()["corrupt"] > 0
    # What was in memory is found damaged when it is read the next time.
    until(lambda: service.put(ON_NVME, durable=True) and service.hits(ON_NVME) == len(ON_NVME))
