"""Whole nodes over the simulated internet: how soon one whose clock is wrong knows it, and is well again."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from overlay.clock.comparison import Standing
from overlay.identity import public_key_of
from registry.client.results import Done
from registry.codes import Code
from registry.permission.edits import Edit, EditKind
from tests.simulation.clock import LOOKED_AFTER, LOOKS, VirtualClock
from tests.simulation.peers import PeerNetwork
from tests.simulation.scenario import settings_with
from tests.simulation.world import World, WorldNode, identity_of

NODES = 8
KNOWN_WITHIN = 2.0  # seconds after a node's start
RECOVERED_WITHIN = 10.0  # seconds after its clock was set


@asynccontextmanager
async def _world(folder: Path) -> AsyncIterator[tuple[World, trio.Nursery, random.Random]]:
    """A network without nodes yet."""
    randomness, settings = random.Random(3), settings_with(5)
    network = PeerNetwork(randomness, settings.overlay, [identity_of(3, number).peer_id for number in (1, 2, 3)])
    async with trio.open_nursery() as nursery:
        world = World(nursery, randomness, settings, folder, lambda event: None, network, 3)
        nursery.start_soon(network.run)
        yield world, nursery, randomness
        nursery.cancel_scope.cancel()


async def _run(folder: Path, skew: float) -> None:
    async with _world(folder) as (world, _, randomness):
        for _ in range(NODES):
            await world.add(randomness.uniform(-4, 4))
        await trio.sleep(20)
        assert {_standing(node) for node in world.nodes} == {Standing.RIGHT}
        sick = await world.add(skew)
        await trio.sleep(KNOWN_WITHIN)
        assert _standing(sick) is Standing.OFF
        assert sick.parts is not None
        await trio.sleep(20)
        assert not sick.parts.replica.is_caught_up
        assert (await sick.parts.registry.create_resource("sample")).resource_id is None
        assert {_standing(node) for node in world.nodes if node is not sick} == {Standing.RIGHT}
        sick.skew = 0.0
        with trio.fail_after(RECOVERED_WITHIN):
            while not sick.parts.replica.is_caught_up:  # noqa: ASYNC110 - virtual time
                await trio.sleep(0.1)
        assert (await sick.parts.registry.create_resource("sample", factor=3)).resource_id is not None


async def _jumps_meanwhile(folder: Path) -> None:
    """A clock is set while its node asks others what it has to know before it signs."""
    async with _world(folder) as (world, nursery, _):
        for _ in range(NODES):
            await world.add()
        await trio.sleep(20)
        owner, other = world.nodes[0], world.nodes[1]
        assert owner.parts is not None
        assert other.parts is not None
        assert _standing(owner) is _standing(other) is Standing.RIGHT
        registry = owner.parts.registry
        created = await registry.create_resource("sample", factor=3)
        assert created.resource_id is not None
        resource_id = created.resource_id
        await registry.change_policy(resource_id, [Edit(EditKind.ALLOW, public_key_of(other.peer_id))])

        async def set_clock(node: WorldNode) -> None:
            await trio.sleep(0.02)
            node.skew = 29.0  # seconds: others would take what it signs

        async def register() -> Done:
            assert other.parts is not None
            return await other.parts.registry.register_service(resource_id, "v", other.peer_id, None)

        acts: list[tuple[WorldNode, Callable[[], Awaitable[Done]]]] = [
            (owner, partial(registry.change_policy, resource_id, [Edit(EditKind.CLOSE)])),
            (owner, partial(registry.remove_resource, resource_id)),
            (other, register),
        ]
        for node, act in acts:
            nursery.start_soon(set_clock, node)
            done = await act()
            assert (done.success, done.code) == (False, Code.CLOCK), done.errors
            node.skew = 0.0
        for node in world.nodes:
            assert node.store is not None
            assert not (await node.store.resource(resource_id)).key_tombstones


def test_nothing_is_signed_by_a_clock_that_jumped_while_others_were_asked(tmp_path: Path) -> None:
    trio.run(_jumps_meanwhile, tmp_path, clock=VirtualClock())


def _standing(node: WorldNode) -> Standing:
    assert node.network is not None
    return node.network.compared_clock.verdict().standing


@pytest.mark.parametrize("skew", [-45.0, 172_800.0])
def test_a_node_knows_soon_after_its_start_that_its_clock_is_wrong(tmp_path: Path, skew: float) -> None:
    trio.run(_run, tmp_path, skew, clock=VirtualClock())


def test_a_run_in_which_all_wait_for_each_other_fails_and_doesnt_hang() -> None:
    clock = VirtualClock()
    for _ in range(2):
        for _ in range(LOOKS):
            assert clock.deadline_to_sleep_time(math.inf) == LOOKED_AFTER
        assert clock.deadline_to_sleep_time(clock.current_time() + 1.0) == 0.0, "it goes on after all"
    for _ in range(LOOKS):
        clock.deadline_to_sleep_time(math.inf)
    with pytest.raises(RuntimeError, match="every task waits"):
        clock.deadline_to_sleep_time(math.inf)
