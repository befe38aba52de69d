"""Storage: what was acknowledged is on disk, what was refused left no trace, and what the disk does ends nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import outcome
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import DatabaseDamaged, RegistryRefusal, StorageError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState
from registry.model.owner_index import IndexEntry
from registry.model.values import State, encode
from registry.replica import collecting
from registry.replica import rules as write_rules
from registry.settings import RegistrySettings
from registry.storage import Change, Store, StoredKey, Transaction, database, migrations, open_store, store
from registry.storage.database import IN_MEMORY, open_database
from registry.storage.resource_cache import SMALLEST, ResourceCache
from tests.paths import ROOT
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NODE,
    NOW,
    OWNER,
    a_key,
    a_key_tombstone,
    a_record,
    a_tombstone,
    identity,
)

RULES = RegistrySettings()
KEY = a_key()
OTHER = a_key("other")
HORIZON = ExpiryHorizon.at(NOW, RULES)
Decide = Callable[[Transaction], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite"


def puts(*states: State) -> Decide:
    """A write that puts the key and the states."""

    def decide(transaction: Transaction) -> list[bool]:
        write_rules.republish_key(transaction, KEY, 0, NODE.peer_id, RegistrySettings(), NOW)
        return [write_rules.put_state(transaction, state, 0, NODE.peer_id, RULES, NOW) for state in states]

    return decide


def then_refuses(decide: Decide) -> Decide:
    def refuse(transaction: Transaction) -> None:
        decide(transaction)
        raise RegistryRefusal("refused")

    return refuse


async def outcome_of(store: Store, decide: Decide) -> outcome.Outcome[object]:
    try:
        return outcome.Value(await store.write(decide))
    except Exception as error:
        return outcome.Error(error)


async def in_one_commit(store: Store, decides: Sequence[Decide]) -> list[outcome.Outcome[object]]:
    """The writes' outcomes; all are queued while an earlier commit is held up, so they share the next."""
    outcomes: dict[int, outcome.Outcome[object]] = {}

    async def run(number: int, decide: Decide) -> None:
        outcomes[number] = await outcome_of(store, decide)

    async with held_up(store) as gate, trio.open_nursery() as nursery:
        for number, decide in enumerate(decides):
            nursery.start_soon(run, number, decide)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    return [outcomes[number] for number in range(len(decides))]


@asynccontextmanager
async def held_up(store: Store) -> AsyncIterator[threading.Event]:
    """A commit is under way until the event is set, at the latest when the block ends."""
    gate = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, lambda _: gate.wait(10))
        await trio.testing.wait_all_tasks_blocked()
        try:
            yield gate
        finally:
            gate.set()


def on_disk(path: Path, key_id: str = KEY.id) -> ResourceState:
    """What another process would read."""
    connection = open_database(path)
    try:
        return Transaction(connection).resource(key_id)
    finally:
        connection.close()


async def test_an_acknowledged_write_is_on_disk_and_in_what_is_read(path: Path) -> None:
    record = a_record(KEY.id)
    async with open_store(path) as store:
        assert await store.write(puts(record)) == [True]
        assert on_disk(path).slots == {record.slot: record}
        assert (await store.resource(KEY.id)).slots == {record.slot: record}
        newer = a_record(KEY.id, issued=NOW + 1)
        await store.write(puts(newer))
        assert store.cached_resource(KEY.id) == await store.resource(KEY.id)
        assert (await store.resource(KEY.id)).slots == {record.slot: newer}


async def test_reopening_keeps_data(path: Path) -> None:
    states = [a_record(KEY.id, value="ä\x00"), a_tombstone(KEY.id, host=NODE)]
    async with open_store(path) as store:
        await store.write(puts(*states))
        before = await store.resource(KEY.id)
    async with open_store(path) as store:
        assert await store.resource(KEY.id) == before == ResourceState.of(KEY, states)
        assert await store.read(lambda transaction: transaction.counts.totals()) == (1, 1, 1)


async def test_many_concurrent_writes_share_few_commits(path: Path) -> None:
    async with open_store(path) as store:
        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(store.write, puts(a_record(KEY.id, issuer=identity(100 + number))))
        assert store.writes == 64
        assert store.commits <= 5
        assert len((await store.resource(KEY.id)).slots) == 64


