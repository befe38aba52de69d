"""The node API on the wire: one table of what a client can ask of the node that it acts through.

Each row of `OPERATIONS` has the method's name, the types of its request and reply, and what answers it on a node.
`registry.client.remote_node` asks and `registry.client.node_api_server` answers, both for any row alike. A call's body
is [seconds that the node has, request].
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from registry.client.local_node import LocalNode
from registry.client.node_status import NodeStatus
from registry.client.peer_info import PeerInfo
from registry.health.messages import MOST_HOSTS, ReportAnswer, ToldStanding
from registry.health.report import decode_report
from registry.model.decoding import decode_key, decode_metadata
from registry.model.fields import check_peer_id
from registry.model.history import HistoryEvent
from registry.model.owner_index import ToldPage
from registry.model.values import encode
from registry.protocol.error_info import ErrorInfo
from registry.protocol.index_messages import IndexPage, Label
from registry.protocol.messages import (
    Blob,
    Item,
    Name,
    ReadAnswer,
    StatePage,
    WriteOutcome,
    bounded_count,
    bounded_time,
)
from registry.storage.in_turns import wait_for_turn
from registry.upkeep.schedule import ScheduleStatus

Request = TypeVar("Request", bound=msgspec.Struct)
Reply = TypeVar("Reply")


class CallBody(msgspec.Struct, frozen=True, array_like=True):
    """What every call of the node API carries: the seconds that the node has to answer, and the request."""

    timeout: float
    request: Any

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "timeout", bounded_time(self.timeout))


class Caller(NamedTuple):
    """Who calls (its peer id, authenticated), and how many seconds it waits."""

    peer_id: str
    timeout: float


class Operation(NamedTuple, Generic[Request, Reply]):
    """One row of the table. `answer` may raise RegistryError."""

    name: str
    request: type[Request]
    reply: type[Reply]
    answer: Callable[[LocalNode, Request, Caller], Awaitable[Reply]]


class WriteRequest(msgspec.Struct, frozen=True, array_like=True):
    """Send this signed write to the neighbourhood; `state` is empty when there is none."""

    key_or_tombstone: Blob
    state: Blob
    factor: int

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "factor", bounded_count(self.factor))

    @classmethod
    def of(cls, item: Item, factor: int) -> WriteRequest:
        """The request to write `item` to `factor` replicas at least."""
        return cls(encode(item.key_or_tombstone), encode(item.state) if item.state else b"", factor)


class ReadRequest(msgspec.Struct, frozen=True, array_like=True):
    """Read a resource from the neighbourhood; `after`: the last slot of the page before."""

    key_id: Name
    ack: int
    after: tuple[Name, Name, Name] | None = None
    key_suffices: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "ack", bounded_count(self.ack))


class ListRequest(msgspec.Struct, frozen=True, array_like=True):
    """List the resources of an owner whose labels follow `after`, or from the first one on; `limit` at most."""

    owner_peer_id: Name
    after: Label | None
    limit: int
    ack: int

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "limit", bounded_count(self.limit))
        msgspec.structs.force_setattr(self, "ack", bounded_count(self.ack))


class ListReply(msgspec.Struct, frozen=True, array_like=True):
    """A page of an owner's index, as `ListOutcome`: what its keepers told together, and how many of them counted."""

    page: IndexPage
    answered: int
    errors: tuple[ErrorInfo, ...] = ()
    timed_out: bool = False


class CountersignRequest(msgspec.Struct, frozen=True, array_like=True):
    """Have the host that `metadata` names sign the record."""

    key: Blob
    metadata: Blob


class CountersignReply(msgspec.Struct, frozen=True, array_like=True):
    """The signed record."""

    record: Blob


class ReportRequest(msgspec.Struct, frozen=True, array_like=True):
    """Bring this signed report of a service's health to the host that it names."""

    report: Blob


class HostsRequest(msgspec.Struct, frozen=True, array_like=True):
    """What is known of these hosts, and, for so many seconds, tell what changes by `registry.hosts_changed`; 0: forget
    them."""

    hosts: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MOST_HOSTS)]
    seconds: float

    def __post_init__(self) -> None:
        for host in self.hosts:
            check_peer_id("host", host)
        msgspec.structs.force_setattr(self, "seconds", bounded_time(self.seconds))


class HostsReply(msgspec.Struct, frozen=True, array_like=True):
    """What is known of each host."""

    standings: Annotated[tuple[ToldStanding, ...], msgspec.Meta(max_length=MOST_HOSTS)]


class ComplaintRequest(msgspec.Struct, frozen=True, array_like=True):
    """Tells that this host couldn't be reached, so that the node looks at it now."""

    host: Name


class ComplaintReply(msgspec.Struct, frozen=True, array_like=True):
    """Tells that the host is looked at, if nobody did just now."""


class ResourceRequest(msgspec.Struct, frozen=True, array_like=True):
    """Something about one resource."""

    key_id: Name


class ProgressRequest(msgspec.Struct, frozen=True, array_like=True):
    """Asks how far a write has come."""

    write_id: Name


class ProgressReply(msgspec.Struct, frozen=True, array_like=True):
    """`outcome` is None for a write that isn't known (any more)."""

    outcome: WriteOutcome | None


class StatusRequest(msgspec.Struct, frozen=True, array_like=True):
    """What does the node say of itself?"""


class ScheduleRequest(msgspec.Struct, frozen=True, array_like=True):
    """Run this schedule now."""

    schedule: Name


