"""Remembers across restarts what an agent registered: what isn't defined any more by then has to end, too.

The node renews whatever it hosts; without this, a service whose file went while the node was down would stay for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from overlay.private_file import write_private

_MOST_BYTES: Final = 2**20

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Remembered(NamedTuple):
    """A resource on which this agent may have a record, and whose it is, for people."""

    key_id: str
    label: str
    owner: str
    stays: bool
    """Also when the agent stops."""
    issued_by: str = ""
    """Under which key; empty for the process's own."""
    key_file: str = ""
    """Where that was."""


class AgentMemory:
    """A file with the resources on which an agent registered. Blocking: for threads."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> list[Remembered]:
        """What was kept last; nothing where the file can't be read, which is told."""
        try:
            with self._file.open("rb") as file:
                return msgspec.json.decode(file.read(_MOST_BYTES), type=list[Remembered])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeError) as error:
            self._tell(error)
            return []

    def keep(self, registered: list[Remembered]) -> None:
        """Replaces what is kept, whole or not at all."""
        try:
            write_private(self._file, msgspec.json.encode(registered))
        except OSError as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        _log.warning("what is registered for services can't be remembered", file=str(self._file), error=str(error))
