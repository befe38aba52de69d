"""What peers may use up of something: so much per second on average, so much at once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

_TRACKED_PEERS: Final = 4096


class TokenBuckets:
    """A token bucket per peer, for the peers that used theirs last. Taking beyond it makes a debt."""

    def __init__(self, rate: float, burst: float) -> None:
        """`rate` per second, `burst` at once."""
        self._rate = rate
        self._burst = burst
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how much of `burst`, and when

    def take(self, peer_id: str) -> bool:
        """Take one; False when nothing is left."""
        now = trio.current_time()
        spent = min(self._now(peer_id, now) + 1, 2 * self._burst)
        self._spent[peer_id] = spent, now
        self._spent.move_to_end(peer_id)
        if len(self._spent) > _TRACKED_PEERS:
            self._spent.popitem(last=False)
        return spent <= self._burst

    def debt(self, peer_id: str) -> float:
        """Seconds until there is something to take again; 0 while there is."""
        return max(self._now(peer_id, trio.current_time()) - self._burst, 0.0) / self._rate

    def _now(self, peer_id: str, now: float) -> float:
        spent, since = self._spent.get(peer_id, (0.0, now))
        return max(spent - (now - since) * self._rate, 0.0)
