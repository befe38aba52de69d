"""One user's view of a watched resource: an async iterator that is never behind by more than one event per record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import trio

from registry.model.values import Record, Slot
from registry.watch.event import EventKind, Visible, WatchEvent, same_content
from registry.watch.view import View


class Watch:
    """Yields a snapshot, then changes, until `aclose`; also an async context manager. For one task at a time.

    Per record, events never go back and never repeat, and the last state is always told. Between two events nothing is
    queued: whoever is slow gets the latest state, with the number of changes that it missed.
    """

    def __init__(self, view: View, when_closed: Callable[[Watch], None]) -> None:
        self._views = view
        self._when_closed = when_closed
        self._told: Visible | None = None
        self._versions: dict[Slot, int] = {}
        self._closed = trio.Event()

    @property
    def resource_id(self) -> str:
        return self._views.key_id

    @property
    def exists(self) -> bool:
        """Whether the resource is known: it was created, and not removed since."""
        return self._views.state.key is not None

    @property
    def records(self) -> tuple[Record, ...]:
        """The live records as known now, told or not, in an order that every peer agrees on."""
        return tuple(self._views.visible[slot] for slot in sorted(self._views.visible))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        await trio.lowlevel.checkpoint()
        while not self._closed.is_set():
            wake = self._views.changed
            if self._views.is_ready and (event := self._next()) is not None:
                return event
            await wake.wait()
        raise StopAsyncIteration

    def _next(self) -> WatchEvent | None:
        now = self._views.visible
        if self._told is None:
            self._told = dict(now)
            self._versions = dict(self._views.versions)
            return WatchEvent(EventKind.SNAPSHOT, records=self.records)
        dirty = [slot for slot in self._told.keys() | now.keys() if not _same(self._told.get(slot), now.get(slot))]
        if not dirty:
            return None
        slot = min(dirty, key=lambda slot: (self._views.changed_at.get(slot, 0), slot))
        return self._event(slot, self._told, now.get(slot))

    def _event(self, slot: Slot, told: Visible, record: Record | None) -> WatchEvent:
        before = told.pop(slot, None)
        version = self._views.versions.get(slot, 0)
        missed = max(version - self._versions.get(slot, 0) - 1, 0)
        self._versions[slot] = version
        if record is None:
            self._versions.pop(slot, None) if slot not in self._views.versions else None
            kind = EventKind.REMOVED if self._views.was_removed(slot) else EventKind.EXPIRED
            return WatchEvent(kind, before, coalesced=missed)
        told[slot] = record
        return WatchEvent(EventKind.ADDED if before is None else EventKind.UPDATED, record, coalesced=missed)

    async def aclose(self) -> None:
        """Ends the iteration, for whoever waits in it too."""
        await trio.lowlevel.checkpoint()
        self.close()

    def close(self) -> None:
        """`aclose`, at once."""
        if not self._closed.is_set():
            self._closed.set()
            self._views.wake()
            self._when_closed(self)

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.close()
        await trio.lowlevel.cancel_shielded_checkpoint()


def _same(one: Record | None, other: Record | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or same_content(one, other)
