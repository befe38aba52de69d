"""The snapshot that a node gives of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from overlay.clock.comparison import ClockVerdict
from overlay.peer import OverlayStatistics
from overlay.pubsub.topics import TopicStatistics
from overlay.rpc.network_upkeep import NetworkStatus
from overlay.rpc.product import PeerVersion
from registry.replication import ReplicationStatus
from registry.upkeep.schedule import ScheduleStatus


class DiskStatus(msgspec.Struct, frozen=True):
    """How full a node's database is (bytes), and what that cost since the node started."""

    used: int
    budget: int
    is_full: bool = False
    """Whether something was refused, or had to give way, and there is no room yet."""
    refused: int = 0
    gave_way: int = 0
    damaged: int = 0
    """Rows that weren't what had been stored there, and were dropped."""


class NodeStatus(msgspec.Struct, frozen=True):
    """A snapshot of a node. `uptime` in seconds; `members` are the live members this node is linked to."""

    peer_id: str
    addresses: tuple[str, ...]
    members: tuple[str, ...]
    keys: int
    records: int
    tombstones: int
    uptime: float
    ready: bool
    overlay: OverlayStatistics | None = None
    caught_up: bool = True
    """Whether this node's answers count yet."""
    lacking: dict[str, int] = {}
    """How many resources this node lacks something of that others may have, by why: codes of `registry.codes`."""
    replication: ReplicationStatus | None = None
    schedules: tuple[ScheduleStatus, ...] = ()
    topics: TopicStatistics | None = None
    subscriptions: int = 0
    """How many pairs of a watcher and a resource this node announces to."""
    watched: int = 0
    """How many resources this node watches, for itself or its clients."""
    sources: dict[str, int] = {}
    """How many subscriptions for them other nodes hold, by their peer ids."""
    disk: DiskStatus | None = None
    particles: dict[str, float] | None = None
    """What the node has done and refused for Aqua's clients, by names; None on a node that doesn't serve them."""
    clock: ClockVerdict | None = None
    """How the node's clock compares with those of peers; while it is off, the node signs nothing new."""
    network: NetworkStatus | None = None
    """How it is in a private network; None where the network isn't private."""
    versions: dict[str, PeerVersion] = {}
    """What this node and each of `members` runs, by peer id; a node from before this was told says nothing."""


StatusSource = Callable[[], Awaitable[NodeStatus]]
"""Takes a snapshot of the node."""
