"""How often others may ask for something: a token bucket per peer, for a bounded number of peers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

TRACKED_PEERS: Final = 4096


class Rates:
    """Buckets of the peers that asked last. `rate` per second on average, `burst` at once, both given at each taking:
    they are settings."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, peer_id: str, now: float, *, rate: float, burst: int) -> bool:
        """Takes one token of the peer's; False when it has none. `now` in seconds."""
        bucket = self._buckets.setdefault(peer_id, _Bucket(float(burst), now))
        self._buckets.move_to_end(peer_id)
        if len(self._buckets) > TRACKED_PEERS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(bucket.tokens + max(now - bucket.last, 0.0) * rate, float(burst))
        bucket.last = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


class _Bucket:
    __slots__ = ("last", "tokens")

    def __init__(self, tokens: float, last: float) -> None:
        self.tokens = tokens
        self.last = last