async def test_a_commit_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_COMMIT", 4)
    async with open_store(path) as opened:
        await in_one_commit(opened, [puts()] * 10)
        assert opened.commits == 1 + 3


async def test_a_refused_write_leaves_no_trace_and_does_not_touch_its_companions(path: Path) -> None:
    async with open_store(path) as store:
        await store.resource(KEY.id)
        before, refused, after = (a_record(KEY.id, issuer=identity(number)) for number in (10, 11, 12))
        outcomes = await in_one_commit(store, [puts(before), then_refuses(puts(refused, before)), puts(after)])
        assert store.commits == 2
        assert [type(each) for each in outcomes] == [outcome.Value, outcome.Error, outcome.Value]
        assert isinstance(outcomes[1].error, RegistryRefusal)
        expected = ResourceState.of(KEY, [before, after])
        assert store.cached_resource(KEY.id) == expected
        assert on_disk(path) == expected


async def test_a_write_with_a_fault_of_its_own_does_not_touch_its_companions(path: Path) -> None:
    def overflow(transaction: Transaction) -> None:
        transaction.put_key(OTHER, NOW, 2**70)

    def unsupported(transaction: Transaction) -> None:
        transaction.put_key(OTHER, NOW, [])

    def missing(transaction: Transaction) -> None:
        transaction.put_key(OTHER, NOW, None)

    def bug(transaction: Transaction) -> None:
        transaction.put_key(OTHER, NOW, 0)
        raise ZeroDivisionError

    async with open_store(path) as store:
        faults = [overflow, unsupported, missing, bug]
        outcomes = await in_one_commit(store, [puts(a_record(KEY.id)), *faults, puts(a_tombstone(KEY.id, host=NODE))])
        errors = [type(each.error) for each in outcomes[1:-1]]
        assert errors == [OverflowError, StorageError, StorageError, ZeroDivisionError]
        assert isinstance(outcomes[0], outcome.Value)
        assert isinstance(outcomes[-1], outcome.Value)
        assert len((await store.resource(KEY.id)).slots) == 2
        assert (await store.resource(OTHER.id)).key is None


async def test_each_write_of_a_commit_sees_those_before_it(path: Path) -> None:
    def counts_then_puts(number: int) -> Decide:
        def decide(transaction: Transaction) -> int:
            present = len(transaction.resource(KEY.id).slots)
            puts(a_record(KEY.id, issuer=identity(number)))(transaction)
            return present

        return decide

    async with open_store(path) as store:
        outcomes = await in_one_commit(store, [counts_then_puts(number) for number in range(10, 20)])
        assert sorted(each.unwrap() for each in outcomes) == list(range(10))


