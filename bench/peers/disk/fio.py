"""fio, the yardstick: io_uring, O_DIRECT, registered buffers, on a file written before."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess

from bench.peers.disk.peer import batch_of, write_zeros
from bench.peers.peer import PeerError

SECONDS = 60


class Fio:
    """Runs jobs on a file of its own."""

    def __init__(self, folder: str, chunk_bytes: int, file_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._file = pathlib.Path(folder) / "fio.data"
        self._file_bytes = file_bytes
        self._written = 0
        write_zeros(str(self._file), file_bytes)
        # 2 MiB pages where there are any, as on the other sides.
        self._memory = "shmhuge"
        try:
            self.read(1)
        except PeerError:
            self._memory = "malloc"

    @staticmethod
    def missing() -> str | None:
        """Says how to get it, where it is not there."""
        if shutil.which("fio") is None:
            return "fio is not installed, and it is the yardstick: scripts/setup --bench"
        return None

    def read(self, count: int) -> float:
        """Reads that many chunks at random; bytes a second."""
        return self._run("randread", count, 0, self._file_bytes)

    def write(self, count: int) -> float:
        """Writes that many chunks in a row, and syncs; bytes a second."""
        span = count * self._chunk_bytes
        offset, self._written = self._written, (self._written + span) % self._file_bytes
        return self._run("write", count, offset, span)

    def _run(self, pattern: str, count: int, offset: int, size: int) -> float:
        done = subprocess.run(
            [
                *("fio", "--name=bench", f"--filename={self._file}", f"--rw={pattern}"),
                *(f"--bs={self._chunk_bytes}", f"--iodepth={batch_of(self._chunk_bytes)}"),
                *(f"--offset={offset}", f"--size={size}"),
                *(f"--io_size={count * self._chunk_bytes}", "--ioengine=io_uring", "--direct=1"),
                *("--fixedbufs=1", "--registerfiles=1", "--thread=1", "--norandommap=1"),
                *(f"--iomem={self._memory}", "--randrepeat=0", "--end_fsync=1"),
                "--output-format=json",
            ],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise PeerError(f"fio: {(done.stderr or done.stdout).strip().splitlines()[0]}")
        side = "write" if pattern == "write" else "read"
        rate: int = json.loads(done.stdout)["jobs"][0][side]["bw_bytes"]
        return float(rate)
