"""What discovery needs of a routing table: `overlay.libp2p.kad` satisfies it with libp2p's."""

from __future__ import annotations

from typing import Protocol


class RoutingTable(Protocol):
    """The peers to which others that search the network are sent."""

    def __len__(self) -> int:
        """How many are in it."""
        ...

    def known_near(self, position: int, count: int) -> list[str]:
        """The `count` peers in it nearest to a position that didn't fail lately, nearest first."""
        ...

    async def add(self, peer_id: str) -> None:
        """Enter a member, or refresh its entry. A full bucket keeps its older peers as long as they answer."""
        ...

    def remove(self, peer_id: str) -> None:
        """Take a peer out that can't be reached any more."""
        ...

    async def find_members_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        """Ask the peer at a multiaddr, a member or not, for peers near us; remembers their addresses.

        Returns who they are. Raises `CallFailed`, `AddressError`.
        """
        ...

    def note_failure(self, peer_id: str) -> None:
        """A peer couldn't be reached just now: others aren't sent to it, and a newcomer may take its place."""
        ...
