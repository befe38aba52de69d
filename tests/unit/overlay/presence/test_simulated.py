"""The step machines in a small simulated network; `python -m tests.simulation.presence` runs large ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from tests.simulation.presence.machines import Outage, Trouble
from tests.simulation.presence.scenarios import SCENARIOS, together
from tests.simulation.presence.world import World

SMALL = {
    "kill": 0.3,
    "vanish": 4.8,
    "frozen5": 0.0,
    "sides": 12.0,
    "restart": 9.0,
    "lie5": 0.0,
    "withwitnesses": 6.5,
    "witnessesstall8": 0.0,
    "blackout": 0.0,
    "brokenlinks": 4.5,
    "witnessesstallkill": 0.3,
}
"""Scenarios that run in a second, and within how many seconds the dead are hidden in them."""


@pytest.mark.parametrize("name", SMALL)
def test_dead_are_hidden_in_time_and_living_are_not(name: str) -> None:
    row = SCENARIOS[name](40, 1, 0.0)
    assert row.live_hidden == row.stuck == row.never == 0
    assert max(row.hidden, default=0.0) <= SMALL[name]
    assert bool(row.hidden) == (SMALL[name] > 0)
    assert max(row.again, default=0.0) <= 3.0


@pytest.mark.parametrize("name", ["lie2", "lie5", "oneway1", "oneway2"])
def test_hosts_that_mustnt_be_hidden_are_counted_over_all_runs(name: str) -> None:
    rows = [SCENARIOS[name](24, seed, 0.0) for seed in (1, 2)]
    assert all(0 < row.tries <= 24 for row in rows)
    both = together(rows)
    assert both.tries == sum(row.tries for row in rows)
    assert both.words == sum(row.words for row in rows) > 0
    assert both.live_hidden == both.stuck == both.never == 0


def restarting(seed: int, incarnation_of: Callable[[int, float, int], int]) -> World:
    """Of 30 peers a third is killed, most of which come back; others vanish, or stand still."""
    world = World(30, seed, seconds=60.0, incarnation_of=incarnation_of)
    for host in range(0, 30, 2):
        kind = (Trouble.KILLED, Trouble.KILLED, Trouble.VANISHED, Trouble.STALLED, Trouble.KILLED)[host % 5]
        start = world.randomness.uniform(15, 30)
        end = math.inf if host in (4, 14) else start + world.randomness.uniform(3, 9)
        world.machines.outages[host].append(Outage(start, end, kind))
    return world.run()


@pytest.mark.parametrize("seed", range(1, 4))
def test_shifting_wall_clocks_changes_no_decision(seed: int) -> None:
    """Every peer's clock is off by up to ten years, and is set anew all the time: only what an incarnation is knows of
    it, which is above that of the run before."""
    clocks = random.Random(seed)

    def shifted(own: int, now: float, last: int) -> int:  # as `next_incarnation` has it
        wall = 1_700_000_000 + now + clocks.uniform(-3e8, 3e8)
        return max(int(wall * 1000), last + 1)

    right, wrong = (
        restarting(seed, lambda _, now, last: max(int((1.7e9 + now) * 1000), last + 1)),
        restarting(seed, shifted),
    )
    assert {change.is_listed for change in right.changes} == {False, True}
    assert wrong.changes == right.changes
    assert wrong.sent == right.sent


@pytest.mark.parametrize("seed", range(1, 4))
def test_who_lost_its_disk_while_its_clock_went_back_is_listed_as_well(seed: int) -> None:
    """Its incarnation is below those that others know of: keepers tell it."""
    world = restarting(seed, lambda _, now, __: int(10**12 - now * 1000))
    there = [host for host in range(world.count) if world.machines.outage(host, world.now) is None]
    assert len(there) == world.count - 2
    for host in range(world.count):
        for replica in world.replicas[host]:
            view = world.nodes[replica].view_of(world.names[host])
            assert replica not in there or (view is not None and view.is_listed == (host in there))


@pytest.mark.parametrize("count", [2, 3])
def test_the_smallest_networks_notice_too(count: int) -> None:
    row = SCENARIOS["kill"](count, 1, 0.0)
    assert row.live_hidden == row.stuck == row.never == 0
    assert max(row.hidden) < 0.3


@pytest.mark.parametrize("seed", range(4, 9))
def test_the_smallest_network_notices_on_a_machine_that_starves_it(seed: int) -> None:
    row = SCENARIOS["busy"](3, seed, 0.0)
    assert row.live_hidden == row.stuck == row.never == 0
    assert max(row.hidden) < 7


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_large_network(name: str) -> None:
    row = SCENARIOS[name](400, 2, 1.0)
    assert row.live_hidden == row.stuck == 0
    assert row.never == 0