@asynccontextmanager
async def store_over(connection: sqlite3.Connection, path: Path) -> AsyncIterator[Store]:
    """A store whose connection the test can do something to."""
    store = Store(connection, path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store
        store.close()


def lock(connection: sqlite3.Connection, path: Path) -> Callable[[], None]:
    connection.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other.close


def make_read_only(connection: sqlite3.Connection, path: Path) -> Callable[[], None]:
    connection.execute("PRAGMA query_only=ON")
    return lambda: connection.execute("PRAGMA query_only=OFF").close()


def fill_disk(connection: sqlite3.Connection, path: Path) -> Callable[[], None]:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")
    return lambda: connection.execute("PRAGMA max_page_count=1000000").close()


@pytest.mark.parametrize("fail", [lock, make_read_only, fill_disk])
async def test_a_failing_disk_fails_its_commit_with_an_error_each_and_the_store_lives_on(
    path: Path, fail: Callable[[sqlite3.Connection, Path], Callable[[], None]]
) -> None:
    large = [a_record(KEY.id, issuer=identity(number), value="x" * 60_000) for number in range(10, 14)]
    with closing(open_database(path)) as connection:
        async with store_over(connection, path) as store:
            await store.write(puts(a_record(KEY.id)))
            known = await store.resource(KEY.id)
            repair = fail(connection, path)
            outcomes = await in_one_commit_or_more(store, [puts(record) for record in large])
            assert all(isinstance(each.error, StorageError) for each in outcomes)
            assert len({id(each.error) for each in outcomes}) == len(outcomes)
            assert str(path) in str(outcomes[0].error)
            assert store.cached_resource(KEY.id) == known
            repair()
            assert on_disk(path) == known
            await store.write(puts(*large))
            assert len((await store.resource(KEY.id)).slots) == 5


async def in_one_commit_or_more(store: Store, decides: Sequence[Decide]) -> list[outcome.Outcome[object]]:
    """As `in_one_commit`, without holding one up: even an empty one may fail now."""
    outcomes: list[outcome.Outcome[object]] = []

    async def run(decide: Decide) -> None:
        outcomes.append(await outcome_of(store, decide))

    async with trio.open_nursery() as nursery:
        for decide in decides:
            nursery.start_soon(run, decide)
    return outcomes


async def test_a_lost_connection_fails_reads_and_writes_with_storage_errors(path: Path) -> None:
    connection = open_database(path)
    async with store_over(connection, path) as store:
        connection.close()
        for _ in range(2):
            with pytest.raises(StorageError, match=r"registry\.sqlite"):
                await store.write(puts())
            with pytest.raises(StorageError, match=r"registry\.sqlite"):
                await store.resource(KEY.id)
            with pytest.raises(StorageError, match=r"registry\.sqlite"):
                await store.read(lambda transaction: transaction.counts.totals())


async def test_leaving_commits_what_was_queued_and_refuses_the_rest(path: Path) -> None:
    record = a_record(KEY.id)
    outcomes: list[outcome.Outcome[object]] = []

    async def write(store: Store) -> None:
        outcomes.append(await outcome_of(store, puts(record)))

    async with trio.open_nursery() as nursery, open_store(path) as store, held_up(store):
        nursery.start_soon(write, store)
        await trio.testing.wait_all_tasks_blocked()
        store.close()
    assert isinstance(outcomes[0], outcome.Value)
    assert on_disk(path).slots == {record.slot: record}
    with pytest.raises(StorageError, match="closed"):
        await store.write(puts())


async def test_a_cancelled_writer_leaves_its_companions_and_the_store_alone(path: Path) -> None:
    async with open_store(path) as store:
        async with held_up(store) as gate, trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(store.write, puts(a_record(KEY.id, host=HOST)))
                scope.cancel()
                await store.write(puts(a_record(KEY.id, host=OWNER)))
            assert scope.cancelled_caught
            gate.set()
        await store.write(puts(a_record(KEY.id, host=NODE)))
        assert {slot.peer_id for slot in (await store.resource(KEY.id)).slots} >= {HOST.peer_id, NODE.peer_id}


STATES = [
    state
    for host in (HOST, NODE)
    for issued in (NOW, NOW + 90_000)
    for state in (a_record(KEY.id, host=host, issued=issued), a_tombstone(KEY.id, host=host, issued=issued))
]
WRITES = (
    st.lists(st.sampled_from(STATES), max_size=3).map(lambda states: puts(*states))
    | st.sampled_from(STATES).map(lambda state: then_refuses(puts(state)))
    | st.sampled_from(STATES).map(lambda state: lambda transaction: transaction.remove_state(state.slot))
    | st.sampled_from([NOW, NOW + 86_400, NOW + 10**8]).map(
        lambda now: lambda transaction: collecting.clear_expired(transaction, now, RULES)
    )
    | st.just(lambda transaction: write_rules.evict_stale(transaction, NOW + 3600, OWNER.peer_id, RULES))
    | st.just(lambda transaction: write_rules.evict_stale(transaction, NOW + 3600, STATES[0].slot.issued_by, RULES))
    | st.just(lambda transaction: transaction.put_key(a_key(created=NOW + 1), NOW, 0))
    | st.just(lambda transaction: transaction.remove_key(KEY.id))
)


@given(steps=st.lists(WRITES | st.none(), max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_cache_equals_the_disk_after_any_writes(steps: list[Decide | None]) -> None:
    async def run(path: Path) -> None:
        async with open_store(path, inline=True) as store:
            for step in steps:
                if step is None:
                    await store.resource(KEY.id)
                else:
                    await outcome_of(store, step)
                cached = store.cached_resource(KEY.id)
                assert cached is None or cached == await store.read(lambda transaction: transaction.resource(KEY.id))

    with TemporaryDirectory() as folder:
        trio.run(run, Path(folder) / "registry.sqlite")


def test_the_cache_is_bounded_in_resources_and_in_bytes() -> None:
    cache = ResourceCache(max_bytes=3 * SMALLEST)
    for number in range(10):
        cache.remember(f"unknown {number}", ResourceState(), 0)
    assert [number for number in range(10) if f"unknown {number}" in cache] == [7, 8, 9]
    large = ResourceState.of(KEY, [a_record(KEY.id, value="x" * 4 * SMALLEST)])
    cache.remember(KEY.id, large, large.size())
    assert cache.get(KEY.id) is None, "it is larger than the whole cache"
    assert len(cache) == 3


def test_the_cache_knows_the_sizes_of_what_changes() -> None:
    cache, records = (
        ResourceCache(),
        [a_record(KEY.id, issuer=identity(number), value="x" * 900) for number in (10, 11)],
    )
    cache.remember(KEY.id, ResourceState.of(KEY, []), ResourceState.of(KEY, []).size())
    for slots in ({records[0].slot: records[0], records[1].slot: records[1]}, {records[0].slot: None}):
        change = Change()
        change.slots = dict(slots)
        cache.apply(KEY.id, change)
        known = cache.get(KEY.id)
        assert known is not None
        assert cache.bytes == known.size() > SMALLEST


def test_a_resource_that_grows_beyond_the_cache_leaves_it() -> None:
    cache, record = ResourceCache(max_bytes=4 * SMALLEST), a_record(KEY.id, value="x" * 4 * SMALLEST)
    cache.remember(KEY.id, ResourceState.of(KEY, []), ResourceState.of(KEY, []).size())
    change = Change()
    change.slots[record.slot] = record
    cache.apply(KEY.id, change)
    assert cache.get(KEY.id) is None


# Opening: migrations and damage


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return version


def test_a_database_in_memory_is_as_a_new_file_and_its_own(tmp_path: Path) -> None:
    def told(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
        asked = ("SELECT * FROM sqlite_master", "SELECT * FROM totals", "PRAGMA user_version", "PRAGMA auto_vacuum")
        return [sorted(connection.execute(each).fetchall(), key=repr) for each in asked]

    with (
        closing(open_database(IN_MEMORY)) as one,
        closing(open_database(IN_MEMORY)) as other,
        closing(open_database(tmp_path / "file")) as file,
    ):
        before = told(other)
        one.execute("UPDATE totals SET amount = 7")
        assert told(one) != told(other) == before == told(file)


async def test_a_migration_keeps_the_data_of_an_older_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = a_record(KEY.id)
    async with open_store(path) as store:
        await store.write(puts(record))
    older = version_of(path)
    monkeypatch.setattr(database, "MIGRATIONS", (*migrations.MIGRATIONS, "CREATE TABLE added (x INTEGER);"))
    async with open_store(path) as store:
        assert (await store.resource(KEY.id)).slots == {record.slot: record}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM added").fetchall() == []
    assert version_of(path) == older + 1


async def test_key_tombstones_of_the_second_schema_are_kept(path: Path) -> None:
    """Its table of them was called `removals`."""
    record, ended = a_record(KEY.id), a_key_tombstone("other", issued=NOW - 5)
    with closing(sqlite3.connect(path)) as connection, connection:
        for script in migrations.MIGRATIONS[:2]:
            connection.executescript(script)
        connection.execute("PRAGMA user_version = 2")
        connection.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)",
            (KEY.id, KEY.owner_peer_id, KEY.timestamp_created, NOW, 0, encode(KEY)),
        )
        connection.execute(
            "INSERT INTO states VALUES (?, ?, ?, 0, ?, ?, ?, ?)",
            (*record.slot, record.timestamp_issued, record.timestamp_created, 0, encode(record)),
        )
        connection.execute(
            "INSERT INTO removals VALUES (?, ?, ?, ?)",
            (ended.key_id, ended.owner_peer_id, ended.timestamp_issued, encode(ended)),
        )
    async with open_store(path) as store:
        assert await store.resource(KEY.id) == ResourceState.of(KEY, [record])
        assert (await store.resource(ended.key_id)).key_tombstone == ended
        assert await store.read(lambda transaction: transaction.counts.keys_or_tombstones_of(OWNER.peer_id)) == 2
        assert await store.write(lambda transaction: transaction.forget_key_tombstones(NOW)) == 1
        assert (await store.resource(ended.key_id)).is_empty()
    with closing(sqlite3.connect(path)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    assert names >= {"key_tombstones", "key_tombstones_by_owner", "key_tombstones_by_age"}
    assert not any("removals" in name for name in names)


async def test_a_database_from_before_indexes_has_empty_ones_and_lists_what_comes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = next(number for number, script in enumerate(migrations.MIGRATIONS) if "CREATE TABLE listed" in script)
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations.MIGRATIONS[:before])
        async with open_store(path) as store:
            await store.write(lambda transaction: transaction.put_key(KEY, NOW, 0))
    async with open_store(path) as store:
        assert (await store.resource(KEY.id)).key == KEY
        assert await store.read(lambda transaction: transaction.index.count(OWNER.peer_id)) == 0
        await store.write(lambda transaction: transaction.index.put(IndexEntry.of(KEY), 0))
        assert await store.read(lambda transaction: transaction.index.entry(OWNER.peer_id, KEY.label)) is not None


async def test_what_was_issued_before_several_identities_could_is_the_processs_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = next(number for number, script in enumerate(migrations.MIGRATIONS) if "TABLE issued_anew" in script)
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations.MIGRATIONS[:before])
        async with open_store(path):
            pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO issued VALUES (?, ?, ?, ?)", (KEY.id, HOST.peer_id, NOW, NOW + 1))
    async with open_store(path) as store:
        own = await store.read(lambda transaction: transaction.issued.of(NODE.peer_id, NODE.peer_id).after(-1))
        assert own == [(KEY.id, HOST.peer_id)]
        assert await store.read(lambda transaction: transaction.issued.forsaken(KEY.id, HOST.peer_id)) == NOW + 1


async def test_an_entry_of_an_index_that_rotted_isnt_served_and_is_dropped(path: Path) -> None:
    entries = [IndexEntry.of(a_key(label)) for label in ("rotten", "sound")]

    def listed(transaction: Transaction) -> list[IndexEntry]:
        return list(transaction.index.page(OWNER.peer_id, None, 10, 10**6, -1, -1).entries)

    async with open_store(path) as store:
        for entry in entries:
            await store.write(lambda transaction, entry=entry: transaction.index.put(entry, 0))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE listed SET body = zeroblob(length(body)) WHERE label = 'rotten'")
    async with open_store(path) as store:
        assert await store.read(listed) == entries[1:]
        await store.write(lambda _: None)  # after what was queued before it
        assert store.damaged == 1
        assert await store.read(lambda transaction: transaction.index.count(OWNER.peer_id)) == 1
        await store.write(lambda transaction: transaction.index.put(entries[0], 0))
        assert await store.read(listed) == entries


def test_a_file_without_a_schema_gets_the_whole_one(path: Path) -> None:
    sqlite3.connect(path).close()
    open_database(path).close()
    assert version_of(path) == len(migrations.MIGRATIONS)


def test_a_failing_migration_leaves_the_older_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(path).close()
    older = version_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*migrations.MIGRATIONS, "CREATE TABLE added (x); nonsense;"))
        with pytest.raises(StorageError, match="nonsense"):
            open_database(path)
    connection = open_database(path)
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'added'").fetchone() == (0,)
    connection.close()
    assert version_of(path) == older


