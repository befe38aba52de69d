"""The node API: what a user of the registry needs of the node that it acts through.

A full node acts through itself (`registry.client.local_node`); a light client through remote nodes
(`registry.client.remote_node`). Writes are signed before they come here: a node can withhold, but never forge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from registry.client.node_status import NodeStatus
from registry.client.peer_info import PeerInfo
from registry.health.report import HealthReport
from registry.model.history import HistoryEvent
from registry.model.values import Key, Record, RecordMetadata
from registry.protocol.messages import Item, WriteOutcome
from registry.quorum.listing import ListOutcome
from registry.quorum.read_machine import ReadOutcome
from registry.upkeep.schedule import ScheduleStatus


class NodeApi(Protocol):
    """Acts through one node, or through several of which one answers.

    Everything raises NodeUnavailable when none does. Times are in seconds.
    """

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

    async def list_resources(
        self, owner_peer_id: str, after: str | None, *, limit: int, ack: int, timeout: float
    ) -> ListOutcome:
        """Reads a page of an owner's index; see `IndexReader.page`."""
        ...

    async def countersign(self, key: Key, metadata: RecordMetadata, *, timeout: float) -> Record:
        """Has `metadata.peer_id` sign a record as its host. Raises HostingRefused with the true cause
        (docs/design.md, original's fault 20)."""
        ...

    async def report_health(self, report: HealthReport, *, timeout: float) -> None:
        """Brings a signed report to the host that it names. Raises HostingRefused with the true cause."""
        ...

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        """Finds the peers that keep a resource, nearest first."""
        ...

    async def peer_infos(self, resource_id: str, *, timeout: float) -> list[PeerInfo]:
        """Finds the peers that keep a resource, nearest first, with their addresses."""
        ...

    async def service(self, function: str, arguments: Sequence[Any], *, timeout: float) -> Any:
        """Calls a function of the node's service `registry`; see `Invocation.call`."""
        ...

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        """Tells how far a recent write has come; None when the node has forgotten it."""
        ...

    async def status(self, *, timeout: float) -> NodeStatus:
        """Asks for a snapshot of the node."""
        ...

    async def run_schedule(self, name: str, *, timeout: float) -> ScheduleStatus:
        """Runs one of the node's schedules now, for its operator. Raises NotPermitted, InvalidValue."""
        ...

    async def explain(self, key_id: str, *, timeout: float) -> list[HistoryEvent]:
        """Tells what happened on the node to a resource and why, oldest first, as far as it remembers."""
        ...
