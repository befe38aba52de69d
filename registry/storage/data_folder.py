"""The folder of one process's data: made private, used by one process at a time."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from registry.errors import StorageError

_PRIVATE: Final = 0o700
_OURS: Final = (
    "lock",
    "command.lock",
    "identity.json",
    "network",
    "bootstrap-pins.json",
    "backup.json",
    "agent.json",
    "agent-registered.json",
    "consul-index.json",
    "incarnation",
    "http.sock",
    "http-tokens.json",
)
"""What a peer, or a command that acts as one, has there beside its database."""


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Creates `folder` when missing, makes it private (mode 0700) and holds its lock. Raises StorageError.

    One that holds other things, such as /tmp, keeps its mode; what we keep there is private all the same.

    The kernel drops the lock with the process, also after kill -9.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - a command that only reads has no folder

    lock = FileLock(folder / "lock", mode=0o600)
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) != _PRIVATE and _is_ours(folder):
            folder.chmod(_PRIVATE)
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


def _is_ours(folder: Path) -> bool:
    """Whether nothing but a peer's data is in it."""
    return all(_is_our_name(entry.name) for entry in folder.iterdir())


def _is_our_name(name: str) -> bool:
    """Also that of a file which was being written (overlay/private_file.py) when its process was killed."""
    return name in _OURS or ".sqlite" in name or name.startswith(tuple(f".{ours}." for ours in _OURS))
