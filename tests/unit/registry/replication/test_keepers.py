"""Which members keep what, by ranges: the same as sorting all members by their distance to each key would tell."""

from __future__ import annotations

import gc
import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import nsmallest
from itertools import pairwise
from typing import TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overlay.discovery.density import BEGINS, CROWD, ENDS, TAKEN, Crowding, Density
from overlay.discovery.home import HOME_SIZE, Home
from registry.replication import keepers
from registry.replication.block_view import NEVER_DENSE, Keepers, nearest_view_of
from registry.replication.keepers import (
    BlockChange,
    KeeperBlock,
    Steps,
    changes_in_steps,
    keeper_blocks_in_steps,
    nearest_within,
)
from registry.replication.nearby import DEEPEST, within_reach
from registry.replication.ranges import WHOLE, Block, Range, Ranges, covers, difference, intersection, joined, union

BITS = 256
EXACT = BITS
MOST_ALIKE = 16  # bits
A_TURN = 0.02  # seconds of CPU
SIZE, REACH = 5, 8
SEEDS = st.integers(0, 2**32)


Found = TypeVar("Found")


def finished(steps: Steps[Found]) -> tuple[Found, float]:
    """What is found in steps, and how many seconds of CPU the longest of them took."""
    longest = 0.0
    while True:
        began = time.thread_time()
        try:
            next(steps)
        except StopIteration as done:
            found: Found = done.value
            return found, max(longest, time.thread_time() - began)
        longest = max(longest, time.thread_time() - began)


def shared_ranges(
    view: dict[str, int], own: str, size: int, crowding: Crowding = NEVER_DENSE, *, deepest: int = EXACT
) -> dict[str, Ranges]:
    return finished(keepers.shared_ranges(view, own, size, crowding, deepest=deepest))[0]


def kept_ranges(
    view: dict[str, int],
    own: str,
    peer_id: str,
    size: int,
    reach: int,
    crowding: Crowding = NEVER_DENSE,
    *,
    deepest: int = EXACT,
) -> Ranges:
    return finished(keepers.kept_ranges(view, own, peer_id, size, reach, crowding, deepest=deepest))[0]


def is_alike(position: int, view: dict[str, int]) -> bool:
    """Whether a position shares so many bits with one of these that exact cutting would take long."""
    return any((position ^ other).bit_length() <= BITS - MOST_ALIKE for other in view.values())


def members(randomness: random.Random, count: int, first: int = 0) -> dict[str, int]:
    """Random positions, half of them in a few clusters, but none so near to another that exact cutting takes long."""
    clusters = [randomness.getrandbits(BITS) for _ in range(3)]
    view: dict[str, int] = {}
    while len(view) < count:
        position = randomness.getrandbits(BITS)
        if len(view) % 2:
            position = randomness.choice(clusters) ^ position >> randomness.randrange(12)
        if not is_alike(position, view):
            view[f"m{first + len(view)}"] = position
    return view


def keys(randomness: random.Random, view: dict[str, int], count: int = 60) -> list[int]:
    """Random positions, some of them next to members."""
    near = [position ^ randomness.getrandbits(randomness.randrange(1, BITS)) for position in view.values()]
    return [randomness.getrandbits(BITS) for _ in range(count)] + near + [0, 2**BITS - 1]


def nearest_to(key: int, view: dict[str, int], size: int) -> set[str]:
    return set(nsmallest(size, view, key=lambda member: view[member] ^ key))


def eclipsed(randomness: random.Random, honest: int, ground: int) -> tuple[dict[str, int], int]:
    """Members at random positions, and some nearer to a target than all those are; with the target. None is so near to
    another that exact cutting takes long."""
    view: dict[str, int] = {}
    while len(view) < honest:
        position = randomness.getrandbits(BITS)
        if not is_alike(position, view):
            view[f"m{len(view)}"] = position
    free = 0
    while free.bit_length() < BITS - MOST_ALIKE // 2:
        target = randomness.getrandbits(BITS)
        free = min(position ^ target for position in view.values())
    while len(view) < honest + ground:
        position = target ^ randomness.randrange(1, free)
        if not is_alike(position, view):
            view[f"g{len(view) - honest}"] = position
    return view, target


