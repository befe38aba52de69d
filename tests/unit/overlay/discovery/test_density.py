"""Dense positions and their regions, with ids ground close to a resource, against those who know everybody."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.density import (
    BEGINS,
    CROWD,
    ENDS,
    MOST_OTHERS,
    STEADY,
    TAKEN,
    Density,
    SteadySize,
    drawn,
    estimated_size,
    keepers,
)
from overlay.discovery.home import Home
from overlay.discovery.keyspace import POSITION_BITS
from tests.simulation.overlay.positions import nearest_of, some_positions
from tests.unit.overlay.discovery.test_home import knowing

K = 20
SEEDS = st.integers(0, 2**32)
SIZES = st.floats(1, 1e6)
PARTS = st.sampled_from([BEGINS, ENDS, TAKEN])


def named(positions: Sequence[int]) -> dict[str, int]:
    return {str(position): position for position in positions}


def ground(target: int, honest: Sequence[int], count: int, randomness: random.Random) -> list[int]:
    """Ids nearer to a target than everybody honest, anywhere there."""
    free = min(position ^ target for position in honest)
    return [target ^ randomness.randrange(1, free) for _ in range(count)]


@given(SIZES, PARTS)
def test_distances_are_what_the_size_lets_expect_or_up_to_an_eighth_less(size: float, part: float) -> None:
    expected = min(part * CROWD / size, 1.0) * 2.0**POSITION_BITS
    assert 0.799 * expected <= Density(size).distance(part) <= 1.001 * expected


@given(SIZES)
def test_a_region_lets_expect_a_crowd_or_up_to_twice_as_many(size: float) -> None:
    members = size * 2.0 ** (Density(size).height - POSITION_BITS)
    assert CROWD <= members < 2 * CROWD if size >= CROWD else members == size


@given(SEEDS, st.integers(1, 200), st.integers(0, 60), PARTS)
def test_keepers_are_the_nearest_and_where_it_is_dense_all_of_the_region(
    seed: int, honest: int, crowd: int, part: float
) -> None:
    randomness = random.Random(seed)
    positions = [randomness.getrandbits(POSITION_BITS) for _ in range(honest)]
    target = randomness.getrandbits(POSITION_BITS)
    positions += ground(target, positions, crowd, randomness)
    density = Density(honest * randomness.uniform(0.7, 1.3))
    ranked = sorted(positions, key=target.__xor__)
    expected = ranked[:K]
    if len(ranked) > K and ranked[CROWD - 1] ^ target < density.distance(part):
        expected += [at for at in ranked[K:] if (at ^ target) >> density.height == 0]
    assert keepers(target, named(positions), K, density, part) == [str(position) for position in expected]


@pytest.mark.parametrize("size", [1, 5, 10, 24, 32, 64, 100, 300, 1000])
@pytest.mark.parametrize("crowd", [0, 20, 40, 100])
def test_a_size_is_estimated_alike_however_many_ids_are_ground_close_to_a_resource(size: int, crowd: int) -> None:
    randomness = random.Random(f"{size} {crowd}")
    ratios = []
    for _ in range(20):
        honest = some_positions(size, randomness, "random")
        target = randomness.getrandbits(POSITION_BITS)
        # Within a hundredth of what is free: who takes more of it competes with the honest for less of the resource.
        close = min(position ^ target for position in honest) // 100
        everybody = [*honest, *(target ^ randomness.randrange(1, close) for _ in range(crowd))]
        for own in randomness.choice(honest), min(honest, key=target.__xor__):
            ratios.append(knowing(own, everybody).density.size / size)
    low, high = (0.7, 1.4) if size >= 10 else (0.5, 3.0)
    assert low <= median(ratios) <= high
    if size >= 10:
        assert sorted(ratios)[2] >= 0.5, "who shrinks it makes regions larger"
        assert sorted(ratios)[-3] <= 2.0, "who grows it makes them smaller"


def test_the_size_of_a_network_that_is_known_whole_is_close_to_the_number_of_its_members() -> None:
    randomness = random.Random(7)
    for size in (30, 300, 3000):
        positions = some_positions(size, randomness, "random")
        assert 0.8 * size <= estimated_size(positions, [POSITION_BITS]) <= 1.2 * size
        half = [position for position in positions if position >> (POSITION_BITS - 1)]
        assert 0.7 * size <= estimated_size(half, [POSITION_BITS - 1]) <= 1.3 * size


@given(st.lists(st.floats(1, 1e6), min_size=1))
def test_a_steady_size_follows_what_left_it_far_and_nothing_else(estimates: list[float]) -> None:
    steady = SteadySize()
    for estimate in estimates:
        before = steady.value
        now = steady.note(estimate)
        assert now in (before, estimate)
        assert now / STEADY <= estimate <= now * STEADY


@given(SEEDS, st.integers(1, 80), st.integers(0, 60))
def test_drawn_members_are_distinct_and_all_where_there_are_few(seed: int, size: int, count: int) -> None:
    randomness = random.Random(seed)
    members = named([randomness.getrandbits(200) for _ in range(size)])
    found = drawn(members, randomness.getrandbits(200), 200, count, randomness)
    assert len(set(found)) == len(found) == min(count, len(members))
    assert members.keys() >= set(found)


def test_ids_ground_close_together_are_drawn_last() -> None:
    randomness = random.Random(5)
    for _ in range(20):
        target = randomness.getrandbits(POSITION_BITS)
        honest = [randomness.getrandbits(POSITION_BITS) for _ in range(24)]
        close = [target ^ randomness.getrandbits(POSITION_BITS - 10) for _ in range(100)]
        found = drawn(named([*honest, *close]), target, POSITION_BITS, MOST_OTHERS, randomness)
        assert len(named(honest).keys() & set(found[:24])) >= 16


@pytest.mark.parametrize("size", [10, 24, 100, 1000])
@pytest.mark.parametrize("crowd", [20, 40, 100])
def test_what_is_written_in_an_eclipsed_region_reaches_who_reads_there(size: int, crowd: int) -> None:
    """Each by its own estimate of the size, of a writer, a reader, and those who are to take it."""
    randomness = random.Random(f"{size} {crowd}")
    alone, met, taken = 0, 0, []
    rounds = 60
    for _ in range(rounds):
        honest = some_positions(size, randomness, "random")
        target = randomness.getrandbits(POSITION_BITS)
        everybody = sorted([*honest, *ground(target, honest, crowd, randomness)])
        densities = [knowing(randomness.choice(honest), everybody).density for _ in range(2)]
        chosen = [set(asked(target, everybody, density, randomness)) for density in densities]
        written, read = (named(honest).keys() & names for names in chosen)
        alone += not named(honest).keys() & named(nearest_of(everybody, target, K)).keys()
        met += bool(written & read)
        taken += [takes(member, honest, everybody, target) for member in list(written)[:5]]
    assert alone == rounds, "without regions nobody honest would have any of it"
    assert met >= rounds - (1 if size < 24 else 0), "of ten, those ground may be as thinly spread as the honest"
    assert sum(taken) >= 0.95 * len(taken), "who is written to takes it, estimating another size"


def asked(target: int, everybody: Sequence[int], density: Density, randomness: random.Random) -> list[str]:
    """Whom one with this estimate writes to, or asks."""
    found = nearest_of(everybody, target, K)
    if not density.is_dense(target, found):
        return [str(position) for position in found]
    region = density.region(target, named([position for position in everybody if position not in found]))
    others = {member: int(member) for member in region}
    return [*map(str, found), *drawn(others, target, density.height, MOST_OTHERS, randomness)]


def takes(member: str, honest: Sequence[int], everybody: Sequence[int], target: int) -> bool:
    home = knowing(int(member), everybody)
    return home.is_among_nearest(target, K + 8) or home.is_in_region(target, part=TAKEN, wider=1)


@given(SEEDS, st.sampled_from([30, 100, 1000]))
def test_a_member_in_a_dense_region_knows_all_of_it(seed: int, size: int) -> None:
    randomness = random.Random(seed)
    honest = some_positions(size, randomness, "random")
    target = randomness.getrandbits(POSITION_BITS)
    everybody = [*honest, *ground(target, honest, 40, randomness)]
    own = min(honest, key=target.__xor__)
    home = knowing(own, everybody)
    region = home.region(target, own_name=str(own))
    if region is not None:
        assert region.keys() == named([at for at in everybody if (at ^ target) >> home.density.height == 0]).keys()
    assert home.is_in_region(target) == (
        (own ^ target) >> home.density.height == 0 and home.density.is_dense(target, everybody)
    )


@given(SEEDS, st.integers(21, 200))
def test_hardly_anything_is_dense_by_chance(seed: int, size: int) -> None:
    randomness = random.Random(seed)
    home = Home(0)
    for position in some_positions(size, randomness, "random"):
        home.add(str(position), position)
    density = Density(float(size))
    positions = [randomness.getrandbits(POSITION_BITS) for _ in range(20)]
    members = list(home.inside(0, POSITION_BITS).values())
    assert sum(density.is_dense(position, members) for position in positions) <= 8
