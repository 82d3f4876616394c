"""The peers, in the order of the table.

InfiniStore is not among them: its server ends without an RDMA device ("Failed to get RDMA devices
list"), over TCP too.
"""

from __future__ import annotations

from bench.peers.aibrix import AIBrix
from bench.peers.files import Files
from bench.peers.lmcache import LMCache
from bench.peers.memory import Memory
from bench.peers.mooncake import Mooncake
from bench.peers.openlake import OpenLake
from bench.peers.peer import Peer
from bench.peers.redhare import Redhare
from bench.peers.redis import Redis
from bench.peers.terrace import Terrace
from bench.peers.vineyard import Vineyard

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (Redis, Mooncake, OpenLake, Redhare, Vineyard, LMCache, AIBrix, Files, Memory)
}
ALL: dict[str, type[Peer]] = {Terrace.name: Terrace, **PEERS}