def test_a_newer_schema_is_refused_with_the_remedy_and_left_alone(path: Path) -> None:
    open_database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StorageError, match=r"registry\.sqlite was written by a newer version \(schema 999.*install"):
        open_database(path)
    assert version_of(path) == 999


def test_a_file_that_is_no_database_is_refused_with_path_and_remedy(path: Path) -> None:
    path.write_bytes(b"\xff" * 10_000)
    with pytest.raises(StorageError, match=r"registry\.sqlite.*restore a copy, or move it away"):
        open_database(path)
    assert path.read_bytes() == b"\xff" * 10_000


def test_a_place_where_no_file_can_be_is_refused_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing"):
        open_database(tmp_path / "missing" / "registry.sqlite")
    with pytest.raises(StorageError, match=str(tmp_path)):
        open_database(tmp_path)


def damage_all_but_the_schemas_pages(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        roots = connection.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 1").fetchall()
    with path.open("r+b") as file:
        for (page,) in roots:
            file.seek(4096 * (page - 1))
            file.write(b"\xff" * 4096)


def read(path: Path) -> bytes:
    return path.read_bytes()


def zero_three_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(bytes(3 * 4096))


async def test_a_database_with_damaged_pages_is_refused_with_the_remedy_and_left_alone(path: Path) -> None:
    async with open_store(path) as store:
        await store.write(puts(*(a_record(KEY.id, issuer=identity(number)) for number in range(50, 90))))
    damage_all_but_the_schemas_pages(path)
    before = read(path)
    with pytest.raises(DatabaseDamaged, match=r"registry\.sqlite is damaged: .*restore a copy.*refill_damaged"):
        open_database(path)
    assert read(path) == before


async def test_a_database_with_a_few_zeroed_pages_isnt_taken_for_whole(path: Path) -> None:
    async with open_store(path) as store:
        await store.write(puts(*(a_record(KEY.id, issuer=identity(number)) for number in range(50, 90))))
    zero_three_pages(path)
    with pytest.raises(DatabaseDamaged):
        open_database(path)


async def test_where_the_operator_allows_it_a_damaged_database_is_set_aside_and_begun_anew(path: Path) -> None:
    async with open_store(path) as store:
        await store.write(puts(a_record(KEY.id)))
    damage_all_but_the_schemas_pages(path)
    damaged = read(path)
    async with open_store(path, refill=True) as store:
        assert (await store.resource(KEY.id)).is_empty()
        await store.write(puts(a_record(KEY.id)))
    [aside] = path.parent.glob("registry.sqlite.damaged-*")
    assert read(aside) == damaged
    async with open_store(path, refill=True) as store:
        assert (await store.resource(KEY.id)).slots, "what is whole stays"


def rot(path: Path, statement: str) -> None:
    """Changes rows as a failing disk would: nothing else that is kept of them changes with them."""
    with closing(sqlite3.connect(path)) as other, other:
        triggers = other.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            other.execute(f"DROP TRIGGER {name}")
        other.execute(statement)
        for _, sql in triggers:
            other.execute(sql)


ROTS = {
    "a byte of a record": "UPDATE states SET body = substr(body, 1, 40) || x'00' || substr(body, 42)",
    "a record's checksum": "UPDATE states SET checksum = checksum + 1",
    "a record of another slot": "UPDATE states SET peer_id = issued_by",
    "a record that is a number": "UPDATE states SET body = 7",
    "an issuer that isn't text": "UPDATE states SET issued_by = CAST(x'ff' || substr(issued_by, 2) AS TEXT)",
    "a byte of the key": "UPDATE keys SET body = substr(body, 1, 20) || x'00' || substr(body, 22)"
    f" WHERE key_id = '{KEY.id}'",
}


@pytest.mark.parametrize("statement", ROTS.values(), ids=ROTS.keys())
async def test_a_damaged_row_is_dropped_counted_and_told_and_no_other_suffers(path: Path, statement: str) -> None:
    record, told = a_record(KEY.id), list[str]()
    async with open_store(path) as store:
        await store.write(puts(record))
        await store.write(lambda transaction: transaction.put_key(OTHER, NOW, 0))
    rot(path, statement)
    async with open_store(path) as store:
        store.on_damage(told.extend)
        found = await store.resource(KEY.id)
        assert found != ResourceState.of(KEY, [record])
        await store.write(lambda _: None)  # commits after what was found damaged was dropped
        assert store.damaged == 1
        assert told == [KEY.id]
        digests = await store.digests([KEY.id], HORIZON)
        assert digests[KEY.id] == found.digest(), "comparing shows what lacks"
        assert (await store.resource(OTHER.id)).key == OTHER
        await store.write(puts(record))
        assert await store.resource(KEY.id) == ResourceState.of(KEY, [record])
    async with open_store(path) as store:
        assert await store.resource(KEY.id) == ResourceState.of(KEY, [record])
        assert store.damaged == 0


async def test_what_rotted_and_couldnt_be_dropped_is_met_again_once_the_disk_works(path: Path) -> None:
    """Its resource stayed in memory without it, and nobody looked for what lacked (seed 989 of the simulation)."""
    record, told = a_record(KEY.id), list[str]()
    with closing(open_database(path)) as connection:
        async with store_over(connection, path) as store:
            await store.write(puts(record))
    rot(path, ROTS["a byte of a record"])
    with closing(open_database(path)) as connection:
        async with store_over(connection, path) as store:
            store.on_damage(told.extend)
            repair = make_read_only(connection, path)
            assert await store.resource(KEY.id) == ResourceState.of(KEY, [])
            with pytest.raises(StorageError):
                await store.write(lambda transaction: transaction.put_key(OTHER, NOW, 0))
            assert (told, store.damaged) == ([], 0)
            repair()
            assert await store.resource(KEY.id) == ResourceState.of(KEY, [])
            await store.write(lambda _: None)
            assert (told, store.damaged) == ([KEY.id], 1)
            await store.write(puts(record))
            assert await store.resource(KEY.id) == ResourceState.of(KEY, [record])
            assert store.cached_resource(KEY.id) is not None


async def test_what_rotted_unread_isnt_hidden_by_a_write_beside_it(path: Path) -> None:
    rotten, good = a_record(KEY.id), a_record(KEY.id, issuer=identity(50))
    async with open_store(path) as store:
        await store.write(puts(rotten))
        rot(path, ROTS["a byte of a record"])
        await store.write(puts(good))
        assert store.damaged == 1
        assert await store.resource(KEY.id) == ResourceState.of(KEY, [good])
        assert (await store.digests([KEY.id], HORIZON))[KEY.id] == ResourceState.of(KEY, [good]).digest()


SPOILT_TIMES = {
    "of issuing": "UPDATE states SET timestamp_issued = 'rotten'",
    "of hosting": "UPDATE states SET timestamp_created = x'00'",
    "of a key": "UPDATE keys SET timestamp_created = 'rotten'",
}


@pytest.mark.parametrize("statement", SPOILT_TIMES.values(), ids=SPOILT_TIMES.keys())
async def test_a_time_that_is_none_any_more_keeps_no_write_beside_it_from_the_disk(path: Path, statement: str) -> None:
    rotten, good = a_record(KEY.id), a_record(KEY.id, issuer=identity(50))
    async with open_store(path) as store:
        await store.write(puts(rotten))
        rot(path, statement)
        await store.write(puts(good))
    assert on_disk(path) == ResourceState.of(KEY, [rotten, good])


async def test_what_nobody_foresaw_of_a_commit_ends_that_one_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "settle", lambda _: 1 / 0)
            with pytest.raises(StorageError, match="the disk refused"):
                await store.write(puts(a_record(KEY.id)))
        assert (await store.resource(KEY.id)).is_empty()
        await store.write(puts(a_record(KEY.id)))


