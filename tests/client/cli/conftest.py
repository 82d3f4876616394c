"""Fixtures of the CLI tests."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "support"))

from terraced import Terraced


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> Iterator[Terraced]:
    """A private daemon."""
    running = Terraced(tmp_path)
    yield running
    running.kill()
