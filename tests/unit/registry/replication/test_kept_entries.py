"""Trees out of what is remembered of blocks: the same as counting through all that is stored, after any history."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.discovery.keyspace import POSITION_BITS, resource_position
from registry.errors import RegistryRefusal, StorageError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.owner_index import IndexEntry
from registry.replica import rules
from registry.replication import kept_entries
from registry.replication import trees as trees_module
from registry.replication.hash_tree import HashTree, entry_of
from registry.replication.kept_entries import KeptEntries, Row, Times
from registry.replication.ranges import EVERYWHERE, Range, Ranges, covers, union
from registry.replication.refusals import Refusals, RefusedEntries, without
from registry.replication.stored_places import PAGE, Span, next_places
from registry.replication.trees import Trees
from registry.settings import RegistrySettings
from registry.storage import NOTHING, Place, Store, Transaction, open_store
from registry.storage.database import IN_MEMORY
from registry.storage.digests import position_bytes
from tests.unit.registry.builders import NOW, a_key, a_key_tombstone, a_record, a_tombstone, identity

RULES: Final = RegistrySettings()
OWNERS: Final = [identity(number) for number in range(20, 26)]
KEYS: Final = [a_key(str(number), OWNERS[number % len(OWNERS)]) for number in range(40)]
PEERS: Final = ("one peer", "another")
DAY: Final = 86_400


@contextmanager
def blocks_of(fewest: int, most: int) -> Iterator[None]:
    """Sizes by which some dozens of entries make many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FEWEST": fewest, "MOST": most, "_TELLS_SIZE": 4, "_MOST_CHANGED": 3}.items():
            patch.setattr(kept_entries, name, value)
        yield


async def entries_by_counting(
    store: Store, ranges: Ranges, horizon: ExpiryHorizon, peer_id: str, refusals: Refusals, entries: RefusedEntries
) -> list[bytes]:
    """What the tree is to be over, of every resource and every entry of an index."""
    found = []
    for key_id in await store.read(lambda transaction: transaction.positions.key_ids("", 10_000)):
        alive = horizon.alive(await store.resource(key_id))
        digest = without(alive, refusals.of(peer_id).get(key_id, {})).digest()
        if digest != NOTHING and covers(ranges, resource_position(key_id)):
            found.append(entry_of(position_bytes(key_id), digest))
    for owner in OWNERS:
        page = await store.read(
            lambda t, owner=owner: t.index.page(owner.peer_id, None, 10_000, 10**9, horizon.owned, horizon.removed)
        )
        for entry in page.entries if covers(ranges, resource_position(owner.peer_id)) else ():
            if not entries.knows(peer_id, entry.digest()):
                found.append(entry_of(position_bytes(entry.key_id), entry.digest()))
    return sorted(found)


def changes(source: random.Random) -> Callable[[Transaction], object]:
    """One write of any kind, by the rules of a replica."""
    key, when = source.choice(KEYS), NOW + source.randrange(0, 3) * DAY // 2
    issuer, owner = source.choice(OWNERS), OWNERS[KEYS.index(key) % len(OWNERS)]
    renewed = a_key(key.label, owner, when)
    states = a_record(key.id, issuer, issued=when), a_tombstone(key.id, issuer, issued=when)
    here = OWNERS[0].peer_id
    writes: list[Callable[[Transaction], object]] = [
        lambda t: rules.register_key(t, renewed, 0, here, RULES, when),
        lambda t: rules.register_key(t, renewed, 0, here, RULES, when),
        lambda t: rules.put_state(t, states[0], 0, here, RULES, when),
        lambda t: rules.put_state(t, states[0], 0, here, RULES, when),
        lambda t: rules.put_state(t, states[1], 0, here, RULES, when),
        lambda t: rules.put_key_tombstone(t, a_key_tombstone(key.label, owner, when), here, RULES, when),
        lambda t: [t.remove_state(item.state.slot) for item in list(t.states(key.id))],
        lambda t: t.index.put(IndexEntry.of(renewed), 0),
        lambda t: t.index.put(IndexEntry.of(renewed), 0),
        lambda t: t.index.remove(key.owner_peer_id, key.label),
    ]
    return source.choice(writes)


def some_ranges(source: random.Random) -> Ranges:
    if source.random() < 0.4:
        return EVERYWHERE
    bits = source.choice((2, 4, 7, 70))
    starts = (source.getrandbits(bits) for _ in range(source.randint(1, 5)))
    height = POSITION_BITS - bits
    return union(tuple(Range(start << height, (start + 1) << height) for start in starts))


async def failing(_: object) -> None:
    await trio.lowlevel.checkpoint()
    raise StorageError("the disk refuses")


