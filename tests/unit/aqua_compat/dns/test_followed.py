"""What is known of names that are asked: found once, then at hand; bounded, however many are asked."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from aqua_compat.dns.followed import COUNTS_FOR, KEPT_FOR, FollowedNames, Unanswered
from overlay.tasks import background
from registry.model.endpoints import Instance, write_instances
from registry.model.signing import key_id_of
from registry.settings import NodeSettings, RegistrySettings
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.health.builders import CRITICAL, FakePresence

VALUE = write_instances([Instance(id="1", address="192.0.2.1", port=80)])
SETTLED = 1.0  # seconds


class Following:
    def __init__(self, nodes: list[SimulatedNode], names: FollowedNames) -> None:
        self.nodes, self.names = nodes, names

    async def resource(self, label: str) -> str:
        created = (await self.nodes[0].registry.create_resource(label, factor=4)).resource_id
        assert created is not None
        for node in self.nodes[:2]:
            assert (await node.registry.register_service(created, VALUE, node.peer_id, None, factor=4)).success
        return created

    def hosts(self, resource_id: str) -> list[str]:
        known = self.names.at_hand(resource_id)
        assert known is not None
        return [each.host for each in known.usable]


@asynccontextmanager
async def following(max_followed: int = 4, max_resolving: int = 2) -> AsyncIterator[Following]:
    presence, settings = FakePresence(), NodeSettings(registry=RegistrySettings(neighbourhood_size=4))
    async with (
        simulated_nodes(4, settings, time.time, lambda _: presence) as (_, nodes),
        background() as nursery,
    ):
        parts = nodes[0].parts
        names = FollowedNames(
            parts.registry, parts.health_of_hosts, max_followed=max_followed, max_resolving=max_resolving, timeout=1.0
        )
        nursery.start_soon(names.run)
        await trio.testing.wait_all_tasks_blocked()
        yield Following(nodes, names)


async def test_a_name_is_found_once_and_followed_then(autojump_clock: object) -> None:
    async with following() as world:
        resource_id = await world.resource("web")
        assert world.names.at_hand(resource_id) is None
        assert len((await world.names.find(resource_id)).usable) == 2
        await trio.sleep(SETTLED)
        own, other = (node.peer_id for node in world.nodes[:2])
        assert world.hosts(resource_id) == sorted([own, other])
        assert (await world.nodes[0].registry.report_health(resource_id, CRITICAL, "")).success
        await trio.sleep(SETTLED)
        assert world.hosts(resource_id) == [other]
        assert (await world.nodes[1].registry.unregister_service(resource_id, other, factor=4)).success
        await trio.sleep(SETTLED)
        assert world.hosts(resource_id) == []


async def test_what_is_not_there_is_known_for_a_moment_and_not_followed(autojump_clock: object) -> None:
    async with following() as world:
        missing = key_id_of("nothing", world.nodes[0].peer_id)
        assert not (await world.names.find(missing)).exists
        assert world.names.at_hand(missing) is not None
        await trio.sleep(COUNTS_FOR + 0.1)
        assert world.names.at_hand(missing) is None
        assert world.names.followed == 0


async def test_of_those_that_are_followed_the_one_asked_for_longest_ago_gives_way(autojump_clock: object) -> None:
    async with following(max_followed=2) as world:
        first, second, third = [await world.resource(label) for label in ("1", "2", "3")]
        for resource_id in (first, second):
            await world.names.find(resource_id)
            await trio.sleep(SETTLED)
        world.names.at_hand(first)
        await world.names.find(third)
        await trio.sleep(COUNTS_FOR + SETTLED)
        assert world.names.followed == 2
        assert [world.names.at_hand(each) is None for each in (first, second, third)] == [False, True, False]


async def test_what_nobody_asks_for_is_not_followed_for_ever(autojump_clock: object) -> None:
    async with following() as world:
        resource_id = await world.resource("web")
        await world.names.find(resource_id)
        await trio.sleep(KEPT_FOR / 2)
        assert world.names.at_hand(resource_id) is not None
        await trio.sleep(KEPT_FOR / 2 + SETTLED)
        assert world.names.followed == 1
        await trio.sleep(KEPT_FOR)
        assert world.names.followed == 0


async def test_only_so_many_are_found_at_the_same_time_and_nobody_waits_twice(autojump_clock: object) -> None:
    async with following(max_resolving=1) as world:
        resource_id = await world.resource("web")
        outcomes: list[object] = []

        async def find(each: str) -> None:
            try:
                outcomes.append((await world.names.find(each)).exists)
            except Unanswered:
                outcomes.append(None)

        async with trio.open_nursery() as nursery:
            for each in (resource_id, resource_id):
                nursery.start_soon(find, each)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Unanswered):
                await world.names.find(key_id_of("other", world.nodes[0].peer_id))
        assert outcomes == [True, True]


async def test_a_name_that_is_found_while_the_node_stops_isnt_followed_any_more(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.CancelScope() as stopping:
        async with following() as world:
            resource_id, registry = await world.resource("web"), world.nodes[0].registry
            resolve = registry.resolve_resource

            async def resolve_and_stop(resource_id: str, ack: int, **given: Any) -> object:
                resolved = await resolve(resource_id, ack, **given)
                stopping.cancel()
                with trio.CancelScope(shield=True):
                    await trio.sleep(SETTLED)  # in which watches end
                return resolved

            monkeypatch.setattr(registry, "resolve_resource", resolve_and_stop)
            await world.names.find(resource_id)
    assert stopping.cancelled_caught