def keepers_of(key: int, view: dict[str, int], size: int, crowding: Crowding) -> set[str]:
    """By the rule as it is written."""
    distances = sorted(position ^ key for position in view.values())
    found = nearest_to(key, view, size)
    if len(view) > size and len(distances) >= CROWD and distances[CROWD - 1] < crowding.within:
        found |= {member for member, position in view.items() if (position ^ key) >> crowding.height == 0}
    return found


def done(steps: Iterable[Found | None]) -> list[Found]:
    """What is found in steps, without those that find nothing."""
    return [found for found in steps if found is not None]


def found_at(key: int, blocks: list[KeeperBlock]) -> Keepers:
    """The keepers of the block that has a key, of blocks that cover the keyspace."""
    block, keepers = blocks[bisect_right(blocks, key, key=lambda found: found.block.start) - 1]
    assert key in block
    return keepers


def change_at(key: int, found: list[BlockChange]) -> tuple[Keepers, Keepers] | None:
    at = bisect_right(found, key, key=lambda change: change.block.start) - 1
    return (found[at].before, found[at].after) if at >= 0 and key in found[at].block else None


def some_crowding(randomness: random.Random, honest: int) -> Crowding:
    density = Density(honest * randomness.uniform(0.7, 1.3))
    return density.crowding(randomness.choice([BEGINS, ENDS, TAKEN]), wider=randomness.randrange(2))


def rank(key: int, view: dict[str, int], member: str) -> int:
    return sum(position ^ key < view[member] ^ key for position in view.values())


