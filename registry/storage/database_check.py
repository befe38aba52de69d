"""Looks a database through without changing it: its pages, each row's checksum and signatures, and what is counted.

A running node's may be examined too: what is read is what one commit left.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from registry.errors import StorageError
from registry.model.values import Key, Record, Slot
from registry.model.verification import (
    key_is_genuine,
    key_tombstone_is_genuine,
    record_is_genuine,
    tombstone_is_genuine,
)
from registry.storage.checked_rows import ROTTEN, Damage, stored_key, stored_key_tombstones, stored_state, text_of
from registry.storage.database import damage_in
from registry.storage.index_table import stored_entry
from registry.storage.migrations import MIGRATIONS
from registry.storage.trust_table import TrustTable

MOST_TOLD: Final = 100  # damaged pages and rows, each
_FORGED: Final = "the signature doesn't match"


class Examination(msgspec.Struct, frozen=True):
    """What was found. `rows`: where a damaged row is, and why; all lists have `MOST_TOLD` entries at most."""

    keys: int
    records: int
    tombstones: int
    key_tombstones: int
    statements: int = 0
    """Of the trust graph."""
    listed: int = 0
    """Entries of owners' indexes."""
    pages: tuple[str, ...] = ()
    """What is wrong with the structure of the file."""
    damaged: int = 0
    """Rows that aren't what was stored there."""
    rows: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    """What is counted, or summed up, otherwise than it is."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.pages or self.damaged or self.counts)


def examine(path: Path) -> Examination:
    """Looks a database through; takes about 0.2 ms a row. Raises StorageError where there is none, or one of another
    version."""
    if not path.is_file():
        raise StorageError(f"there is no database {path}; give the data folder of a node")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)) as connection:
            connection.text_factory = text_of
            if pages := damage_in(connection, MOST_TOLD):
                return Examination(0, 0, 0, 0, pages=tuple(pages))
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != len(MIGRATIONS):
                raise StorageError(
                    f"the database {path} has schema {version}, this version knows {len(MIGRATIONS)}: "
                    "start a node with it once, or use the version that wrote it"
                )
            connection.execute("BEGIN")  # one state of it all
            return _Examiner(connection).examine()
    except sqlite3.Error as error:
        raise StorageError(f"can't read the database {path}: {error}") from error


class _Examiner:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._damaged = 0
        self._rows: list[str] = []

    def examine(self) -> Examination:
        keys, key_tombstones = self._keys(), self._key_tombstones()
        records, tombstones = self._states()
        statements, listed = self._statements(), self._listed()
        return Examination(
            keys,
            records,
            tombstones,
            key_tombstones,
            statements,
            listed,
            damaged=self._damaged,
            rows=tuple(self._rows),
            counts=tuple(self._counts(keys, records, tombstones)),
        )

    def _keys(self) -> int:
        count = 0
        query = "SELECT key_id, CAST(body AS BLOB), checksum, timestamp_published, weight FROM keys"
        for key_id, *row in self._connection.execute(query):
            count += 1
            with self._telling(f"key of {key_id!r}"):
                _demand(key_is_genuine(stored_key(key_id, tuple(row)).key), _FORGED)
        return count

    def _key_tombstones(self) -> int:
        count = 0
        query = "SELECT key_id, CAST(body AS BLOB), checksum, CAST(latest AS BLOB), latest_checksum FROM key_tombstones"
        for key_id, *row in self._connection.execute(query):
            count += 1
            with self._telling(f"tombstone of key {key_id!r}"):
                for key_tombstone in stored_key_tombstones(key_id, tuple(row)):
                    _demand(key_tombstone_is_genuine(key_tombstone), _FORGED)
        return count

    def _states(self) -> tuple[int, int]:
        counts = [0, 0]
        query = (
            "SELECT is_tombstone, key_id, issued_by, peer_id, CAST(body AS BLOB), checksum, weight, victim FROM states"
        )
        for is_tombstone, key_id, issued_by, peer_id, *row in self._connection.execute(query):
            counts[bool(is_tombstone)] += 1
            slot = Slot(key_id, issued_by, peer_id)
            with self._telling(f"state of {slot!r}"):
                state = stored_state(slot, tuple(row)).state
                _demand(
                    isinstance(state, Record) != bool(is_tombstone), "a record and a tombstone are taken for each other"
                )
                _demand(record_is_genuine(state) if isinstance(state, Record) else tombstone_is_genuine(state), _FORGED)
        return counts[0], counts[1]

    def _statements(self) -> int:
        count = 0
        for (issued_by, issued_for), statement in TrustTable(self._connection).statements():
            count += 1
            with self._telling(f"word of {issued_by!r} on {issued_for!r} in the trust graph"):
                _demand(statement is not None, _FORGED)
        return count

    def _listed(self) -> int:
        count = 0
        query = "SELECT owner_peer_id, label, key_id, CAST(body AS BLOB), checksum FROM listed"
        for owner, label, *row in self._connection.execute(query):
            count += 1
            with self._telling(f"entry of {label[:80]!r} in the index of {owner!r}"):
                entry = stored_entry(row)
                _demand(entry is not None, ROTTEN)
                assert entry is not None
                _demand((entry.owner_peer_id, entry.label) == (owner, label), "an entry of another resource")
                for value in entry.values():
                    genuine = key_is_genuine(value) if isinstance(value, Key) else key_tombstone_is_genuine(value)
                    _demand(genuine, _FORGED)
        return count

    @contextmanager
    def _telling(self, where: str) -> Iterator[None]:
        try:
            yield
        except Damage as damage:
            self._damaged += 1
            if len(self._rows) < MOST_TOLD:
                self._rows.append(f"{where}: {damage}")

    def _counts(self, keys: int, records: int, tombstones: int) -> list[str]:
        told = dict(self._connection.execute("SELECT name, amount FROM totals"))
        wrong = [
            f"{name}: {told.get(name)} are counted, {count} are there"
            for name, count in (("keys", keys), ("records", records), ("tombstones", tombstones))
            if told.get(name) != count
        ]
        (unlike,) = self._connection.execute(
            "SELECT count(*) FROM (SELECT key_id, sum(is_tombstone = 0) AS r, sum(is_tombstone = 1) AS t FROM states"
            " GROUP BY key_id) AS found LEFT JOIN resources USING (key_id)"
            " WHERE r IS NOT resources.records OR t IS NOT resources.tombstones"
        ).fetchone()
        if unlike:
            wrong.append(f"resources: {unlike} have other counts than rows")
        return wrong


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Damage(otherwise)
