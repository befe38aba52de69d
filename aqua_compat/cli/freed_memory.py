"""Gives the system back what the C library keeps of memory that was freed.

glibc returns only what is freed at a heap's end, so that after a burst of large messages a node would keep tens of MiB
for good, a few small objects among them. Other C libraries aren't asked.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Final

import trio

INTERVAL: Final = 60.0  # seconds


async def return_freed_memory(interval: float = INTERVAL) -> None:
    """Do so again and again, until cancelled; it takes a thread some milliseconds."""
    trim = _malloc_trim()
    while trim is not None:
        await trio.sleep(interval)
        await trio.to_thread.run_sync(trim, 0)


def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim
