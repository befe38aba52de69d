"""A user who watches a resource through a node, in each of its lives, and what must hold of the events."""

from __future__ import annotations

import trio

from registry.model.values import Record, Slot
from registry.watch.watch import Watch
from registry.watch.watch_event import EventKind, WatchEvent, same_content
from tests.simulation.audit import Audit
from tests.simulation.world import WorldNode


class Told:
    """What one watch told. `take` raises AssertionError for an event that goes back, repeats, or doesn't follow."""

    def __init__(self) -> None:
        self.events = 0
        self.visible: dict[Slot, Record] = {}
        self.down: set[Slot] = set()
        """Those of them whose host isn't there."""
        self._latest: dict[Slot, Record] = {}

    def take(self, event: WatchEvent) -> None:
        self.events += 1
        if self.events == 1:
            assert event.kind is EventKind.SNAPSHOT, f"the first event is {event}"
            self.visible = {record.slot: record for record in event.records}
            self._latest = dict(self.visible)
            return
        record = event.record
        assert record is not None, f"another snapshot: {event}"
        before, latest = self.visible.get(record.slot), self._latest.get(record.slot)
        if event.kind in (EventKind.DOWN, EventKind.UP, EventKind.HEALTH):
            assert before is not None, f"{event} of what wasn't told"
            self._take_standing(event, record.slot)
            return
        if event.kind in (EventKind.REMOVED, EventKind.EXPIRED):
            assert before is not None, f"{event} ends what wasn't told"
            del self.visible[record.slot]
            self.down.discard(record.slot)
            return
        assert (before is None) == (event.kind is EventKind.ADDED), f"{event} after {before}"
        assert before is None or not same_content(before, record), f"{event} repeats {before}"
        assert latest is None or latest.order() <= record.order(), f"{event} goes back behind {latest}"
        self.visible[record.slot] = self._latest[record.slot] = record

    def working(self) -> list[Record]:
        """What is visible and whose host is there: what readers are shown."""
        return [record for slot, record in self.visible.items() if slot not in self.down]

    def _take_standing(self, event: WatchEvent, slot: Slot) -> None:
        if event.kind is EventKind.DOWN:
            assert slot not in self.down, f"{event} repeats that its host is down"
            self.down.add(slot)
        elif event.kind is EventKind.UP:
            assert slot in self.down, f"{event} of a host that wasn't down"
            self.down.discard(slot)


class Watcher:
    """Use `run`."""

    def __init__(self, node: WorldNode, resource_id: str, audit: Audit | None = None) -> None:
        """`audit`: of a resource with a policy."""
        self.node = node
        self.resource_id = resource_id
        self._audit = audit
        self.told = Told()
        """By the watch of the node's present life."""
        self.events = 0
        """In all of them."""
        self.downs = 0
        """How many of these told that a host is down."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            parts = self.node.parts
            if parts is None:
                await trio.sleep(1)
                continue
            self.told = Told()
            async with parts.registry.watch(self.resource_id) as watch, trio.open_nursery() as nursery:
                nursery.start_soon(self._take, watch)
                await self.node.ended.wait()
                nursery.cancel_scope.cancel()

    async def _take(self, watch: Watch) -> None:
        async for event in watch:
            self.events += 1
            self.downs += event.kind is EventKind.DOWN
            self.told.take(event)
            if self._audit is not None:
                self._audit.check_told(self.node, event)
