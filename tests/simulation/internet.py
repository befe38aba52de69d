"""The network below the overlay, in one process and in virtual time: hosts, connections, streams, and what goes wrong.

Whole peers run over it (`overlay.peer.OverlayPeer`): a `SimulatedHost` is to them what `overlay.libp2p.host.Host` is.
As over TCP, nothing that was written is lost or comes in another order while the connection lasts: lost packets come
later, and what is sent across a partition arrives when it heals, if both sides have waited for it. Connections break,
and hosts end: those whose process was killed reset their connections, those that lost their power say nothing.

All that is random comes from one source, so that a scenario can be repeated exactly.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from overlay.discovery.keyspace import peer_position
from overlay.tasks import Broadcast, Wakeup

if TYPE_CHECKING:
    from tests.simulation.host import SimulatedHost

FARTHEST: Final = 0.03
"""Seconds that a packet takes between the two hosts that are farthest from each other, without jitter."""
RETRANSMISSION: Final = 0.3
"""Seconds until a lost packet is sent again."""
AGAIN: Final = 1.0
"""Seconds until what a partition holds up is sent again."""


class Internet:
    """All hosts, and the way between them."""

    def __init__(self, randomness: random.Random, note: Callable[[str], None] = lambda event: None) -> None:
        self.hosts: dict[str, SimulatedHost] = {}
        """Those that are up."""
        self.random = randomness
        self.note = note
        self.loss = 0.0
        """Of packets."""
        self.delay = 0.0
        """Jitter: seconds at most, each way."""
        self.changed = Broadcast()
        """Sent when a host comes up, or sides change."""
        self._sides: dict[str, int] = {}
        self._apart_since = 0.0
        self.powerless: dict[str, float] = {}
        """Hosts that lost their power, since when; until they are up again."""
        self.messages = 0
        self._addresses: dict[str, str] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._sooner = Wakeup()

    @property
    def sides(self) -> dict[str, int]:
        """Of a partition: hosts on different sides don't reach each other."""
        return self._sides

    @sides.setter
    def sides(self, sides: dict[str, int]) -> None:
        self._sides, self._apart_since = sides, trio.current_time()
        self.changed.send()

    async def run(self) -> None:
        """Have everything arrive, until cancelled."""
        while True:
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):
                await self._sooner.wait()

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Call `act()` at that time."""
        if not self._due or moment < self._due[0][0]:
            self._sooner.set()
        heapq.heappush(self._due, (moment, next(self._numbers), act))

    def address_of(self, peer_id: str) -> str:
        """The multiaddr at which a host listens, in each of its lives, without its id."""
        number = len(self._addresses)
        return self._addresses.setdefault(peer_id, f"/ip4/10.0.{number >> 8}.{number & 255}/tcp/4001")

    def takes(self, one: str, other: str) -> float:
        """Seconds that a packet takes from one host to another this time, with its retransmissions."""
        apart = ((peer_position(one) ^ peer_position(other)) & 0xFF) / 0xFF
        seconds = apart * FARTHEST + self.random.uniform(0, self.delay)
        while self.loss and self.random.random() < self.loss:
            seconds += RETRANSMISSION
        return seconds

    def are_apart(self, one: str, other: str) -> bool:
        """Whether a partition separates two hosts."""
        return bool(self._sides) and self._sides.get(one, 0) != self._sides.get(other, 0)

    def silent_since(self, one: str, other: str) -> float | None:
        """Since when the kernel of one host has heard nothing of the other's machine; None while it acknowledges."""
        since = self.powerless.get(other)
        return max(self._apart_since, since or 0.0) if self.are_apart(one, other) else since

    def host_at(self, address: str, peer_id: str) -> SimulatedHost | None:
        """The host that is up at an address, if it is the peer's."""
        return self.hosts.get(peer_id) if self._addresses.get(peer_id) == address else None

    def alive(self) -> list[str]:
        """The ids of all that are up."""
        return list(self.hosts)

    def membership_changed(self) -> None:
        """Everybody notices by itself, sooner or later."""

    def break_some(self) -> None:
        """Break a connection, as a router that forgets it does: both ends notice."""
        host = self.random.choice(list(self.hosts.values()))
        if host.connections:
            self.random.choice(list(host.connections.values())).break_off()
