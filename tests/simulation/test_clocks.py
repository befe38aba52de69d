"""Whole nodes over the simulated internet: how soon one whose clock is wrong knows it, and is well again."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import trio

from overlay.clock.comparison import Standing
from tests.simulation.clock import LOOKED_AFTER, LOOKS, VirtualClock
from tests.simulation.peers import PeerNetwork
from tests.simulation.scenario import settings_with
from tests.simulation.world import World, WorldNode, identity_of

NODES = 8
KNOWN_WITHIN = 2.0  # seconds after a node's start
RECOVERED_WITHIN = 10.0  # seconds after its clock was set


async def _run(folder: Path, skew: float) -> None:
    randomness, settings = random.Random(3), settings_with(5)
    network = PeerNetwork(randomness, settings.overlay, [identity_of(3, number).peer_id for number in (1, 2, 3)])
    async with trio.open_nursery() as nursery:
        world = World(nursery, randomness, settings, folder, lambda event: None, network, 3)
        nursery.start_soon(network.run)
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
        nursery.cancel_scope.cancel()


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
