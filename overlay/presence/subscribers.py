"""Which replicas want to be told of which host, at one keeper of it; bounded for each host and in all. Pure."""

from __future__ import annotations

import math

from overlay.presence.timings import MOST_SUBSCRIBERS, MOST_SUBSCRIPTIONS, SUBSCRIPTION, SUBSCRIPTIONS_LOOKED_AT


class Subscribers:
    """Those of all hosts. What has ended is dropped when a place is wanted."""

    def __init__(self) -> None:
        self._until: dict[str, dict[str, float]] = {}  # per host, when each subscription ends
        self._count = 0
        self._all_looked_at = -math.inf

    def of(self, host: str, now: float) -> list[str]:
        """Who is told of a host now."""
        return [name for name, until in self._until.get(host, {}).items() if now < until]

    def add(self, replica: str, host: str, seconds: float, now: float) -> None:
        """A replica is told of a host for so long, if there is a place for it."""
        if replica not in self._until.get(host, {}):
            self._drop_ended(host, now)
            if self._count >= MOST_SUBSCRIPTIONS and now - self._all_looked_at >= SUBSCRIPTIONS_LOOKED_AT:
                self._all_looked_at = now  # it takes tens of milliseconds, and peers have it done
                for each in list(self._until):
                    self._drop_ended(each, now)
        known = self._until.get(host, {})
        has_room = len(known) < MOST_SUBSCRIBERS and self._count < MOST_SUBSCRIPTIONS
        if has_room or replica in known:
            self._count += replica not in known
            self._until.setdefault(host, {})[replica] = now + min(seconds, SUBSCRIPTION)

    def drop_host(self, host: str) -> None:
        """Nobody is told of a host any more."""
        self._count -= len(self._until.pop(host, {}))

    def _drop_ended(self, host: str, now: float) -> None:
        before = self._until.pop(host, {})
        kept = {name: until for name, until in before.items() if now < until}
        self._count -= len(before) - len(kept)
        if kept:
            self._until[host] = kept
