"""Names of chunks and of models: a hash chain over tokens, a cached digest of the weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SEED = b"terrace llama.cpp chunk chain 1"


def chain(tokens: Sequence[int], chunk_tokens: int) -> list[bytes]:
    """Keys of the full chunks of a prompt.

    Parameters
    ----------
    tokens
        Token ids.
    chunk_tokens
        Tokens a chunk; what is left over at the end has no key.

    Returns
    -------
    list of bytes
        32 bytes each: SHA-256 of the key before and the chunk's tokens as little-endian int32, so
        that equal keys mean equal prefixes.
    """
    parent = hashlib.sha256(SEED + chunk_tokens.to_bytes(4, "little")).digest()
    keys = []
    for end in range(chunk_tokens, len(tokens) + 1, chunk_tokens):
        ids = np.asarray(tokens[end - chunk_tokens : end], dtype="<i4").tobytes()
        parent = hashlib.sha256(parent + ids).digest()
        keys.append(parent)
    return keys


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "terrace" / "weights.json"


def _identity(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def file_identity(model: str | Path) -> str:
    """What changes when a file is replaced or written to: device, inode, size, time of change."""
    return _identity(os.stat(model))


def weights_digest(model: str | Path, loaded: str | None = None) -> str:
    """SHA-256 of a weights file, hex; remembered by `file_identity`.

    A cache that cannot be read or written only costs the hashing.

    Parameters
    ----------
    model
        The file.
    loaded
        `file_identity` from before the engine loaded it; by default the file's now.

    Raises
    ------
    ValueError
        When the file is another one than was loaded, or changes while it is hashed.
    """
    changed = ValueError(f"{model} changed after it was loaded: load it again")
    identity = file_identity(model)
    if loaded is not None and identity != loaded:
        raise changed
    cache = _cache_file()
    try:
        known = json.loads(cache.read_text())
        if not isinstance(known, dict):
            known = {}
    except (OSError, ValueError):
        known = {}
    remembered = known.get(identity)
    if isinstance(remembered, str) and re.fullmatch("[0-9a-f]{64}", remembered):
        return remembered
    with open(model, "rb") as file:
        before = _identity(os.fstat(file.fileno()))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = _identity(os.fstat(file.fileno()))
    if not identity == before == after:
        raise changed
    known[identity] = digest
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False) as fresh:
            json.dump(known, fresh)
        os.replace(fresh.name, cache)
    except OSError:
        pass
    return digest
