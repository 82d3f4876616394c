"""Chunks of KV cache from the node's ``terraced``.

A hit is a lookup in shared memory and costs no system call; whatever fails is a miss.  No call of
a `Namespace` raises for a failure of the service, none waits beyond its timeout, and while the
daemon is away each answers at once as if nothing were there; the client reconnects by itself.

Examples
--------
>>> import terrace_kv
>>> client = terrace_kv.Client()
>>> ns = client.namespace("my-model", model="my-model", dtype="f16", tokens_per_chunk=64)
>>> ns.put([(b"key", b"payload")])
['ok']
>>> pin = ns.get([b"key"])[0]
>>> bytes(pin)
b'payload'
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from terrace_kv import _core
from terrace_kv._core import Pin, __version__

__all__ = ["Client", "Namespace", "Pin", "Unavailable", "__version__"]


class Unavailable(RuntimeError):
    """The daemon did not do it: nobody answers, or it refuses; the message says which and why.

    Attributes
    ----------
    status
        The reason's name: "unavailable" (nobody answers), "denied" (the socket's mode or a uid of
        no tenant), "busy" (a table of the daemon is full), "deadline", ...
    """

    def __init__(self, message: str, status: str = "unavailable") -> None:
        super().__init__(message)
        self.status = status


class Namespace:
    """A registered namespace; made by `Client.namespace`.

    Keys are bytes of any length from 1; longer ones than 32 are SHA-256'd.  ``part`` is
    ``rank + ranks x KV group``.  Safe from any thread; the interpreter lock is released while a
    call waits or copies.

    An argument of a wrong type is a TypeError, one of a wrong value a ValueError; the message names
    the argument, its value and what would be right.
    """

    def __init__(self, core: _core.Namespace, name: str, client: Client) -> None:
        self._core = core
        self._client = client  # the connection lives as long as its namespaces
        self.name = name

    def match(self, keys: Sequence[bytes], *, part: int = 0) -> int:
        """Counts the leading keys that are ready, in memory or on NVMe.  Asks no daemon."""
        return self._core.match(keys, part)

    def states(self, keys: Sequence[bytes], *, part: int = 0) -> list[str]:
        """Tells each key's state.  Asks no daemon.

        Returns
        -------
        list of str
            One a key: "ready" (in memory: a hit costs no call), "nvme" (ready, and no longer in
            memory: `get` reads it from the device first, `prefetch` brings it near ahead of need),
            "filling" (being written), "absent", or "unavailable" (no daemon).
        """
        return self._core.states(keys, part)

    def get(
        self,
        keys: Sequence[bytes],
        *,
        part: int = 0,
        timeout: float = 1.0,
        verify: bool = False,
        wait: bool = False,
    ) -> list[Pin | None]:
        """Pins chunks.

        Parameters
        ----------
        keys
            The chunks wanted.
        part
            Their part.
        timeout
            Seconds until what is not there is a miss.
        verify
            Compare the bytes with their checksums.  A difference is a miss, and the chunk is
            removed, so that it can be put anew.
        wait
            Wait for keys that another process is writing.

        Returns
        -------
        list of Pin or None
            One a key; None is a miss, for whatever reason.
        """
        return self._core.get(keys, part, timeout, verify, wait)

    def put(
        self,
        items: Sequence[tuple[bytes, Any]],
        *,
        part: int = 0,
        timeout: float = 30.0,
        durable: bool = False,
    ) -> list[str]:
        """Stores chunks whose keys are absent.

        Parameters
        ----------
        items
            Pairs of key and a C-contiguous buffer of 1 to `Client.chunk_bytes_max` bytes.
        part
            Their part.
        timeout
            Seconds until a put has ended, one way or another.
        durable
            "ok" and "exists" only for chunks that survive kill -9 of the daemon and loss of
            power; otherwise what `persist` says of it, while the chunk is in DRAM all the same.

        Returns
        -------
        list of str
            One an item: "ok", "exists" (there already, or being written), "busy", "unavailable",
            "invalid", "deadline", "stale".

        Raises
        ------
        TypeError
            For an item that is no tuple of bytes and a buffer, and for an array of dtype object.
        ValueError
            For an empty key or a negative timeout.
        BufferError or ValueError
            For a buffer that is not C-contiguous, as its type has it: BufferError of a sliced
            memoryview, ValueError of a numpy array.
        """
        until = time.monotonic() + timeout if durable else 0.0
        ends = self._core.put(items, part, timeout)
        if not durable:
            return ends
        there = [i for i, end in enumerate(ends) if end in ("ok", "exists")]
        left = max(until - time.monotonic(), 0.0)
        persisted = self._core.persist([items[i][0] for i in there], part, left)
        for i, end in zip(there, persisted, strict=True):
            if end != "ok":
                ends[i] = end
        return ends

    def persist(self, keys: Sequence[bytes], *, part: int = 0, timeout: float = 30.0) -> list[str]:
        """Waits until chunks survive kill -9 of the daemon and loss of power.

        Returns
        -------
        list of str
            One a key: "ok", "deadline" (not yet), "not found", "unavailable" (also without an
            NVMe tier), "denied" (it is read-only), "io error" (it could not be written),
            "invalid" (too long for it).
        """
        return self._core.persist(keys, part, timeout)

    def prefetch(self, keys: Sequence[bytes], *, part: int = 0, timeout: float = 1.0) -> list[str]:
        """Brings chunks nearer, holding nothing; "ok" is in DRAM."""
        return self._core.prefetch(keys, part, timeout)

    def remove(self, keys: Sequence[bytes], *, part: int = 0) -> list[str]:
        """Forgets chunks: "ok" or "not found"."""
        return self._core.remove(keys, part)

    def lease(self, keys: Sequence[bytes], ttl: float, *, part: int = 0) -> list[str]:
        """Keeps ready chunks for ``ttl`` seconds, even if this process dies.

        The leased chunks of all clients may take half of the tenant's pool, each its payload
        rounded up to 4 KiB, and 4 KiB more.

        Parameters
        ----------
        keys
            The chunks to keep.
        ttl
            Seconds from now.  A lease is only ever extended, never shortened.
        part
            Their part.

        Returns
        -------
        list of str
            One a key: "ok"; "busy" for a chunk that would go beyond that half: it is not leased;
            "not found" for one that is not ready; "stale", "unavailable".
        """
        return self._core.lease(keys, part, ttl)


class Client:
    """A connection to the node's daemon.

    Parameters
    ----------
    socket
        Path of the daemon's socket; by default ``$TERRACE_SOCKET``, else the first that answers of
        ``$XDG_RUNTIME_DIR/terrace/terraced.sock`` and ``/run/terrace/terraced.sock``.
    name
        Shown in ``terrace status``; by default the process' name.
    timeout
        Seconds to wait for the daemon at first.  One that is away is no error.
    """

    def __init__(self, socket: str | None = None, *, name: str = "", timeout: float = 5.0) -> None:
        self._core = _core.Client("" if socket is None else socket, name, timeout)

    @property
    def available(self) -> bool:
        """False while the daemon is away."""
        return self._core.available

    @property
    def chunk_bytes_max(self) -> int:
        """Bytes of the largest payload that the daemon takes; 0 before the first connection."""
        return self._core.chunk_bytes_max

    def status(self) -> dict[str, Any]:
        """Returns what ``terrace status --json`` prints.

        Raises
        ------
        Unavailable
            When nobody answers.
        ValueError
            After `close`.
        """
        status: dict[str, Any] = json.loads(self._core.status_json())
        return status

    def namespace(
        self,
        name: str,
        *,
        model: str = "",
        weights_digest: str = "",
        dtype: str = "",
        layout: str = "",
        tokens_per_chunk: int = 0,
        layer_bytes: Sequence[int] = (),
        ranks: int = 1,
        group_trailing: Sequence[int] = (0,),
        hash_algorithm: str = "",
        hash_seed: str = "",
        engine_build: str = "",
        isa: str = "",
        salt: str = "",
    ) -> Namespace:
        """Registers a namespace: the identity under which chunks are shared.

        Parameters
        ----------
        name
            Its label, unique in the tenant.
        layer_bytes
            Payload bytes of each layer, in order; empty when opaque.
        group_trailing
            One a KV group: 0 needs every chunk of a prefix, n only the trailing n.

        Raises
        ------
        ValueError
            Naming the field, when the label is registered with another identity; also for a number
            out of range and after `close`.
        TypeError
            For a field of another type.
        Unavailable
            When nobody answers, or the daemon refuses for another reason: its table is full, say.
        """
        fields = {
            "model": model,
            "weights_digest": weights_digest,
            "dtype": dtype,
            "layout": layout,
            "tokens_per_chunk": tokens_per_chunk,
            "layer_bytes": layer_bytes,
            "ranks": ranks,
            "group_trailing": group_trailing,
            "hash_algorithm": hash_algorithm,
            "hash_seed": hash_seed,
            "engine_build": engine_build,
            "isa": isa,
            "salt": salt,
        }
        return Namespace(self._core.register(name, fields), name, self)

    def close(self) -> None:
        """Ends the connection once calls of other threads are through.  Held pins stay valid."""
        self._core.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
