"""What scripts/check_layers.py lets pass and what it names."""

from __future__ import annotations

import importlib.util
import re
import unittest
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_layers.py"


def load() -> ModuleType:
    """The script as a module: it is a program, on no import path."""
    spec = importlib.util.spec_from_file_location("check_layers", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAYERS = load()


class Violations(unittest.TestCase):
    def of(self, path: str, *lines: str) -> list[str]:
        found: list[str] = LAYERS.violations(path, "\n".join(lines))
        return found

    def test_an_arrow_down_passes(self) -> None:
        self.assertEqual(
            self.of(
                "storage/index/index.cc",
                "#pragma once",
                "#include <fcntl.h>",
                "#include <sys/mman.h>",
                "#include <vector>",
                '#include "proto/shm/index_layout.h"',
                '#include "storage/base/status.h"',
                '#include "storage/index/pin_tables.h"',
            ),
            [],
        )

    def test_an_arrow_up_names_the_file_the_line_and_the_tables_line(self) -> None:
        (row,) = self.of("storage/mem/m.cc", "", '#include "storage/engine/chunk_store.h"')
        self.assertTrue(row.startswith("storage/mem/m.cc:2: "), row)
        match = re.search(r"scripts/check_layers\.py:(\d+)", row)
        assert match is not None, row
        line = SCRIPT.read_text().splitlines()[int(match.group(1)) - 1]
        self.assertIn('"storage/mem":', line)

    def test_angle_brackets_do_not_hide_a_file_of_ours(self) -> None:
        self.assertEqual(len(self.of("storage/mem/m.cc", "#include <daemon/app/daemon.h>")), 1)

    def test_a_foreign_library_stops_at_its_owner(self) -> None:
        self.assertEqual(self.of("storage/base/log.cc", "#include <spdlog/spdlog.h>"), [])
        (row,) = self.of("storage/mem/m.cc", "#include <spdlog/spdlog.h>")
        self.assertIn("stops at storage/base", row)

    def test_the_rpc_schema_stops_at_the_control_plane(self) -> None:
        include = '#include "proto/terrace.capnp.h"'
        self.assertEqual(self.of("client/core/c.cc", include), [])
        self.assertEqual(len(self.of("client/cli/c.cc", include)), 1)

    def test_an_unknown_library_and_a_relative_path_are_named(self) -> None:
        (row,) = self.of("bench/b.cc", "#include <absl/strings/cord.h>")
        self.assertIn("belongs to no library", row)
        (row,) = self.of("bench/b.cc", '#include "other.h"')
        self.assertIn("not a path from the root", row)

    def test_a_folder_without_a_line_is_named(self) -> None:
        (row,) = self.of("storage/attic/a.cc")
        self.assertIn("give its folder a line", row)

    def test_tests_may_include_anything(self) -> None:
        self.assertEqual(self.of("tests/a_test.cc", '#include "daemon/app/daemon.h"'), [])


class Tables(unittest.TestCase):
    def test_nothing_below_includes_what_stands_above(self) -> None:
        """The table of modules has no circle."""
        allowed: dict[str, list[str]] = LAYERS.ALLOWED

        def reach(module: str, path: tuple[str, ...]) -> None:
            self.assertNotIn(module, path, f"a circle: {' -> '.join((*path, module))}")
            for below in allowed.get(module, []):
                reach(below, (*path, module))

        for module in allowed:
            reach(module, ())

    def test_owners_are_modules(self) -> None:
        for owners in LAYERS.FOREIGN.values():
            self.assertLessEqual(set(owners), set(LAYERS.ALLOWED))


if __name__ == "__main__":
    unittest.main()