async def test_a_resource_whose_id_isnt_text_any_more_is_left_out(path: Path) -> None:
    async with open_store(path) as store:
        await store.write(puts())
        await store.write(lambda transaction: transaction.put_key(OTHER, NOW, 0))
        rot(path, f"UPDATE resources SET key_id = CAST(x'ff' || substr(key_id, 2) AS TEXT) WHERE key_id = '{OTHER.id}'")
        for after in ("", KEY.id):
            found = await store.read(lambda transaction, after=after: transaction.positions.key_ids(after, 10))
            assert found == [KEY.id] * (not after)


SPOILT_NAMES = {
    "the id of a removed key": "UPDATE key_tombstones SET key_id = CAST(x'ff' || substr(key_id, 2) AS TEXT)",
    "the label of an entry": "UPDATE listed SET label = CAST(x'ff' || label AS TEXT)",
    "the owner of an entry": "UPDATE listed SET owner_peer_id = CAST(x'ff' || owner_peer_id AS TEXT)",
}


@pytest.mark.parametrize("statement", SPOILT_NAMES.values(), ids=SPOILT_NAMES.keys())
async def test_what_a_disk_spoilt_is_collected_and_keeps_nothing_else_from_it(path: Path, statement: str) -> None:
    async with open_store(path) as store:
        await store.write(puts(a_record(KEY.id)))
        await store.write(lambda t: write_rules.put_key_tombstone(t, a_key_tombstone("gone"), NODE.peer_id, RULES, NOW))
        await store.write(lambda transaction: transaction.index.put(IndexEntry.of(KEY), 0))
        rot(path, statement)
        late = NOW + RULES.key_tombstone_lifetime + RULES.key_lifetime
        while await store.write(lambda t: collecting.clear_expired(t, late, RULES)) != collecting.ClearExpiredResult(
            True
        ):
            pass
    with closing(sqlite3.connect(path)) as connection:
        for table in ("keys", "states", "key_tombstones", "listed"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


async def test_a_damaged_state_wins_no_merge(path: Path) -> None:
    newer = a_record(KEY.id, issued=NOW + 1)
    async with open_store(path) as store:
        await store.write(puts(a_record(KEY.id, issued=NOW + 20)))
        rot(path, ROTS["a byte of a record"])
        await store.write(puts(newer))
        assert (await store.resource(KEY.id)).slots[newer.slot] == newer


WRITER = """
import sys, trio
from pathlib import Path
from registry.replica import collecting
from registry.replica import rules as write_rules
from registry.settings import RegistrySettings
from registry.storage import open_store
from tests.unit.registry.builders import NODE, NOW, a_key, a_record, identity

async def main(path):
    key = a_key()
    async with open_store(path) as store:
        rules = RegistrySettings()
        await store.write(lambda t: write_rules.republish_key(t, key, 0, NODE.peer_id, rules, NOW))
        for number in range(200):
            record = a_record(key.id, issuer=identity(1000 + number))
            await store.write(lambda t: write_rules.put_state(t, record, 0, NODE.peer_id, rules, NOW))
            print(number, flush=True)

trio.run(main, Path(sys.argv[1]))
"""


def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    acknowledged = 7
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    ) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if line.strip() == str(acknowledged):  # among lines of the log
                writer.kill()
                break
        assert writer.wait(10) == -signal.SIGKILL
    kept = on_disk(path)
    assert kept.key == KEY
    issuers = {slot.issued_by for slot in kept.slots}
    assert issuers >= {identity(1000 + number).peer_id for number in range(acknowledged + 1)}


