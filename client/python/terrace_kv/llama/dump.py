"""Writes the KV of the demo's prompt to a file, in bf16 and f16, for `terrace bench codec`.

The file (little-endian)::

    "TRRKVDMP"  u32 version = 1  u32 streams
    streams x {char name[8], u32 layers, u32 tokens, u32 channels, u32 element bytes = 2}
    streams x [layers][tokens][channels] elements

The streams are bf16_k, bf16_v, f16_k and f16_v; names end in zeros.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
from pathlib import Path

from terrace_kv.llama import state
from terrace_kv.llama.demo import PROMPT_TOKENS, demo_model, prompt_text
from terrace_kv.llama.engine import TYPE_BF16, TYPE_F16, Engine

MAGIC = b"TRRKVDMP"
FILE_HEAD = struct.Struct("<8sII")
STREAM = struct.Struct("<8sIIII")
ELEMENT_BYTES = 2


def streams(kv_type: int, name: str) -> list[tuple[bytes, state.Bytes]]:
    """K and V of the prompt, each with its entry of the file's table."""
    engine = Engine(demo_model(), context_tokens=PROMPT_TOKENS, kv_type=kv_type)
    tokens = engine.tokenize(prompt_text())[:PROMPT_TOKENS]
    engine.decode(tokens)
    blob = engine.state()
    geometry, cells = state.parse(blob)
    if (geometry.k_type, geometry.v_type) != (kv_type, kv_type) or cells != len(tokens):
        raise SystemExit(f"dump: the engine keeps {geometry.describe()}, {cells} cells")
    chunk = state.cut(blob, geometry, cells, 0, cells)
    engine.close()
    k_bytes = geometry.layers * cells * geometry.k_row
    return [
        (
            STREAM.pack(
                f"{name}_{half}".encode(), geometry.layers, cells, row // ELEMENT_BYTES,
                ELEMENT_BYTES,
            ),
            part,
        )
        for half, row, part in (
            ("k", geometry.k_row, chunk[:k_bytes]),
            ("v", geometry.v_row, chunk[k_bytes:]),
        )
    ]  # fmt: skip


def main() -> int:
    """Entry point; answers the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/dump-demo-kv", description=__doc__)
    parser.add_argument("file", type=Path, help="written anew, 92 MB")
    path: Path = parser.parse_args().file
    print("dump: computing the prompt twice (about a minute of CPU)", file=sys.stderr)
    found = streams(TYPE_BF16, "bf16") + streams(TYPE_F16, "f16")
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(FILE_HEAD.pack(MAGIC, 1, len(found)))
        for entry, _ in found:
            file.write(entry)
        for _, part in found:
            file.write(part.data)
    os.replace(partial, path)
    print(f"dump: {path.stat().st_size} bytes in {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
