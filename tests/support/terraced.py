"""A private terraced for a test."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
from collections.abc import Sequence

BIN = pathlib.Path(os.environ["TERRACE_BIN"])


class Terraced:
    """Runs on a socket in ``folder``."""

    def __init__(
        self,
        folder: pathlib.Path,
        dram: str = "64MiB",
        segment: str = "2MiB",
        flags: Sequence[str] = (),
    ) -> None:
        self.socket = str(folder / "t.sock")
        self.sizes = ["--dram", dram, "--segment", segment, *flags]
        self.start()

    def start(self) -> None:
        """Starts the process and waits until its socket is there."""
        self.process = subprocess.Popen([BIN / "terraced", "--socket", self.socket, *self.sizes])
        deadline = time.monotonic() + 20
        while not pathlib.Path(self.socket).exists():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self) -> None:
        """Ends the process as a crash would; its socket file stays."""
        self.process.kill()
        self.process.wait()
        pathlib.Path(self.socket).unlink(missing_ok=True)
