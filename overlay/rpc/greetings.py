"""Lets peers into a private network when they greet: for links, and for what holds other protocols back before.

`overlay.membership.gatekeeper` decides. In a network that isn't private everybody is let in, and nothing waits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from cachetools import TTLCache

from overlay.membership.gatekeeper import LINK_FAULTS, Gatekeeper, LinkFault, ShownChain, encoded
from overlay.rpc.protocol import Bye, Hello, Reason
from overlay.tasks import Broadcast, Wakeup

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_MOST_TOLD: Final = 4096
_TOLD_AGAIN: Final = 600.0  # seconds after which the log tells again that a peer isn't let in


class Greetings:
    """Which peers have greeted one peer and were let in."""

    def __init__(self, gatekeeper: Gatekeeper | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self.gatekeeper = gatekeeper or Gatekeeper(())
        self._clock = clock
        self._under_way: Counter[str] = Counter()
        self._decided = Broadcast()
        self._for_clients: set[str] = set()
        self._refused_by_others: TTLCache[str, bool] = TTLCache(_MOST_TOLD, _TOLD_AGAIN)
        self._told: TTLCache[str, LinkFault] = TTLCache(_MOST_TOLD, _TOLD_AGAIN)
        self.changed = Wakeup()
        """Set when chains have to be looked at again, or their ends: for `overlay.rpc.network_upkeep`."""
        self.refused = 0
        """Peers that weren't let in, or were put out, since the start."""

    @property
    def is_private(self) -> bool:
        """Whether peers have to be let in."""
        return self.gatekeeper.is_private

    def time(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def now(self) -> int:
        """Whole seconds since 1970."""
        return int(self._clock())

    def hello(self, plain: Hello) -> Hello:
        """Our hello with what we show."""
        if not self.is_private:
            return plain
        return msgspec.structs.replace(plain, chain=encoded(self.gatekeeper.own_chain), time=self.now())

    def check(self, peer_id: str, hello: Hello) -> Bye | None:
        """Let a peer in that said hello, or return the bye for it."""
        if not self.is_private:
            return None
        # Who is in as a member stays one: a second link as a light client would spare it from being put out in time.
        before = self.gatekeeper.shown_by(peer_id)
        shown = ShownChain(hello.chain, hello.member or (before is not None and before.member))
        fault = self.gatekeeper.fault_of(peer_id, shown, self.now(), told=hello.time or None)
        if fault is not None:
            return self.refusal(peer_id, fault)
        self.gatekeeper.let_in(peer_id, shown)
        self.changed.set()  # its chain may be the first to end
        self._decided.send()
        return None

    def refusal(self, peer_id: str, fault: LinkFault) -> Bye:
        """The bye for a peer that isn't let in, or not any more."""
        self.refused += 1
        tell = log.debug if self._told.get(peer_id) is fault else log.info
        self._told[peer_id] = fault
        tell("a peer isn't let into this private network", peer=peer_id, code=fault.value)
        return Bye(Reason.NOT_ADMITTED, why=fault.value)

    def note_refused(self, peer_id: str, fault: LinkFault | None) -> None:
        """A peer doesn't let us in."""
        code = fault.value if fault is not None else "unknown"
        if code not in self._refused_by_others:
            self._refused_by_others[code] = True
            remedy = LINK_FAULTS[fault] if fault is not None else ""
            log.warning("a private network doesn't let this peer in", peer_id=peer_id, code=code, remedy=remedy)

    def began(self, peer_id: str) -> None:
        """A greeting with a peer is under way."""
        self._under_way[peer_id] += 1

    def ended(self, peer_id: str) -> None:
        """A greeting ended, one way or the other."""
        self._under_way[peer_id] -= 1
        if self._under_way[peer_id] <= 0:
            del self._under_way[peer_id]
        self._decided.send()

    def open_to_clients(self, protocol_id: str) -> None:
        """A protocol is for light clients that know no greeting: where they are free, it isn't held back."""
        self._for_clients.add(protocol_id)

    @property
    def client_protocols(self) -> frozenset[str]:
        """The protocols that peers may use that weren't let in."""
        return frozenset(self._for_clients) if self.gatekeeper.clients == "free" else frozenset()

    def is_in(self, peer_id: str) -> bool:
        """Whether anything but the greeting may be said to a peer, and heard from it."""
        return not self.is_private or self.gatekeeper.is_in(peer_id)

    async def wait_in(self, peer_id: str) -> bool:
        """Whether a peer is let in, once a greeting that is under way has ended."""
        while not self.is_in(peer_id) and self._under_way[peer_id]:
            await self._decided.wait()
        return self.is_in(peer_id)

    async def wait_until_in(self, peer_id: str, *, while_there: Callable[[], bool]) -> bool:
        """Wait until a peer is let in; False once it isn't there any more: whoever notices calls `forget`."""
        while not self.is_in(peer_id):
            if not while_there():
                return False
            await self._decided.wait()
        return True

    def forget(self, peer_id: str) -> None:
        """A peer has no connection any more."""
        self.gatekeeper.forget(peer_id)
        self._decided.send()
