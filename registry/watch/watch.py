"""One user's watch of a resource: an async iterator that is never behind by more than one event per record."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Self

import trio

from overlay.tasks import Broadcast
from registry.health.health_reader import RecordHealth
from registry.model.trusted_issuers import TrustRule
from registry.model.values import Key, Record
from registry.protocol.network import Clock
from registry.watch.pending_events import HealthOf, PendingEvents
from registry.watch.view import View
from registry.watch.watch_event import WatchEvent


class Watch:
    """Yields a snapshot, then changes, until `aclose`; also an async context manager. For one task at a time.

    Per record, events never go back and never repeat, and the last state is always told. Between two events nothing is
    queued: whoever is slow gets the latest state, with the number of changes that it missed.
    """

    def __init__(
        self,
        view: View,
        changed: Broadcast,
        when_closed: Callable[[Watch], None],
        clock: Clock,
        trust: TrustRule | None = None,
        health_of: HealthOf | None = None,
        *,
        include_down: bool = False,
        settle: Callable[[Collection[str]], Awaitable[None]] | None = None,
    ) -> None:
        """`changed`: sent when the view's `revision` has grown, or its key changed. `when_closed`: called once, with
        this watch. `trust`: what isn't believed by it isn't told. `health_of`, `include_down`: as of
        `PendingEvents`. `settle`: waits a moment for what is yet to be learnt of hosts, before the snapshot tells how
        records are, and leaves out what is down or doesn't pass."""
        self._view = view
        self._changed = changed
        self._when_closed = when_closed
        self._clock = clock
        self._events = PendingEvents(view, trust, health_of, include_down=include_down)
        self._settle = settle
        self._closed = trio.Event()

    @property
    def resource_id(self) -> str:
        """The id of the resource."""
        return self._view.key_id

    @property
    def exists(self) -> bool:
        """Whether the resource is known: it was created, and not removed since."""
        return self._view.state.key is not None

    @property
    def records(self) -> tuple[Record, ...]:
        """The live records as known now, told or not, in an order that every peer agrees on; without those that are
        down or don't pass, unless this watch includes them."""
        shown = self._events.shown(int(self._clock()))
        return tuple(shown[slot] for slot in sorted(shown))

    def health_of(self, record: Record) -> RecordHealth | None:
        """How a record is, as far as is known now; None where there is no presence."""
        return self._events.health_of(record)

    async def wait_for_key(self, known: Key | None) -> Key | None:
        """Waits until the resource's key is another than `known`, and tells it; None once the watch is closed."""
        await trio.lowlevel.checkpoint()
        while not self._closed.is_set():
            key = self._view.state.key
            if key is not None and key != known:
                return key
            await self._changed.wait()
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        await trio.lowlevel.checkpoint()
        while not self._closed.is_set():
            if self._settle is not None and self._view.is_ready:
                await self._settle(self._view.hosts)
                self._settle = None
                continue
            event = self._events.next(int(self._clock()))
            if event is not None:
                return event
            doubted_at = self._events.doubted_at()
            with trio.move_on_after(math.inf if doubted_at is None else max(doubted_at - self._clock(), 0.001)):
                await self._changed.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the iteration, for whoever waits in it too."""
        await trio.lowlevel.checkpoint()
        self.close()

    def close(self) -> None:
        """Ends the watch as `aclose` does, without waiting."""
        if not self._closed.is_set():
            self._closed.set()
            self._changed.send()
            self._when_closed(self)

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.close()
        await trio.lowlevel.cancel_shielded_checkpoint()
