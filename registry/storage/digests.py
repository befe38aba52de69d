"""Keeps, within the transaction that changed a resource, the digest of everything in it and where it is.

Triggers empty the digest of what a write touches (`registry.storage.database`); `settle` computes it from the rows, so
that comparing replicas needs no resource to be loaded. A stored digest is that of `ResourceState.digest`.
"""

from __future__ import annotations

import sqlite3
from hashlib import sha256
from typing import Final

from overlay.discovery.keyspace import POSITION_BYTES, resource_position
from registry.errors import InvalidValue
from registry.model.decoding import decode_key, decode_state
from registry.model.policy_withholding import permitted_before
from registry.model.values import Key, Record, Slot
from registry.permission.policy import MARK
from registry.storage.checked_rows import ROTTEN, DamagedRow, delete_damaged_state, is_whole

NEVER: Final = 2**63 - 1
"""In the place of the oldest signature of a kind, where there is none (SQLite's greatest number)."""


def settle(connection: sqlite3.Connection) -> list[DamagedRow]:
    """Computes the digests of resources that changed. Returns damaged rows that it met and deleted, lest a digest is
    that of what nobody ever stored."""
    key_ids = connection.execute("SELECT key_id FROM resources WHERE digest = x''").fetchall()
    return [row for (key_id,) in key_ids for row in _settle_one(connection, key_id)]


def position_bytes(key_id: str) -> bytes:
    """The position of a resource as the database has it."""
    return resource_position(key_id).to_bytes(POSITION_BYTES, "big")


def _with_policy(body: bytes) -> Key | None:
    """The key in a row whose body may hold a policy, if it does."""
    try:
        key = decode_key(body)
    except InvalidValue:  # reading it tells
        return None
    return key if key.policy is not None else None


def _permitted_before(key: Key, body: bytes) -> int:
    """As `permitted_before`, of the record in a row."""
    try:
        state = decode_state(body)
    except InvalidValue:
        return 0
    return permitted_before(key, state) if isinstance(state, Record) else NEVER


def _settle_one(connection: sqlite3.Connection, key_id: str) -> list[DamagedRow]:
    summary = _Summary()
    for index, table, time in ((3, "keys", "timestamp_created"), (4, "key_tombstones", "timestamp_issued")):
        summary.add_key_or_tombstones(connection, key_id, table, time, index)
    summary.add_states(connection, key_id)
    if summary.is_empty:
        connection.execute("DELETE FROM resources WHERE key_id = ?", (key_id,))
        connection.execute("DELETE FROM positions WHERE position = ? AND key_id = ?", (position_bytes(key_id), key_id))
        return summary.damaged
    connection.execute(
        "UPDATE resources SET digest = ?, hosted = ?, issued = ?, ended = ?, owned = ?, removed = ?, certified = ?"
        " WHERE key_id = ?",
        (summary.hash.digest(), *summary.oldest, key_id),
    )
    connection.execute("INSERT OR IGNORE INTO positions VALUES (?, ?)", (position_bytes(key_id), key_id))
    return summary.damaged


class _Summary:
    """What is kept beside a resource's rows, as they are gone through."""

    def __init__(self) -> None:
        self.hash = sha256()
        self.oldest = [NEVER] * 6
        """As `registry.model.expiry_horizon.oldest_of`."""
        self.damaged: list[DamagedRow] = []
        self.is_empty = True
        self._key: Key | None = None
        """The key, if it has a policy."""

    def add_key_or_tombstones(
        self, connection: sqlite3.Connection, key_id: str, table: str, time: str, index: int
    ) -> None:
        latest = "CAST(latest AS BLOB), latest_checksum" if table == "key_tombstones" else "x'', 0"
        row = connection.execute(
            f"SELECT CAST(body AS BLOB), checksum, CAST({time} AS INTEGER), {latest} FROM {table} WHERE key_id = ?",  # noqa: S608
            (key_id,),
        ).fetchone()
        if row is None:
            return
        body, checksum, oldest, latest_body, latest_checksum = row
        if not is_whole(body, checksum) or (latest_body != b"" and not is_whole(latest_body, latest_checksum)):
            connection.execute(f"DELETE FROM {table} WHERE key_id = ?", (key_id,))  # noqa: S608 - two names
            self.damaged.append(DamagedRow(key_id, None, table == "key_tombstones", ROTTEN))
            return
        self.oldest[index] = oldest
        self.is_empty = False
        self.hash.update(sha256(body).digest())
        if latest_body:
            self.hash.update(sha256(latest_body).digest())
        if table == "keys" and MARK in body:
            self._key = _with_policy(body)

    def add_states(self, connection: sqlite3.Connection, key_id: str) -> None:
        states = connection.execute(
            "SELECT issued_by, peer_id, CAST(body AS BLOB), checksum, is_tombstone,"
            " CAST(timestamp_created AS INTEGER), CAST(timestamp_issued AS INTEGER)"  # a disk may make anything of them
            " FROM states WHERE key_id = ? ORDER BY issued_by, peer_id",
            (key_id,),
        ).fetchall()
        oldest = self.oldest
        for issued_by, peer_id, body, checksum, is_tombstone, created, issued in states:
            if not is_whole(body, checksum):
                slot = Slot(key_id, issued_by, peer_id)
                delete_damaged_state(connection, slot)
                self.damaged.append(DamagedRow(key_id, slot, False, ROTTEN))
                continue
            self.is_empty = False
            self.hash.update(sha256(body).digest())
            if is_tombstone:
                oldest[2] = min(oldest[2], issued)
                continue
            oldest[0], oldest[1] = min(oldest[0], created), min(oldest[1], issued)
            if self._key is not None:
                oldest[5] = min(oldest[5], _permitted_before(self._key, body))
