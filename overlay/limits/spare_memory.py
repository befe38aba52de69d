"""Keeps some of Python's memory mapped for what is built and dropped within a turn of the loop.

Python returns an arena (1 MiB) as soon as nothing is in it. The next large body then gets a new one, page by page, and
where a virtual machine's host has to find each page first, that takes 40 microseconds a page: 30 to 50 ms of the loop
for 40,000 small objects, which take 5 ms in memory that is there.
"""

from __future__ import annotations

from typing import Final

import trio

from overlay.tasks import TaskStatus

SPARE: Final = 8 << 20  # bytes: two bodies of as many items as the decoder takes, and what is made of them
INTERVAL: Final = 600.0  # seconds: what a node holds grows into the spare memory

_BLOCK: Final = 512  # bytes, the largest objects that are kept in arenas
_HEADER: Final = b"".__sizeof__()
_AT_ONCE: Final = 256 << 10  # bytes in a turn, at most 3 ms
_PINNED: Final = 512 << 10  # bytes of which one block stays: two pins in each arena


async def keep_spare_memory(
    interval: float = INTERVAL, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Do so until cancelled; started when the memory is there.

    Free places in arenas that are there already count, so that nothing is added where there is enough.
    """
    pins: list[bytes] = []
    while True:
        blocks: list[bytes] = []
        while len(blocks) * _BLOCK < SPARE:
            blocks += [bytes(_BLOCK - _HEADER) for _ in range(_AT_ONCE // _BLOCK)]
            await trio.lowlevel.checkpoint()
        pins[:] = blocks[:: _PINNED // _BLOCK]
        del blocks
        task_status.started()
        task_status = trio.TASK_STATUS_IGNORED
        await trio.sleep(interval)
