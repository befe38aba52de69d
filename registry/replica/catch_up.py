"""Whether this node's answers count: not while it may have missed writes, being just back.

(docs/design.md, Replication.)

Rules:
1. A node that was away, or is new in a network, has caught up when two replicas have completed a comparison with it,
   of two address groups where its neighbours are of so many: one alone could be a liar that keeps all to itself. Or
   `CATCH_UP` seconds after it joined: then it counts all the same, or nodes that all start at once would wait for each
   other.
2. A node that lost all others was away.
3. The first node of a network, with nothing stored, has nothing to catch up with.
"""

from __future__ import annotations

import math
from typing import Final

import structlog
import trio

from overlay.tasks import Broadcast, Wakeup
from registry.protocol.address_groups import AddressGroups
from registry.protocol.network import Network

CATCH_UP: Final = 2.0  # seconds
PATIENCE: Final = CATCH_UP + 0.5  # seconds that an answer waits for catching up

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class CatchUp:
    """`is_caught_up`: from the start, for what has no neighbours: a light client, the first node of a network."""

    def __init__(self, groups: AddressGroups, *, is_caught_up: bool = False) -> None:
        self._groups = groups
        self._is_caught_up = is_caught_up
        self._caught_up = Broadcast()
        self._compared: set[str] = set()  # since this node was away
        self._changed = Wakeup()

    @property
    def is_caught_up(self) -> bool:
        """Whether this node's answers count now."""
        return self._is_caught_up

    async def wait(self) -> bool:
        """Waits until caught up, for a while; whether that is so."""
        with trio.move_on_after(PATIENCE):
            while not self._is_caught_up:
                await self._caught_up.wait()
        return self.is_caught_up

    def note_compared(self, peer_id: str) -> None:
        """A replica has completed a comparison with us."""
        if not self.is_caught_up:
            self._compared.add(peer_id)
            self._changed.set()

    async def run(self, network: Network) -> None:
        """Keeps the rules until cancelled."""
        network.on_membership_change(self._note_change)
        until = math.inf  # when it counts all the same
        while True:
            if network.is_isolated():
                if self.is_caught_up:
                    _log.info("isolated: what this node knows may be outdated from now on")
                    self._is_caught_up = False
                self._compared.clear()
                until = math.inf
            elif not self.is_caught_up:
                until = min(until, trio.current_time() + CATCH_UP)
                is_compared = self._groups.suffices(self._compared, network.neighbours())
                if is_compared or trio.current_time() >= until:
                    _log.info("caught up", by="comparison" if is_compared else "time")
                    self._is_caught_up = True
                    self._caught_up.send()
                    self._compared.clear()
                    until = math.inf
            with trio.move_on_at(until):
                await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()
