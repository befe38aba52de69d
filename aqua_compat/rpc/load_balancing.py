"""Chooses which of a resource's providers is called first: strategies, and peers that failed lately."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Final, Literal

import trio
from cachetools import LRUCache, TTLCache

from registry.model.values import Record

Strategy = (
    Literal["random", "round robin", "least latency", "weighted"] | Callable[[Sequence[Record]], Sequence[Record]]
)
"""The order in which providers are tried: by name, or a function that puts records in order.

"weighted": at random, in proportion to the record's value; 1 where that is no number.
"""

AVOIDED_FOR: Final = 30.0  # seconds for which a peer that failed comes last
_REMEMBERED: Final = 4096
_NEWEST: Final = 0.3  # share of the newest in a latency's moving average


class LoadBalancer:
    """Puts providers in order."""

    def __init__(self, randomness: random.Random | None = None) -> None:
        self._randomness = randomness or random.Random()  # noqa: S311 - a choice, not a secret
        self._avoided: TTLCache[str, None] = TTLCache(_REMEMBERED, AVOIDED_FOR, timer=trio.current_time)
        self._latencies: LRUCache[str, float] = LRUCache(_REMEMBERED)
        self._rounds: LRUCache[str, int] = LRUCache(_REMEMBERED)

    def order(self, resource_id: str, records: Sequence[Record], strategy: Strategy) -> list[Record]:
        """The records in the order in which to try them, those whose peers failed lately last."""
        by_peer = sorted(records, key=lambda record: (record.metadata.peer_id, record.metadata.issued_by))
        if strategy in ("random", "least latency"):
            self._randomness.shuffle(by_peer)
        if callable(strategy):
            ordered = list(strategy(by_peer))
        elif strategy == "round robin":
            first = self._rounds.get(resource_id, self._randomness.randrange(max(len(by_peer), 1)))
            self._rounds[resource_id] = first + 1
            start = first % len(by_peer) if by_peer else 0
            ordered = by_peer[start:] + by_peer[:start]
        elif strategy == "least latency":  # those never called come first: else they never would be
            ordered = sorted(by_peer, key=lambda record: self._latencies.get(record.metadata.peer_id, 0.0))
        elif strategy == "weighted":
            ordered = sorted(by_peer, key=self._ticket, reverse=True)
        elif strategy == "random":
            ordered = by_peer
        else:
            raise ValueError(f"no strategy {strategy!r}")
        return sorted(ordered, key=lambda record: record.metadata.peer_id in self._avoided)

    def failed(self, peer_id: str) -> None:
        """Puts a peer last for the next AVOIDED_FOR seconds."""
        self._avoided[peer_id] = None

    def answered(self, peer_id: str, seconds: float) -> None:
        """Notes how long a peer took to answer."""
        self._avoided.pop(peer_id, None)
        before = self._latencies.get(peer_id, seconds)
        self._latencies[peer_id] = before + _NEWEST * (seconds - before)

    def _ticket(self, record: Record) -> float:
        """Weighted choice without replacement (Efraimidis and Spirakis, 2006)."""
        try:
            weight = float(record.metadata.value)
        except ValueError:
            weight = 1.0
        if not 0 < weight < math.inf:
            return -math.inf
        return math.log(self._randomness.random() or 1e-300) / weight
