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

from overlay.discovery.address_book import parse_peer_address
from overlay.errors import AddressError, CallFailed, CallRefused, OverlayError, Unreachable
from overlay.identity import Identity
from overlay.peer import OverlayPeer, open_peer
from overlay.rpc.framing import FrameError
from overlay.settings import OverlaySettings
from overlay.tasks import background
from registry.client.registry import Registry
from registry.client.relay_failover import RelayFailover
from registry.client.renewal import Renewal
from registry.client.status import NodeStatus
from registry.client.timestamps import TimestampLog
from registry.errors import HostingRefused, InvalidValue, NodeUnavailable, RegistryError, RegistryRefusal
from registry.model.history import HistoryEvent
from registry.model.merge import ResourceState
from registry.model.values import Key, KeyTombstone, Record, RecordMetadata, State, decode_state, encode
from registry.model.verification import key_is_good, key_tombstone_is_good, record_is_genuine
from registry.protocol.messages import (
    NODE_COUNTERSIGN,
    NODE_EXPLAIN,
    NODE_NEIGHBOURS,
    NODE_PEER_INFOS,
    NODE_PROGRESS,
    NODE_READ,
    NODE_SERVICE,
    NODE_STATUS,
    NODE_UPKEEP,
    NODE_WRITE,
    Item,
    NodeCountersignBody,
    NodeReadBody,
    NodeServiceBody,
    NodeWriteBody,
    PeerInfo,
    ReadAnswer,
    WriteOutcome,
    build,
    last_slot,
    parse,
)
from registry.protocol.network import Clock
from registry.quorum.fetch import MAX_PAGES, good_states
from registry.quorum.read_machine import ReadOutcome
from registry.replica.catch_up import CatchUp
from registry.replica.countersign import Countersigner
from registry.replica.ingest import Ingest
from registry.replica.replica import Replica
from registry.replica.shelf import StoreShelf
from registry.replica.takeover import Takeover
from registry.replica.weights import Weights
from registry.service import RegistryService
from registry.settings import RegistrySettings, UpkeepSettings
from registry.storage import Store, open_store
from registry.storage.data_folder import claimed
from registry.upkeep.schedule import Schedule, ScheduleStatus
from registry.upkeep.schedules import FIRST_AFTER, RENEW
from registry.watch.source_machine import TIMEOUT
from registry.watch.validator import AnnouncementValidator
from registry.watch.watches import Watches, bound_read, keeps_nothing

