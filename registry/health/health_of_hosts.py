"""A reader's side: knows of hosts by presence, and asks them for what doesn't fit there.

1. Without presence everybody is up, and passes.
2. The hosts of what is read or watched are followed, for `FOLLOWED_FOR` seconds after the last time.
3. Where so many are followed as may be, those that are followed for light clients alone give way to those that this
   peer reads of itself, and among clients to those of one that has fewer: of the client that has the most, the oldest.
4. A read waits a moment for what is yet to be learnt of a host that wasn't followed, and for its list.
5. Of this peer's own services it knows first hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import structlog
import trio
from msgspec import Struct

from overlay.errors import CallFailed
from overlay.tasks import Broadcast, TaskOwner, TaskStatus
from registry.errors import InvalidValue
from registry.health.health_history import HealthHistory, event_of_service, why_down
from registry.health.health_reader import UNTOLD, HealthReader, ListReading, ListWanted, RecordHealth, put_together
from registry.health.host_health import HostHealth
from registry.health.messages import EXCEPTIONS, ExceptionsBody, ExceptionsPage
from registry.health.state import Health, HealthState, HostedService
from registry.model.endpoints import named_in
from registry.model.history import DOWN, HistoryEvent, of_slot
from registry.model.merge import ResourceState
from registry.model.values import Record, Slot
from registry.protocol.messages import build, parse
from registry.protocol.network import Network
from registry.protocol.presence import HostStanding, PresenceNetwork

LIST_TIMEOUT: Final = 5.0  # seconds for all pages of a host's list
LISTS_AT_ONCE: Final = 8  # hosts that are asked at the same time
FOLLOWED_FOR: Final = 600.0  # seconds
MOST_READ: Final = 16_384  # hosts that are followed at the same time; of others nothing is known
UNKNOWN_FOR: Final = 0.5  # seconds in which presence tells of a host, if it has any

_OURSELVES: Final = ""  # in place of a light client

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _Use(Struct):
    began: float
    last: float
    reader: str
    """To whom it counts: the light client that read of it first, or `_OURSELVES`."""
    own: float = -math.inf
    """When we read of it ourselves last."""


class HealthOfHosts:
    """What is known of records' health. `run` owns the tasks that ask hosts for their lists, and ends following those
    of whom nobody reads any more."""

    def __init__(self, network: Network, own: HostHealth, presence: PresenceNetwork | None = None) -> None:
        """`own`: how the services are that this peer hosts."""
        self._network = network
        self._own = own
        self._presence = presence
        self._reader = HealthReader()
        self._history = HealthHistory(self._reader.services_of)
        self._tasks = TaskOwner()
        self._followed: dict[str, _Use] = {}
        self._read_by: dict[str, dict[str, None]] = {}  # the hosts that count to each reader
        self._asking: set[str] = set()
        self._down: set[str] = set()
        self._places = trio.CapacityLimiter(LISTS_AT_ONCE)
        self._news = Broadcast()
        self._callbacks: list[Callable[[str], None]] = []
        if presence is not None:
            presence.on_change(self._note_change)
            own.on_change(lambda: self._tell(network.peer_id))  # nobody follows itself

    @property
    def is_there(self) -> bool:
        """Whether there is presence, so that records can be down."""
        return self._presence is not None

    @property
    def followed(self) -> int:
        """How many hosts are followed, since somebody reads of them."""
        return len(self._followed)

    def follows(self, host: str) -> bool:
        """Whether a host is followed, since somebody reads of it."""
        return host in self._followed

    @property
    def down(self) -> int:
        """How many of those are down."""
        return len(self._down)

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Has `callback(peer_id)` called, synchronously, when what is known of the services on a peer may have
        changed."""
        self._callbacks.append(callback)

    def follow(self, hosts: Iterable[str], *, client: str = _OURSELVES) -> None:
        """Has presence follow these for `FOLLOWED_FOR` seconds from now on. `client`: the light client that reads of
        them, empty where it is this peer itself."""
        if self._presence is None or not self._tasks.is_open:
            return
        now = trio.current_time()
        for host in hosts:
            use = self._followed.get(host)
            if use is None:
                if host == self._network.peer_id or not self._make_room(client):
                    continue
                use = self._followed[host] = _Use(now, now, client)
                self._read_by.setdefault(client, {})[host] = None
                self._presence.follow([host])
            use.last = now
            if client == _OURSELVES:
                use.own = now
            is_ours = now - use.own < FOLLOWED_FOR
            if is_ours != (use.reader == _OURSELVES):
                self._count_to(host, use, _OURSELVES if is_ours else client)

    def health_of(self, slot: Slot, instances: Iterable[str] = ()) -> RecordHealth:
        """What is known now of the record in a slot. `instances`: the ids of those that its value names. Whose list
        isn't known yet is asked for it."""
        if self._presence is not None and slot.peer_id != self._network.peer_id:
            self.follow([slot.peer_id])
            self._ask(slot.peer_id)
        return self._known_of(slot, instances)

    def health_of_record(self, record: Record) -> RecordHealth:
        """The same, with the instances that the record's value names."""
        return self.health_of(record.slot, named_in(record.metadata.value))

    async def settle(self, hosts: Collection[str], timeout: float, *, client: str = _OURSELVES) -> None:
        """Waits, at most `timeout` seconds, for what is yet to be learnt of these hosts (rule 4). `client`: as for
        `follow`."""
        await trio.lowlevel.checkpoint()
        if self._presence is None:
            return
        self.follow(hosts, client=client)
        self._presence.look_for(host for host in hosts if host in self._followed)
        for host in hosts:
            self._ask(host)
        deadline = trio.current_time() + timeout
        while (until := min(self._settled_at(self._presence, hosts), deadline)) > trio.current_time():
            with trio.move_on_at(until):
                await self._news.wait()

    def standing_of(self, host: str) -> HostStanding | None:
        """What presence knows of a host; None where there is no presence."""
        return self._presence.state_of(host) if self._presence is not None else None

    def evidence_of(self, host: str) -> bytes:
        """What was signed of a host, for those who follow it through this peer."""
        return self._presence.evidence_of(host) if self._presence is not None else b""

    def complain(self, host: str, *, client: str = _OURSELVES) -> None:
        """A caller couldn't reach a host: presence looks at it now. `client`: as for `follow`."""
        self.follow([host], client=client)
        if self._presence is not None and host in self._followed:
            self._presence.complain(host)

    def events_of(self, resource: ResourceState, time: float) -> list[HistoryEvent]:
        """Which records of a resource are down, or don't pass, at `time` (seconds since 1970), since when, and by whose
        word."""
        events: list[HistoryEvent] = []
        now = int(time)
        for slot, state in sorted(resource.slots.items()):
            if not isinstance(state, Record):
                continue
            known = self._known_of(slot, named_in(state.metadata.value))
            if not known.is_up:
                why = why_down(known.accusers, has_left=known.has_left)
                since = int(time - known.up_or_down_for) if known.up_or_down_for < time else now
                events.append(of_slot(slot, DOWN, since, why))
            if known.health.state is not HealthState.PASSING:
                events.append(event_of_service(slot, "", known.health, now))
            for instance, health in known.instances.items():
                if health.state not in (HealthState.PASSING, known.health.state):
                    events.append(event_of_service(slot, instance, health, now))
        return events

    def changes_of(
        self, key_id: str, resource: ResourceState, time: float, present: Collection[HistoryEvent]
    ) -> list[HistoryEvent]:
        """When the hosts of a resource went down and came up, and its services changed, as far as this peer saw it and
        remembers, at `time` (seconds since 1970), oldest first; without what `present`, as of `events_of`, tells as
        being so still."""
        hosts = {slot.peer_id for slot in resource.slots}
        return self._history.events_of(key_id, hosts, trio.current_time(), time, present)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Has hosts followed and asked until cancelled."""
        async with self._tasks.opened():
            task_status.started()
            while True:
                await trio.sleep(FOLLOWED_FOR / 10)
                self._forget_unused()

    def _known_of(self, slot: Slot, instances: Iterable[str]) -> RecordHealth:
        """As `health_of`, of a host that is followed already, if it is."""
        if self._presence is None:
            return UNTOLD
        if slot.peer_id == self._network.peer_id:
            health, healths = put_together(lambda instance: self._own.health_of(slot, instance), instances)
            return RecordHealth(health=health, instances=healths)
        return self._reader.health_of(slot, self._presence.state_of(slot.peer_id), instances)

    def _forget_unused(self) -> None:
        now = trio.current_time()
        unused = [host for host, use in self._followed.items() if now - use.last >= FOLLOWED_FOR]
        for host in unused:
            self._end_following(host)

    def _end_following(self, host: str) -> None:
        self._count_to(host, self._followed.pop(host), None)
        self._down.discard(host)
        if self._presence is not None:
            self._presence.unfollow([host])

    def _count_to(self, host: str, use: _Use, reader: str | None) -> None:
        hosts = self._read_by[use.reader]
        del hosts[host]
        if not hosts:
            del self._read_by[use.reader]
        if reader is not None:
            use.reader = reader
            self._read_by.setdefault(reader, {})[host] = None

    def _make_room(self, client: str) -> bool:
        """Whether one more may be followed for a reader, where another one gives way if need be (rule 3)."""
        if len(self._followed) < MOST_READ:
            return True
        of_clients = (hosts for reader, hosts in self._read_by.items() if reader != _OURSELVES)
        most = max(of_clients, key=len, default={})
        if len(most) <= (0 if client == _OURSELVES else len(self._read_by.get(client, ())) + 1):
            return False
        gives_way = next(iter(most))
        self._end_following(gives_way)
        self._tasks.start_soon(self._tell_later, gives_way)
        return True

    async def _tell_later(self, host: str) -> None:
        await trio.lowlevel.checkpoint()  # whoever is told may follow others
        self._tell(host)

    def _settled_at(self, presence: PresenceNetwork, hosts: Iterable[str]) -> float:
        """When all is known that can be; 0 for now, infinite while that isn't certain."""
        at = 0.0
        for host in hosts:
            use = self._followed.get(host)
            if use is not None and not presence.is_settled(host):
                at = max(at, use.began + UNKNOWN_FOR)
            if host in self._asking:
                at = math.inf
        return at

    def _note_change(self, standing: HostStanding) -> None:
        if standing.is_up:
            self._down.discard(standing.peer_id)
        elif standing.peer_id in self._followed:
            self._down.add(standing.peer_id)
        self._ask(standing.peer_id)
        self._tell(standing.peer_id)

    def _tell(self, host: str) -> None:
        if self._presence is not None and (host in self._followed or host == self._network.peer_id):
            self._history.note(self._presence.state_of(host), trio.current_time())
        self._news.send()
        for callback in self._callbacks:
            callback(host)

    def _ask(self, host: str) -> None:
        if self._presence is None or host in self._asking or not self._tasks.is_open:
            return
        wanted = self._reader.wanted(host, self._presence.state_of(host), trio.current_time())
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
            self._news.send()
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
