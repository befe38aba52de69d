"""The step machines in a small simulated network; `python -m tests.simulation.presence` runs large ones."""

from __future__ import annotations

import pytest

from tests.simulation.presence.scenarios import SCENARIOS, together

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
