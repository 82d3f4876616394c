"""The state blob: cut, join, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from terrace_kv.llama import state

LAYERS, K_ROW, V_ROW, TOKENS = 3, 12, 20, 10
CELLS_END = 16 + 12 * TOKENS
GEOMETRY = state.Geometry(LAYERS, 1, 1, K_ROW, V_ROW, (0, 0))


def make_blob(tokens: int = TOKENS) -> state.Bytes:
    """A blob written field by field, apart from the code under test; every row is its own."""
    out = struct.pack("<4I", 0xAF143CD8, 0, 1, tokens)
    for position in range(tokens):
        out += struct.pack("<iIi", position, 1, 0)
    out += struct.pack("<4I", 0, LAYERS, 0, 0)
    for kind, row in (("k", K_ROW), ("v", V_ROW)):
        for layer in range(LAYERS):
            out += struct.pack("<iQ", 1, row)
            for token in range(tokens):
                out += f"{kind}{layer}.{token}".encode().ljust(row, b".")
    return np.frombuffer(out, dtype=np.uint8).copy()


def test_parse_tells_the_geometry() -> None:
    assert state.parse(make_blob()) == (GEOMETRY, TOKENS)


def test_a_chunk_is_k_of_every_layer_then_v() -> None:
    chunk = state.cut(make_blob(), GEOMETRY, TOKENS, 4, 6).tobytes()
    rows = [
        f"{kind}{layer}.{token}".encode().ljust(row, b".")
        for kind, row in (("k", K_ROW), ("v", V_ROW))
        for layer in range(LAYERS)
        for token in (4, 5)
    ]
    assert chunk == b"".join(rows)


@pytest.mark.parametrize("chunk_tokens", [1, 2, 5, 10])
def test_join_of_all_chunks_is_the_blob(chunk_tokens: int) -> None:
    blob = make_blob()
    chunks = [
        state.cut(blob, GEOMETRY, TOKENS, first, first + chunk_tokens)
        for first in range(0, TOKENS, chunk_tokens)
    ]
    assert state.join(chunks, GEOMETRY, chunk_tokens).tobytes() == blob.tobytes()


def test_join_of_leading_chunks_is_the_shorter_blob() -> None:
    blob = make_blob()
    chunks = [state.cut(blob, GEOMETRY, TOKENS, first, first + 2) for first in (0, 2, 4)]
    assert state.join(chunks, GEOMETRY, 2).tobytes() == make_blob(6).tobytes()


def test_join_refuses_a_chunk_of_another_length() -> None:
    blob = make_blob()
    chunks = [state.cut(blob, GEOMETRY, TOKENS, 0, 2), state.cut(blob, GEOMETRY, TOKENS, 2, 5)]
    with pytest.raises(state.StateError, match="chunk 1"):
        state.join(chunks, GEOMETRY, 2)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, 0x12345678, "magic"),
        (8, 2, "2 streams"),
        (12, TOKENS + 1, "|".join(("positions", "several", "length", "bytes"))),
        (12, 0xFFFFFFFF, "before its cells"),
        (16 + 12 * 3, 7, "positions"),
        (16 + 12 * 3 + 4, 2, "several sequences"),
        (CELLS_END, 1, "transposed"),
        (CELLS_END + 4, 0, "0 layers"),
        (CELLS_END + 4, LAYERS - 1, "bytes|layer|rows"),
        (CELLS_END + 4, LAYERS + 1, "layer|rows|bytes"),
        (CELLS_END + 16 + 4, 0, "rows of 0"),
        (CELLS_END + 16 + 4, 0x7FFFFFFF, "do not fit"),
        (CELLS_END + 16 + 12 + TOKENS * K_ROW, 2, "layer 1"),
    ],
)
def test_a_field_that_differs_is_refused(offset: int, value: int, reason: str) -> None:
    blob = make_blob()
    struct.pack_into("<I", blob.data, offset, value)
    with pytest.raises(state.StateError, match=reason):
        state.parse(blob)


@pytest.mark.parametrize("length", [0, 15, 16, 31, CELLS_END, CELLS_END + 16, CELLS_END + 20, -1])
def test_a_truncated_blob_is_refused(length: int) -> None:
    with pytest.raises(state.StateError):
        state.parse(make_blob()[:length])


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(state.StateError, match="bytes instead of"):
        state.parse(np.concatenate([make_blob(), np.zeros(1, np.uint8)]))
