"""Neighbourhoods from memory: those of brute force, or none."""

from __future__ import annotations

import random

import pytest

from overlay.discovery.keyspace import POSITION_BITS
from overlay.discovery.regions import BELIEVED_FOR, FRESH_FOR, MOST_REGIONS, Regions
from tests.simulation.overlay.positions import KINDS, nearest_of, some_positions, within

K = 20


def nearest(regions: Regions, target: int) -> list[str] | None:
    """As the region says that is remembered around `target`."""
    region = regions.around(target, K)
    return region.nearest(target, K) if region is not None else None


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def remembered(regions: Regions, positions: list[int], target: int, height: int) -> None:
    """What whoever has its home there tells."""
    members = within(positions, target, height)
    if len(members) >= K or height == POSITION_BITS:
        regions.remember(target, height, {str(position): position for position in members})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [5, 30, 100, 1000])
def test_what_is_remembered_is_what_brute_force_finds(kind: str, size: int) -> None:
    randomness = random.Random(size)
    positions = some_positions(size, randomness, kind)
    regions, hits = Regions(Clock()), 0
    for _ in range(40):
        target = randomness.choice(positions) ^ randomness.getrandbits(200)
        remembered(regions, positions, target, POSITION_BITS - randomness.randrange(8))
        for _ in range(10):
            other = randomness.getrandbits(POSITION_BITS)
            near = target ^ (other >> randomness.randrange(POSITION_BITS))
            for looked_up in (other, near):
                told = nearest(regions, looked_up)
                if told is not None:
                    hits += 1
                    assert told == [str(position) for position in nearest_of(positions, looked_up, K)]
    assert hits


def test_who_is_named_but_lies_elsewhere_does_not_count() -> None:
    regions = Regions(Clock())
    regions.remember(0, POSITION_BITS - 1, {**{str(position): position for position in range(K)}, "far": 1 << 255})
    told = nearest(regions, 1 << 254)
    assert told is not None
    assert "far" not in told


def test_a_region_is_believed_for_a_while_only() -> None:
    clock = Clock()
    regions = Regions(clock)
    regions.remember(0, POSITION_BITS, {"a": 1, "b": 2})
    clock.now = BELIEVED_FOR - 1
    assert nearest(regions, 7) == ["b", "a"]
    clock.now = BELIEVED_FOR + 1
    assert nearest(regions, 7) is None


def test_a_region_is_fresh_for_a_short_while_and_dropped_when_it_is_so_no_more() -> None:
    clock = Clock()
    regions = Regions(clock)
    regions.remember(0, POSITION_BITS, {"a": 1, "b": 2})
    region = regions.around(0, K)
    assert region is not None
    clock.now = FRESH_FOR
    assert regions.is_fresh(region)
    clock.now = FRESH_FOR + 1
    assert not regions.is_fresh(region)
    assert regions.around(0, K) is region, "it is to be asked about"
    regions.drop(region)
    assert regions.around(0, K) is None


def test_a_member_that_could_not_be_reached_has_its_regions_forgotten() -> None:
    regions = Regions(Clock())
    regions.remember(0, POSITION_BITS, {"a": 1, "b": 2})
    regions.forget("c")
    assert nearest(regions, 0) == ["a", "b"]
    regions.forget("b")
    assert nearest(regions, 0) is None


def test_a_newcomer_has_the_regions_around_it_looked_up_anew() -> None:
    regions = Regions(Clock())
    regions.remember(0, 100, {str(position): position for position in range(1, K + 5)})
    regions.note_member(1 << 200)
    assert nearest(regions, 7) is not None
    regions.note_member(1 << 99)
    assert nearest(regions, 7) is None


def test_regions_are_bounded() -> None:
    regions = Regions(Clock())
    targets = [number << 200 for number in range(2 * MOST_REGIONS)]
    for target in targets:
        regions.remember(target, 100, {str(target ^ distance): target ^ distance for distance in range(1, K + 5)})
    assert len(regions) == MOST_REGIONS
    assert nearest(regions, targets[0]) is None, "the oldest gave way"
    assert nearest(regions, targets[-1]) is not None
