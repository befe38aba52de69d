"""A light client: a process with its own key that acts through a node, and turns to the next when that one fails.

It signs and verifies by itself: its node looks up, fans out and can withhold, but never forge.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec
import outcome
import structlog
import trio

from overlay.addresses import parse_peer_address
from overlay.errors import AddressError, CallFailed, CallRefused, OverlayError, Unreachable
from overlay.frames import FrameError
from overlay.identity import Identity
from overlay.peer import OverlayPeer, open_peer
from overlay.settings import OverlaySettings
from registry.announcing.judging import Judging
from registry.background import background
from registry.data_folder import claimed
from registry.errors import DoorClosed, HostingRefused, InvalidValue, RegistryError, ServiceError
from registry.fetching import MAX_PAGES, good_states
from registry.history import Event
from registry.hosting import Host
from registry.inheritance import Inheritance
from registry.intake import Intake
from registry.issuing import IssueLog
from registry.merging import ResourceState
from registry.messages import (
    DOOR_EXPLAIN,
    DOOR_HOST,
    DOOR_MEETING,
    DOOR_NEIGHBOURS,
    DOOR_PROGRESS,
    DOOR_READ,
    DOOR_SERVICE,
    DOOR_STATUS,
    DOOR_UPKEEP,
    DOOR_WRITE,
    DoorHostBody,
    DoorReadBody,
    DoorServiceBody,
    DoorWriteBody,
    Item,
    MeetingPoint,
    ReadAnswer,
    WriteOutcome,
    build,
    last_slot,
    parse,
)
from registry.network import Clock
from registry.readiness import Readiness
from registry.reading import ReadOutcome
from registry.registry import Registry
from registry.relay_keeping import RelayKeeping
from registry.replica import Replica
from registry.service import RegistryService
from registry.settings import RegistrySettings, UpkeepSettings
from registry.shelf import StoreShelf
from registry.status import NodeStatus
from registry.storage import Store, open_store
from registry.upkeep.renewal import Renewal
from registry.upkeep.schedule import Schedule, ScheduleStatus
from registry.upkeep.upkeep import FIRST_AFTER, RENEW
from registry.values import Key, KeyTombstone, Record, RecordMetadata, State, decode_state, encode
from registry.verification import key_is_good, record_is_genuine, removal_is_good
from registry.watching.watched import TIMEOUT
from registry.watching.watches import Watches, bound_read, keeps_nothing
from registry.weights import Weights

DATABASE: Final = "client.sqlite"
GRACE: Final = 0.25  # seconds that a node's answer may take beyond the deadline that it was given
LONGEST_BUDGET: Final = 3600.0  # seconds; what a node accepts

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class RemoteDoor:
    """One of several nodes: the last that answered, else the next."""

    def __init__(self, peer: OverlayPeer, addresses: Sequence[str], settings: RegistrySettings, clock: Clock) -> None:
        self._peer = peer
        """Raises AddressError for what is no multiaddr with a peer id."""
        self._addresses = list(dict.fromkeys(addresses))  # the one that answered last comes first
        self._peer_ids = {address: parse_peer_address(address)[1] for address in addresses}
        self._settings = settings
        self._clock = clock

    @property
    def peer_id(self) -> str:
        return self._peer_ids[self._addresses[0]]

    async def open(self, *, timeout: float) -> None:
        """Connects to the first node that can be reached. Raises DoorClosed."""
        await self._call(DOOR_STATUS, None, timeout)

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        def body(budget: float) -> Any:
            state = encode(item.state) if item.state else b""
            return build(DoorWriteBody(anchor=encode(item.anchor), state=state, factor=factor, timeout=budget))

        return parse(await self._call(DOOR_WRITE, body, timeout), WriteOutcome)

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        result = ReadOutcome()
        states: list[State] = []
        key: Key | None = None
        removal: KeyTombstone | None = None
        after = None
        deadline = trio.current_time() + timeout
        for _ in range(MAX_PAGES):

            def body(budget: float, after: Any = after) -> Any:
                return build(DoorReadBody(key_id, ack, budget, after, key_suffices))

            raw = await self._call(DOOR_READ, body, max(deadline - trio.current_time(), 0.0))
            answer = parse(raw, ReadAnswer)
            result.answered, result.errors = answer.answered, list(answer.errors)
            result.timed_out = answer.timed_out
            page_key, page_removal, page = answer.page.decoded()
            key, removal = key or page_key, removal or page_removal
            states.extend(await self._good(key_id, page))
            following = last_slot(page)
            if not answer.page.more or following is None or (after is not None and following <= after):
                break
            after = following
        if key is not None and (key.id != key_id or not key_is_good(key, int(self._clock()), self._settings)):
            _log.warning("the node served a key that doesn't verify", node=self.peer_id, key_id=key_id)
            key = None
        if removal is not None and (
            removal.id != key_id or not removal_is_good(removal, int(self._clock()), self._settings)
        ):
            _log.warning("the node served a key tombstone that doesn't verify", node=self.peer_id, key_id=key_id)
            removal = None
        result.resource = ResourceState.of(key, states, removal)
        return result

    async def host(self, key: Key, metadata: RecordMetadata, *, timeout: float) -> Record:
        def body(budget: float) -> Any:
            return build(DoorHostBody(key=encode(key), metadata=encode(metadata), timeout=budget))

        answer = await self._call(DOOR_HOST, body, timeout)
        record = decode_state(answer) if isinstance(answer, bytes) else None
        if not isinstance(record, Record) or record.metadata != metadata or not record_is_genuine(record):
            raise HostingRefused(f"the answer isn't the record that was asked for, on {metadata.peer_id}")
        return record

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        return parse(await self._call(DOOR_NEIGHBOURS, lambda _: resource_id, timeout), list[str])

    async def meeting_points(self, resource_id: str, *, timeout: float) -> list[MeetingPoint]:
        return parse(await self._call(DOOR_MEETING, lambda _: resource_id, timeout), list[MeetingPoint])

    async def run_schedule(self, name: str, *, timeout: float) -> ScheduleStatus:
        return parse(await self._call(DOOR_UPKEEP, lambda _: name, timeout), ScheduleStatus)

    async def explain(self, key_id: str, *, timeout: float) -> list[Event]:
        return parse(await self._call(DOOR_EXPLAIN, lambda _: key_id, timeout), list[Event])

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        answer = await self._call(DOOR_PROGRESS, lambda _: write_id, timeout)
        return None if answer is None else parse(answer, WriteOutcome)

    async def status(self, *, timeout: float) -> NodeStatus:
        return parse(await self._call(DOOR_STATUS, None, timeout), NodeStatus)

    async def service(self, function: str, arguments: Sequence[Any], *, timeout: float) -> Any:
        given = tuple(msgspec.to_builtins(argument, builtin_types=(bytes,)) for argument in arguments)
        answer = await self._call(
            DOOR_SERVICE, lambda _: build(DoorServiceBody(function=function, arguments=given)), timeout
        )
        return parse(answer, get_type_hints(getattr(RegistryService, function))["return"])

    async def _good(self, key_id: str, page: list[State]) -> list[State]:
        good = await good_states(page, key_id, int(self._clock()), self._settings)
        if len(good) < len(page):
            _log.warning("the node served states that don't verify", node=self.peer_id, count=len(page) - len(good))
        return good

    async def _call(self, method: str, body: Any, timeout: float) -> Any:
        """Calls the preferred node, within `timeout` seconds; the next one as soon as that failed, or when it used up
        half of the time: then the first answer counts. `body` makes the body out of the seconds that the node has.

        What a door is asked for may be done twice. Raises DoorClosed; RegistryError for what a node refused.
        """
        deadline = trio.current_time() + timeout
        attempt = _Attempt()
        async with background() as nursery:
            addresses = tuple(self._addresses)  # other calls may change the order meanwhile
            for behind, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
                remaining = deadline - trio.current_time()
                if remaining <= 0:
                    break
                nursery.start_soon(self._try, address, method, body, deadline, attempt)
                attempt.under_way += 1
                # A node that stalls mustn't use up the time of those behind it.
                with trio.move_on_after(remaining / 2 if behind else remaining):
                    await attempt.settled.wait()
                if attempt.answer is not None:
                    break
                attempt.settled = trio.Event()
        if attempt.answer is None:
            raise DoorClosed("no node could be reached: " + "; ".join(attempt.causes or ["timeout exceeded"]))
        return attempt.answer.unwrap()

    async def _try(self, address: str, method: str, body: Any, deadline: float, attempt: _Attempt) -> None:
        try:
            answer: outcome.Outcome[Any] = outcome.Value(await self._call_one(address, method, body, deadline))
        except CallRefused as error:
            answer = outcome.Error(_refusal(error))
        except FrameError as error:
            answer = outcome.Error(InvalidValue(f"can't be sent: {error}"))
        except CallFailed as error:
            attempt.failed(f"{address}: {error.reason}")
            return
        if attempt.answer is None:
            attempt.answered(answer)
            self._addresses.remove(address)
            self._addresses.insert(0, address)

    async def _call_one(self, address: str, method: str, body: Any, deadline: float) -> Any:
        peer_id = self._peer_ids[address]
        if self._peer.is_linked(peer_id):
            try:
                return await self._ask(peer_id, method, body, deadline)
            except Unreachable:
                pass  # the link was lost just now; perhaps the node was started anew
        await self._peer.connect(address, timeout=max(deadline - trio.current_time(), 0.0))
        return await self._ask(peer_id, method, body, deadline)

    async def _ask(self, peer_id: str, method: str, body: Any, deadline: float) -> Any:
        left = max(deadline - trio.current_time(), 0.0)
        budget = min(max(left - GRACE, left / 2), LONGEST_BUDGET)
        return await self._peer.call(peer_id, method, body(budget) if body else None, timeout=left)


class _Attempt:
    """One call under way at one or more nodes."""

    def __init__(self) -> None:
        self.answer: outcome.Outcome[Any] | None = None
        self.causes: list[str] = []
        self.under_way = 0
        self.settled = trio.Event()
        """An answer is here, or none is to come from those that were asked."""

    def answered(self, answer: outcome.Outcome[Any]) -> None:
        self.answer = answer
        self.settled.set()

    def failed(self, cause: str) -> None:
        self.causes.append(cause)
        self.under_way -= 1
        if not self.under_way:
            self.settled.set()


class LightClient:
    """Use `open_light_client`."""

    def __init__(self, peer: OverlayPeer, registry: Registry, relay: RelayKeeping) -> None:
        self.peer = peer
        self.registry = registry
        self.relay = relay


@asynccontextmanager
async def open_light_client(
    identity: Identity,
    addresses: Sequence[str],
    *,
    settings: OverlaySettings | None = None,
    registry_settings: RegistrySettings | None = None,
    data_dir: Path | None = None,
    timeout: float = 6.0,
    clock: Clock = time.time,
) -> AsyncIterator[LightClient]:
    """Acts for `identity` through the nodes at `addresses` (multiaddrs with /p2p/), while the context is open.

    With `data_dir` it remembers what it issued and hosts; one process at a time may use that. Raises DoorClosed when no
    node can be reached within `timeout` seconds, InvalidValue without addresses or for what is none.
    """
    if not addresses:
        raise InvalidValue("a light client needs the address of a node at least")
    rules = registry_settings or RegistrySettings()
    overlay = settings or OverlaySettings()
    overlay = msgspec.structs.replace(overlay, member=False, listen=(), announce=(), bootstrap=())
    async with AsyncExitStack() as stack:
        path = Path(":memory:")
        if data_dir is not None:
            path = stack.enter_context(claimed(data_dir)) / DATABASE
        store = await stack.enter_async_context(open_store(path, inline=data_dir is None))
        try:
            peer = await stack.enter_async_context(open_peer(identity, overlay))
            door = RemoteDoor(peer, addresses, rules, clock)
        except AddressError as error:
            raise InvalidValue(str(error)) from error
        except OverlayError as error:
            raise DoorClosed(str(error)) from error
        service = RegistryService(store, identity.peer_id, rules)
        intake = Intake(peer, store, service, Weights({}), clock)  # takes only what this client owns or hosts
        inheritance = Inheritance(peer, rules.neighbourhood_size)
        replica = Replica(peer, store, intake, Readiness.always(), inheritance, clock)
        host = Host(peer, identity, StoreShelf(store, replica, identity.peer_id), rules, clock)
        await door.open(timeout=timeout)

        async def neighbours(key_id: str) -> list[str]:
            try:
                points = await door.meeting_points(key_id, timeout=TIMEOUT)
            except RegistryError as error:
                _log.debug("the node doesn't tell who keeps a resource", key_id=key_id, error=str(error))
                return []
            for point in points:
                peer.add_addresses(point.peer_id, list(point.addresses))
            return [point.peer_id for point in points]

        judging = Judging(rules, clock)
        watches = Watches(peer, neighbours, bound_read(door.read), keeps_nothing, judging, rules, clock)
        registry = Registry(identity, door, host, IssueLog(store), watches, rules, clock)
        nursery = await stack.enter_async_context(background())
        await nursery.start(watches.run)
        nursery.start_soon(_renewal(identity, door, host, registry, store, rules, clock).run)
        relay = RelayKeeping(peer, door, registry, store, rules, clock)
        nursery.start_soon(relay.run)
        yield LightClient(peer, registry, relay)


def _renewal(
    identity: Identity,
    door: RemoteDoor,
    host: Host,
    registry: Registry,
    store: Store,
    settings: RegistrySettings,
    clock: Clock,
) -> Schedule:
    """A light client renews what it hosts and owns while it runs; what it did before, if it has a data folder."""
    upkeep = UpkeepSettings()
    period = min(upkeep.renew, settings.expired_age / 2)
    renewal = Renewal(identity, door, host, registry, store, settings, period, clock)

    async def renew() -> str:
        return str(await renewal.run())

    return Schedule(
        RENEW,
        renew,
        delay=min(period, FIRST_AFTER),
        period=period,
        jitter=upkeep.jitter,
        clock=clock,
        randomness=random.Random(),  # noqa: S311 - jitter, not secrets
    )


def _refusal(error: CallRefused) -> RegistryError:
    return HostingRefused(error.message) if error.code == "hosting" else ServiceError(error.message)
