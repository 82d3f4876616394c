"""A private terraced for a test."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import time

BIN = pathlib.Path(os.environ["TERRACE_BIN"])


class Terraced:
    """Runs on a socket in ``folder``."""

    def __init__(
        self, folder: pathlib.Path, dram: str = "64MiB", segment: str = "2MiB", nvme: str = ""
    ) -> None:
        self.socket = str(folder / "t.sock")
        self.sizes = ["--dram", dram, "--segment", segment]
        if nvme:  # its size; the log lies beside the socket
            self.sizes += ["--nvme", f"{folder}/", "--nvme-bytes", nvme]
        self.start()

    def start(self) -> None:
        """Starts the process and waits until it answers on its socket."""
        self.process = subprocess.Popen([BIN / "terraced", "--socket", self.socket, *self.sizes])
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def _answers(self) -> bool:
        # The file is there a moment before anybody listens.
        with socket.socket(socket.AF_UNIX) as end:
            return end.connect_ex(self.socket) == 0

    def kill(self) -> None:
        """Ends the process as a crash would; its socket file stays."""
        self.process.kill()
        self.process.wait()
        pathlib.Path(self.socket).unlink(missing_ok=True)
