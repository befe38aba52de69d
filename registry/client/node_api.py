"""The node API: what a user of the registry needs of the node that it acts through.

A full node acts through itself (`LocalNode`); a light client through remote nodes (`registry.client.light`). Writes are
signed before they come here: a node can withhold, but never forge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol

from overlay.errors import CallFailed
from registry.client.status import NodeStatus, StatusSource
from registry.errors import HostingRefused, InvalidValue, NotPermitted
from registry.model.history import HistoryEvent
from registry.model.values import Key, Record, RecordMetadata, decode_state, encode
from registry.model.verification import record_is_genuine
from registry.protocol.messages import COUNTERSIGN, CountersignBody, Item, PeerInfo, WriteOutcome, build
from registry.protocol.network import Network
from registry.quorum.read import Reader
from registry.quorum.read_machine import ReadOutcome
from registry.quorum.write import Writer
from registry.replica.countersign import Countersigner
from registry.service.invocation import Invocation
from registry.upkeep.schedule import ScheduleStatus

RunByHand = Callable[[str], Awaitable[ScheduleStatus]]
HistorySource = Callable[[str], Awaitable[list[HistoryEvent]]]


class NodeApi(Protocol):
    """One node, or several of which one answers. Everything raises DoorClosed when none does; times in seconds."""

    @property
    def peer_id(self) -> str:
        """The node acted through; of a light client, the one that answered last."""
        ...

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        """Sends a signed write to the neighbourhood; see `Writer.write`."""
        ...

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        """Reads a resource from the neighbourhood; see `Reader.read`."""
        ...

    async def host(self, key: Key, metadata: RecordMetadata, *, timeout: float) -> Record:
        """Has `metadata.peer_id` sign a record as its host. Raises HostingRefused, with the true cause (fault 20)."""
        ...

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        """The peers that keep a resource, nearest first."""
        ...

    async def peer_infos(self, resource_id: str, *, timeout: float) -> list[PeerInfo]:
        """The peers that keep a resource, nearest first, with their addresses."""
        ...

    async def service(self, function: str, arguments: Sequence[Any], *, timeout: float) -> Any:
        """A function of the node's service `registry`; see `Invocation.call`."""
        ...

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        """How far a recent write has come."""
        ...

    async def status(self, *, timeout: float) -> NodeStatus:
        """What the node says of itself."""
        ...

    async def run_schedule(self, name: str, *, timeout: float) -> ScheduleStatus:
        """Runs one of the node's schedules now, for its operator. Raises NotPermitted, InvalidValue."""
        ...

    async def explain(self, key_id: str, *, timeout: float) -> list[HistoryEvent]:
        """What happened on the node to a resource and why, oldest first, as far as it remembers."""
        ...


class LocalNode:
    """A node's own door."""

    def __init__(
        self,
        network: Network,
        writer: Writer,
        reader: Reader,
        host: Countersigner,
        invocation: Invocation,
        neighbourhood_size: int,
        status: StatusSource,
        history: HistorySource,
        operators: Collection[str] = (),
    ) -> None:
        self.peer_id = network.peer_id
        self._network = network
        self._writer = writer
        self._reader = reader
        self._host = host
        self._invocation = invocation
        self._neighbourhood_size = neighbourhood_size
        self._status = status
        self._history = history
        self._operators = frozenset((*operators, network.peer_id))
        self.run_by_hand: RunByHand | None = None

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        return await self._writer.write(item, factor=factor, timeout=timeout)

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        return await self._reader.read(key_id, ack=ack, timeout=timeout, key_suffices=key_suffices)

    async def host(self, key: Key, metadata: RecordMetadata, *, timeout: float) -> Record:
        if metadata.peer_id == self.peer_id:
            return await self._host.host(key, metadata)
        return await ask_host(self._network, key, metadata, timeout=timeout)

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:  # noqa: ARG002 - the lookup has its own
        return await self._network.neighbourhood(resource_id, self._neighbourhood_size)

    async def peer_infos(self, resource_id: str, *, timeout: float) -> list[PeerInfo]:
        peers = await self.neighbours(resource_id, timeout=timeout)
        return [PeerInfo(peer_id, tuple(self._network.addresses_of(peer_id)[:16])) for peer_id in peers]

    async def service(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        timeout: float,  # noqa: ARG002 - the disk answers when it does
        caller: str | None = None,
    ) -> Any:
        return await self._invocation.call(self.peer_id if caller is None else caller, function, arguments)

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:  # noqa: ARG002 - at once
        return self._writer.progress(write_id)

    async def status(self, *, timeout: float) -> NodeStatus:  # noqa: ARG002 - at once
        return await self._status()

    async def run_schedule(
        self,
        name: str,
        *,
        timeout: float,  # noqa: ARG002 - it takes the time that it takes
        caller: str | None = None,
    ) -> ScheduleStatus:
        if caller is not None and caller not in self._operators:
            raise NotPermitted(f"the schedule {name[:64]}")
        if self.run_by_hand is None:
            raise InvalidValue("this node keeps no schedules")
        return await self.run_by_hand(name)

    async def explain(self, key_id: str, *, timeout: float) -> list[HistoryEvent]:  # noqa: ARG002 - the disk answers when it does
        return await self._history(key_id)


async def ask_host(network: Network, key: Key, metadata: RecordMetadata, *, timeout: float) -> Record:
    """Has a remote peer sign a record as its host. Raises HostingRefused."""
    body = CountersignBody(key=encode(key), metadata=encode(metadata))
    try:
        answer = await network.call_anywhere(metadata.peer_id, COUNTERSIGN, build(body), timeout=timeout)
        record = decode_state(answer) if isinstance(answer, bytes) else None
    except CallFailed as error:
        raise HostingRefused(f"{error.reason} on {metadata.peer_id}") from error
    except InvalidValue as error:
        raise HostingRefused(f"{error} on {metadata.peer_id}") from error
    if not isinstance(record, Record) or record.metadata != metadata or not record_is_genuine(record):
        raise HostingRefused(f"the answer isn't the record that was asked for, on {metadata.peer_id}")
    return record
