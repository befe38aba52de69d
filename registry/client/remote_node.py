"""Lets a light client act through remote nodes, whichever of them lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, get_type_hints

import msgspec
import outcome
import structlog
import trio

from overlay.discovery.address_book import parse_peer_address
from overlay.errors import CallFailed, CallRefused, Overloaded, Unreachable
from overlay.rpc.framing import FrameError
from overlay.tasks import Wakeup, background
from registry.client.node_operations import (
    COMPLAIN,
    COUNTERSIGN,
    EXPLAIN,
    HOSTS,
    LIST_RESOURCES,
    NEIGHBOURS,
    PEER_INFOS,
    PROGRESS,
    READ,
    REPORT_HEALTH,
    RUN_SCHEDULE,
    SERVICE,
    STATUS,
    WRITE,
    CallBody,
    ComplaintRequest,
    CountersignRequest,
    HostsRequest,
    ListRequest,
    Operation,
    ProgressRequest,
    ReadRequest,
    Reply,
    ReportRequest,
    Request,
    ResourceRequest,
    ScheduleRequest,
    ServiceRequest,
    StatusRequest,
    WriteRequest,
)
from registry.client.node_status import NodeStatus
from registry.client.patience import SOONEST, patiently
from registry.client.peer_info import PeerInfo
from registry.codes import Code
from registry.errors import HostingRefused, InvalidValue, NodeOverloaded, NodeUnavailable
from registry.health.messages import ToldStanding
from registry.health.report import HealthReport, encode_report
from registry.model.decoding import decode_state
from registry.model.history import HistoryEvent
from registry.model.merge import ResourceState
from registry.model.values import Key, KeyTombstone, Record, RecordMetadata, Slot, State, encode
from registry.model.verification import key_is_good, key_tombstone_is_good, record_is_genuine
from registry.protocol.error_info import ErrorInfo
from registry.protocol.index_messages import ListBody
from registry.protocol.messages import LONGEST_TIME, Item, WriteOutcome, build, parse
from registry.protocol.network import Clock
from registry.quorum.fetch import MAX_PAGES, good_states
from registry.quorum.listing import ListOutcome, page_of
from registry.quorum.read_machine import ReadOutcome
from registry.service import RegistryService
from registry.settings import RegistrySettings
from registry.upkeep.schedule import ScheduleStatus

IN_FLIGHT: Final = 256  # calls on one node; others wait. It serves 64 of a peer at a time, and queues as many as these
GRACE: Final = 0.25  # seconds that a node's answer may take beyond the deadline that it was given

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LinkingPeer(Protocol):
    """What acting through remote nodes needs of the overlay: satisfied by `overlay.OverlayPeer`."""

    def is_linked(self, peer_id: str) -> bool:
        """Whether a call to that peer needs no dialling."""
        ...

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Links to the peer at that address; returns its id. Raises CallFailed."""
        ...

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Calls a linked peer; returns its answer. Raises CallFailed."""
        ...


class RemoteNode:
    """The `NodeApi` of a light client, which acts through one of several nodes: the last that answered, else the next.

    Raises NodeUnavailable when none of them answers in time, RegistryError for what one refused.
    """

    def __init__(self, peer: LinkingPeer, addresses: Sequence[str], settings: RegistrySettings, clock: Clock) -> None:
        """Raises AddressError for what is no multiaddr with a peer id."""
        self._peer = peer
        self._addresses = list(dict.fromkeys(addresses))  # the one that answered last comes first
        self._peer_ids = {address: parse_peer_address(address)[1] for address in addresses}
        self._places = {peer_id: trio.CapacityLimiter(IN_FLIGHT) for peer_id in self._peer_ids.values()}
        self._settings = settings
        self._clock = clock

    @property
    def peer_id(self) -> str:
        """The node that answered last; at first, the first address's."""
        return self._peer_ids[self._addresses[0]]

    async def open(self, *, timeout: float) -> None:
        """Connects to the first node that can be reached. Raises NodeUnavailable."""
        await self.status(timeout=timeout)

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        """See `NodeApi.write`."""
        return await self._call(WRITE, WriteRequest.of(item, factor), timeout)

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        """See `NodeApi.read`. What doesn't verify is dropped."""
        result = ReadOutcome()
        states: list[State] = []
        siblings: list[Key] = []
        key: Key | None = None
        key_tombstones: list[KeyTombstone] = []
        after: Slot | None = None
        deadline = trio.current_time() + timeout
        for _ in range(MAX_PAGES):
            request = ReadRequest(key_id, ack, after, key_suffices)
            answer = await self._call(READ, request, max(deadline - trio.current_time(), 0.0))
            result.answered, result.errors = answer.answered, list(answer.errors)
            result.timed_out = answer.timed_out
            page_key, page_key_tombstones, page = answer.page.decoded()
            key, key_tombstones = key or page_key, key_tombstones or page_key_tombstones
            siblings = siblings or answer.page.decoded_siblings()
            states.extend(await self._good(key_id, page))
            after = answer.page.next_after(after)
            if after is None:
                break
        if key is not None and (key.id != key_id or not key_is_good(key, int(self._clock()), self._settings)):
            _log.warning("the node served a key that doesn't verify", node=self.peer_id, key_id=key_id)
            key = None
        now = int(self._clock())
        siblings = [each for each in siblings if each.id == key_id and key_is_good(each, now, self._settings)]
        good = [
            each for each in key_tombstones if each.id == key_id and key_tombstone_is_good(each, now, self._settings)
        ]
        if len(good) < len(key_tombstones):
            _log.warning("the node served a key tombstone that doesn't verify", node=self.peer_id, key_id=key_id)
        result.resource = ResourceState.of(key, states, *good, siblings=siblings)
        return result

    async def list_resources(
        self, owner_peer_id: str, after: str | None, *, limit: int, ack: int, timeout: float
    ) -> ListOutcome:
        """See `NodeApi.list_resources`. What doesn't verify is dropped."""
        reply = await self._call(LIST_RESOURCES, ListRequest(owner_peer_id, after, limit, ack), timeout)
        told = [entry for entry in reply.page.decoded() if entry.owner_peer_id == owner_peer_id]
        asked = ListBody(owner_peer_id, after, 1)  # a node may tell less at once than it is asked for
        page = await page_of(told, reply.page.last, asked, int(self._clock()), self._settings)
        if len(page.entries) < len(reply.page.entries):
            _log.warning("the node told of resources that don't verify", node=self.peer_id, owner=owner_peer_id)
        return ListOutcome(tuple(page.entries), page.last, reply.answered, reply.errors, reply.timed_out)

    async def countersign(self, key: Key, metadata: RecordMetadata, *, timeout: float) -> Record:
        """See `NodeApi.countersign`."""
        reply = await self._call(COUNTERSIGN, CountersignRequest(encode(key), encode(metadata)), timeout)
        record = decode_state(reply.record)
        if not isinstance(record, Record) or record.metadata != metadata or not record_is_genuine(record):
            raise HostingRefused(
                f"the answer isn't the record that was asked for, on {metadata.peer_id}", code=Code.BAD_ANSWER
            )
        return record

    async def report_health(self, report: HealthReport, *, timeout: float) -> None:
        """See `NodeApi.report_health`."""
        await self._call(REPORT_HEALTH, ReportRequest(encode_report(report)), timeout)

    async def hosts(self, hosts: Sequence[str], seconds: float, *, timeout: float) -> tuple[ToldStanding, ...]:
        """What the node knows of `MOST_HOSTS` hosts at most; for so many seconds it tells what changes by calling
        `registry.hosts_changed`."""
        return (await self._call(HOSTS, HostsRequest(tuple(hosts), seconds), timeout)).standings

    async def complain(self, host: str, *, timeout: float) -> None:
        """Tells the node that a host couldn't be reached, which it follows for this client."""
        await self._call(COMPLAIN, ComplaintRequest(host), timeout)

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        """See `NodeApi.neighbours`."""
        return await self._call(NEIGHBOURS, ResourceRequest(resource_id), timeout)

    async def peer_infos(self, resource_id: str, *, timeout: float) -> list[PeerInfo]:
        """See `NodeApi.peer_infos`."""
        return await self._call(PEER_INFOS, ResourceRequest(resource_id), timeout)

    async def run_schedule(self, name: str, *, timeout: float) -> ScheduleStatus:
        """See `NodeApi.run_schedule`."""
        return await self._call(RUN_SCHEDULE, ScheduleRequest(name), timeout)

    async def explain(self, key_id: str, *, timeout: float) -> list[HistoryEvent]:
        """See `NodeApi.explain`."""
        return await self._call(EXPLAIN, ResourceRequest(key_id), timeout)

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        """See `NodeApi.progress`."""
        return (await self._call(PROGRESS, ProgressRequest(write_id), timeout)).outcome

    async def status(self, *, timeout: float) -> NodeStatus:
        """See `NodeApi.status`."""
        return await self._call(STATUS, StatusRequest(), timeout)

    async def service(self, function: str, arguments: Sequence[Any], *, timeout: float) -> Any:
        """See `NodeApi.service`."""
        given = tuple(msgspec.to_builtins(argument, builtin_types=(bytes,)) for argument in arguments)
        reply = await self._call(SERVICE, ServiceRequest(function, given), timeout)
        return parse(reply.result, get_type_hints(getattr(RegistryService, function))["return"])

    async def _good(self, key_id: str, page: list[State]) -> list[State]:
        good = await good_states(page, key_id, int(self._clock()), self._settings)
        if len(good) < len(page):
            _log.warning("the node served states that don't verify", node=self.peer_id, count=len(page) - len(good))
        return good

    async def _call(self, operation: Operation[Request, Reply], request: Request, timeout: float) -> Reply:
        """Calls the preferred node, within `timeout` seconds; the next one as soon as that failed, or when it used up
        half of the time: then the first answer counts.

        What a node is asked for may be done twice. Who is overloaded is asked again when it said, within that time.
        Raises NodeUnavailable; RegistryError for what a node refused.
        """
        body = build(request)
        answer = await patiently(lambda remaining: self._first_answer(operation.name, body, remaining), timeout)
        return parse(answer, operation.reply)

    async def _first_answer(self, method: str, request: object, timeout: float) -> object:
        deadline = trio.current_time() + timeout
        attempt = _Attempt()
        async with background() as nursery:
            addresses = tuple(self._addresses)  # other calls may change the order meanwhile
            for behind, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
                remaining = deadline - trio.current_time()
                if remaining <= 0:
                    break
                nursery.start_soon(self._try, address, method, request, deadline, attempt)
                attempt.under_way += 1
                # A node that stalls mustn't use up the time of those behind it.
                with trio.move_on_after(remaining / 2 if behind else remaining):
                    await attempt.settled.wait()
                if attempt.answer is not None:
                    break
                attempt.settled.clear()
        if attempt.answer is not None:
            return attempt.answer.unwrap()
        if attempt.overloaded:  # the others, if any, are gone
            error = NodeOverloaded.told("; ".join(attempt.causes))
            error.retry_after = min(attempt.overloaded)
            raise error
        raise NodeUnavailable("no node could be reached: " + "; ".join(attempt.causes or ["timeout exceeded"]))

    async def _try(self, address: str, method: str, request: object, deadline: float, attempt: _Attempt) -> None:
        try:
            answer: outcome.Outcome[Any] = outcome.Value(await self._call_one(address, method, request, deadline))
        except CallRefused as error:
            answer = outcome.Error(ErrorInfo(error.code, error.message).exception(error.retry_after))
        except FrameError as error:
            answer = outcome.Error(InvalidValue(f"can't be sent: {error}"))
        except CallFailed as error:
            attempt.failed(f"{address}: {error.detail}", error)
            return
        if attempt.answer is None:
            attempt.answered(answer)
            self._addresses.remove(address)
            self._addresses.insert(0, address)

    async def _call_one(self, address: str, method: str, request: object, deadline: float) -> object:
        peer_id = self._peer_ids[address]
        async with self._places[peer_id]:
            if self._peer.is_linked(peer_id):
                try:
                    return await self._ask(peer_id, method, request, deadline)
                except Unreachable:
                    pass  # the link was lost just now; perhaps the node was started anew
            await self._peer.connect(address, timeout=max(deadline - trio.current_time(), 0.0))
            return await self._ask(peer_id, method, request, deadline)

    async def _ask(self, peer_id: str, method: str, request: object, deadline: float) -> object:
        left = max(deadline - trio.current_time(), 0.0)
        budget = min(max(left - GRACE, left / 2), LONGEST_TIME)
        return await self._peer.call(peer_id, method, build(CallBody(budget, request)), timeout=left)


class _Attempt:
    """A call that is under way at one or more nodes."""

    def __init__(self) -> None:
        self.answer: outcome.Outcome[Any] | None = None
        self.causes: list[str] = []
        self.overloaded: list[float] = []
        """Seconds after which each of those that were overloaded may be asked again."""
        self.under_way = 0
        self.settled = Wakeup()
        """Set when an answer has come, or when none can come any more from those that were asked."""

    def answered(self, answer: outcome.Outcome[Any]) -> None:
        self.answer = answer
        self.settled.set()

    def failed(self, cause: str, error: CallFailed) -> None:
        self.causes.append(cause)
        if isinstance(error, Overloaded):
            self.overloaded.append(error.retry_after or SOONEST)
        self.under_way -= 1
        if not self.under_way:
            self.settled.set()
