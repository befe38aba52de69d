"""What a node says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from overlay.peer import OverlayStatistics


class NodeStatus(msgspec.Struct, frozen=True):
    """A snapshot. `uptime` in seconds; `members` are the live members this node is linked to."""

    peer_id: str
    addresses: tuple[str, ...]
    members: tuple[str, ...]
    keys: int
    records: int
    tombstones: int
    uptime: float
    ready: bool
    overlay: OverlayStatistics | None = None


StatusSource = Callable[[], Awaitable[NodeStatus]]
