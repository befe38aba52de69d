"""Which of a resource's providers is called: strategies, and what is remembered of those that failed."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

import trio

from registry.model.values import Record

Strategy = (
    Literal["random", "round robin", "least latency", "weighted"] | Callable[[Sequence[Record]], Sequence[Record]]
)
"""The order in which providers are tried: by name, or a function that puts records in order.

"weighted": at random, in proportion to the number that the record's value is (1 for what is none).
"""

V = TypeVar("V")

AVOIDED_FOR: Final = 30.0  # seconds for which a peer that failed comes last
_REMEMBERED: Final = 4096
_NEWEST: Final = 0.3  # share of the newest in a latency's moving average


class LoadBalancer:
    """Puts providers in order."""

    def __init__(self, randomness: random.Random | None = None) -> None:
        self._randomness = randomness or random.Random()  # noqa: S311 - a choice, not a secret
        self._avoided: OrderedDict[str, float] = OrderedDict()
        self._latencies: OrderedDict[str, float] = OrderedDict()
        self._turns: OrderedDict[str, int] = OrderedDict()

    def order(self, resource_id: str, records: Sequence[Record], strategy: Strategy) -> list[Record]:
        """The records in the order in which to try them, those whose peers failed lately last."""
        by_peer = sorted(records, key=lambda record: (record.metadata.peer_id, record.metadata.issued_by))
        if strategy in ("random", "least latency"):
            self._randomness.shuffle(by_peer)
        if callable(strategy):
            ordered = list(strategy(by_peer))
        elif strategy == "round robin":
            turn = self._turns.pop(resource_id, self._randomness.randrange(max(len(by_peer), 1)))
            _keep(self._turns, resource_id, turn + 1)
            start = turn % len(by_peer) if by_peer else 0
            ordered = by_peer[start:] + by_peer[:start]
        elif strategy == "least latency":  # those never called come first: else they never would be
            ordered = sorted(by_peer, key=lambda record: self._latencies.get(record.metadata.peer_id, 0.0))
        elif strategy == "weighted":
            ordered = sorted(by_peer, key=self._ticket, reverse=True)
        elif strategy == "random":
            ordered = by_peer
        else:
            raise ValueError(f"no strategy {strategy!r}")
        now = trio.current_time()
        return sorted(ordered, key=lambda record: self._avoided.get(record.metadata.peer_id, 0.0) > now)

    def failed(self, peer_id: str) -> None:
        """Avoid the peer for a while."""
        self._avoided.pop(peer_id, None)
        _keep(self._avoided, peer_id, trio.current_time() + AVOIDED_FOR)

    def answered(self, peer_id: str, seconds: float) -> None:
        """Remember how long it took."""
        self._avoided.pop(peer_id, None)
        before = self._latencies.pop(peer_id, seconds)
        _keep(self._latencies, peer_id, before + _NEWEST * (seconds - before))

    def _ticket(self, record: Record) -> float:
        """Weighted choice without replacement (Efraimidis and Spirakis, 2006)."""
        try:
            weight = float(record.metadata.value)
        except ValueError:
            weight = 1.0
        if not 0 < weight < math.inf:
            return -math.inf
        return math.log(self._randomness.random() or 1e-300) / weight


def _keep(remembered: OrderedDict[str, V], key: str, value: V) -> None:
    remembered[key] = value
    if len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
