"""A semaphore that sources share: for tasks that ask other peers and may wait long for them.

A source that wants many places at once gets a part of them and waits for the others in a line of its own, so that it
holds nobody up.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class FairSemaphore:
    """`most` places, of which one source holds at most `most_per_source`.

    A place that becomes free goes to the source that holds fewest; those that hold as many get it in turn.
    """

    def __init__(self, most: int, most_per_source: int) -> None:
        self._free = most
        self._held: Counter[str] = Counter()
        self._lines: dict[str, OrderedDict[trio.Event, None]] = {}
        # The sources that wait, by how many places they hold; those of the last one have all that they may.
        self._waiting = [OrderedDict[str, None]() for _ in range(most_per_source + 1)]

    @property
    def are_idle(self) -> bool:
        """Whether nobody holds a place or waits for one."""
        return not self._held and not self._lines

    @asynccontextmanager
    async def place(self, source: str) -> AsyncIterator[None]:
        """A place of the source's, within the block."""
        await self._take(source)
        try:
            yield
        finally:
            self._change(source, -1)
            self._give_out()

    async def _take(self, source: str) -> None:
        came = trio.Event()
        line = self._lines.setdefault(source, OrderedDict())
        line[came] = None
        self._waiting[self._held[source]][source] = None
        self._give_out()
        try:
            await came.wait()
        except BaseException:  # Cancelled, mostly
            if came.is_set():
                self._change(source, -1)
                self._give_out()
            else:
                self._leave(source, came)
            raise

    def _give_out(self) -> None:
        while self._free:
            source = next((next(iter(sources)) for sources in self._waiting[:-1] if sources), None)
            if source is None:
                return
            came = next(iter(self._lines[source]))
            self._leave(source, came)
            self._change(source, 1)
            came.set()

    def _leave(self, source: str, came: trio.Event) -> None:
        line = self._lines[source]
        del line[came]
        if not line:
            del self._lines[source]
            del self._waiting[self._held[source]][source]

    def _change(self, source: str, by: int) -> None:
        before = self._held[source]
        self._free -= by
        if before + by:
            self._held[source] = before + by
        else:
            del self._held[source]
        if source in self._lines:
            del self._waiting[before][source]
            self._waiting[before + by][source] = None