async def compare_histories(seed: int, steps: int) -> None:
    source = random.Random(seed)
    refusals, refused_entries = Refusals(), RefusedEntries()
    now = NOW
    async with open_store(IN_MEMORY, inline=True) as store:
        trees = Trees(store, refusals, refused_entries)
        for _ in range(steps):
            for _ in range(source.choice((0, 1, 2, 30))):
                with suppress(RegistryRefusal):
                    await store.write(changes(source))
            if source.random() < 0.2:
                key = source.choice(KEYS)
                state = next(iter((await store.resource(key.id)).slots.values()), None)
                refusals.remember(source.choice(PEERS), key.id, state or key)
                refused_entries.remember(source.choice(PEERS), IndexEntry.of(key).digest())
            now += source.choice((0, 60, 60, DAY // 3))
            horizon, ranges, peer_id = ExpiryHorizon.at(now, RULES), some_ranges(source), source.choice(PEERS)
            if source.random() < 0.3:  # what is built meanwhile is of before or after, and so is what comes of it
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trees.build, peer_id, some_ranges(source), horizon)
                    nursery.start_soon(trees.build, PEERS[0], EVERYWHERE, horizon)
                    for _ in range(4):
                        with suppress(RegistryRefusal):
                            await store.write(changes(source))
            if source.random() < 0.2:  # the disk fails
                with pytest.MonkeyPatch.context() as patch, suppress(StorageError):
                    patch.setattr(store, "read", failing)
                    await trees.build(peer_id, EVERYWHERE, horizon)
            tree = await trees.build(peer_id, ranges, horizon, is_asked=source.random() < 0.3)
            expected = await entries_by_counting(store, ranges, horizon, peer_id, refusals, refused_entries)
            assert list(tree.hashes.entries()) == expected
            assert tree.hashes.digest() == HashTree(expected).digest()
            for step in range(16):
                assert tree.hashes.node(bytes([step])) == HashTree(expected).node(bytes([step]))
            named = await trees.named(tree, expected)
            in_ranges = {key.id for key in KEYS if covers(ranges, resource_position(key.id))}
            assert {*named.key_ids} <= in_ranges
            assert len(named.key_ids) + len(named.listed) == len(expected)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), sizes=st.sampled_from([(2, 8), (0, 1)]))
def test_trees_are_of_all_that_is_stored_after_any_history(seed: int, sizes: tuple[int, int]) -> None:
    with blocks_of(*sizes):
        trio.run(compare_histories, seed, 25)


async def test_what_didnt_change_is_neither_read_nor_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    horizon = ExpiryHorizon.at(NOW + 60, RULES)
    async with open_store(IN_MEMORY, inline=True) as store:
        with blocks_of(2, 8):
            trees = Trees(store, Refusals(), RefusedEntries())
            for key in KEYS:
                await store.write(lambda t, key=key: [t.put_key(key, NOW, 0), t.index.put(IndexEntry.of(key), 0)])
            for _ in range(3):  # with the size of blocks that fits
                first = await trees.build(PEERS[0], EVERYWHERE, horizon)
            reads = 0
            query = store.read

            async def counted(decide: Callable[[Transaction], list[object]]) -> list[object]:
                nonlocal reads
                found = await query(decide)
                reads += len(found)
                return found

            monkeypatch.setattr(store, "read", counted)
            later = ExpiryHorizon.at(NOW + 3600, RULES)
            again = await trees.build(PEERS[1], EVERYWHERE, later)
            assert (again.hashes.digest(), reads) == (first.hashes.digest(), 0)
            await store.write(lambda t: t.put_state(a_record(KEYS[7].id), 0))
            changed = await trees.build(PEERS[0], EVERYWHERE, later)
            assert changed.hashes.digest() != first.hashes.digest()
            assert reads == 1


class Shelf:
    """Rows in order of position, and how many of them were read."""

    def __init__(self, positions: list[bytes], oldest: Times = (9,)) -> None:
        self.rows = {position: self.row(position, oldest) for position in sorted(positions)}
        self.reads = 0
        self.most_at_once = 0
        self.waits_at: dict[bytes, trio.Event] = {}
        """Before what is at such a position is read."""

    def row(self, position: bytes, oldest: Times) -> Row[None]:
        return Row(position, entry_of(position, position), oldest, None)

    async def read_page(self, left: list[Span], horizon: Times) -> list[Row[None]]:
        await trio.lowlevel.checkpoint()
        first, _, last = left.pop()
        for position, waits in self.waits_at.items():
            if first <= position <= last:
                await waits.wait()
        found = [row for position, row in self.rows.items() if first <= position <= last]
        if len(found) > PAGE:
            following = int.from_bytes(found[PAGE - 1].position, "big") + 1
            left.append((following.to_bytes(32, "big"), "", last))
        self.reads += len(found[:PAGE])
        return [Row(*row) for row in found[:PAGE]]


def at(*first_bytes: int) -> bytes:
    """A position."""
    return bytes(first_bytes).ljust(32, b"\0")


def of_first_bytes(first: int, last: int) -> Ranges:
    return (Range(first << POSITION_BITS - 8, last + 1 << POSITION_BITS - 8),)


