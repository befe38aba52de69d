"""Who keeps what, as this node sees its neighbours now."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from overlay.discovery.density import ENDS, TAKEN, Crowding, Density
from overlay.discovery.keyspace import peer_position
from registry.protocol.network import Network
from registry.replication.keepers import Found, Steps, kept_ranges, shared_ranges
from registry.replication.ranges import Ranges
from registry.settings import RegistrySettings


class RangeView:
    """Remembers what it computed until the neighbours change."""

    def __init__(self, network: Network, settings: Callable[[], RegistrySettings]) -> None:
        self._network = network
        self._settings = settings
        self._neighbours: frozenset[str] = frozenset()
        self._size = 0
        self._density: Density | None = None
        self._positions: dict[str, int] = {}
        self._shared: dict[str, Ranges] = {}
        self._taken: Ranges | None = None
        self._computing = trio.Lock()  # whoever waits finds it computed

    @property
    def size(self) -> int:
        """Replicas of a resource."""
        return self._settings().neighbourhood_size

    @property
    def reach(self) -> int:
        """A member takes what it is among so many nearest to, and more where members crowd."""
        settings = self._settings()
        return settings.neighbourhood_size + settings.responsibility_margin

    @property
    def crowding(self) -> Crowding:
        """Around what all members of a region are replicas."""
        return self._network.density().crowding(ENDS)

    @property
    def own(self) -> int:
        """Our own position."""
        return peer_position(self._network.peer_id)

    def with_us(self, peer_ids: Iterable[str]) -> dict[str, int]:
        """The positions of these peers, and of ourselves, in order of the ids."""
        return {peer_id: peer_position(peer_id) for peer_id in sorted({self._network.peer_id, *peer_ids})}

    def rank_near(self, peer_id: str) -> int:
        """How many neighbours are nearer to a peer than we are, that peer left out."""
        at = peer_position(peer_id)
        others = (peer_position(neighbour) for neighbour in self._network.neighbours() if neighbour != peer_id)
        return sum(position ^ at < self.own ^ at for position in others)

    async def shared_with(self, peer_id: str) -> Ranges:
        """What both this node and a neighbour keep."""
        return (await self._all_shared()).get(peer_id, ())

    async def kept_by(self, peer_id: str) -> Ranges:
        """What a neighbour keeps, as far as this node sees it."""
        self._refresh()
        if peer_id not in self._neighbours:
            return ()
        here = self._network.peer_id
        return await in_turns(kept_ranges(self._positions, here, peer_id, self._size, self.reach, self.crowding))

    async def kept(self) -> Ranges:
        """What this node keeps as one of the replicas."""
        return (await self._all_shared())[self._network.peer_id]

    async def taken(self) -> Ranges:
        """What this node takes from others, being near enough."""
        async with self._computing:
            self._refresh()
            positions = self._positions
            if self._taken is not None:
                return self._taken
            here, reach = self._network.peer_id, self.reach
            crowding = self._network.density().crowding(TAKEN, wider=1)
            taken = await in_turns(kept_ranges(positions, here, here, reach, reach, crowding))
            if positions is self._positions:
                self._taken = taken
            return taken

    async def _all_shared(self) -> dict[str, Ranges]:
        async with self._computing:
            self._refresh()
            positions = self._positions
            if self._shared:
                return self._shared
            shared = await in_turns(shared_ranges(positions, self._network.peer_id, self._size, self.crowding))
            if positions is self._positions:
                self._shared = shared
            return shared

    def _refresh(self) -> None:
        seen = frozenset(self._network.neighbours()), self.size, self._network.density()
        if seen != (self._neighbours, self._size, self._density):
            self._neighbours, self._size, self._density = seen
            self._positions = self.with_us(self._neighbours)
            self._shared, self._taken = {}, None


async def in_turns(steps: Steps[Found]) -> Found:
    """What is found in steps, between which other tasks get their turn."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: Found = done.value
            return found
        await trio.lowlevel.checkpoint()
