"""The prefix cache of one engine: restore what is known of a prompt, store what was computed."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from terrace_kv.llama import keys, state
from terrace_kv.llama.engine import Engine

PUT_BATCH = 64


class ChunkSpace(Protocol):
    """What the cache needs of a `terrace_kv.Namespace`."""

    def match(self, keys: Sequence[bytes], *, part: int = 0) -> int: ...

    def get(
        self, keys: Sequence[bytes], *, part: int = 0, timeout: float = 1.0, verify: bool = False
    ) -> Sequence[Any]: ...

    def put(
        self, items: Sequence[tuple[bytes, Any]], *, part: int = 0, timeout: float = 30.0
    ) -> list[str]: ...


class Spaces(Protocol):
    """What the cache needs of a `terrace_kv.Client`."""

    def namespace(
        self,
        name: str,
        *,
        model: str = "",
        weights_digest: str = "",
        dtype: str = "",
        layout: str = "",
        tokens_per_chunk: int = 0,
        hash_algorithm: str = "",
        hash_seed: str = "",
        engine_build: str = "",
        isa: str = "",
    ) -> Any: ...


@dataclass
class Restored:
    """What a restore did.

    Attributes
    ----------
    tokens
        Leading tokens whose KV the context now holds.
    seconds
        Wall time by step: "get", "join", "set".
    """

    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class PrefixCache:
    """Keeps an engine's KV in Terrace.

    Parameters
    ----------
    client
        A `terrace_kv.Client`.
    engine
        The engine; its context holds one sequence.
    model
        The weights file that the engine loaded: its digest is part of the namespace's identity.
    chunk_tokens
        Tokens a chunk.

    Raises
    ------
    ValueError
        When the file is not any more what the engine loaded.

    Notes
    -----
    Every failure is a miss: a restore that cannot be done leaves an empty context, and a warning
    when the engine itself refused.
    """

    def __init__(
        self, client: Spaces, engine: Engine, model: str | Path, *, chunk_tokens: int = 64
    ) -> None:
        self._client = client  # a namespace ends with its client
        self._engine = engine
        self._chunk_tokens = chunk_tokens
        self._geometry = self._probe()
        digest = keys.weights_digest(model, engine.weights)
        layout = self._geometry.describe()
        # The label tells identities apart: a new engine build is a new namespace, not a refusal.
        parts = (digest, layout, str(chunk_tokens), engine.build, engine.isa)
        label = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        self._space: ChunkSpace = client.namespace(
            f"llama.cpp/{Path(model).stem[:64]}/{label}",
            model=engine.description,
            weights_digest=digest,
            dtype="f16",
            layout=layout,
            tokens_per_chunk=chunk_tokens,
            hash_algorithm="sha256",
            hash_seed=keys.SEED.decode(),
            engine_build=engine.build,
            isa=engine.isa,
        )

    def _probe(self) -> state.Geometry:
        """The geometry of this engine's states, from a state of one token."""
        self._engine.clear()
        self._engine.decode([1])
        geometry, _cells = state.parse(self._engine.state())
        self._engine.clear()
        return geometry

    def restore(self, tokens: Sequence[int]) -> Restored:
        """Fills the empty context with the longest known prefix.

        At least one token is left to compute, since logits are not kept.
        """
        self._engine.clear()
        done = Restored()
        began = time.perf_counter()
        chain = keys.chain(tokens[:-1], self._chunk_tokens)
        chain = chain[: self._space.match(chain)]
        pins = []
        for pin in self._space.get(chain, verify=True) if chain else ():
            if pin is None:
                break  # left since, or damaged: a shorter prefix
            pins.append(pin)
        got = time.perf_counter()
        done.seconds["get"] = got - began
        if not pins:
            return done
        try:
            chunks = [np.frombuffer(pin, dtype=np.uint8) for pin in pins]
            blob = state.join(chunks, self._geometry, self._chunk_tokens)
        except state.StateError as error:
            warnings.warn(f"what was stored cannot be joined ({error}): computing", stacklevel=2)
            return done
        joined = time.perf_counter()
        done.seconds["join"] = joined - got
        if self._engine.set_state(blob):
            done.tokens = len(pins) * self._chunk_tokens
        else:
            warnings.warn("the engine refused the restored state: computing", stacklevel=2)
        done.seconds["set"] = time.perf_counter() - joined
        return done

    def store(self, tokens: Sequence[int]) -> dict[str, int]:
        """Puts the full chunks of ``tokens``, which the context must hold from position 0.

        Returns
        -------
        dict
            How many chunks ended with which status; empty when nothing had to be put.
        """
        chain = keys.chain(tokens, self._chunk_tokens)
        known = self._space.match(chain) if chain else 0
        if known == len(chain):
            return {}
        blob = self._engine.state()
        geometry, cells = state.parse(blob)
        if geometry != self._geometry or cells < len(tokens):
            raise state.StateError(f"the context holds {cells} cells, not {len(tokens)} tokens")
        ends: dict[str, int] = {}
        for begin in range(known, len(chain), PUT_BATCH):
            items = []
            for index in range(begin, min(begin + PUT_BATCH, len(chain))):
                first = index * self._chunk_tokens
                cut = state.cut(blob, geometry, cells, first, first + self._chunk_tokens)
                items.append((chain[index], cut))
            for status in self._space.put(items):
                ends[status] = ends.get(status, 0) + 1
        return ends
