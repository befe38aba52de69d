"""What the registry needs of the network: satisfied by `overlay.OverlayPeer`, and by a simulation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from overlay.clock.comparison import ClockVerdict
from overlay.discovery.density import Density
from overlay.pubsub.topics import Validator

Handler = Callable[[str, object], Awaitable[object]]
"""(peer id of the caller, authenticated; body) -> body. Bodies are CBOR-able Python values."""

Clock = Callable[[], float]
"""Seconds since 1970."""


class TopicNetwork(Protocol):
    """Announcements to whoever joined a topic: satisfied by `overlay.pubsub.topics.Topics`."""

    async def join(self, topic: str, validate: Validator) -> bool:
        """One use of a topic more; False when this peer can't be in it. `validate` decides what becomes of what others
        announce there."""
        ...

    def leave(self, topic: str) -> None:
        """Ends one use of a topic; the last one leaves it."""
        ...

    def peers_in(self, topic: str) -> Collection[str]:
        """The connected peers that are known to be in a topic."""
        ...

    async def announce(self, topic: str, payload: bytes) -> None:
        """Tells everybody in a topic."""
        ...


class ComparedClock(Protocol):
    """This machine's clock beside those of peers: satisfied by `overlay.clock.watch.ClockWatch`."""

    def verdict(self) -> ClockVerdict:
        """What is known of the clock now."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Has `callback()` called, synchronously, when that has changed."""
        ...

    async def settle(self) -> ClockVerdict:
        """`verdict`, which a peer that has just joined waits a moment for."""
        ...


class Network(Protocol):
    """Peers, addressed by id, and who is near to a resource."""

    @property
    def topics(self) -> TopicNetwork:
        """Joins topics, and announces on them."""
        ...

    @property
    def compared_clock(self) -> ComparedClock:
        """Whether this machine's clock is right."""
        ...

    @property
    def peer_id(self) -> str:
        """Our own peer id (base58)."""
        ...

    async def neighbourhood(self, resource_id: str, count: int) -> list[str]:
        """The `count` nearest live members, nearest first, this one included when it is a member; followed, where
        members crowd around the resource, by others of its region at random."""
        ...

    def is_responsible(self, resource_id: str, count: int, margin: int = 0) -> bool:
        """Whether this member is one of the `neighbourhood` as far as it knows; asks nobody. With a `margin`, also
        beyond it by so many, and by what views of the network may differ."""
        ...

    def density(self) -> Density:
        """How many members the network lets expect anywhere: it tells which resources members crowd around."""
        ...

    def members(self) -> list[str]:
        """The other members that this one is linked to, near or far."""
        ...

    def neighbours(self) -> list[str]:
        """Those of them that may be responsible for what this member is responsible for: they come and go with the
        network, while the link to any other may be closed to save it."""
        ...

    def hold(self, peer_id: str) -> None:
        """Keeps the link to a peer open until `release`, for what comes over it without being asked for."""
        ...

    def release(self, peer_id: str) -> None:
        """Undoes one `hold`."""
        ...

    def addresses_of(self, peer_id: str) -> list[str]:
        """Where a peer may be reached, as far as known (multiaddrs); what this one tells others of itself."""
        ...

    def add_addresses(self, peer_id: str, addresses: list[str], *, teller: str = "") -> None:
        """Where a peer may be reached, as `teller` says."""
        ...

    def on_membership_change(self, callback: Callable[[], None]) -> None:
        """Has `callback()` called whenever a member came or went, or `neighbours` tells others."""
        ...

    def is_isolated(self) -> bool:
        """Whether this peer should have company and has none."""
        ...

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Calls `method` of a peer. Raises `overlay.errors.CallFailed`."""
        ...

    async def call_anywhere(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """The same for peers that can't be dialled, and methods served with `relayed`."""
        ...

    def serve(self, method: str, handler: Handler, *, relayed: bool = False) -> None:
        """Answers calls of `method`; the handler may raise `overlay.errors.Refusal`. `relayed`: also through relays."""
        ...