DATABASE: Final = "client.sqlite"
GRACE: Final = 0.25  # seconds that a node's answer may take beyond the deadline that it was given
LONGEST_BUDGET: Final = 3600.0  # seconds; what a node accepts

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class RemoteNode:
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
        await self._call(NODE_STATUS, None, timeout)

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        def body(budget: float) -> Any:
            state = encode(item.state) if item.state else b""
            return build(
                NodeWriteBody(
                    key_or_tombstone=encode(item.key_or_tombstone), state=state, factor=factor, timeout=budget
                )
            )

        return parse(await self._call(NODE_WRITE, body, timeout), WriteOutcome)

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        result = ReadOutcome()
        states: list[State] = []
        key: Key | None = None
        key_tombstone: KeyTombstone | None = None
        after = None
        deadline = trio.current_time() + timeout
        for _ in range(MAX_PAGES):

            def body(budget: float, after: Any = after) -> Any:
                return build(NodeReadBody(key_id, ack, budget, after, key_suffices))

            raw = await self._call(NODE_READ, body, max(deadline - trio.current_time(), 0.0))
            answer = parse(raw, ReadAnswer)
            result.answered, result.errors = answer.answered, list(answer.errors)
            result.timed_out = answer.timed_out
            page_key, page_key_tombstone, page = answer.page.decoded()
            key, key_tombstone = key or page_key, key_tombstone or page_key_tombstone
            states.extend(await self._good(key_id, page))
            following = last_slot(page)
            if not answer.page.more or following is None or (after is not None and following <= after):
                break
            after = following
        if key is not None and (key.id != key_id or not key_is_good(key, int(self._clock()), self._settings)):
            _log.warning("the node served a key that doesn't verify", node=self.peer_id, key_id=key_id)
            key = None
        if key_tombstone is not None and (
            key_tombstone.id != key_id or not key_tombstone_is_good(key_tombstone, int(self._clock()), self._settings)
        ):
            _log.warning("the node served a key tombstone that doesn't verify", node=self.peer_id, key_id=key_id)
            key_tombstone = None
        result.resource = ResourceState.of(key, states, key_tombstone)
        return result

    async def host(self, key: Key, metadata: RecordMetadata, *, timeout: float) -> Record:
        def body(budget: float) -> Any:
            return build(NodeCountersignBody(key=encode(key), metadata=encode(metadata), timeout=budget))

        answer = await self._call(NODE_COUNTERSIGN, body, timeout)
        record = decode_state(answer) if isinstance(answer, bytes) else None
        if not isinstance(record, Record) or record.metadata != metadata or not record_is_genuine(record):
            raise HostingRefused(f"the answer isn't the record that was asked for, on {metadata.peer_id}")
        return record

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        return parse(await self._call(NODE_NEIGHBOURS, lambda _: resource_id, timeout), list[str])

    async def peer_infos(self, resource_id: str, *, timeout: float) -> list[PeerInfo]:
        return parse(await self._call(NODE_PEER_INFOS, lambda _: resource_id, timeout), list[PeerInfo])

    async def run_schedule(self, name: str, *, timeout: float) -> ScheduleStatus:
        return parse(await self._call(NODE_UPKEEP, lambda _: name, timeout), ScheduleStatus)

    async def explain(self, key_id: str, *, timeout: float) -> list[HistoryEvent]:
        return parse(await self._call(NODE_EXPLAIN, lambda _: key_id, timeout), list[HistoryEvent])

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        answer = await self._call(NODE_PROGRESS, lambda _: write_id, timeout)
        return None if answer is None else parse(answer, WriteOutcome)

    async def status(self, *, timeout: float) -> NodeStatus:
        return parse(await self._call(NODE_STATUS, None, timeout), NodeStatus)

    async def service(self, function: str, arguments: Sequence[Any], *, timeout: float) -> Any:
        given = tuple(msgspec.to_builtins(argument, builtin_types=(bytes,)) for argument in arguments)
        answer = await self._call(
            NODE_SERVICE, lambda _: build(NodeServiceBody(function=function, arguments=given)), timeout
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
            raise NodeUnavailable("no node could be reached: " + "; ".join(attempt.causes or ["timeout exceeded"]))
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

    def __init__(self, peer: OverlayPeer, registry: Registry, relay: RelayFailover) -> None:
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
            node_api = RemoteNode(peer, addresses, rules, clock)
        except AddressError as error:
            raise InvalidValue(str(error)) from error
        except OverlayError as error:
            raise NodeUnavailable(str(error)) from error
        service = RegistryService(store, identity.peer_id, rules)
        ingest = Ingest(peer, store, service, Weights({}), clock)  # takes only what this client owns or hosts
        takeover = Takeover(peer, rules.neighbourhood_size)
        replica = Replica(peer, store, ingest, CatchUp.always(), takeover, clock)
        host = Countersigner(peer, identity, StoreShelf(store, replica, identity.peer_id), rules, clock)
        await node_api.open(timeout=timeout)

        async def neighbours(key_id: str) -> list[str]:
            try:
                points = await node_api.peer_infos(key_id, timeout=TIMEOUT)
            except RegistryError as error:
                _log.debug("the node doesn't tell who keeps a resource", key_id=key_id, error=str(error))
                return []
            for point in points:
                peer.add_addresses(point.peer_id, list(point.addresses))
            return [point.peer_id for point in points]

        validator = AnnouncementValidator(rules, clock)
        watches = Watches(peer, neighbours, bound_read(node_api.read), keeps_nothing, validator, rules, clock)
        registry = Registry(identity, node_api, host, TimestampLog(store), watches, rules, clock)
        nursery = await stack.enter_async_context(background())
        await nursery.start(watches.run)
        nursery.start_soon(_renewal(identity, node_api, host, registry, store, rules, clock).run)
        relay = RelayFailover(peer, node_api, registry, store, rules, clock)
        nursery.start_soon(relay.run)
        yield LightClient(peer, registry, relay)


def _renewal(
    identity: Identity,
    node_api: RemoteNode,
    host: Countersigner,
    registry: Registry,
    store: Store,
    settings: RegistrySettings,
    clock: Clock,
) -> Schedule:
    """A light client renews what it hosts and owns while it runs; what it did before, if it has a data folder."""
    upkeep = UpkeepSettings()
    period = min(upkeep.renew, settings.expired_age / 2)
    renewal = Renewal(identity, node_api, host, registry, store, settings, period, clock)

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
    return HostingRefused(error.message) if error.code == "hosting" else RegistryRefusal(error.message)
