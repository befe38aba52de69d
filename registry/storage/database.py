"""Opening the node's SQLite file: pragmas, migrations, and what can be wrong with it.

The schema only ever changes by a migration appended to MIGRATIONS; `user_version` counts those applied. (The original
dropped its tables at every start: docs/design.md, original's fault 18.)
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from registry.errors import StorageError

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE keys (
        key_id TEXT PRIMARY KEY,
        owner_peer_id TEXT NOT NULL,
        timestamp_created INTEGER NOT NULL,
        timestamp_published INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        body BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX keys_by_published ON keys (timestamp_published);
    CREATE TABLE states (
        key_id TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        is_tombstone INTEGER NOT NULL,
        timestamp_issued INTEGER NOT NULL,
        timestamp_created INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (key_id, issued_by, peer_id)
    ) WITHOUT ROWID;
    CREATE INDEX states_by_age ON states (is_tombstone, timestamp_created, timestamp_issued);
    CREATE INDEX states_by_host ON states (peer_id, is_tombstone, issued_by);
    CREATE TABLE issued (
        key_id TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        timestamp_issued INTEGER NOT NULL,
        PRIMARY KEY (key_id, peer_id)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE removals (
        key_id TEXT PRIMARY KEY,
        owner_peer_id TEXT NOT NULL,
        timestamp_issued INTEGER NOT NULL,
        body BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX removals_by_owner ON removals (owner_peer_id);
    CREATE INDEX removals_by_age ON removals (timestamp_issued);
    CREATE INDEX keys_by_owner ON keys (owner_peer_id);
    CREATE TABLE history (
        number INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        key_id TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        what TEXT NOT NULL,
        detail TEXT NOT NULL
    );
    CREATE INDEX history_by_key ON history (key_id, number);
    """,
    """
    ALTER TABLE removals RENAME TO key_tombstones;
    DROP INDEX removals_by_owner;
    DROP INDEX removals_by_age;
    CREATE INDEX key_tombstones_by_owner ON key_tombstones (owner_peer_id);
    CREATE INDEX key_tombstones_by_age ON key_tombstones (timestamp_issued);
    """,
)
"""`states` holds one row per slot; `body` is the deterministic CBOR of the value, stored exactly (docs/design.md,
original's fault 16).
`issued`: the last timestamp_issued that this node's own identity gave to a slot, so that it never gives one twice.
`key_tombstones` holds the tombstones of keys, `history` the last events (`registry.model.history`)."""

_INCREMENTAL: Final = 2  # SQLite's number of that mode of auto_vacuum
BUSY_TIMEOUT: Final = 5.0  # seconds that a second process may hold the file, e.g. a backup


def open_database(path: Path) -> sqlite3.Connection:
    """The node's database, created or migrated. Used by one thread at a time. Raises StorageError."""
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StorageError(f"can't open the database {path}: {error}; is the folder writable?") from error
    try:
        _return_space(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        _migrate(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise StorageError(
            f"can't use the database {path}: {error}; restore a copy, or move it away to start empty "
            "(the network still has what it replicated)"
        ) from error
    except StorageError:
        connection.close()
        raise
    return connection


def _return_space(connection: sqlite3.Connection) -> None:
    """Lets collection give pages back to the file system; a file that was made without that is written anew, once."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != _INCREMENTAL:
        connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        connection.execute("VACUUM")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StorageError(
            f"the database {path} was written by a newer version (schema {version}, this one knows {len(MIGRATIONS)}); "
            "install that version"
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
