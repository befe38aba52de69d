"""A copy of a database, of one moment, also while a node writes to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from registry.errors import StorageError
from registry.storage.database import damage_in

_PAGES_AT_ONCE: Final = 1024  # after which a writer gets its turn
_PAUSE: Final = 0.01  # seconds


def copy_database(source: Path, target: Path) -> None:
    """Copies the database at `source` to `target`, which mustn't exist, and looks the copy's pages through.

    Raises StorageError where there is none, or the copy is damaged or doesn't fit.
    """
    if not source.is_file():
        raise StorageError(f"there is no database {source}; give the data folder of a node")
    if target.exists():
        raise StorageError(f"{target} is there already; nothing is written over it")
    try:
        target.touch(mode=0o600)
        with (
            closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as original,
            closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy, pages=_PAGES_AT_ONCE, sleep=_PAUSE)
            damage = damage_in(copy, 1)
    except (sqlite3.Error, OSError) as error:
        target.unlink(missing_ok=True)
        raise StorageError(f"can't copy the database {source} to {target}: {error}") from error
    if damage:
        target.unlink()
        raise StorageError(f"the database {source} is damaged, and wasn't copied: {damage[0]}")
