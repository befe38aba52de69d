"""A node acting through itself, for its own identity and for the light clients that call it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

import structlog
import trio

from overlay.errors import (
    CallFailed,
    CallTimeout,
    ConnectionLost,
    ProtocolError,
    ProtocolNotSupported,
    Unreachable,
)
from overlay.tracing import TRACING
from registry.client.node_status import NodeStatus, StatusSource
from registry.client.peer_info import MAX_ADDRESSES, PeerInfo
from registry.codes import Code
from registry.errors import HostingRefused, InvalidValue, NotPermitted
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.host_health import HostHealth
from registry.health.hosts_for_clients import HostsForClients
from registry.health.messages import REPORT_HEALTH, ReportBody, ToldStanding
from registry.health.report import HealthReport, encode_report
from registry.model.decoding import decode_state
from registry.model.history import HistoryEvent
from registry.model.values import Key, Record, RecordMetadata, encode
from registry.model.verification import record_is_genuine
from registry.protocol.error_info import ErrorInfo, retry_after
from registry.protocol.messages import COUNTERSIGN, CountersignBody, Item, WriteOutcome, build
from registry.protocol.network import Network
from registry.quorum.listing import IndexReader, ListOutcome
from registry.quorum.read import Reader
from registry.quorum.read_machine import ReadOutcome
from registry.quorum.write import Writer
from registry.replica.countersign import Countersigner
from registry.replication.entering import Entering
from registry.service.remote_invocation import Invocation
from registry.upkeep.schedule import ScheduleStatus

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

ALIKE_AFTER: Final = 6.0  # seconds, in which all dials of a peer fail; whoever takes longer is told at twice that

_NOT_REACHED: Final = (Unreachable, CallTimeout, ProtocolError, ProtocolNotSupported)

RunSchedule = Callable[[str], Awaitable[ScheduleStatus]]
"""Runs the schedule of this name now. Raises InvalidValue for an unknown one."""
HistorySource = Callable[[str, str, float], Awaitable[list[HistoryEvent]]]
"""What happened to the resource of an id, oldest first, for a light client, empty for this node itself, which waits so
many seconds."""


class LocalNode:
    """The `NodeApi` of a full node, which acts through itself."""

    def __init__(
        self,
        network: Network,
        writer: Writer,
        reader: Reader,
        index_reader: IndexReader,
        entering: Entering,
        countersigner: Countersigner,
        health: HostHealth,
        health_of_hosts: HealthOfHosts,
        hosts_for_clients: HostsForClients,
        invocation: Invocation,
        neighbourhood_size: int,
        status: StatusSource,
        history: HistorySource,
        run_schedule: RunSchedule,
        operators: Collection[str] = (),
    ) -> None:
        """`operators`: the peers that may run schedules, besides the node itself."""
        self.peer_id = network.peer_id
        self._network = network
        self._writer = writer
        self._reader = reader
        self._index_reader = index_reader
        self._entering = entering
        self._countersigner = countersigner
        self._health = health
        self._health_of_hosts = health_of_hosts
        self._hosts_for_clients = hosts_for_clients
        self._invocation = invocation
        self._neighbourhood_size = neighbourhood_size
        self._status = status
        self._history = history
        self._operators = frozenset((*operators, network.peer_id))
        self._run_schedule = run_schedule

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        """See `NodeApi.write`."""
        with TRACING.part("write to replicas", resource=item.key_id, factor=factor):
            outcome = await self._writer.write(item, factor=factor, timeout=timeout)
        if item.state is None and outcome.stored >= max(factor, 1):
            self._index_reader.remember(item)
            self._entering.enter_written(item)
        return outcome

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        """See `NodeApi.read`."""
        return await self._reader.read(key_id, ack=ack, timeout=timeout, key_suffices=key_suffices)

    async def list_resources(
        self, owner_peer_id: str, after: str | None, *, limit: int, ack: int, timeout: float
    ) -> ListOutcome:
        """See `NodeApi.list_resources`."""
        return await self._index_reader.page(owner_peer_id, after, limit=limit, ack=ack, timeout=timeout)

    async def countersign(
        self, key: Key, metadata: RecordMetadata, *, timeout: float, caller: str | None = None
    ) -> Record:
        """See `NodeApi.countersign`. `caller`: the peer that calls, None for this node."""
        if metadata.peer_id == self.peer_id:
            return await self._countersigner.countersign(key, metadata)
        return await ask_to_countersign(self._network, key, metadata, timeout=timeout, for_stranger=caller is not None)

    async def report_health(self, report: HealthReport, *, timeout: float, caller: str | None = None) -> None:
        """See `NodeApi.report_health`. `caller`: the peer that calls, None for this node."""
        if report.peer_id == self.peer_id:
            await self._health.take(report)
            return
        body = build(ReportBody(encode_report(report)))
        await _ask_host(
            self._network, report.peer_id, REPORT_HEALTH, body, timeout=timeout, for_stranger=caller is not None
        )

    async def hosts(
        self, hosts: Sequence[str], seconds: float, *, timeout: float, caller: str
    ) -> tuple[ToldStanding, ...]:
        """What this node knows of hosts, for a light client, which is told for so many seconds what changes. Raises
        NotPermitted where it follows too many."""
        return await self._hosts_for_clients.follow(caller, hosts, seconds, timeout)

    async def complain(
        self,
        host: str,
        *,
        timeout: float,  # noqa: ARG002 - at once
        caller: str,
    ) -> None:
        """A light client couldn't reach a host that it follows here, so that it is looked at now."""
        await trio.lowlevel.checkpoint()
        if self._hosts_for_clients.may_complain(caller, host):
            self._health_of_hosts.complain(host, client=caller)

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:  # noqa: ARG002 - the lookup has its own
        """See `NodeApi.neighbours`."""
        found = await self._network.neighbourhood(resource_id, self._neighbourhood_size)
        return found[: self._neighbourhood_size]

    async def peer_infos(self, resource_id: str, *, timeout: float) -> list[PeerInfo]:
        """See `NodeApi.peer_infos`."""
        peers = await self.neighbours(resource_id, timeout=timeout)
        return [PeerInfo(peer_id, tuple(self._network.addresses_of(peer_id)[:MAX_ADDRESSES])) for peer_id in peers]

    async def service(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        timeout: float,  # noqa: ARG002 - the disk answers when it does
        caller: str | None = None,
    ) -> Any:
        """See `NodeApi.service`. `caller`: the peer that calls, None for this node."""
        return await self._invocation.call(self.peer_id if caller is None else caller, function, arguments)

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        """See `NodeApi.progress`."""
        return await self._writer.progress(write_id, timeout=timeout)

    async def status(self, *, timeout: float) -> NodeStatus:  # noqa: ARG002 - at once
        """See `NodeApi.status`."""
        return await self._status()

    async def run_schedule(
        self,
        name: str,
        *,
        timeout: float,  # noqa: ARG002 - it takes the time that it takes
        caller: str | None = None,
    ) -> ScheduleStatus:
        """See `NodeApi.run_schedule`. `caller`: the peer that calls, None for this node."""
        if caller is not None and caller not in self._operators:
            raise NotPermitted(f"the schedule {name[:64]}")
        return await self._run_schedule(name)

    async def explain(self, key_id: str, *, timeout: float, caller: str | None = None) -> list[HistoryEvent]:
        """See `NodeApi.explain`. `caller`: the peer that calls, None for this node."""
        return await self._history(key_id, caller or "", timeout)


