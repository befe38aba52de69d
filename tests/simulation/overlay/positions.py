"""Positions of simulated members, and who is nearest among them by brute force."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from overlay.discovery.keyspace import POSITION_BITS

KINDS: Final = ("random", "clustered", "exponential", "ground")


def some_positions(count: int, randomness: random.Random, kind: str = "random") -> list[int]:
    """`count` different positions, sorted: evenly random, half of them in a cluster, exponentially nearer to 0, or half
    of them ground to share 30 bits."""
    positions: set[int] = set()
    while len(positions) < count:
        position = randomness.getrandbits(POSITION_BITS)
        if kind == "clustered" and randomness.random() < 0.5:
            position = position >> 10 | 0x2A5 << POSITION_BITS - 10
        elif kind == "exponential":
            position >>= randomness.randrange(POSITION_BITS)
        elif kind == "ground" and len(positions) < count / 2:
            position = position >> 30 | 0x2A5A5A5A << POSITION_BITS - 31
        positions.add(position % 2**POSITION_BITS)
    return sorted(positions)


def within(positions: Sequence[int], target: int, height: int) -> Sequence[int]:
    """Those of the sorted `positions` in the subtree of `height` bits around `target`."""
    low = target >> height << height
    return positions[bisect_left(positions, low) : bisect_left(positions, low + (1 << height))]


def nearest_of(positions: Sequence[int], target: int, count: int) -> list[int]:
    """The `count` of the sorted `positions` nearest to `target`, nearest first."""
    height = max(0, POSITION_BITS - len(positions).bit_length())
    while len(subtree := within(positions, target, height)) < count and height < POSITION_BITS:
        height += 1
    return sorted(subtree, key=lambda position: position ^ target)[:count]
