"""A reader's side: knows of hosts by presence, and asks them for what doesn't fit there.

Without presence everybody is up, and passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import structlog
import trio

from overlay.errors import CallFailed
from overlay.tasks import Broadcast, TaskOwner, TaskStatus
from registry.errors import InvalidValue
from registry.health.messages import EXCEPTIONS, ExceptionsBody, ExceptionsPage
from registry.health.reading import UNTOLD, HealthReader, ListReading, ListWanted, RecordHealth
from registry.health.state import Health, HealthState, HostedService
from registry.model.history import DOWN, HistoryEvent, of_slot
from registry.model.merge import ResourceState
from registry.model.values import Record, Slot
from registry.protocol.messages import build, parse
from registry.protocol.network import Network
from registry.protocol.presence import PresenceNetwork

LIST_TIMEOUT: Final = 5.0  # seconds for all pages of a host's list
LISTS_AT_ONCE: Final = 8  # hosts that are asked at the same time

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HealthOfHosts:
    """What is known of records' health. `run` owns the tasks that ask hosts for their lists."""

    def __init__(self, network: Network, presence: PresenceNetwork | None = None) -> None:
        self._network = network
        self._presence = presence
        self._reader = HealthReader()
        self._tasks = TaskOwner()
        self._asking: set[str] = set()
        self._places = trio.CapacityLimiter(LISTS_AT_ONCE)
        self._asked = Broadcast()
        self._callbacks: list[Callable[[str], None]] = []
        if presence is not None:
            presence.on_standing_change(self._note_change)

    @property
    def is_there(self) -> bool:
        """Whether there is presence, so that records can be down."""
        return self._presence is not None

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Has `callback(peer_id)` called, synchronously, when what is known of the services on a peer may have
        changed."""
        self._callbacks.append(callback)

    def health_of(self, slot: Slot, instances: Iterable[str] = ()) -> RecordHealth:
        """What is known now of the record in a slot. `instances`: the ids of those that its value names.
        Whose list isn't known yet is asked for it."""
        if self._presence is None:
            return UNTOLD
        self._ask(slot.peer_id)
        return self._reader.health_of(slot, self._presence.standing(slot.peer_id), instances)

    async def settle(self, hosts: Collection[str], timeout: float) -> None:
        """Asks hosts for the lists without which it isn't known which of their services pass, and waits for them, at
        most `timeout` seconds."""
        await trio.lowlevel.checkpoint()
        for host in hosts:
            self._ask(host)
        with trio.move_on_after(timeout):
            while not self._asking.isdisjoint(hosts):
                await self._asked.wait()

    def events_of(self, resource: ResourceState, now: int) -> list[HistoryEvent]:
        """Which records of a resource are down, or don't pass, at `now` (seconds), since when, and why."""
        events: list[HistoryEvent] = []
        for slot, state in sorted(resource.slots.items()):
            if not isinstance(state, Record):
                continue
            known = self.health_of(slot)
            if not known.is_up:
                events.append(of_slot(slot, DOWN, int(known.up_or_down_since) or now, "its host isn't there"))
            if known.health.state is not HealthState.PASSING:
                events.append(of_slot(slot, str(known.health.state), known.health.since or now, known.health.note))
        return events

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Lets hosts be asked until cancelled."""
        await self._tasks.run(task_status=task_status)

    def _note_change(self, host: str) -> None:
        self._ask(host)
        self._tell(host)

    def _tell(self, host: str) -> None:
        for callback in self._callbacks:
            callback(host)

    def _ask(self, host: str) -> None:
        if self._presence is None or host in self._asking or not self._tasks.is_open:
            return
        wanted = self._reader.wanted(host, self._presence.standing(host), trio.current_time())
        if wanted is not None:
            self._asking.add(host)
            self._tasks.start_soon(self._get, wanted)

    async def _get(self, wanted: ListWanted) -> None:
        try:
            async with self._places:
                with trio.fail_after(LIST_TIMEOUT):
                    services = await self._services(wanted)
        except (CallFailed, InvalidValue, trio.TooSlowError) as error:
            _log.debug("a host didn't tell which of its services don't pass", host=wanted.host, error=str(error))
            self._reader.failed(wanted, trio.current_time())
        else:
            self._reader.listed(wanted, services, trio.current_time())
            self._tell(wanted.host)
        finally:
            self._asking.discard(wanted.host)
            self._asked.send()
        self._ask(wanted.host)  # it may have told of another list meanwhile
        await trio.sleep_until(self._reader.ask_at(wanted.host))
        self._ask(wanted.host)

    async def _services(self, wanted: ListWanted) -> Mapping[HostedService, Health]:
        """Raises CallFailed, InvalidValue."""
        reading = ListReading(wanted)
        while (services := reading.done()) is None:
            body = build(ExceptionsBody(reading.last))
            answer = await self._network.call_anywhere(wanted.host, EXCEPTIONS, body, timeout=LIST_TIMEOUT)
            page = parse(answer, ExceptionsPage)
            if page.digest != wanted.digest:
                raise InvalidValue("the host's list has changed since its presence told of it")
            reading.add(page.entries)
        return services
