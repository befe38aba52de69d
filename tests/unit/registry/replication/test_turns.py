"""Turns of peers that are compared with: who takes long keeps nobody else waiting for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

import trio

from overlay.discovery.density import Density
from registry.protocol.messages import PutAnswer, build, parse
from registry.protocol.network import Network
from registry.replica.replica import Replica
from registry.replication.anti_entropy import CALL_TIMEOUT, AntiEntropy
from registry.replication.comparison_plan import AT_ONCE, LONGEST_RESOURCES
from registry.replication.messages import (
    COMPARE,
    COMPARE_RANGES,
    CompareAnswer,
    CompareBody,
    RangesAnswer,
    ReplicateBody,
)
from registry.replication.scheduler import ReplicationScheduler
from registry.settings import RegistrySettings, UpkeepSettings
from registry.storage import open_store
from registry.storage.database import IN_MEMORY
from tests.unit.registry.builders import HOST, NODE, NOW, a_key, identity

SLOW = [identity(100 + number).peer_id for number in range(AT_ONCE)]
HONEST = HOST.peer_id
KEYS = [a_key(f"resource {number}").id for number in range(500)]


class SlowAndHonest:
    """A network where some answer at the last moment, and compare one resource each time."""

    peer_id = NODE.peer_id

    def __init__(self) -> None:
        self.compared_at: dict[str, list[float]] = {}

    def serve(self, *_: object) -> None:
        """Nobody asks this node."""

    def on_membership_change(self, _: Callable[[], None]) -> None:
        """Nobody comes or goes."""

    def density(self) -> Density:
        return Density(1.0)

    def neighbours(self) -> list[str]:
        return [*SLOW, HONEST]

    async def call(self, peer_id: str, method: str, body: object, timeout: float) -> object:
        await trio.sleep(0.01 if peer_id == HONEST else 0.9 * timeout)
        if method == COMPARE_RANGES:
            return build(RangesAnswer(same=True))
        if method != COMPARE:
            parse(body, ReplicateBody)
            return build(PutAnswer(()))
        request = parse(body, CompareBody)
        self.compared_at.setdefault(peer_id, []).append(trio.current_time())
        compared = len(request.entries) if peer_id == HONEST else 1
        return build(CompareAnswer(request.horizon, compared, ()))


class Kept:
    """The settings of this node's replica."""

    settings = RegistrySettings()


async def test_who_answers_at_the_last_moment_again_and_again_keeps_nobody_else_waiting(autojump_clock) -> None:
    network = SlowAndHonest()
    async with open_store(IN_MEMORY, inline=True) as store, trio.open_nursery() as nursery:
        comparing = AntiEntropy(cast("Network", network), store, cast("Replica", Kept()), lambda: NOW)
        scheduler = ReplicationScheduler(
            cast("Network", network), store, comparing, UpkeepSettings(), 20, random.Random(1)
        )
        await nursery.start(scheduler.run)
        await trio.sleep(60)
        assert scheduler.status().settled, "who was there before it ran was compared with, too"
        for peer_id in SLOW:
            scheduler.note_failure(peer_id, KEYS)
        await trio.sleep(2 * CALL_TIMEOUT)
        scheduler.note_failure(HONEST, KEYS)
        await trio.sleep(LONGEST_RESOURCES)
        assert HONEST in network.compared_at
        await trio.sleep(2000)
        assert all(len(network.compared_at[peer_id]) > 20 for peer_id in SLOW), "they get their turns, too"
        nursery.cancel_scope.cancel()
