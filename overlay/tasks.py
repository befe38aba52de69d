"""Tasks that run behind a block, and end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the block ends.

    What the block raises comes out as itself: a nursery of Trio's would wrap it in an ExceptionGroup, and then nobody
    could catch a StorageError by its name. What a task raises is a fault of ours and comes out in a group.
    """
    failure: Exception | KeyboardInterrupt | SystemExit | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
