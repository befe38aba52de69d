"""Neighbourhoods from memory: those of brute force, or none."""

from __future__ import annotations

import random

import pytest

from overlay.discovery.keyspace import POSITION_BITS
from overlay.discovery.regions import ASK_FOR, BELIEVED_FOR, MOST_REGIONS, Regions
from tests.simulation.overlay.positions import KINDS, nearest_of, some_positions

K = 20


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def found(positions: list[int], target: int, count: int = ASK_FOR) -> dict[str, int]:
    """What a lookup finds around a target."""
    return {str(position): position for position in nearest_of(positions, target, count)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [5, 30, 48, 49, 100, 1000])
def test_what_is_remembered_is_what_brute_force_finds(kind: str, size: int) -> None:
    randomness = random.Random(size)
    positions = some_positions(size, randomness, kind)
    regions, hits = Regions(Clock()), 0
    for _ in range(40):
        target = randomness.getrandbits(POSITION_BITS)
        regions.remember(target, found(positions, target), K)
        for _ in range(10):
            other = randomness.getrandbits(POSITION_BITS)
            near = target ^ (other >> randomness.randrange(POSITION_BITS))
            for looked_up in (other, near):
                told = regions.nearest(looked_up, K)
                if told is not None:
                    hits += 1
                    assert told == [str(position) for position in nearest_of(positions, looked_up, K)]
    # Exponentially spread, members that are far are all about equally far: no subtree below the farthest has any.
    assert hits or kind == "exponential"


def test_a_region_is_believed_for_a_while_only() -> None:
    clock = Clock()
    regions = Regions(clock)
    regions.remember(0, {"a": 1, "b": 2}, K)
    clock.now = BELIEVED_FOR - 1
    assert regions.nearest(7, K) == ["b", "a"]
    clock.now = BELIEVED_FOR + 1
    assert regions.nearest(7, K) is None


def test_a_member_that_could_not_be_reached_has_its_regions_forgotten() -> None:
    regions = Regions(Clock())
    regions.remember(0, {"a": 1, "b": 2}, K)
    regions.forget("c")
    assert regions.nearest(0, K) == ["a", "b"]
    regions.forget("b")
    assert regions.nearest(0, K) is None


def test_regions_are_bounded() -> None:
    regions = Regions(Clock())
    targets = [number << 200 for number in range(2 * MOST_REGIONS)]
    for target in targets:
        near = [target ^ distance for distance in [*range(1, ASK_FOR), 1 << 100]]
        regions.remember(target, {str(position): position for position in near}, K)
    assert len(regions) == MOST_REGIONS
    assert regions.nearest(targets[0], K) is None, "the oldest gave way"
    assert regions.nearest(targets[-1], K) is not None
