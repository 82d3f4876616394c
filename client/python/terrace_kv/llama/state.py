"""A sequence's state blob, cut into token ranges and joined again.

The blob (little-endian), as this engine build writes it with flash attention on::

    u32 magic  u32 sequence  u32 streams = 1  u32 cells
    cells x {i32 position, u32 sequences = 1, i32 sequence}
    u32 transposed = 0  u32 layers  u32 rotations of K  u32 rotations of V
    layers x K {i32 type, u64 row bytes, cells x row}
    layers x V {the same}

A chunk of tokens [a, b) is, for each layer, K's rows a..b-1, then for each layer V's: a uint8 array
of (b - a) x layers x (K row + V row) bytes.  Everything that differs from this is refused: the
engine itself checks nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

MAGIC = 0xAF143CD8
HEAD = struct.Struct("<IIII")
KV_HEAD = struct.Struct("<IIII")
STREAM_HEAD = struct.Struct("<iQ")
CELL_BYTES = 12


class StateError(ValueError):
    """The blob is not laid out as this code knows it; the message says where it differs."""


@dataclass(frozen=True)
class Geometry:
    """What is the same for every state of one model under one engine.

    Attributes
    ----------
    layers
        Layers.
    k_type, v_type
        ggml types of K and V.
    k_row, v_row
        Bytes a token and layer.
    rotations
        The two words behind the layer count.
    """

    layers: int
    k_type: int
    v_type: int
    k_row: int
    v_row: int
    rotations: tuple[int, int]

    @property
    def token_bytes(self) -> int:
        """Bytes of a chunk for each of its tokens."""
        return self.layers * (self.k_row + self.v_row)

    def blob_bytes(self, cells: int) -> int:
        """Bytes of a state of ``cells`` tokens."""
        heads = HEAD.size + KV_HEAD.size + 2 * self.layers * STREAM_HEAD.size
        return heads + cells * (CELL_BYTES + self.token_bytes)

    def describe(self) -> str:
        """The layout in words, for a namespace's identity."""
        return (
            f"llama.cpp-kv-v1 layers={self.layers} k={self.k_type}/{self.k_row} "
            f"v={self.v_type}/{self.v_row} rot={self.rotations[0]}/{self.rotations[1]} "
            "ubatch=32 flash=1"
        )


def _streams(blob: Bytes, start: int, layers: int, cells: int, row: int) -> Bytes:
    """View of (layers, cells x row) bytes: the same stream of every layer."""
    stride = STREAM_HEAD.size + cells * row
    return np.lib.stride_tricks.as_strided(
        blob[start + STREAM_HEAD.size :],
        shape=(layers, cells * row),
        strides=(stride, 1),
        writeable=blob.flags.writeable,
    )


def _k_start(cells: int) -> int:
    return HEAD.size + cells * CELL_BYTES + KV_HEAD.size


def _v_start(geometry: Geometry, cells: int) -> int:
    return _k_start(cells) + geometry.layers * (STREAM_HEAD.size + cells * geometry.k_row)


def _check_cells(blob: Bytes, cells: int) -> None:
    table = blob[HEAD.size : HEAD.size + cells * CELL_BYTES].view("<i4").reshape(cells, 3)
    if not np.array_equal(table[:, 0], np.arange(cells, dtype=np.int32)):
        raise StateError("positions are not 0, 1, 2, ...")
    if not np.all(table[:, 1] == 1):
        raise StateError("a cell belongs to several sequences")


def _stream_head(blob: Bytes, start: int, layers: int, cells: int) -> tuple[int, int]:
    """Type and row bytes of K or V, the same in every layer."""
    if start + STREAM_HEAD.size > blob.size:
        raise StateError("the state ends before its layers")
    kind, row = STREAM_HEAD.unpack_from(blob.data, start)
    stride = STREAM_HEAD.size + cells * row
    if row == 0 or start + layers * stride > blob.size:
        raise StateError(f"rows of {row} bytes do not fit the state's length")
    for layer in range(1, layers):
        if STREAM_HEAD.unpack_from(blob.data, start + layer * stride) != (kind, row):
            raise StateError(f"layer {layer} has another type or row than layer 0")
    return kind, row


