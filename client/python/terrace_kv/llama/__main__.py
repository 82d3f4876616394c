"""Runs a prompt with llama.cpp, its KV cache kept in Terrace."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import terrace_kv
from terrace_kv.llama.adapter import PrefixCache
from terrace_kv.llama.engine import Engine, EngineError
from terrace_kv.llama.state import StateError


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m terrace_kv.llama", description=__doc__)
    parser.add_argument("--model", required=True, metavar="FILE.gguf", help="the weights")
    parser.add_argument("--prompt", required=True, metavar="FILE", help="the prompt's text")
    parser.add_argument("--socket", help="the daemon's socket; $TERRACE_SOCKET otherwise")
    parser.add_argument("--tokens-per-chunk", type=int, default=64, metavar="N")
    parser.add_argument("--n-predict", type=int, default=32, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    arguments = parser.parse_args(argv)
    if arguments.tokens_per_chunk < 1:
        parser.error(f"--tokens-per-chunk {arguments.tokens_per_chunk}: use 1 or more")
    if arguments.threads < 1 or arguments.n_predict < 0:
        parser.error("--threads takes 1 or more, --n-predict 0 or more")
    return arguments


def greedy(engine: Engine, count: int) -> list[int]:
    """The next ``count`` tokens, each the most probable; ends early with the model."""
    out: list[int] = []
    while len(out) < count:
        token = int(np.argmax(engine.logits()))
        if engine.is_end(token):
            break
        out.append(token)
        engine.decode([token])
    return out


def _open_cache(arguments: argparse.Namespace, engine: Engine) -> PrefixCache | None:
    """The prompt's cache; None, with the reason on standard error, when it cannot be had."""
    client = terrace_kv.Client(arguments.socket, name="terrace_kv.llama", timeout=2.0)
    try:
        if not client.available:
            client.status()  # raises with the reason
        return PrefixCache(client, engine, arguments.model, chunk_tokens=arguments.tokens_per_chunk)
    except StateError:
        raise
    except (terrace_kv.Unavailable, ValueError) as error:
        print(f"terrace_kv.llama: {error}: computing", file=sys.stderr)
        return None


def _stored(ends: dict[str, int]) -> str:
    """How a store ended, in words, with the mend for chunks that are too large."""
    lost = ", ".join(
        f"{count} {status}" for status, count in ends.items() if status not in ("ok", "exists")
    )
    words = f"stored {ends.get('ok', 0)} chunks"
    if "invalid" in ends:
        lost += ": too large for the daemon, lower --tokens-per-chunk"
    return f"{words}, not stored: {lost}" if lost else words


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit code: 0, or 2 for wrong use."""
    arguments = _arguments(argv)
    try:
        text = Path(arguments.prompt).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"terrace_kv.llama: cannot read the prompt: {error}", file=sys.stderr)
        return 2
    try:
        engine = Engine(arguments.model, threads=arguments.threads)
        tokens = engine.tokenize(text)
        if not tokens:
            raise EngineError("the prompt is empty")
        engine.open_context(len(tokens) + arguments.n_predict)
        cache = _open_cache(arguments, engine)
        began = time.perf_counter()
        restored = cache.restore(tokens).tokens if cache else 0
        engine.decode(tokens[restored:])
        first_token_ms = (time.perf_counter() - began) * 1e3
        ends = cache.store(tokens) if cache else {}
        continuation = b"".join(engine.piece(t) for t in greedy(engine, arguments.n_predict))
    except (EngineError, StateError, ValueError, OSError) as error:
        print(f"terrace_kv.llama: {error}", file=sys.stderr)
        return 2
    words = continuation.decode(errors="replace")
    if arguments.json:
        print(
            json.dumps(
                {
                    "tokens": len(tokens),
                    "restored_tokens": restored,
                    "ttft_ms": first_token_ms,
                    "stored": ends,
                    "continuation": words,
                }
            )
        )
    else:
        print(words)
        print(
            f"[{len(tokens)} tokens, {restored} restored, first token after "
            f"{first_token_ms:.0f} ms, {_stored(ends)}]",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
