"""The indexes of blocking queries: one for each answer, which grows when that answer changes, and never falls.

Rules:
1. All are drawn from one counter, so whatever is forgotten gets a greater one the next time.
2. The counter begins at the milliseconds since 1970, or above all that were ever given out, whichever is more: also
   after a restart, and after one with a clock that was set back.
3. To know that, a file says how far it may be counted; it is written before that is reached.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cachetools import LRUCache

from overlay.private_file import write_private

FILE: Final = "consul-index.json"
REMEMBERED: Final = 16_384  # answers; of one that is forgotten a change is told that was none
RESERVED: Final = 1_000_000  # indexes at a time

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _IndexFile(msgspec.Struct, frozen=True):
    reserved: int


class IndexBook:
    """The indexes of one node's answers."""

    def __init__(self, data_dir: Path, now: float, reserved: int = RESERVED) -> None:
        """`now`: seconds since 1970. `reserved`: how many indexes are used before the file is written again."""
        self._reserved = reserved
        self._path = data_dir / FILE
        self._last = max(int(now * 1000), self._read(), 1)
        self._until = self._last
        self._known: LRUCache[Hashable, tuple[int, bytes]] = LRUCache(REMEMBERED)

    def index_of(self, key: Hashable, digest: bytes) -> int:
        """The index of the answer to a query, which has this digest now. The same one as long as it stays the same."""
        known = self._known.get(key)
        if known is not None and known[1] == digest:
            return known[0]
        if self._last + 1 >= self._until:
            self._reserve()
        self._last += 1
        self._known[key] = self._last, digest
        return self._last

    def _read(self) -> int:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_IndexFile).reserved
        except FileNotFoundError:
            return 0
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("the indexes that were given out can't be read", file=str(self._path), error=str(error))
            return 0

    def _reserve(self) -> None:
        """So seldom, and so little, that it is written at once."""
        self._until = self._last + self._reserved
        try:
            write_private(self._path, msgspec.json.encode(_IndexFile(self._until)))
        except OSError as error:
            _log.warning("the indexes that are given out can't be kept", file=str(self._path), error=str(error))