# What a transaction reads


async def test_keys_keep_what_only_this_node_knows_of_them(path: Path) -> None:
    async with open_store(path) as store:
        await store.write(lambda transaction: transaction.put_key(KEY, NOW + 5, 7))
        assert await store.read(lambda transaction: transaction.key(KEY.id)) == StoredKey(KEY, NOW + 5, 7)


async def test_what_a_host_holds_for_others_is_counted_in_records_and_bytes(path: Path) -> None:
    own, first, second = (a_record(KEY.id, issuer=issuer, host=NODE) for issuer in (NODE, ISSUER, OWNER))
    async with open_store(path) as store:
        await store.write(puts(own, first, second, a_record(KEY.id, host=HOST), a_tombstone(KEY.id, identity(9), NODE)))
        held = await store.read(lambda transaction: transaction.counts.hosting(NODE.peer_id, ISSUER.peer_id))
        assert held == (2, len(encode(first)) + len(encode(second)), 1)


async def test_the_last_time_given_to_a_slot_is_remembered_and_never_goes_back(path: Path) -> None:
    async with open_store(path) as store:
        assert await store.read(lambda transaction: transaction.issued.last(KEY.id, HOST.peer_id)) == -1
        for second in (NOW, NOW + 2, NOW + 1):
            await store.write(lambda transaction, at=second: transaction.issued.record(KEY.id, HOST.peer_id, at))
    async with open_store(path) as store:
        assert await store.read(lambda transaction: transaction.issued.last(KEY.id, HOST.peer_id)) == NOW + 2
        theirs = await store.read(lambda transaction: transaction.issued.of(ISSUER.peer_id, NODE.peer_id).after(-1))
        own = await store.read(lambda transaction: transaction.issued.of(NODE.peer_id, NODE.peer_id).until(NOW + 2))
        assert (theirs, own) == ([], [(KEY.id, HOST.peer_id)]), "each identity gives times of its own"
        await store.write(lambda transaction: transaction.issued.forget(NOW + 2))
        assert await store.read(lambda transaction: transaction.issued.last(KEY.id, HOST.peer_id)) == -1
