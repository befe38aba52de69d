"""What a client is told, and how soon, when the nodes that it acts through are gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import trio

from registry.client.registrations import ENDING_TIMEOUT
from registry.client.registry import Registry
from registry.client.timestamps import TimestampLog
from registry.codes import Code
from registry.errors import NodeUnavailable
from registry.model.values import Record, Slot
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item, WriteOutcome
from registry.quorum.read_machine import ReadOutcome
from registry.replica.ingest import Ingest
from registry.replica.sender_limits import SenderLimits
from registry.replica.weights import Weights
from registry.settings import CurrentSettings, RegistrySettings
from tests.simulation.nodes import SimulatedNode, simulated_nodes

NOW = 1_700_000_000
SETTINGS = RegistrySettings()


class LosesItsNodes:
    """Refuses writes with the `codes` given, then reads with nobody left to answer."""

    def __init__(self, node: SimulatedNode, codes: Sequence[Code]) -> None:
        self._errors = tuple(ErrorInfo(code, code) for code in codes)
        self.peer_id = node.peer_id

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        await trio.lowlevel.checkpoint()
        return WriteOutcome(stored=0, targets=1, errors=self._errors)

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        await trio.lowlevel.checkpoint()
        raise NodeUnavailable("no node answers")

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        await trio.lowlevel.checkpoint()
        raise NodeUnavailable("no node answers")


def registry_of(node: SimulatedNode, codes: Sequence[Code], clock: Any) -> Registry:
    """A registry on the node's storage that acts through nodes that go."""
    limit = SenderLimits(node.peer_id, SETTINGS)
    ingest = Ingest(node.peer, node.store, CurrentSettings(SETTINGS), limit, Weights({}), clock)
    log = TimestampLog(node.store, ingest, node.peer_id)
    api: Any = LosesItsNodes(node, codes)
    parts = node.parts
    return Registry(
        node.identity, api, parts.host, parts.health, parts.health_of_hosts, log, parts.watches, SETTINGS, clock
    )


async def test_creating_a_removed_resource_is_told_when_nobody_says_since_when(autojump_clock: object) -> None:
    async with simulated_nodes(1) as (_, [node]):
        created = await registry_of(node, [Code.KEY_REMOVED], time.time).create_resource("sample")
    assert created.resource_id is None
    assert created.errors == ("no node answers",), "the time wasn't up"


async def test_ending_a_record_here_waits_for_no_clock_longer_than_it_may(autojump_clock: object) -> None:
    ahead = 0.0

    def clock() -> float:
        return NOW + ahead

    async with simulated_nodes(1, clock=clock) as (_, [node]):
        resource_id = (await node.registry.create_resource("sample")).resource_id or ""
        ahead = SETTINGS.clock_skew
        assert (await node.registry.register_service(resource_id, "v", node.peer_id, None)).success
        ahead = -SETTINGS.clock_skew  # set back: what could end the record, others wouldn't accept for a long time
        began = trio.current_time()
        done = await registry_of(node, [], clock).unregister_service(resource_id, node.peer_id)
        assert not done.success
        assert trio.current_time() - began <= ENDING_TIMEOUT
        [state] = (await node.store.resource(resource_id)).slots.values()
    assert isinstance(state, Record), state
    assert state.slot == Slot(resource_id, node.peer_id, node.peer_id)