async def test_what_is_read_by_a_peers_rules_takes_nothing_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ExpiryHorizon.at(NOW + 60, RULES)
    made_up = own.stricter(ExpiryHorizon(0, 0, 0, 0, 2**70))
    async with open_store(IN_MEMORY, inline=True) as store:
        with blocks_of(2, 8):
            trees = Trees(store, Refusals(), RefusedEntries())
            for key in KEYS:
                await store.write(lambda t, key=key: [t.put_key(key, NOW, 0), t.index.put(IndexEntry.of(key), 0)])
            for _ in range(3):
                first = await trees.build(PEERS[0], EVERYWHERE, own)
            for build in (trees.build, trees.build):
                await build(PEERS[1], EVERYWHERE, made_up, is_asked=True, by_own_rules=False)
            await trees.for_caller(PEERS[1], EVERYWHERE, made_up, anew=True, by_own_rules=False)
            monkeypatch.setattr(store, "read", failing)
            monkeypatch.setattr(store, "resource", failing)
            again = await trees.build(PEERS[0], EVERYWHERE, own)
            assert again.hashes.digest() == first.hashes.digest()


async def test_where_everything_differs_only_so_many_places_are_looked_up_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 0

    async def counted(store: Store, left: list[Span], horizon: ExpiryHorizon) -> list[Place]:
        nonlocal most
        most = max(most, len(left))
        return await next_places(store, left, horizon)

    async with open_store(IN_MEMORY, inline=True) as store:
        await store.write(lambda t: [t.put_key(key, NOW, 0) for key in KEYS])
        trees = Trees(store, Refusals(), RefusedEntries())
        tree = await trees.build(PEERS[0], EVERYWHERE, ExpiryHorizon.at(NOW + 60, RULES))
        monkeypatch.setattr(trees_module, "PAGE", 4)
        monkeypatch.setattr(trees_module, "next_places", counted)
        named = await trees.named(tree, tree.hashes.entries())
    assert sorted(named.key_ids) == sorted(key.id for key in KEYS)
    assert most == 4


async def test_who_is_cancelled_has_nothing_forgotten_that_was_kept() -> None:
    shelf = Shelf([at(number) for number in range(256)])
    with blocks_of(2, 8):
        kept = KeptEntries(shelf.read_page)
        for _ in range(2):
            await kept.collect(EVERYWHERE, (1,))
        kept.note_changed([at(7)])
        with trio.CancelScope() as scope:
            scope.cancel()
            await kept.collect(EVERYWHERE, (1,))
        assert scope.cancelled_caught
        shelf.reads = 0
        await kept.collect(EVERYWHERE, (1,))
        assert shelf.reads == 1


async def test_who_has_a_block_isnt_told_of_what_another_ones_rules_let_live_meanwhile() -> None:
    shelf = Shelf([at(number) for number in range(256)])
    with blocks_of(2, 8):
        kept = KeptEntries(shelf.read_page)
        for _ in range(2):
            await kept.collect(EVERYWHERE, (1,))
        position = int.from_bytes(at(128), "big")
        shelf.waits_at[at(128)] = waits = trio.Event()
        found = []

        async def collect() -> None:
            ranges = (*of_first_bytes(0, 63), Range(position, position + 1))
            found.append(await kept.collect(ranges, (5,)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            await trio.testing.wait_all_tasks_blocked()
            changed = shelf.rows[at(7)] = Row(at(7), entry_of(at(7), at(1)), (3,), None)
            kept.note_changed([at(7)])
            lenient = await kept.collect(of_first_bytes(0, 63), (1,))
            waits.set()
        assert changed.entry in [entry for part in lenient.parts for entry in part.entries]
        assert changed.entry not in [entry for part in found[0].parts for entry in part.entries]


async def test_peers_whose_ranges_are_filled_differently_dont_have_blocks_cut_anew_each_time() -> None:
    full = [at(first, second, third) for first in range(2) for second in range(256) for third in range(5)]
    shelf = Shelf([*full, *(at(first, second) for first in range(128, 130) for second in range(0, 256, 2))])
    kept = KeptEntries(shelf.read_page)
    for _ in range(3):
        await kept.collect(of_first_bytes(0, 1), (1,))
        await kept.collect(of_first_bytes(128, 129), (1,))
    shelf.reads = 0
    await kept.collect(of_first_bytes(0, 1), (1,))
    await kept.collect(of_first_bytes(128, 129), (1,))
    assert shelf.reads == 0


@pytest.mark.parametrize("first", [0, 1])
async def test_no_more_than_a_page_is_in_memory_with_all_that_is_read_of_it(first: int) -> None:
    shelf = Shelf([at(first, second) for first in range(16) for second in range(256)])
    most = 0

    async def read_page(left: list[Span], horizon: Times) -> list[Row[None]]:
        nonlocal most
        most = max(most, sum(isinstance(each, Row) for each in gc.get_objects()) - len(shelf.rows))
        return await shelf.read_page(left, horizon)

    kept = KeptEntries(read_page)
    for _ in range(2):  # in part, then by blocks
        found = await kept.collect((Range(first, 1 << POSITION_BITS),), (1,))
    assert sum(len(part.entries) for part in found.parts) == len(shelf.rows) - first
    assert most <= 2 * PAGE
