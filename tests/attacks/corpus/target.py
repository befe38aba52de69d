"""Whom an attack is against, how fast it goes, and what was done so far."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator

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

    async def paced(self, per_second: float) -> AsyncIterator[None]:
        """Comes round so many times a second, or as often as the loop's body allows; never makes up for lost turns."""
        pause = 1 / (per_second * self.rate)
        due = trio.current_time()
        while True:
            yield
            due = max(due + pause, trio.current_time())
            await trio.sleep_until(due)
