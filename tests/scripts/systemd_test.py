"""The unit file as systemd reads it; skipped where there is no systemd-analyze."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "terraced.service"
# systemd's own scale: 10 is unconfined, below 2 "safe".
EXPOSURE_MAX = 1.0


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs systemd-analyze on the unit, the daemon's path replaced by one that exists."""
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / UNIT.name
        unit.write_text(UNIT.read_text().replace("/usr/bin/terraced", "/bin/true"))
        return subprocess.run(
            ["systemd-analyze", "--no-pager", *arguments, unit],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def setting(name: str) -> str:
    """The unit's value of ``name``, empty where it has none."""
    found = re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return found.group(1) if found else ""


class Paths(unittest.TestCase):
    """What the daemon writes is writable under ProtectSystem=strict."""

    def test_the_example_s_nvme_folder_is_the_unit_s_own(self) -> None:
        example = UNIT.parents[1] / "daemon" / "app" / "terraced.example.toml"
        nvme = re.search(r'^#nvme = \["/var/lib/(.*)/"\]$', example.read_text(), re.MULTILINE)
        assert nvme is not None
        self.assertEqual(setting("StateDirectory"), nvme.group(1))
        # Whoever else could write in the folder would make the daemon refuse it.
        self.assertEqual(setting("StateDirectoryMode"), "0700")

    def test_times_fit_the_daemon_s_own(self) -> None:
        self.assertGreater(int(setting("TimeoutStartSec").removesuffix("s")), 60)
        self.assertGreater(int(setting("TimeoutStopSec").removesuffix("s")), 10 + 2)


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here")
class Unit(unittest.TestCase):
    def test_systemd_finds_nothing_wrong(self) -> None:
        answer = analyze("verify")
        self.assertEqual((answer.returncode, answer.stdout), (0, ""))

    def test_the_service_is_confined(self) -> None:
        answer = analyze("security", "--offline=yes")
        level = re.search(r"Overall exposure level for \S+ ([0-9.]+)", answer.stdout)
        assert level is not None, answer.stdout
        self.assertLessEqual(float(level.group(1)), EXPOSURE_MAX)


if __name__ == "__main__":
    unittest.main()
