"""Who keeps what, as this node sees its neighbours now."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from overlay.discovery.keyspace import peer_position
from registry.protocol.network import Network
from registry.replication.ranges import Ranges, kept_ranges, shared_ranges
from registry.settings import RegistrySettings


class RangeView:
    """Remembers what it computed until the neighbours change."""

    def __init__(self, network: Network, settings: Callable[[], RegistrySettings]) -> None:
        self._network = network
        self._settings = settings
        self._neighbours: frozenset[str] = frozenset()
        self._size = 0
        self._positions: dict[str, int] = {}
        self._shared: dict[str, Ranges] = {}
        self._kept: dict[int, Ranges] = {}

    @property
    def size(self) -> int:
        """Replicas of a resource."""
        return self._settings().neighbourhood_size

    @property
    def reach(self) -> int:
        """A member takes what it is among so many nearest to."""
        settings = self._settings()
        return settings.neighbourhood_size + settings.responsibility_margin

    @property
    def own(self) -> int:
        """Our own position."""
        return peer_position(self._network.peer_id)

    def with_us(self, peer_ids: Iterable[str]) -> dict[str, int]:
        """The positions of these peers, and of ourselves."""
        return {peer_id: peer_position(peer_id) for peer_id in (self._network.peer_id, *peer_ids)}

    def shared_with(self, peer_id: str) -> Ranges:
        """What both this node and a neighbour keep."""
        self._refresh()
        if peer_id not in self._neighbours:
            return ()
        if peer_id not in self._shared:
            self._shared[peer_id] = shared_ranges(self._positions, self._network.peer_id, peer_id, self._size)
        return self._shared[peer_id]

    def kept_by(self, peer_id: str) -> Ranges:
        """What a neighbour keeps, as far as this node sees it."""
        self._refresh()
        if peer_id not in self._neighbours:
            return ()
        return kept_ranges(self._positions, self._network.peer_id, peer_id, self._size, self.reach)

    def kept(self) -> Ranges:
        """What this node keeps as one of the replicas."""
        return self._within(self.size)

    def taken(self) -> Ranges:
        """What this node takes from others, being near enough."""
        return self._within(self.reach)

    def _within(self, count: int) -> Ranges:
        self._refresh()
        if count not in self._kept:
            here = self._network.peer_id
            self._kept[count] = kept_ranges(self._positions, here, here, count, count)
        return self._kept[count]

    def _refresh(self) -> None:
        neighbours, size = frozenset(self._network.neighbours()), self.size
        if neighbours != self._neighbours or size != self._size or not self._positions:
            self._neighbours, self._size = neighbours, size
            self._positions = self.with_us(neighbours)
            self._shared.clear()
            self._kept.clear()
