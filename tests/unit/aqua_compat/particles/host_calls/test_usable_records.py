"""Scripts resolve what is up and passes, as the node knows it whose functions they call; in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from aqua_compat.particles.host_calls import usable_records
from aqua_compat.schema.json_codec import to_json
from registry.health.exceptions import ExceptionList
from registry.health.state import HealthState, HostedService
from registry.model.values import Record
from registry.settings import NodeSettings, RegistrySettings
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.aqua_compat.particles.host_calls.test_registry_calls import Script, clock
from tests.unit.registry.builders import HOST, STRANGER, a_key, a_record
from tests.unit.registry.health.builders import CRITICAL, WARNING, FakePresence, Standing, bad

KEY = a_key()
OF_HOST, OF_OTHER = a_record(KEY.id), a_record(KEY.id, host=STRANGER)
DOWN = Standing(is_up=False, since=1.0)


class World:
    """A node that has two hosts' records of a resource, and knows of one of them what is said."""

    def __init__(self, node: SimulatedNode, presence: FakePresence) -> None:
        self.script = Script(node)
        self.presence = presence

    def said(self, state: HealthState) -> None:
        told = ExceptionList(HOST.peer_id)
        told.put(HostedService.of(OF_HOST.slot), bad(state))
        self.presence.becomes(HOST.peer_id, Standing(exceptions=told.told()))

    async def stored(self) -> Any:
        return sorted_by_host((await self.script.call("get_records", key_id=KEY.id))["result"])

    async def merged(self, *records: Record) -> Any:
        return sorted_by_host((await self.script.call("merge", records=[list(records)]))["result"])


def sorted_by_host(records: Any) -> list[str]:
    return sorted(record["metadata"]["peer_id"] for record in records)


BOTH = sorted((HOST.peer_id, STRANGER.peer_id))


@asynccontextmanager
async def world(rules: RegistrySettings | None = None) -> AsyncIterator[World]:
    presence, settings = FakePresence(), NodeSettings(registry=rules or RegistrySettings())
    async with simulated_nodes(1, settings, clock, lambda _: presence) as (_, [node]):
        built = World(node, presence)
        await built.script.register(KEY)
        for record in (OF_HOST, OF_OTHER):
            assert (await built.script.put(record))["success"]
        yield built


async def test_a_host_that_is_down_is_left_out_and_comes_back(autojump_clock: object) -> None:
    async with world() as built:
        assert await built.stored() == BOTH
        built.presence.becomes(HOST.peer_id, DOWN)
        assert await built.stored() == [STRANGER.peer_id]
        assert await built.merged(OF_HOST, OF_OTHER) == [STRANGER.peer_id]
        two = await built.script.call("merge_two", a=[OF_HOST], b=[OF_OTHER])
        assert two["result"] == [to_json(OF_OTHER)]
        built.presence.becomes(HOST.peer_id, Standing())
        assert await built.stored() == await built.merged(OF_HOST, OF_OTHER) == BOTH


async def test_what_is_critical_is_left_out_and_what_warns_is_not(autojump_clock: object) -> None:
    async with world() as built:
        built.said(CRITICAL)
        assert await built.stored() == [STRANGER.peer_id]
        built.said(WARNING)
        assert await built.stored() == BOTH


async def test_a_read_follows_the_hosts_and_waits_a_moment_for_what_is_known_of_them(autojump_clock: object) -> None:
    async with world() as built, trio.open_nursery() as nursery:

        async def learn() -> None:
            await trio.sleep(usable_records.SETTLES_WITHIN / 2)
            built.presence.becomes(HOST.peer_id, DOWN)

        nursery.start_soon(learn)
        began = trio.current_time()
        assert await built.stored() == [STRANGER.peer_id]
        assert trio.current_time() - began <= usable_records.SETTLES_WITHIN + 0.01
        assert built.presence.followed == set(BOTH)


async def test_records_that_a_script_made_up_have_nobody_followed(autojump_clock: object) -> None:
    async with world() as built:
        built.presence.becomes(HOST.peer_id, DOWN)
        assert await built.merged(OF_HOST, OF_OTHER) == BOTH
        assert built.presence.followed == set()


async def test_the_scripts_of_one_peer_have_so_many_followed(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usable_records, "MOST_OF_PEER", 1)
    async with world() as built:
        built.presence.becomes(HOST.peer_id, DOWN)
        built.presence.becomes(STRANGER.peer_id, DOWN)
        assert len(await built.stored()) == len(built.presence.followed) == 1


async def test_what_the_node_itself_hosts_and_says_is_critical_is_left_out_but_renewed(autojump_clock: object) -> None:
    async with world(RegistrySettings(expired_age=8)) as built:
        node = built.script.node
        assert (await node.registry.register_service(KEY.id, "", node.peer_id, None)).success
        assert node.peer_id in await built.stored()
        assert (await node.registry.report_health(KEY.id, CRITICAL)).success
        assert await built.stored() == BOTH
        await trio.sleep(5)
        stale = await built.script.call("get_stale_local_records")
        assert sorted_by_host(stale["result"]) == [node.peer_id]
