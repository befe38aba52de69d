"""What writes that follow each other cost, in calls between nodes: they share frames, and so commits."""

from __future__ import annotations

import time
from collections import Counter

import trio

from registry.protocol.index_messages import ENTER
from registry.protocol.messages import PUT
from registry.settings import NodeSettings, UpkeepSettings
from tests.simulation.nodes import simulated_nodes

NODES = 32
WRITES = 40
EVERY = 0.015  # seconds
QUIET = NodeSettings(upkeep=UpkeepSettings(clear_expired=1e6, replicate=1e6, renew=1e6))
MOST_PUTS = 8.0  # of a write that 20 replicas get
MOST_COMMITS = 11.0


async def test_writes_that_follow_each_other_share_frames_and_commits(autojump_clock) -> None:
    async with simulated_nodes(NODES, QUIET, time.time) as (network, nodes):
        await trio.sleep(20)
        writer = nodes[1]
        network.calls.clear()
        before = sum(node.store.commits for node in nodes)
        for number in range(WRITES):
            assert (await writer.registry.create_resource(f"web{number}")).resource_id is not None
            await trio.sleep(EVERY)
        await trio.sleep(10)
        calls = Counter(method for _, _, method in network.calls)
        assert calls[PUT] / WRITES <= MOST_PUTS
        assert calls[ENTER] <= 2 * NODES
        assert (sum(node.store.commits for node in nodes) - before) / WRITES <= MOST_COMMITS
        for node in nodes:
            kept = await node.store.read(lambda transaction: transaction.positions.key_ids("", 2 * WRITES))
            assert len(kept) > WRITES / 4, "each gets to 20 of them"