def parse(blob: Bytes) -> tuple[Geometry, int]:
    """Reads a state's geometry and its number of cells.

    Parameters
    ----------
    blob
        uint8, one dimension, as `Engine.state` gives it.

    Raises
    ------
    StateError
        When anything is not as expected.
    """
    if blob.size < HEAD.size + KV_HEAD.size:
        raise StateError(f"{blob.size} bytes are no state")
    magic, _sequence, streams, cells = HEAD.unpack_from(blob.data, 0)
    if magic != MAGIC:
        raise StateError(f"magic {magic:#x} instead of {MAGIC:#x}")
    if streams != 1:
        raise StateError(f"{streams} streams instead of one")
    if _k_start(cells) > blob.size:
        raise StateError("the state ends before its cells")
    _check_cells(blob, cells)
    transposed, layers, rot_k, rot_v = KV_HEAD.unpack_from(
        blob.data, _k_start(cells) - KV_HEAD.size
    )
    if transposed != 0:
        raise StateError("V is transposed: flash attention is off")
    if not 0 < layers <= 4096:
        raise StateError(f"{layers} layers")
    k_type, k_row = _stream_head(blob, _k_start(cells), layers, cells)
    v_start = _k_start(cells) + layers * (STREAM_HEAD.size + cells * k_row)
    v_type, v_row = _stream_head(blob, v_start, layers, cells)
    geometry = Geometry(layers, k_type, v_type, k_row, v_row, (rot_k, rot_v))
    if geometry.blob_bytes(cells) != blob.size:
        raise StateError(f"{blob.size} bytes instead of {geometry.blob_bytes(cells)}")
    return geometry, cells


def cut(blob: Bytes, geometry: Geometry, cells: int, first: int, last: int) -> Bytes:
    """Copies the rows of tokens [first, last) out of a parsed state, as one chunk."""
    tokens, layers = last - first, geometry.layers
    chunk = np.empty(tokens * geometry.token_bytes, dtype=np.uint8)
    k_bytes = layers * tokens * geometry.k_row
    for start, row, into in (
        (_k_start(cells), geometry.k_row, chunk[:k_bytes]),
        (_v_start(geometry, cells), geometry.v_row, chunk[k_bytes:]),
    ):
        streams = _streams(blob, start, layers, cells, row)
        into.reshape(layers, tokens * row)[...] = streams[:, first * row : last * row]
    return chunk


def join(chunks: Sequence[Bytes], geometry: Geometry, chunk_tokens: int) -> Bytes:
    """Builds the state of ``len(chunks) x chunk_tokens`` tokens, positions from 0.

    Raises
    ------
    StateError
        When a chunk has another length than the geometry gives it.
    """
    cells, layers = len(chunks) * chunk_tokens, geometry.layers
    blob = np.empty(geometry.blob_bytes(cells), dtype=np.uint8)
    HEAD.pack_into(blob.data, 0, MAGIC, 0, 1, cells)
    table = blob[HEAD.size : HEAD.size + cells * CELL_BYTES].view("<i4").reshape(cells, 3)
    table[:, 0] = np.arange(cells, dtype=np.int32)
    table[:, 1] = 1
    table[:, 2] = 0
    KV_HEAD.pack_into(blob.data, _k_start(cells) - KV_HEAD.size, 0, layers, *geometry.rotations)
    k_bytes = layers * chunk_tokens * geometry.k_row
    for start, kind, row, part in (
        (_k_start(cells), geometry.k_type, geometry.k_row, slice(0, k_bytes)),
        (_v_start(geometry, cells), geometry.v_type, geometry.v_row, slice(k_bytes, None)),
    ):
        for layer in range(layers):
            STREAM_HEAD.pack_into(
                blob.data, start + layer * (STREAM_HEAD.size + cells * row), kind, row
            )
        streams = _streams(blob, start, layers, cells, row)
        width = chunk_tokens * row
        for index, chunk in enumerate(chunks):
            if chunk.size != chunk_tokens * geometry.token_bytes:
                raise StateError(f"chunk {index} has {chunk.size} bytes")
            streams[:, index * width : (index + 1) * width] = chunk[part].reshape(layers, width)
    return blob
