"""What a peer needs of the network below it: `overlay.libp2p.host` satisfies it over py-libp2p, and a simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from overlay.discovery.address_book import PeerAddresses
from overlay.presence.dial_outcome import DialOutcome
from overlay.pubsub.admission import Admission
from overlay.pubsub.gossip import Gossip
from overlay.rpc.transport import ByteStream, Transport


class PeerHost(Transport, PeerAddresses, Protocol):
    """What a peer needs of the network below: `overlay.libp2p.host` satisfies it over py-libp2p, and a simulation."""

    @property
    def gossip(self) -> Gossip:
        """What spreads announcements."""
        ...

    @property
    def admission(self) -> Admission:
        """What decides which of others' announcements are let in."""
        ...

    @property
    def dial_failures(self) -> int:
        """Attempts to connect that failed, since the start."""
        ...

    def has_dialled(self, peer_id: str) -> bool:
        """Whether a peer has dialled this host since it started, as far as it remembers."""
        ...

    def connected_peers(self) -> list[str]:
        """Peers with an open connection, members or not."""
        ...

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Connect to the peer that `multiaddr` names and return its id. Raises `Unreachable` or `AddressError`."""
        ...

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> ByteStream:
        """A new stream with `message` on it, to a peer that is known to speak `protocol_id`. Raises `Unreachable`."""
        ...

    async def who_is_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        """The addresses, each with the id of the peer that answers there, that one without an id stands for."""
        ...

    async def can_be_dialled(self, peer_id: str) -> bool:
        """Whether a peer, connected or not, answers at one of its addresses; takes at most a few seconds."""
        ...

    async def probe(self, peer_id: str, timeout: float) -> DialOutcome:
        """Dial a peer to see whether it is there, beside the connections that there are; takes `timeout` at most."""
        ...

    def silence(self, peer_id: str) -> float | None:
        """Seconds since a connected peer's machine sent anything; None where that isn't known."""
        ...

    async def tend_connections(self, is_linked: Callable[[str], bool]) -> None:
        """Close connections without a link whose peers are silent, or idle when there are many, until cancelled."""
        ...
