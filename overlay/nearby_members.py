"""Who lies near to whom, as presence asks for it (`overlay.presence.liveness.NearbyMembers`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from overlay.discovery.keyspace import peer_position
from overlay.discovery.lookup import Lookup
from overlay.relaying.client_probe import ClientProbe


class NearbyPeers:
    """Members by the lookup, and light clients by their nodes."""

    def __init__(self, lookup: Lookup, probe: ClientProbe, nodes: Callable[[], list[str]]) -> None:
        """`nodes`: those that this peer acts through, where it is a light client."""
        self._lookup = lookup
        self._probe = probe
        self._nodes = nodes

    def members_near(self, peer_id: str, count: int) -> list[str]:
        """The members nearest to a peer but itself, ourselves among them, as far as known; asks nobody."""
        near = self._lookup.known_nearest(peer_position(peer_id), count + 1)
        return [name for name in near if name != peer_id][:count]

    async def find_members_near(self, peer_id: str, count: int) -> list[str]:
        """The same, after asking others where that is needed."""
        near = await self._lookup.nearest(peer_position(peer_id), count + 1)
        return [name for name in near if name != peer_id][:count]

    def home(self) -> list[str]:
        """The linked members around our own position."""
        return self._lookup.neighbours()

    def nodes(self) -> list[str]:
        """The nodes that a light client acts through; none for a member."""
        return self._nodes()

    async def answers_through(self, nodes: Sequence[str], peer_id: str, timeout: float) -> bool:
        """Whether a light client answers through any of these nodes, in a way that none of them can make up."""
        return await self._probe.answers_through(nodes, peer_id, timeout)