class ServiceRequest(msgspec.Struct, frozen=True, array_like=True):
    """A function of the service `registry`, by name, with its arguments; the node fills in its time and weights."""

    function: Name
    arguments: Annotated[tuple[Any, ...], msgspec.Meta(max_length=16)]


class ServiceReply(msgspec.Struct, frozen=True, array_like=True):
    """The function's result."""

    result: Any


async def _write(node: LocalNode, request: WriteRequest, caller: Caller) -> WriteOutcome:
    item = Item.decoded(request.key_or_tombstone, request.state)
    return await node.write(item, factor=request.factor, timeout=caller.timeout)


async def _read(node: LocalNode, request: ReadRequest, caller: Caller) -> ReadAnswer:
    outcome = await node.read(
        request.key_id, ack=request.ack, timeout=caller.timeout, key_suffices=request.key_suffices
    )
    await wait_for_turn(outcome.resource)
    return ReadAnswer(
        answered=outcome.answered,
        page=StatePage.of(outcome.resource, request.after),
        errors=tuple(outcome.errors),
        timed_out=outcome.timed_out,
    )


async def _list(node: LocalNode, request: ListRequest, caller: Caller) -> ListReply:
    outcome = await node.list_resources(
        request.owner_peer_id, request.after, limit=request.limit, ack=request.ack, timeout=caller.timeout
    )
    page = IndexPage.of(ToldPage(outcome.entries, outcome.after), caught_up=True)
    return ListReply(page, outcome.answered, outcome.errors, outcome.timed_out)


async def _countersign(node: LocalNode, request: CountersignRequest, caller: Caller) -> CountersignReply:
    key, metadata = decode_key(request.key), decode_metadata(request.metadata)
    return CountersignReply(
        encode(await node.countersign(key, metadata, timeout=caller.timeout, caller=caller.peer_id))
    )


async def _report_health(node: LocalNode, request: ReportRequest, caller: Caller) -> ReportAnswer:
    report = decode_report(request.report)
    await node.report_health(report, timeout=caller.timeout, caller=caller.peer_id)
    return ReportAnswer()


async def _hosts(node: LocalNode, request: HostsRequest, caller: Caller) -> HostsReply:
    return HostsReply(await node.hosts(request.hosts, request.seconds, timeout=caller.timeout, caller=caller.peer_id))


async def _complain(node: LocalNode, request: ComplaintRequest, caller: Caller) -> ComplaintReply:
    await node.complain(request.host, timeout=caller.timeout, caller=caller.peer_id)
    return ComplaintReply()


async def _neighbours(node: LocalNode, request: ResourceRequest, caller: Caller) -> list[str]:
    return await node.neighbours(request.key_id, timeout=caller.timeout)


async def _peer_infos(node: LocalNode, request: ResourceRequest, caller: Caller) -> list[PeerInfo]:
    return await node.peer_infos(request.key_id, timeout=caller.timeout)


async def _progress(node: LocalNode, request: ProgressRequest, caller: Caller) -> ProgressReply:
    return ProgressReply(await node.progress(request.write_id, timeout=caller.timeout))


async def _status(node: LocalNode, request: StatusRequest, caller: Caller) -> NodeStatus:  # noqa: ARG001
    return await node.status(timeout=caller.timeout)


async def _explain(node: LocalNode, request: ResourceRequest, caller: Caller) -> list[HistoryEvent]:
    return await node.explain(request.key_id, timeout=caller.timeout, caller=caller.peer_id)


async def _run_schedule(node: LocalNode, request: ScheduleRequest, caller: Caller) -> ScheduleStatus:
    return await node.run_schedule(request.schedule, timeout=caller.timeout, caller=caller.peer_id)


async def _service(node: LocalNode, request: ServiceRequest, caller: Caller) -> ServiceReply:
    return ServiceReply(
        await node.service(request.function, request.arguments, timeout=caller.timeout, caller=caller.peer_id)
    )


WRITE: Final = Operation("node.write", WriteRequest, WriteOutcome, _write)
READ: Final = Operation("node.read", ReadRequest, ReadAnswer, _read)
COUNTERSIGN: Final = Operation("node.countersign", CountersignRequest, CountersignReply, _countersign)
NEIGHBOURS: Final = Operation("node.neighbours", ResourceRequest, list[str], _neighbours)
PEER_INFOS: Final = Operation("node.peer_infos", ResourceRequest, list[PeerInfo], _peer_infos)
PROGRESS: Final = Operation("node.progress", ProgressRequest, ProgressReply, _progress)
STATUS: Final = Operation("node.status", StatusRequest, NodeStatus, _status)
EXPLAIN: Final = Operation("node.explain", ResourceRequest, list[HistoryEvent], _explain)
RUN_SCHEDULE: Final = Operation("node.run_schedule", ScheduleRequest, ScheduleStatus, _run_schedule)
SERVICE: Final = Operation("node.service", ServiceRequest, ServiceReply, _service)
REPORT_HEALTH: Final = Operation("node.report_health", ReportRequest, ReportAnswer, _report_health)
HOSTS: Final = Operation("node.hosts", HostsRequest, HostsReply, _hosts)
COMPLAIN: Final = Operation("node.complain", ComplaintRequest, ComplaintReply, _complain)
LIST_RESOURCES: Final = Operation("node.list_resources", ListRequest, ListReply, _list)

OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (
    WRITE,
    READ,
    COUNTERSIGN,
    NEIGHBOURS,
    PEER_INFOS,
    PROGRESS,
    STATUS,
    EXPLAIN,
    RUN_SCHEDULE,
    SERVICE,
    REPORT_HEALTH,
    HOSTS,
    COMPLAIN,
    LIST_RESOURCES,
)
