"""Keeps, within the transaction that changed a resource, the digest of everything in it and where it is.

Triggers empty the digest of what a write touches (`registry.storage.database`); `settle` computes it from the rows, so
that comparing replicas needs no resource to be loaded. A stored digest is that of `ResourceState.digest`.
"""

from __future__ import annotations

import sqlite3
from hashlib import sha256
from typing import Final

from overlay.discovery.keyspace import POSITION_BYTES, resource_position
from registry.model.values import Slot
from registry.storage.rows import ROTTEN, DamagedRow, delete_damaged_state, is_whole

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


def _settle_one(connection: sqlite3.Connection, key_id: str) -> list[DamagedRow]:
    summary, oldest = sha256(), [NEVER] * 5
    damaged: list[DamagedRow] = []
    is_empty = True
    for index, table, time in ((3, "keys", "timestamp_created"), (4, "key_tombstones", "timestamp_issued")):
        row = connection.execute(
            f"SELECT CAST(body AS BLOB), checksum, {time} FROM {table} WHERE key_id = ?",  # noqa: S608 - two names
            (key_id,),
        ).fetchone()
        if row is None:
            continue
        body, checksum, oldest[index] = row
        if not is_whole(body, checksum):
            connection.execute(f"DELETE FROM {table} WHERE key_id = ?", (key_id,))  # noqa: S608
            damaged.append(DamagedRow(key_id, None, table == "key_tombstones", ROTTEN))
            oldest[index] = NEVER
            continue
        is_empty = False
        summary.update(sha256(body).digest())
    states = connection.execute(
        "SELECT issued_by, peer_id, CAST(body AS BLOB), checksum, is_tombstone, timestamp_created, timestamp_issued"
        " FROM states WHERE key_id = ? ORDER BY issued_by, peer_id",
        (key_id,),
    ).fetchall()
    for issued_by, peer_id, body, checksum, is_tombstone, created, issued in states:
        if not is_whole(body, checksum):
            slot = Slot(key_id, issued_by, peer_id)
            delete_damaged_state(connection, slot)
            damaged.append(DamagedRow(key_id, slot, False, ROTTEN))
            continue
        is_empty = False
        summary.update(sha256(body).digest())
        if is_tombstone:
            oldest[2] = min(oldest[2], issued)
        else:
            oldest[0], oldest[1] = min(oldest[0], created), min(oldest[1], issued)
    if is_empty:
        connection.execute("DELETE FROM resources WHERE key_id = ?", (key_id,))
        connection.execute("DELETE FROM positions WHERE position = ? AND key_id = ?", (position_bytes(key_id), key_id))
        return damaged
    connection.execute(
        "UPDATE resources SET digest = ?, hosted = ?, issued = ?, ended = ?, owned = ?, removed = ? WHERE key_id = ?",
        (summary.digest(), *oldest, key_id),
    )
    connection.execute("INSERT OR IGNORE INTO positions VALUES (?, ?)", (position_bytes(key_id), key_id))
    return damaged
