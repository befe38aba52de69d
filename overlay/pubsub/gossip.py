"""What topics need of the gossip below them: `overlay.libp2p.gossip` satisfies it over py-libp2p."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Protocol

LONGEST_TOPIC: Final = 128  # characters of a topic's name


class GossipMessage(Protocol):
    """A message as it came from a neighbour; nothing of it is verified yet."""

    @property
    def topics(self) -> Sequence[str]:
        """The topics that it names; a message of ours has one."""
        ...

    @property
    def payload(self) -> bytes:
        """What was announced."""
        ...

    def is_authentic(self) -> bool:
        """Whether it is signed by the peer that it names as its author. Verifies the signature each time."""
        ...


class Gossip(Protocol):
    """Spreads messages among the peers that subscribed to their topic."""

    async def subscribe(self, topic: str) -> None:
        """Take part in a topic. When cancelled, the topic is left half joined."""
        ...

    async def unsubscribe(self, topic: str) -> None:
        """Take part in it no more. When cancelled, the topic is left half joined."""
        ...

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send a message, signed by this peer, to the neighbours in a topic."""
        ...

    def peers_in(self, topic: str) -> Collection[str]:
        """Ids of the connected peers that are known to have subscribed to a topic."""
        ...

    def backlogged(self, length: int) -> set[str]:
        """Ids of the peers for which at least `length` messages wait to be sent."""
        ...
