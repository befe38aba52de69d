"""Opening the node's SQLite file: pragmas, migrations, and what can be wrong with it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Final

import structlog

from registry.errors import DatabaseDamaged, StorageError
from registry.storage.checked_rows import checksum_of, text_of
from registry.storage.digests import settle
from registry.storage.migrations import MIGRATIONS

IN_MEMORY: Final = Path(":memory:")
"""In place of a file's path: a database that ends with its connection."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_INCREMENTAL: Final = 2  # SQLite's number of that mode of auto_vacuum
_MAX_JOURNAL: Final = 8 * 2**20  # bytes that the file of a large transaction keeps once it was written back
_REMEDY: Final = (
    "restore a copy, or move it away to start empty (the network still has what it replicated), "
    "or set `refill_damaged` to have that done"
)
BUSY_TIMEOUT: Final = 5.0  # seconds that a second process may hold the file, e.g. a backup


def open_database(path: Path, *, refill: bool = False) -> sqlite3.Connection:
    """The node's database, checked, and created or migrated. Used by one thread at a time. Raises StorageError.

    `refill`: a damaged one is set aside, and an empty one begun, for the network to fill.
    """
    try:
        return _opened(path)
    except DatabaseDamaged as error:
        if not refill:
            raise
        aside = _set_aside(path)
        _log.error(
            "the database was damaged: begun anew, for the network to fill", error=str(error), kept_as=str(aside)
        )
        return _opened(path)


def damage_in(connection: sqlite3.Connection, most: int = 1) -> list[str]:
    """What is wrong with the structure of a database, `most` things at most, in SQLite's words: its pages and indexes,
    not what the rows hold. Reads the whole file: seconds a GiB."""
    try:
        found = [str(text) for (text,) in connection.execute(f"PRAGMA quick_check({most})")]
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        return [str(error)]
    return [] if found == ["ok"] else found


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _set_aside(path: Path) -> Path:
    """Renames a database with its journal; raises StorageError."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    try:
        for ending in ("", "-wal", "-shm"):
            file = path.with_name(path.name + ending)
            if file.exists():
                file.rename(aside.with_name(aside.name + ending))
    except OSError as error:
        raise StorageError(f"can't set the damaged database {path} aside: {error.strerror}") from error
    return aside


def _opened(path: Path) -> sqlite3.Connection:
    if path != IN_MEMORY:
        _make_private(path)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StorageError(f"can't open the database {path}: {error}; is the folder writable?") from error
    connection.text_factory = text_of
    try:
        if path == IN_MEMORY:
            connection.deserialize(_empty())
        if damage := damage_in(connection):
            raise DatabaseDamaged(f"the database {path} is damaged: {damage[0].splitlines()[-1]}; {_REMEDY}")
        _return_space(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={_MAX_JOURNAL}")
        connection.execute("PRAGMA foreign_keys=ON")
        _migrate(connection, path)
    except sqlite3.Error as error:
        connection.close()
        kind = DatabaseDamaged if _is_damage(error) else StorageError
        raise kind(f"can't use the database {path}: {error}; {_REMEDY}") from error
    except StorageError:
        connection.close()
        raise
    return connection


@cache
def _empty() -> bytes:
    """A database of the newest schema: copied twenty times as fast as all migrations would make another one."""
    with closing(sqlite3.connect(IN_MEMORY, isolation_level=None)) as connection:
        _return_space(connection)
        _migrate(connection, IN_MEMORY)
        return connection.serialize()


def _make_private(path: Path) -> None:
    """Creates the file for its owner alone, before SQLite does for all. Raises StorageError, for a link too: it could
    lead out of the data folder."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise StorageError(f"can't open the database {path}: {reason}; is the folder writable?") from error
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise StorageError(f"can't make the database {path} private: {error.strerror}; check its owner") from error
    finally:
        os.close(descriptor)


def _return_space(connection: sqlite3.Connection) -> None:
    """Lets collection give pages back to the file system; a file that was made without that is written anew, once."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != _INCREMENTAL:
        connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        try:
            connection.execute("VACUUM")
        except sqlite3.Error as error:  # a full disk, a damaged page: the node works all the same
            _log.warning("a database can't give space back", error=str(error))


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StorageError(
            f"the database {path} was written by a newer version (schema {version}, this one knows {len(MIGRATIONS)}); "
            "install that version"
        )
    connection.create_function("crc32", 1, checksum_of, deterministic=True)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number};")
        if number == len(MIGRATIONS):  # computes by the newest schema what some of them emptied, or brought
            settle(connection)
        connection.execute("COMMIT")
