"""LMCache's adapters of its second level, called as its own bench of them does
(``lmcache bench l2``): tasks of a store or a load, several in flight."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import select
from collections.abc import Callable, Sequence
from typing import Any

from bench.peers.disk.peer import PAGE_BYTES, DiskPeer, write_zeros
from bench.peers.peer import PeerError, Words

TASK_SECONDS = 30.0
TASKS = 4  # in flight: its load workers
CHECKPOINT_BYTES = 64 << 20
L2 = "lmcache.v1.distributed.l2_adapters"


class Adapter(DiskPeer):
    """What the adapters share."""

    environment = "lmcache"

    def configuration(self) -> dict[str, Any]:
        """Gives what ``--l2-adapter`` would."""
        raise NotImplementedError

    def connect(self, rows: Words) -> None:
        data: Any = importlib.import_module("lmcache.cli.commands.bench.l2_adapter_bench.data")
        config = importlib.import_module(L2 + ".config")
        buffer = importlib.import_module("torch").from_numpy(rows.view("uint8").reshape(-1))
        told = argparse.Namespace(l2_adapter=[json.dumps(self.configuration())])
        self._adapter: Any = importlib.import_module(L2).create_l2_adapter(
            config.parse_args_to_l2_adapters_config(told).adapters[0],
            l1_memory_desc=data.create_l1_memory_desc(buffer, align_bytes=PAGE_BYTES),
        )
        self._objects = data.make_memory_objects(buffer, len(rows), self.place.chunk_bytes, 0)
        self._keys: Callable[..., list[Any]] = data.make_object_keys

    def put(self, serials: Sequence[int], rows: Words) -> None:
        waiting = set()
        for keys, objects in self._tasks(serials, self._objects[: self.batch]):
            waiting.add(self._adapter.submit_store_task(keys, objects))
        while waiting:
            self._await(self._adapter.get_store_event_fd())
            for task, result in self._adapter.pop_completed_store_tasks().items():
                waiting.discard(task)
                if not result.is_successful():
                    raise PeerError("a store task failed")

    def get(self, serials: Sequence[int], rows: Words) -> Sequence[Words]:
        waiting = {}
        for keys, objects in self._tasks(serials, self._objects[self.batch :]):
            waiting[self._adapter.submit_load_task(keys, objects)] = len(keys)
        while waiting:
            self._await(self._adapter.get_load_event_fd())
            for task in list(waiting):
                found = self._adapter.query_load_result(task)
                if found is None:
                    continue
                if found.popcount() != waiting.pop(task):
                    raise PeerError("a load task missed")
        return list(rows)

    def close(self) -> None:
        self._adapter.close()

    def _tasks(self, serials: Sequence[int], objects: list[Any]) -> list[tuple[Any, Any]]:
        keys = [self._keys(1, key_offset=serial)[0] for serial in serials]
        step = -(-len(keys) // TASKS)
        return [(keys[at : at + step], objects[at : at + step][: len(keys) - at])
                for at in range(0, len(keys), step)]  # fmt: skip

    @staticmethod
    def _await(event: int) -> None:
        poll = select.poll()
        poll.register(event, select.POLLIN)
        if not poll.poll(TASK_SECONDS * 1000):
            raise PeerError(f"a task did not end within {TASK_SECONDS:.0f} s")
        os.read(event, 8)


class RawBlock(Adapter):
    """Slots in a file that was written before."""

    name = "lmcache-raw"
    remark = "raw_block, O_DIRECT, io_uring; its index is a checkpoint every 60 s"
    cold = "O_DIRECT"

    def prepare(self) -> None:
        write_zeros(self._path(), self._bytes())

    def configuration(self) -> dict[str, Any]:
        return {
            "type": "raw_block",
            "device_path": self._path(),
            "slot_bytes": self._slot_bytes(),
            "capacity_bytes": self._bytes(),
            "meta_total_bytes": CHECKPOINT_BYTES,
            "io_engine": "io_uring",
        }

    def settle(self) -> None:
        file = os.open(self._path(), os.O_RDONLY)
        try:
            os.fdatasync(file)
        finally:
            os.close(file)

    def _path(self) -> str:
        return self.place.folder + "/lmcache.data"

    def _slot_bytes(self) -> int:
        return self.place.chunk_bytes + PAGE_BYTES

    def _bytes(self) -> int:
        slots = self.place.working_set_bytes // self.place.chunk_bytes + 16
        size = CHECKPOINT_BYTES + slots * self._slot_bytes()
        return -(-size // (1 << 20)) * (1 << 20)


class FileAdapter(Adapter):
    """Its file adapter in C++."""

    name = "lmcache-files"
    remark = "fs_native, O_DIRECT; puts end with syncfs"
    cold = "O_DIRECT"

    def configuration(self) -> dict[str, Any]:
        base = self.place.folder + "/lmcache"
        return {"type": "fs_native", "base_path": base, "use_odirect": True}


class PythonFileAdapter(Adapter):
    """Its file adapter in Python."""

    name = "lmcache-fs"
    remark = "fs, buffered; puts end with syncfs"
    cold = "page cache dropped"

    def configuration(self) -> dict[str, Any]:
        return {"type": "fs", "base_path": self.place.folder + "/lmcache"}
