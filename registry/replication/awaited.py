"""What replicas that compare with this one are still to send: it counts as compared once they said that this was all.

A replica that never says so leaves it behind, so it is bounded: of one replica, and of all together, of whom those that
compared longest ago are forgotten first. What is forgotten is compared again by others, or within the hour.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

What = TypeVar("What", bound=Hashable)


class Awaited(Generic[What]):
    """What each replica still has to send, in the order in which it was added."""

    def __init__(self, most: int, most_of_one: int) -> None:
        """In the sizes that `add` is told."""
        self._most = most
        self._most_of_one = most_of_one
        self._of: OrderedDict[str, OrderedDict[What, int]] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.total = 0
        """The sizes of all."""

    def add(self, peer_id: str, what: What, size: int = 1) -> None:
        """Remember it; what is older gives way."""
        of = self._of.setdefault(peer_id, OrderedDict())
        self._of.move_to_end(peer_id)
        if what not in of:
            of[what] = size
            self._change(peer_id, size)
        while self._sizes.get(peer_id, 0) > self._most_of_one:
            _, gone = of.popitem(last=False)
            self._change(peer_id, -gone)
        while self.total > self._most:
            self.take(next(iter(self._of)))

    def take(self, peer_id: str) -> list[What]:
        """Takes out, and returns, all that was awaited of a replica."""
        taken = list(self._of.pop(peer_id, ()))
        self.total -= self._sizes.pop(peer_id, 0)
        return taken

    def _change(self, peer_id: str, size: int) -> None:
        self._sizes[peer_id] = self._sizes.get(peer_id, 0) + size
        self.total += size
