"""Brings to the network what this peer signed and stored, though whoever wanted it written went away before it was.

Rules:
1. What this peer is about to sign and store, as host, issuer or owner, is noted before, since a caller may go away at
   any moment after that.
2. It is settled when a write of it from here reached a replica, or when somebody put it here: a write is under way.
3. What isn't settled after `GRACE` seconds is written, as any write. A host that isn't near enough to the resource to
   get its writes asks the replicas first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog
import trio

from overlay.tasks import TaskStatus, Wakeup
from registry.errors import RegistryError
from registry.model.merge import ResourceState
from registry.model.values import KeyOrTombstone, Slot
from registry.protocol.messages import Item, WriteOutcome
from registry.quorum.read_machine import ReadOutcome
from registry.storage import Store

GRACE: Final = 3.0  # seconds in which a write that goes its way has reached this peer, by others that pass it on
TIMEOUT: Final = 6.0  # seconds for a write, and for asking before it
MAX_NOTED: Final = 4096  # beyond it, what was noted first is left to comparing and renewing
AT_ONCE: Final = 16  # writes

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_Note = tuple[str, Slot | None]
"""A key's id, and the slot under it; None for the key itself, or its tombstone."""


class ReadThrough(Protocol):
    """Reads through the node acted through, as `NodeApi.read` does."""

    async def __call__(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        """See `NodeApi.read`."""
        ...


class WriteThrough(Protocol):
    """Writes through the node acted through, as `NodeApi.write` does."""

    async def __call__(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        """See `NodeApi.write`."""
        ...


class AbandonedWrites:
    """Writes what nobody else does; see the rules above. `run` owns the tasks."""

    def __init__(
        self, store: Store, read: ReadThrough, write: WriteThrough, gets_writes_of: Callable[[str], bool]
    ) -> None:
        """`read`, `write`: as of the node acted through. `gets_writes_of(key id)`: whether this peer is one of those
        that each write of a resource is sent to."""
        self._store = store
        self._read = read
        self._write = write
        self._gets_writes_of = gets_writes_of
        self._noted: OrderedDict[_Note, float] = OrderedDict()  # and when each is due, in Trio's time
        self._any_noted = Wakeup()
        self.written = 0
        """How many writes were made instead of others."""

    def note(self, key_id: str, slot: Slot | None) -> None:
        """Notes that this peer signs a state of this slot now, or the key itself or its tombstone if there is none."""
        self._noted[key_id, slot] = trio.current_time() + GRACE
        self._noted.move_to_end((key_id, slot))
        if len(self._noted) > MAX_NOTED:
            self._noted.popitem(last=False)
        self._any_noted.set()

    @property
    def noted(self) -> int:
        """How many aren't settled yet, at most `MAX_NOTED`."""
        return len(self._noted)

    def settle(self, items: Iterable[Item]) -> None:
        """Notes that the writes of these are under way."""
        for item in items if self._noted else ():
            self._noted.pop((item.key_id, item.state.slot if item.state is not None else None), None)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Writes what is due until cancelled."""
        places = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await self._any_noted.wait()
                while self._noted:
                    note, due = next(iter(self._noted.items()))
                    await trio.sleep_until(due)
                    if self._noted.get(note) == due:
                        del self._noted[note]
                        place = object()  # not the note, which may come again while it is seen to
                        await places.acquire_on_behalf_of(place)
                        nursery.start_soon(self._see_to, note, places, place)

    async def _see_to(self, note: _Note, places: trio.CapacityLimiter, place: object) -> None:
        try:
            await self._write_unless_known(*note)
        except RegistryError as error:
            _log.warning("what was signed here couldn't be written", key_id=note[0], error=str(error))
        finally:
            places.release_on_behalf_of(place)

    async def _write_unless_known(self, key_id: str, slot: Slot | None) -> None:
        item = _item(await self._store.resource(key_id), slot)
        if item is None:  # it wasn't stored
            return
        if not self._gets_writes_of(key_id):
            read = await self._read(key_id, ack=1, timeout=TIMEOUT, key_suffices=slot is None)
            if _item(read.resource, slot) == item:
                return
        self.written += 1
        await self._write(item, factor=1, timeout=TIMEOUT)


def _item(resource: ResourceState, slot: Slot | None) -> Item | None:
    """What is known under a note."""
    key_or_tombstone: KeyOrTombstone | None = resource.key
    if slot is None:
        key_or_tombstone = key_or_tombstone or resource.key_tombstone
        return None if key_or_tombstone is None else Item(key_or_tombstone)
    state = resource.slots.get(slot)
    return None if resource.key is None or state is None else Item(resource.key, state)
