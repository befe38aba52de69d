"""The folder of one process's data: made private, used by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from registry.errors import StorageError


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Creates `folder` (mode 0700) when missing and holds its lock. Raises StorageError.

    The kernel drops the lock with the process, also after kill -9.
    """
    lock = FileLock(folder / "lock", mode=0o600)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StorageError(
            f"the data folder {folder} is in use by another process; stop that one or choose another folder"
        ) from error
    except OSError as error:
        raise StorageError(f"can't use the data folder {folder}: {error.strerror}; choose another") from error
    try:
        yield folder
    finally:
        lock.release()