@given(SEEDS, st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_blocks_cover_the_keyspace_once_and_have_its_keepers(seed: int, count: int) -> None:
    randomness = random.Random(seed)
    view = members(randomness, count)
    blocks = done(keeper_blocks_in_steps(view, SIZE))
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
    ranges = {member: kept_ranges(view, member, member, SIZE, SIZE) for member in view}
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
    shared = shared_ranges(view, one, SIZE)[other]
    assert shared == shared_ranges(view, other, SIZE)[one]
    for key in keys(randomness, view):
        assert covers(shared, key) == ({one, other} <= nearest_to(key, view, SIZE))


@given(SEEDS, st.integers(1, 40), st.integers(0, 40))
@example(14, 32, 34)  # of a member that has 33 ground ones around it, and four empty buckets beyond them
@settings(max_examples=20, deadline=None)
def test_blocks_have_those_of_a_region_as_keepers_where_members_crowd(seed: int, honest: int, ground: int) -> None:
    randomness = random.Random(seed)
    view, target = eclipsed(randomness, honest, ground)
    crowding = some_crowding(randomness, honest)
    blocks = done(keeper_blocks_in_steps(view, 20, crowding=crowding))
    assert all(one.block.end == other.block.start for one, other in pairwise(blocks))
    around = [target ^ randomness.getrandbits(bits) for bits in range(200, BITS)]
    for key in [*keys(randomness, view), target, *around]:
        assert found_at(key, blocks) == keepers_of(key, view, 20, crowding)
    one, other = randomness.choices(sorted(view), k=2)
    kept = kept_ranges(view, one, one, 20, 20, crowding)
    shared = shared_ranges(view, one, 20, crowding)[other]
    for key in around:
        found = keepers_of(key, view, 20, crowding)
        assert covers(kept, key) == (one in found)
        assert covers(shared, key) == ({one, other} <= found)


@given(SEEDS, st.integers(20, 40), st.integers(0, 25), st.integers(0, 25))
@settings(max_examples=15, deadline=None)
def test_what_changed_where_ids_come_that_crowd_is_what_comparing_all_keys_would_tell(
    seed: int, honest: int, come: int, go: int
) -> None:
    randomness = random.Random(seed)
    everybody, target = eclipsed(randomness, honest, come + go)
    before = {member: at for member, at in everybody.items() if member not in {f"g{number}" for number in range(come)}}
    after = {member: at for member, at in everybody.items() if member not in {f"g{come + n}" for n in range(go)}}
    crowdings = some_crowding(randomness, honest), some_crowding(randomness, honest)
    found = done(changes_in_steps(before, after, 20, crowdings=crowdings))
    wanted = within_reach(everybody["m0"], before, after, reach=20, crowdings=crowdings, deepest=EXACT)
    near = done(changes_in_steps(before, after, 20, wanted, crowdings=crowdings))
    near_target = [target ^ randomness.getrandbits(bits) for bits in range(200, BITS)]
    for key in [*keys(randomness, everybody, 20), *near_target]:
        was, now = (keepers_of(key, *view) for view in ((before, 20, crowdings[0]), (after, 20, crowdings[1])))
        expected = (was, now) if was != now else None
        assert change_at(key, found) == expected
        if "m0" in was | now and len(everybody) < 28:
            assert change_at(key, near) == expected


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
    kept = kept_ranges(view, "m0", "m0", 20, 20)
    around = [network["m0"] ^ randomness.getrandbits(bits) for bits in range(200, BITS + 1) for _ in range(3)]
    shared = shared_ranges(view, "m0", 20)
    assert shared.pop("m0") == kept
    for key in around:
        nearest = nearest_to(key, network, 20)
        assert covers(kept, key) == ("m0" in nearest)
        sharing = {member for member in shared if covers(shared[member], key)}
        assert sharing == (nearest - {"m0"} if "m0" in nearest else set())


@given(SEEDS, st.sampled_from([20, 30, 40, 60, 100, 300]), st.integers(HOME_SIZE, 60))
@settings(max_examples=30, deadline=None)
def test_ids_ground_around_a_member_leave_out_nothing_that_it_keeps(seed: int, honest: int, ground: int) -> None:
    randomness = random.Random(seed)
    network, target = eclipsed(randomness, honest, ground)
    own = min((member for member in network if member.startswith("m")), key=lambda member: network[member] ^ target)
    home = Home(network[own])
    for member, position in network.items():
        home.add(member, position)
    buckets = Counter(map(home.bucket_of, network.values()))
    for bucket in range(home.height, BITS):
        home.note_bucket(bucket, min(buckets[bucket], HOME_SIZE), now=0.0)
    view = {member: network[member] for member in (own, *home.kept_members())}
    crowding = home.density.crowding(ENDS)
    kept = kept_ranges(view, own, own, 20, 20, crowding, deepest=DEEPEST)
    shared = shared_ranges(view, own, 20, crowding, deepest=DEEPEST)
    for key in [*keys(randomness, {}), *(target ^ randomness.getrandbits(bits) for bits in range(200, BITS))]:
        keepers = keepers_of(key, network, 20, crowding)
        if own in keepers:
            assert covers(kept, key)
            assert keepers <= {member for member in shared if covers(shared[member], key)}


@given(SEEDS, st.integers(1, 40), st.integers(0, 10), st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_what_changed_is_what_comparing_all_keys_would_tell(seed: int, count: int, come: int, go: int) -> None:
    randomness = random.Random(seed)
    before = members(randomness, count)
    gone = randomness.sample(sorted(before), min(go, count - 1))
    after = {member: at for member, at in before.items() if member not in gone} | members(randomness, come, 1_000)
    found = done(changes_in_steps(before, after, SIZE))
    assert all(one.block.end <= other.block.start for one, other in pairwise(found))
    own = next(member for member in before if member in after)
    near = done(
        changes_in_steps(before, after, SIZE, within_reach(before[own], before, after, reach=REACH, deepest=EXACT))
    )
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
    assert [(block, set(keepers)) for block, keepers in done(keeper_blocks_in_steps(view, SIZE))] == [
        (WHOLE, set(view))
    ]


@given(SEEDS, st.integers(20, 40), st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_what_is_cut_no_further_is_compared_with_all_its_replicas_and_few_others(
    seed: int, honest: int, ground: int
) -> None:
    randomness = random.Random(seed)
    view, target = eclipsed(randomness, honest, ground)
    crowding = some_crowding(randomness, honest)
    own = randomness.choice(sorted(view))
    shared = shared_ranges(view, own, 20, crowding, deepest=DEEPEST)
    kept = kept_ranges(view, own, own, 20, 20, crowding, deepest=DEEPEST)
    around = [target ^ randomness.getrandbits(bits) for bits in range(200, BITS)]
    for key in [*keys(randomness, view), *around]:
        keepers = keepers_of(key, view, 20, crowding)
        if own in keepers:
            assert covers(kept, key)
            assert keepers <= {member for member in shared if covers(shared[member], key)}


@given(SEEDS, st.integers(20, 40), st.integers(0, 60), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_whoever_becomes_a_replica_of_what_is_cut_no_further_is_told_of(
    seed: int, honest: int, ground: int, come: int, go: int
) -> None:
    randomness = random.Random(seed)
    everybody, target = eclipsed(randomness, honest, ground)
    names = sorted(everybody)
    came, went = randomness.sample(names, min(come, len(names) // 3)), randomness.sample(names, min(go, 6))
    before = {member: everybody[member] for member in names if member not in came}
    after = {member: everybody[member] for member in names if member not in went}
    crowdings = some_crowding(randomness, honest), some_crowding(randomness, honest)
    own = randomness.choice(sorted(before.keys() & after.keys()))
    wanted = within_reach(everybody[own], before, after, reach=28, crowdings=crowdings)
    found = done(changes_in_steps(before, after, 20, wanted, crowdings=crowdings))
    around = [target ^ randomness.getrandbits(bits) for bits in range(200, BITS)]
    for key in [*keys(randomness, everybody, 20), *around]:
        was, now = (keepers_of(key, *view) for view in ((before, 20, crowdings[0]), (after, 20, crowdings[1])))
        if own in was | now and was != now:
            told = change_at(key, found)
            assert told is not None
            assert now - was <= told[1] - told[0]


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """All that the other tests left behind isn't collected within what is measured."""
    gc.disable()
    yield
    gc.enable()


# Ids that share many bits with each other are as easily ground as such that lie close to a resource.
@pytest.mark.parametrize(
    ("honest", "ground", "alike"), [(24, 100, 0), (24, 134, 0), (12, 6, 30), (24, 6, 30), (900, 100, 4)]
)
@pytest.mark.parametrize("seed", range(30, 34))
@pytest.mark.usefixtures("_no_collector")
def test_a_change_of_members_holds_nobody_up_for_long(honest: int, ground: int, alike: int, seed: int) -> None:
    randomness = random.Random(seed)
    view, _ = eclipsed(randomness, honest, ground)
    twin = randomness.getrandbits(BITS)
    view |= {f"t{number}": twin ^ randomness.getrandbits(BITS - 40) for number in range(alike)}
    density = Density(honest * randomness.uniform(0.7, 1.4))
    crowding, taking = density.crowding(ENDS), density.crowding(TAKEN, wider=1)
    before = {member: position for member, position in view.items() if member not in {"m5", "g5", "t3"}}
    for own in ("m0", "m1", "g0"):
        shared, took = finished(keepers.shared_ranges(view, own, 20, crowding))
        assert took < A_TURN
        assert sum(map(len, shared.values())) < 300 * len(view)
        assert max(map(len, shared.values())) < 2_000
        taken, took = finished(keepers.kept_ranges(view, own, own, 28, 28, taking))
        assert took < A_TURN
        assert len(taken) < 2_000
        wanted = within_reach(view[own], before, view, reach=28, crowdings=[crowding] * 2)
        began, blocks = time.thread_time(), 0
        for change in changes_in_steps(before, view, 20, wanted, crowdings=(crowding, crowding)):
            assert time.thread_time() - began < A_TURN
            if change is not None:
                blocks += sum(1 for _ in nearest_within(change.block, before, wanted))
            began = time.thread_time()
        assert blocks < 20_000


@given(SEEDS, st.integers(1, 12), st.integers(0, BITS - 8))
def test_halving_decides_only_where_members_differ(seed: int, size: int, alike: int) -> None:
    """They share so many bits, as those of ids ground close together: until then nothing is copied."""
    randomness = random.Random(seed)
    differing, start = BITS - alike, randomness.getrandbits(BITS)
    view = {f"{n}": start >> differing << differing | randomness.getrandbits(differing) for n in range(20)}
    target, block, seen = randomness.getrandbits(BITS), WHOLE, nearest_view_of(view, size)
    expected = nearest_to(target, view, size)
    while block.height and seen.open_places:
        block = next(half for half in block.halves() if target in half)
        before, seen = seen, seen.half(block)
        assert seen is before or block.height < differing
        assert {*seen.certain} <= expected <= {*seen.certain, *(name for _, name in seen.undecided)}
    assert {*seen.certain} == expected
