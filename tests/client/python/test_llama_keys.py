"""Keys of chunks and the digest of weights."""

from __future__ import annotations

import hashlib
import os
import pathlib
import struct
from typing import Any

import pytest
from terrace_kv.llama import keys


def test_the_chain_is_sha256_over_parent_and_tokens() -> None:
    parent = hashlib.sha256(keys.SEED + struct.pack("<I", 2)).digest()
    first = hashlib.sha256(parent + struct.pack("<2i", 7, 8)).digest()
    second = hashlib.sha256(first + struct.pack("<2i", 9, 70000)).digest()
    assert keys.chain([7, 8, 9, 70000, 11], 2) == [first, second]


def test_only_full_chunks_have_keys() -> None:
    assert [len(keys.chain(range(n), 4)) for n in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]


def test_a_key_stands_for_its_whole_prefix() -> None:
    one, other = keys.chain([1, 2, 3, 4, 5, 6], 2), keys.chain([1, 9, 3, 4, 5, 6], 2)
    assert not set(one) & set(other)
    assert keys.chain([1, 2, 3, 4, 9, 9], 2)[:2] == one[:2]
    assert not set(one) & set(keys.chain([1, 2, 3, 4, 5, 6], 3))


@pytest.fixture
def weights(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A weights file, with a cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"weights")
    return path


def test_the_digest_is_sha256_and_is_remembered(
    weights: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    assert keys.weights_digest(weights) == digest

    def fail(*_: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr(hashlib, "file_digest", fail)
    assert keys.weights_digest(weights) == digest


def test_a_changed_file_is_hashed_again(weights: pathlib.Path) -> None:
    keys.weights_digest(weights)
    weights.write_bytes(b"WEIGHTS")
    before = weights.stat()
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert keys.weights_digest(weights) == hashlib.sha256(b"WEIGHTS").hexdigest()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_cache_only_costs_the_hashing(weights: pathlib.Path, content: bytes) -> None:
    keys.weights_digest(weights)
    (cache,) = (path for path in (weights.parent / "cache").rglob("*") if path.is_file())
    cache.write_bytes(content)
    assert keys.weights_digest(weights) == hashlib.sha256(b"weights").hexdigest()


def test_a_cached_value_that_is_no_digest_is_not_believed(weights: pathlib.Path) -> None:
    digest = keys.weights_digest(weights)
    (cache,) = (path for path in (weights.parent / "cache").rglob("*") if path.is_file())
    cache.write_text(cache.read_text().replace(digest, "beef"))
    assert keys.weights_digest(weights) == digest


def test_without_a_cache_folder_it_hashes(
    weights: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = weights.parent / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert keys.weights_digest(weights) == hashlib.sha256(b"weights").hexdigest()


def test_a_file_that_is_not_what_was_loaded_is_refused(weights: pathlib.Path) -> None:
    loaded = keys.file_identity(weights)
    assert keys.weights_digest(weights, loaded) == hashlib.sha256(b"weights").hexdigest()
    other = weights.with_suffix(".new")
    other.write_bytes(b"weights")
    other.replace(weights)  # the same words, another file
    with pytest.raises(ValueError, match="changed after it was loaded"):
        keys.weights_digest(weights, loaded)


def test_a_file_that_changes_while_it_is_hashed_is_refused(
    weights: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashing = hashlib.file_digest

    def write_meanwhile(*arguments: Any) -> Any:
        digest = hashing(*arguments)
        with weights.open("ab") as file:
            file.write(b"more")
        return digest

    monkeypatch.setattr(hashlib, "file_digest", write_meanwhile)
    with pytest.raises(ValueError, match="changed"):
        keys.weights_digest(weights)
    monkeypatch.undo()
    assert not list((weights.parent / "cache").rglob("*.json"))  # and is not remembered


def test_a_file_that_is_replaced_before_it_is_opened_is_refused(
    weights: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = keys.file_identity(weights)
    read_text = pathlib.Path.read_text

    def replace_meanwhile(path: pathlib.Path) -> str:  # the cache is read after the first look
        other = weights.with_suffix(".new")
        other.write_bytes(b"WEIGHTS")
        other.replace(weights)
        return read_text(path)

    monkeypatch.setattr(pathlib.Path, "read_text", replace_meanwhile)
    with pytest.raises(ValueError, match="changed"):
        keys.weights_digest(weights, loaded)
