"""Which members keep what, by ranges: the same as sorting all members by their distance to each key would tell."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.replication.ranges import (
    WHOLE,
    Block,
    Range,
    Ranges,
    changes,
    covers,
    difference,
    intersection,
    joined,
    keeper_blocks,
    kept_ranges,
    nearest_within,
    shared_ranges,
    union,
    within_reach,
)

BITS = 256
SIZE, REACH = 5, 8
SEEDS = st.integers(0, 2**32)


def members(randomness: random.Random, count: int, first: int = 0) -> dict[str, int]:
    """Random positions, half of them in a few clusters."""
    clusters = [randomness.getrandbits(BITS) for _ in range(3)]
    return {
        f"m{number}": randomness.choice(clusters) ^ randomness.getrandbits(BITS - randomness.randrange(12))
        if number % 2
        else randomness.getrandbits(BITS)
        for number in range(first, first + count)
    }


def keys(randomness: random.Random, view: dict[str, int], count: int = 60) -> list[int]:
    """Random positions, some of them next to members."""
    near = [position ^ randomness.getrandbits(randomness.randrange(1, BITS)) for position in view.values()]
    return [randomness.getrandbits(BITS) for _ in range(count)] + near + [0, 2**BITS - 1]


def nearest_to(key: int, view: dict[str, int], size: int) -> set[str]:
    return set(sorted(view, key=lambda member: view[member] ^ key)[:size])


def kept_by(member: str, view: dict[str, int], size: int) -> Ranges:
    """As the member sees it."""
    return kept_ranges(keeper_blocks(view, size, within_reach(view[member], view, reach=size)), member)


def shared_by(own: str, other: str, view: dict[str, int], size: int) -> Ranges:
    """As the first of both sees it."""
    return shared_ranges(keeper_blocks(view, size, within_reach(view[own], view, reach=size)), own, other)


def rank(key: int, view: dict[str, int], member: str) -> int:
    return sum(position ^ key < view[member] ^ key for position in view.values())


@given(SEEDS, st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_blocks_cover_the_keyspace_once_and_have_its_keepers(seed: int, count: int) -> None:
    randomness = random.Random(seed)
    view = members(randomness, count)
    blocks = list(keeper_blocks(view, SIZE))
    assert blocks[0].block.start == 0
    assert blocks[-1].block.end == 2**BITS
    assert all(one.block.end == other.block.start for one, other in pairwise(blocks))
    for key in keys(randomness, view):
        [found] = [keepers for block, keepers in blocks if key in block]
        assert found == nearest_to(key, view, SIZE)


@given(SEEDS, st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_every_key_lies_in_exactly_one_range_of_each_of_its_replicas(seed: int, count: int) -> None:
    randomness = random.Random(seed)
    view = members(randomness, count)
    ranges = {member: kept_by(member, view, SIZE) for member in view}
    for key in keys(randomness, view, 20):
        keepers = {member for member in view if sum(start <= key < end for start, end in ranges[member])}
        assert keepers == nearest_to(key, view, SIZE)
        assert all(covers(ranges[member], key) == (member in keepers) for member in view)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_two_members_see_the_same_shared_ranges(seed: int) -> None:
    randomness = random.Random(seed)
    view = members(randomness, 25)
    one, other = randomness.sample(sorted(view), 2)
    shared = shared_by(one, other, view, SIZE)
    assert shared == shared_by(other, one, view, SIZE)
    for key in keys(randomness, view):
        assert covers(shared, key) == ({one, other} <= nearest_to(key, view, SIZE))


def home_of(own: str, network: dict[str, int]) -> dict[str, int]:
    """The members of the smallest subtree with 28 members around one, and of farther buckets with fewer than 24."""
    height = 0
    while sum((position ^ network[own]) >> height == 0 for position in network.values()) < min(28, len(network)):
        height += 1
    buckets: dict[int, list[str]] = {}
    for member, position in network.items():
        buckets.setdefault((position ^ network[own]).bit_length() - 1, []).append(member)
    seen = [m for bucket, found in buckets.items() if bucket < height or len(found) < 24 for m in found]
    return {member: network[member] for member in seen}


@given(SEEDS, st.sampled_from([20, 100, 1_000, 5_000]))
@settings(max_examples=30, deadline=None)
def test_ranges_from_ones_own_view_equal_those_of_the_whole_network(seed: int, count: int) -> None:
    randomness = random.Random(seed)
    network = {f"m{number}": randomness.getrandbits(BITS) for number in range(count)}
    view = home_of("m0", network)
    assert len(view) < 200
    kept = kept_by("m0", view, 20)
    around = [network["m0"] ^ randomness.getrandbits(bits) for bits in range(200, BITS + 1) for _ in range(3)]
    shared = {member: shared_by("m0", member, view, 20) for member in view if member != "m0"}
    for key in around:
        nearest = nearest_to(key, network, 20)
        assert covers(kept, key) == ("m0" in nearest)
        sharing = {member for member in shared if covers(shared[member], key)}
        assert sharing == (nearest - {"m0"} if "m0" in nearest else set())


@given(SEEDS, st.integers(1, 40), st.integers(0, 10), st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_what_changed_is_what_comparing_all_keys_would_tell(seed: int, count: int, come: int, go: int) -> None:
    randomness = random.Random(seed)
    before = members(randomness, count)
    gone = randomness.sample(sorted(before), min(go, count - 1))
    after = {member: at for member, at in before.items() if member not in gone} | members(randomness, come, 1_000)
    found = list(changes(before, after, SIZE))
    assert all(one.block.end <= other.block.start for one, other in pairwise(found))
    own = next(member for member in before if member in after)
    near = list(changes(before, after, SIZE, within_reach(before[own], before, after, reach=REACH)))
    for key in keys(randomness, {**before, **after}, 20):
        was, now = nearest_to(key, before, SIZE), nearest_to(key, after, SIZE)
        told = [(change.before, change.after) for change in found if key in change.block]
        assert told == ([(was, now)] if was != now else [])
        if min(rank(key, before, own), rank(key, after, own)) < REACH and len({**before, **after}) < 28:
            assert [(change.before, change.after) for change in near if key in change.block] == told


@given(SEEDS, st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_a_block_is_cut_by_who_is_nearest(seed: int, count: int) -> None:
    randomness = random.Random(seed)
    view = members(randomness, count)
    height = randomness.randrange(240, 257)
    block = Block(randomness.getrandbits(BITS) >> height << height, height)
    parts = list(nearest_within(block, view))
    assert joined(part for part, _ in parts) == (Range(block.start, block.end),)
    for part, member in parts:
        for key in (part.start, part.end - 1, part.start | randomness.getrandbits(part.height)):
            assert {member} == nearest_to(key, view, 1)
    assert list(nearest_within(WHOLE, {})) == []


RANGES = st.lists(st.integers(0, 40), max_size=8, unique=True).map(
    lambda bounds: tuple(Range(*pair) for pair in zip(sorted(bounds)[::2], sorted(bounds)[1::2], strict=False))
)


@given(RANGES, RANGES)
def test_ranges_are_sets_of_positions(some: Ranges, others: Ranges) -> None:
    mine, theirs = ({at for part in ranges for at in range(*part)} for ranges in (some, others))
    for found, expected in (
        (intersection(some, others), mine & theirs),
        (union(some, others), mine | theirs),
        (difference(some, others), mine - theirs),
    ):
        assert {at for part in found for at in range(*part)} == expected
        assert all(one.end <= other.start for one, other in pairwise(found))
    assert {at for at in range(41) if covers(some, at)} == mine


@pytest.mark.parametrize("count", [1, 4, 5])
def test_few_members_keep_everything(count: int) -> None:
    view = members(random.Random(1), count)
    assert [(block, set(keepers)) for block, keepers in keeper_blocks(view, SIZE)] == [(WHOLE, set(view))]
