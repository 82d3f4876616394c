"""What `cmake --install` puts where, and that it works from there."""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

BUILD = os.environ["TERRACE_BUILD"]
CMAKE = os.environ["TERRACE_CMAKE"]
CXX = os.environ["TERRACE_CXX"]
PYTHON = os.environ.get("TERRACE_PYTHON_MODULE")

PROGRAM = r"""
#include <cstdio>
#include "client/core/client.h"
int main() {
  const auto client = terrace::Client::Connect({.socket = "/none.sock"});
  std::puts(client.status().message().c_str());
}
"""


def run(*command: str, **variables: str) -> str:
    """The command's output; raises with what it said when it fails."""
    ended = subprocess.run(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ended.returncode != 0:
        raise AssertionError(f"{command} exits {ended.returncode}: {ended.stdout}")
    return ended.stdout


def exec_start(unit: Path) -> list[str]:
    (line,) = [text for text in unit.read_text().splitlines() if text.startswith("ExecStart=")]
    return line.removeprefix("ExecStart=").split()


class Install(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.prefix = Path(folder.name)

    def install(self, component: str, prefix: str | None = None, **variables: str) -> None:
        prefix = prefix or str(self.prefix)
        run(CMAKE, "--install", BUILD, "--prefix", prefix, "--component", component, **variables)

    def test_the_units_command_runs_from_its_prefix(self) -> None:
        self.install("daemon")
        command = exec_start(self.prefix / "lib/systemd/system/terraced.service")
        self.assertEqual(command[0], str(self.prefix / "bin/terraced"))
        self.assertEqual(command[2], str(self.prefix / "etc/terrace/terraced.toml"))
        self.assertIn("is right", run(*command, "--check-config"))
        self.assertTrue((self.prefix / "lib/sysusers.d/terrace.conf").is_file())
        self.assertTrue((self.prefix / "share/doc/terrace/terraced.example.toml").is_file())

    def test_a_configuration_that_is_there_stays(self) -> None:
        self.install("daemon")
        configuration = self.prefix / "etc/terrace/terraced.toml"
        configuration.write_text('dram = "1GiB"\n')
        self.install("daemon")
        self.assertEqual(configuration.read_text(), 'dram = "1GiB"\n')

    def test_a_package_of_usr_has_its_configuration_in_etc(self) -> None:
        self.install("daemon", "/usr", DESTDIR=str(self.prefix))
        command = exec_start(self.prefix / "usr/lib/systemd/system/terraced.service")
        self.assertEqual(command, ["/usr/bin/terraced", "--config", "/etc/terrace/terraced.toml"])
        for path in (command[0], command[2]):
            self.assertTrue((self.prefix / path.removeprefix("/")).is_file(), path)

    def test_a_program_links_what_is_installed(self) -> None:
        self.install("client")
        source, program = self.prefix / "program.cc", self.prefix / "program"
        source.write_text(PROGRAM)
        (metadata,) = self.prefix.rglob("terrace.pc")
        flags = run(
            "pkg-config", "--static", "--cflags", "--libs", "terrace",
            PKG_CONFIG_PATH=str(metadata.parent),
        ).split()  # fmt: skip
        run(CXX, "-o", str(program), str(source), *flags)
        self.assertIn("no daemon answers at /none.sock", run(str(program)))
        self.assertIn("terrace", run(str(self.prefix / "bin/terrace"), "--version"))

    @unittest.skipUnless(PYTHON, "terrace_kv is not built")
    def test_the_package_is_complete(self) -> None:
        self.install("python")
        (package,) = self.prefix.rglob("terrace_kv")
        for name in ("_core.pyi", "py.typed", "llama/adapter.py"):
            self.assertTrue((package / name).is_file(), name)
        script = "import terrace_kv; print(terrace_kv.__file__, terrace_kv.__version__)"
        said = run(str(PYTHON), "-B", "-c", script, PYTHONPATH=str(package.parent))
        self.assertIn(str(package), said)


if __name__ == "__main__":
    unittest.main()
