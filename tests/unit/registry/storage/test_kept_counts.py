"""What the database keeps beside its rows, so that nothing is counted through: counters, digests, positions, ages."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.keyspace import resource_position
from registry.errors import RegistryRefusal
from registry.model import history
from registry.model.expiry_horizon import ExpiryHorizon, oldest_of
from registry.model.history import MAX_EVENTS_OF_A_RESOURCE, HistoryEvent
from registry.model.values import Record, State, Tombstone, encode
from registry.replica import collecting, rules
from registry.settings import RegistrySettings
from registry.storage import Transaction, migrations, open_store
from registry.storage.database import open_database
from registry.storage.digests import NEVER
from registry.storage.migrations import ROW_BYTES
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NODE,
    NOW,
    OWNER,
    STRANGER,
    a_key,
    a_key_tombstone,
    a_record,
    a_tombstone,
    identity,
)

RULES = RegistrySettings()
LATER = NOW + 90_000
KEYS = [a_key("one"), a_key("two"), a_key("three", owner=STRANGER)]
ALWAYS = ExpiryHorizon(-1, -1, -1, -1, -1)
FIRST, LAST = b"\x00" * 32, b"\xff" * 32
Decide = Callable[[Transaction], object]


def put_key(key_number: int, created: int) -> Decide:
    key = a_key(KEYS[key_number].label, STRANGER if key_number == 2 else OWNER, created)
    return lambda transaction: rules.republish_key(transaction, key, 0, NODE.peer_id, RULES, NOW)


def put(state: State, weight: int = 0) -> Decide:
    return lambda transaction: rules.put_state(transaction, state, weight, NODE.peer_id, RULES, NOW)


def remove_resource(key_number: int, issued: int) -> Decide:
    owner = STRANGER if key_number == 2 else OWNER
    ended = a_key_tombstone(KEYS[key_number].label, owner, issued)
    return lambda transaction: rules.put_key_tombstone(transaction, ended, NODE.peer_id, RULES, NOW)


def collect(now: int, limit: int) -> Decide:
    return lambda transaction: collecting.clear_expired(transaction, now, RULES, limit)


def refused(decide: Decide) -> Decide:
    def refuse(transaction: Transaction) -> None:
        decide(transaction)
        raise RegistryRefusal("refused")

    return refuse


TIMES = st.sampled_from([NOW, NOW + 1, LATER])
STATES = [
    state
    for key in KEYS
    for issuer in (ISSUER, STRANGER, NODE)
    for host in (HOST, NODE)
    for issued in (NOW, NOW + 1, LATER)
    for state in (
        a_record(key.id, issuer, host, issued, value="x" * (issued % 7)),
        a_tombstone(key.id, issuer, host, issued),
    )
]
WRITES = (
    st.builds(put_key, st.integers(0, 2), TIMES)
    | st.builds(put, st.sampled_from(STATES), st.sampled_from([0, 0, 5]))
    | st.builds(remove_resource, st.integers(0, 2), TIMES)
    | st.builds(collect, st.sampled_from([NOW, NOW + 86_400, LATER + 86_400, NOW + 10**8]), st.integers(1, 5))
    | st.just(lambda transaction: rules.evict_stale(transaction, NOW + 3600, NODE.peer_id, RULES))
    | st.sampled_from(STATES).map(lambda state: refused(put(state)))
)


def written(connection: sqlite3.Connection, decide: Decide) -> None:
    """As `Store` writes."""
    connection.execute("SAVEPOINT one_write")
    try:
        decide(Transaction(connection))
    except RegistryRefusal:
        connection.execute("ROLLBACK TO one_write")
    Transaction(connection).settle()
    connection.execute("RELEASE one_write")


def check_counts(connection: sqlite3.Connection) -> None:
    """All counters equal what counting finds."""
    states = connection.execute("SELECT key_id, issued_by, peer_id, is_tombstone, length(body) FROM states").fetchall()
    transaction = Transaction(connection)
    (keys,) = connection.execute("SELECT count(*) FROM keys").fetchone()
    tombstones = sum(row[3] for row in states)
    assert transaction.counts.totals() == (keys, len(states) - tombstones, tombstones)
    for key in KEYS:
        under = [row for row in states if row[0] == key.id]
        assert transaction.counts.slots_under(key.id) == len(under)
        assert transaction.counts.tombstones_under(key.id) == sum(row[3] for row in under)
        for host in (HOST, NODE):
            for issuer in (ISSUER, STRANGER):
                foreign = [row for row in under if not row[3] and row[2] != host.peer_id]
                by_issuer = sum(row[1] == issuer.peer_id for row in foreign)
                assert transaction.counts.foreign_records(key.id, host.peer_id, issuer.peer_id) == (
                    len(foreign),
                    by_issuer,
                )
    for host in (HOST, NODE):
        hosted = [row for row in states if not row[3] and row[2] == host.peer_id and row[1] != host.peer_id]
        by_issuer = sum(row[1] == ISSUER.peer_id for row in hosted)
        told = transaction.counts.hosting(host.peer_id, ISSUER.peer_id)
        assert told == (len(hosted), sum(row[4] for row in hosted), by_issuer)
    rows = connection.execute(
        "SELECT owner_peer_id FROM keys UNION ALL SELECT owner_peer_id FROM key_tombstones"
    ).fetchall()
    owners = Counter(owner for (owner,) in rows)
    assert dict(connection.execute("SELECT owner_peer_id, keys FROM owners")) == owners
    for owner in (OWNER, STRANGER):
        assert transaction.counts.keys_or_tombstones_of(owner.peer_id) == owners[owner.peer_id]
    for key in KEYS:
        for issuer in (ISSUER, STRANGER, NODE):
            by_issuer = sum((row[0], row[1]) == (key.id, issuer.peer_id) for row in states)
            assert transaction.counts.slots_by(key.id, issuer.peer_id) == by_issuer
    assert not connection.execute("SELECT 1 FROM issuers WHERE records + tombstones < 1").fetchall()
    assert not connection.execute("SELECT 1 FROM hosts WHERE records < 1").fetchall()
    charged: Counter[tuple[str, int]] = Counter()
    for table, account, more in (
        ("keys", "owner_peer_id", ""),
        ("key_tombstones", "owner_peer_id", " + length(latest)"),
        ("states", "issued_by", ""),
    ):
        for peer_id, weight, size in connection.execute(f"SELECT {account}, weight, length(body){more} FROM {table}"):
            charged[peer_id, weight] += size + ROW_BYTES
    kept = connection.execute("SELECT peer_id, weight, bytes FROM accounts").fetchall()
    assert {(peer_id, weight): size for peer_id, weight, size in kept} == charged
    heaviest = transaction.accounts.heaviest(5, 100)
    assert sorted(heaviest) == sorted(kept)
    assert heaviest == sorted(heaviest, key=lambda account: (account.weight, -account.bytes))
    for owner in (OWNER, ISSUER):
        assert transaction.accounts.bytes_of(owner.peer_id) == sum(
            size for (peer_id, _), size in charged.items() if peer_id == owner.peer_id
        )


def check_digests(connection: sqlite3.Connection) -> None:
    """Every resource is at its position with the digest of what is stored, and no other is."""
    transaction = Transaction(connection)
    resources = {key.id: transaction.resource(key.id) for key in KEYS}
    known = {key_id: resource for key_id, resource in resources.items() if not resource.is_empty()}
    places = transaction.positions.places_in(FIRST, LAST, ALWAYS, 100)
    assert [int.from_bytes(place.position, "big") for place in places] == sorted(map(resource_position, known))
    assert {place.key_id: place.digest for place in places} == {
        key_id: resource.digest() for key_id, resource in known.items()
    }
    assert transaction.positions.key_ids("", 100) == sorted(known)
    for now in (NOW, NOW + 86_400, LATER + 86_400, NOW + 10**8):
        horizon = ExpiryHorizon.at(now, RULES)
        places = transaction.positions.places_in(FIRST, LAST, horizon, 100)
        for place in places:
            assert place.is_alive == (horizon.alive(known[place.key_id]) is known[place.key_id])
            oldest = msgspec.structs.astuple(oldest_of(known[place.key_id]))
            assert place.oldest == tuple(min(time, NEVER) for time in oldest)
        assert transaction.positions.digests(sorted(known), horizon) == sorted(
            (place._replace(oldest=()) for place in places), key=lambda place: place.key_id
        )


@given(steps=st.lists(WRITES, max_size=30))
def test_what_is_kept_equals_what_counting_finds_after_any_history(steps: list[Decide]) -> None:
    with closing(open_database(Path(":memory:"))) as connection:
        for step in steps:
            written(connection, step)
        check_counts(connection)
        check_digests(connection)


async def test_resources_are_read_by_ranges_of_positions(tmp_path: Path) -> None:
    keys = [a_key(str(number)) for number in range(40)]
    async with open_store(tmp_path / "registry.sqlite") as store:
        for key in keys:
            await store.write(lambda transaction, key=key: transaction.put_key(key, NOW, 0))
        everything = sorted(keys, key=lambda key: resource_position(key.id))
        for first, last in ((0, 39), (3, 17), (20, 20)):
            bounds = [resource_position(everything[number].id).to_bytes(32, "big") for number in (first, last)]
            found = await store.read(lambda t, bounds=bounds: t.positions.places_in(bounds[0], bounds[1], ALWAYS, 100))
            assert [place.key_id for place in found] == [key.id for key in everything[first : last + 1]]
        assert len(await store.read(lambda t: t.positions.places_in(FIRST, LAST, ALWAYS, 7))) == 7


THIRD = 3


def of_the_third_schema(path: Path) -> tuple[list[Record], list[Tombstone]]:
    """A database as the third schema had it, written by its own SQL."""
    records = [a_record(key.id, identity(number), HOST, NOW) for key in KEYS for number in range(10, 14)]
    tombstones = [a_tombstone(KEYS[0].id, identity(20), HOST, NOW)]
    ended = a_key_tombstone("gone")
    with closing(sqlite3.connect(path)) as connection, connection:
        for script in migrations.MIGRATIONS[:THIRD]:
            connection.executescript(script)
        connection.execute(f"PRAGMA user_version = {THIRD}")
        for key in KEYS:
            row = (key.id, key.owner_peer_id, key.timestamp_created, NOW, 0, encode(key))
            connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)", row)
        for state in (*records, *tombstones):
            is_tombstone = isinstance(state, Tombstone)
            created = 0 if isinstance(state, Tombstone) else state.timestamp_created
            connection.execute(
                "INSERT INTO states VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*state.slot, int(is_tombstone), state.timestamp_issued, created, 5, encode(state)),
            )
        connection.execute(
            "INSERT INTO key_tombstones VALUES (?, ?, ?, ?)",
            (ended.key_id, ended.owner_peer_id, ended.timestamp_issued, encode(ended)),
        )
        connection.execute("INSERT INTO history VALUES (1, ?, ?, '', '', 'stored', 'from x')", (NOW, KEYS[0].id))
    return records, tombstones


def test_a_database_of_the_third_schema_migrates_with_its_data(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    records, tombstones = of_the_third_schema(path)
    with closing(open_database(path)) as connection:
        transaction = Transaction(connection)
        stored = [item.state for key in KEYS for item in transaction.states(key.id)]
        assert sorted(stored, key=lambda state: state.slot) == sorted(
            (*records, *tombstones), key=lambda state: state.slot
        )
        assert transaction.history.last(KEYS[0].id, 10) == [HistoryEvent(NOW, KEYS[0].id, "", "", "stored", "from x")]
        check_counts(connection)
        assert [item.victim for item in transaction.states(KEYS[0].id) if isinstance(item.state, Tombstone)] == [NOW], (
            "what an old tombstone ended isn't known: it may hold down what was issued until then"
        )
        assert transaction.victim_of_key_tombstone(a_key_tombstone("gone").key_id) == NOW
        places = transaction.positions.places_in(FIRST, LAST, ALWAYS, 100)
        assert {place.key_id: place.digest for place in places} == {
            key_id: transaction.resource(key_id).digest()
            for key_id in [*(key.id for key in KEYS), a_key_tombstone("gone").key_id]
        }


# History


def note(number: int, key_id: str) -> Decide:
    event = HistoryEvent(NOW + number, key_id, ISSUER.peer_id, HOST.peer_id, history.RENEWED, "from somebody")
    return lambda transaction: transaction.note(event)


async def test_the_history_of_a_resource_is_bounded(tmp_path: Path) -> None:
    def many(transaction: Transaction) -> None:
        note(0, "quiet")(transaction)
        for number in range(MAX_EVENTS_OF_A_RESOURCE + 50):
            note(number, "busy")(transaction)

    async with open_store(tmp_path / "registry.sqlite") as store:
        await store.write(many)
        events = await store.read(lambda transaction: transaction.history.last("busy", 10_000))
        assert len(events) == MAX_EVENTS_OF_A_RESOURCE
        assert events[-1].time == NOW + MAX_EVENTS_OF_A_RESOURCE + 49, "the oldest went"
        assert len(await store.read(lambda transaction: transaction.history.last("quiet", 10))) == 1


def test_the_history_of_all_resources_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.storage.history_table.FEWEST_BYTES", 20_000)
    with closing(open_database(tmp_path / "registry.sqlite")) as connection:
        transaction = Transaction(connection)
        connection.execute("BEGIN")
        for number in range(5_000):
            note(number, f"resource {number}")(transaction)
        connection.execute("COMMIT")
        (kept, last) = connection.execute("SELECT count(*), max(time) FROM history").fetchone()
        assert last == NOW + 4_999
        size = sum(
            2 * len(event[1]) + sum(map(len, event[2:])) + 40
            for event in connection.execute("SELECT time, key_id, issued_by, peer_id, what, detail FROM history")
        )
        assert size < transaction.used_bytes() / 5
        assert 100 < kept < 2_000


# Collecting


async def test_expired_rows_are_collected_in_small_parts(tmp_path: Path) -> None:
    """So that no other write waits for all of them."""
    count = 5 * collecting.COLLECTED_AT_ONCE + 3
    records = [a_record(KEYS[number % 3].id, identity(10 + number // 3)) for number in range(count)]
    async with open_store(tmp_path / "registry.sqlite") as store:
        for key_number in range(3):
            await store.write(put_key(key_number, NOW))
        await store.write(lambda transaction: [transaction.put_state(record, 0) for record in records])
        parts = []
        while (part := await store.write(collect(NOW + 86_400, collecting.COLLECTED_AT_ONCE))).count_records:
            parts.append(part)
        assert [part.count_records for part in parts] == [collecting.COLLECTED_AT_ONCE] * 5 + [3]
        assert sum(part.count_keys for part in parts) == 3
        assert await store.read(lambda transaction: transaction.counts.totals()) == (0, 0, 0)
