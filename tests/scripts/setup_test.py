"""What scripts/setup refuses before it changes anything, and its package tables."""

from __future__ import annotations

import os
import subprocess
import tempfile
import tomllib
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def setup(*arguments: str, os_release: str) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".os-release") as file:
        file.write(os_release)
        file.flush()
        return subprocess.run(
            [SCRIPTS / "setup", *arguments],
            env={**os.environ, "TERRACE_OS_RELEASE": file.name},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )


def packages(distribution: str, package_set: str) -> list[str]:
    script = 'source "$0/packages.sh" && "packages_$1" "$2"'
    command = ["bash", "-c", script, str(SCRIPTS), distribution, package_set]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return answer.stdout.split()


class Refusals(unittest.TestCase):
    def test_an_unknown_distribution_is_told_which_table_to_add(self) -> None:
        answer = setup(os_release="ID=plan\nVERSION_ID=9.1\n")
        self.assertNotEqual(answer.returncode, 0)
        self.assertIn("packages_plan_9_1 to scripts/packages.sh", answer.stderr)

    def test_an_unknown_argument_is_told_the_known_ones(self) -> None:
        answer = setup("--everything", os_release="ID=debian\nVERSION_ID=12\n")
        self.assertNotEqual(answer.returncode, 0)
        self.assertIn("--ci, --check and --bench are known", answer.stderr)


class PackageTables(unittest.TestCase):
    def test_every_distribution_has_every_set(self) -> None:
        for distribution in ("debian_12", "ubuntu_24_04"):
            for package_set in ("base", "ci", "check", "bench"):
                self.assertTrue(packages(distribution, package_set), (distribution, package_set))

    def test_names_differ_only_where_versions_are_in_them(self) -> None:
        debian = packages("debian_12", "base")
        ubuntu = packages("ubuntu_24_04", "base")
        changed = {(a, b) for a, b in zip(debian, ubuntu, strict=True) if a != b}
        self.assertEqual(
            changed,
            {
                ("libboost1.81-dev", "libboost1.83-dev"),
                ("libboost-json1.81-dev", "libboost-json1.83-dev"),
            },
        )


class PythonRequirements(unittest.TestCase):
    def test_the_wheel_is_built_with_what_the_environment_has(self) -> None:
        pinned = (SCRIPTS / "requirements.txt").read_text().split()
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        for requirement in project["build-system"]["requires"]:
            self.assertIn(requirement, pinned)
        engine = [text for text in pinned if text.startswith("xllamacpp==")]
        self.assertEqual(project["project"]["optional-dependencies"]["llama"][1:], engine)


if __name__ == "__main__":
    unittest.main()
