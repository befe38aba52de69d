"""Who keeps what, as this node sees its neighbours now."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from overlay.discovery.keyspace import peer_position
from registry.protocol.network import Network
from registry.replication.ranges import KeeperBlock, Ranges, keeper_blocks, kept_ranges, shared_ranges, within_reach
from registry.settings import RegistrySettings


class RangeView:
    """Remembers what it computed until the neighbours change."""

    def __init__(self, network: Network, settings: Callable[[], RegistrySettings]) -> None:
        self._network = network
        self._settings = settings
        self._neighbours: frozenset[str] = frozenset()
        self._size = 0
        self._positions: dict[str, int] = {}
        self._blocks: dict[tuple[int, int], tuple[KeeperBlock, ...]] = {}
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
        """The positions of these peers, and of ourselves, in order of the ids."""
        return {peer_id: peer_position(peer_id) for peer_id in sorted({self._network.peer_id, *peer_ids})}

    def shared_with(self, peer_id: str) -> Ranges:
        """What both this node and a neighbour keep."""
        self._refresh()
        if peer_id not in self._neighbours:
            return ()
        return shared_ranges(self._seen(self._size, self._size), self._network.peer_id, peer_id)

    def kept_by(self, peer_id: str) -> Ranges:
        """What a neighbour keeps, as far as this node sees it."""
        self._refresh()
        if peer_id not in self._neighbours:
            return ()
        return kept_ranges(self._seen(self._size, self.reach), peer_id)

    def kept(self) -> Ranges:
        """What this node keeps as one of the replicas."""
        return self._within(self.size)

    def taken(self) -> Ranges:
        """What this node takes from others, being near enough."""
        return self._within(self.reach)

    def _within(self, count: int) -> Ranges:
        self._refresh()
        if count not in self._kept:
            self._kept[count] = kept_ranges(self._seen(count, count), self._network.peer_id)
        return self._kept[count]

    def _seen(self, size: int, reach: int) -> tuple[KeeperBlock, ...]:
        """The blocks in which we are among the `reach` nearest, each with the `size` nearest."""
        if (size, reach) not in self._blocks:
            nearby = within_reach(self.own, self._positions, reach=reach)
            self._blocks[size, reach] = tuple(keeper_blocks(self._positions, size, nearby))
        return self._blocks[size, reach]

    def _refresh(self) -> None:
        neighbours, size = frozenset(self._network.neighbours()), self.size
        if neighbours != self._neighbours or size != self._size or not self._positions:
            self._neighbours, self._size = neighbours, size
            self._positions = self.with_us(neighbours)
            self._blocks.clear()
            self._kept.clear()
