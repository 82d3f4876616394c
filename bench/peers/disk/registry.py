"""The disk sides, in the order of the table."""

from __future__ import annotations

from bench.peers.disk.files import DirectFiles, Files
from bench.peers.disk.lmcache import FileAdapter, PythonFileAdapter, RawBlock
from bench.peers.disk.mooncake import Mooncake
from bench.peers.disk.nixl import Nixl
from bench.peers.disk.peer import DiskPeer
from bench.peers.disk.terrace import Terrace

PEERS: dict[str, type[DiskPeer]] = {
    peer.name: peer
    for peer in (RawBlock, FileAdapter, PythonFileAdapter, Nixl, Mooncake, DirectFiles, Files)
}
ALL: dict[str, type[DiskPeer]] = {Terrace.name: Terrace, **PEERS}
