"""Whom an attack is against, how fast it goes, and what was done so far."""

from __future__ import annotations

import random
from collections import Counter

import trio
from multiaddr import Multiaddr


class Target:
    """A node, as an attacker knows it: an address, and nothing that isn't public."""

    def __init__(self, address: str, *, seed: int = 0, rate: float = 1.0) -> None:
        """`address`: a TCP multiaddr with `/p2p/`. `rate`: by which all of an attack's own rates are multiplied."""
        self.address = address
        multiaddr = Multiaddr(address)
        self.peer_id = address.rpartition("/p2p/")[2]
        self.host: str = multiaddr.value_for_protocol("ip4")
        self.port = int(multiaddr.value_for_protocol("tcp"))
        self.random = random.Random(seed)
        self.rate = rate
        self.done: Counter[str] = Counter()
        """What the attack did, by words of its own: without any of it, nothing was attacked."""

    def paced(self, per_second: float) -> Pace:
        """For a loop that comes round so many times a second, as far as its body allows."""
        return Pace(1 / (per_second * self.rate))


class Pace:
    """Iterates without an end, with a pause of so many seconds, and never makes up for lost turns."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._due: float | None = None

    def __aiter__(self) -> Pace:
        return self

    async def __anext__(self) -> None:
        now = trio.current_time()
        self._due = now if self._due is None else max(self._due + self._pause, now)
        await trio.sleep_until(self._due)
