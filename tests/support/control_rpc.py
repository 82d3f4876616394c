"""The control plane as a client with none of our code sees it: pycapnp and the schema."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import capnp

capnp.remove_import_hook()
SCHEMA = capnp.load(
    str(pathlib.Path(__file__).resolve().parents[2] / "proto" / "terrace.capnp"),
    imports=["/usr/include"],
)


def run(socket: str, work: Callable[[Any], Awaitable[None]]) -> None:
    """Runs ``work`` with the bootstrap capability."""

    async def main() -> None:
        stream = await capnp.AsyncIoStream.create_unix_connection(path=socket)
        await work(capnp.TwoPartyClient(stream).bootstrap().cast_as(SCHEMA.Terrace))

    asyncio.run(capnp.run(main()))


def key(n: int) -> dict[str, bytes]:
    """Makes the key of a number."""
    return {"bytes": n.to_bytes(32, "little")}
