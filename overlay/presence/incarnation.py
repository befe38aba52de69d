"""Counts the runs of a peer's process, so that what an earlier one said, or was said of it, doesn't count any more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from overlay.private_file import write_private

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_FILE: Final = "incarnation"
_MOST_BYTES: Final = 32


def next_incarnation(data_dir: Path | None, now: float) -> int:
    """Milliseconds since 1970, above that of the run before, which is kept in `data_dir`; `now`: seconds since 1970.

    A file that is missing or damaged counts for nothing: keepers tell what they have of earlier runs. So does one that
    can't be written, on a disk that is full: the next run's time is later anyway, unless the clock went back.
    """
    incarnation = max(int(now * 1000), 1)
    if data_dir is None:
        return incarnation
    path = data_dir / _FILE
    try:
        with path.open("rb") as file:
            incarnation = max(incarnation, int(file.read(_MOST_BYTES)) + 1)
    except (OSError, ValueError):
        pass
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, b"%d" % incarnation)
    except OSError as error:
        log.info("which run of this peer it is can't be kept", file=str(path), error=error.strerror)
    return incarnation