async def ask_to_countersign(
    network: Network, key: Key, metadata: RecordMetadata, *, timeout: float, for_stranger: bool = False
) -> Record:
    """Has a remote peer sign a record as its host. Raises HostingRefused. `for_stranger`: as of `_ask_host`."""
    body = build(CountersignBody(key=encode(key), metadata=encode(metadata)))
    answer = await _ask_host(network, metadata.peer_id, COUNTERSIGN, body, timeout=timeout, for_stranger=for_stranger)
    try:
        record = decode_state(answer) if isinstance(answer, bytes) else None
    except InvalidValue as error:
        info = ErrorInfo.of(error).on(metadata.peer_id)
        raise HostingRefused(info.text, code=info.known_code) from error
    if not isinstance(record, Record) or record.metadata != metadata or not record_is_genuine(record):
        raise HostingRefused(
            f"the answer isn't the record that was asked for, on {metadata.peer_id}", code=Code.BAD_ANSWER
        )
    return record


async def _ask_host(
    network: Network, host: str, method: str, body: object, *, timeout: float, for_stranger: bool
) -> object:
    """What a remote peer answers that is asked as the host of a record. Raises HostingRefused.

    `for_stranger`: that a host wasn't reached is told `ALIKE_AFTER` seconds after the call began, or when `timeout`
    seconds have passed, whatever the cause: a closed port shows at once, and a silent one doesn't.
    """
    began = trio.current_time()
    try:
        return await network.call_anywhere(host, method, body, timeout=timeout)
    except CallFailed as error:
        # Strangers may ask for this: that a port is open or closed, or lets nothing through, looks the same to them.
        _log.debug("a host refused, or wasn't reached", host=host, method=method, error=str(error))
        looks_alike = isinstance(error, _NOT_REACHED) and not isinstance(error, ConnectionLost)
        if looks_alike and for_stranger:
            steps = math.ceil((trio.current_time() - began) / ALIKE_AFTER)
            await trio.sleep_until(began + min(max(steps, 1) * ALIKE_AFTER, timeout))
        info = ErrorInfo.of(Unreachable(host, method) if looks_alike else error).on(host)
        raise HostingRefused(info.text, code=info.known_code, retry_after=retry_after(error)) from error
