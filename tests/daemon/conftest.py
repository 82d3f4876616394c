"""Fixtures of the control plane's tests."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from terraced import Terraced


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A private terraced; its socket and process."""
    running = Terraced(tmp_path)
    yield running.socket, running.process
    running.kill()
