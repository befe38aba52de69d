"""Parts of the keyspace: aligned blocks, and ranges of positions, with what is done to sets of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES


class Block(NamedTuple):
    """The positions from `start` on that share all bits above `height`."""

    start: int
    height: int

    @property
    def end(self) -> int:
        """The first position after it."""
        return self.start + (1 << self.height)

    def __contains__(self, position: object) -> bool:
        return isinstance(position, int) and position >> self.height == self.start >> self.height

    def halves(self) -> tuple[Block, Block]:
        """The two blocks that it consists of."""
        height = self.height - 1
        return Block(self.start, height), Block(self.start | 1 << height, height)


WHOLE = Block(0, POSITION_BITS)


class Range(NamedTuple):
    """Positions from `start` on, before `end`."""

    start: int
    end: int

    @property
    def first_bytes(self) -> bytes:
        """The first position in it, 32 bytes."""
        return self.start.to_bytes(POSITION_BYTES, "big")

    @property
    def last_bytes(self) -> bytes:
        """The last position in it, 32 bytes."""
        return (self.end - 1).to_bytes(POSITION_BYTES, "big")


Ranges = tuple[Range, ...]
"""In order, with gaps between them."""
EVERYWHERE: Ranges = (Range(0, 1 << POSITION_BITS),)


def joined(blocks: Iterable[Block]) -> Ranges:
    """The ranges that blocks, in order, cover together."""
    found: list[Range] = []
    for block in blocks:
        if found and found[-1].end == block.start:
            found[-1] = Range(found[-1].start, block.end)
        else:
            found.append(Range(block.start, block.end))
    return tuple(found)


def intersection(some: Ranges, others: Ranges) -> Ranges:
    """What is in both."""
    found: list[Range] = []
    mine, theirs = iter(some), iter(others)
    one, other = next(mine, None), next(theirs, None)
    while one is not None and other is not None:
        start, end = max(one.start, other.start), min(one.end, other.end)
        if start < end:
            found.append(Range(start, end))
        if one.end < other.end:
            one = next(mine, None)
        else:
            other = next(theirs, None)
    return tuple(found)


def union(*several: Ranges) -> Ranges:
    """What is in any of them."""
    found: list[Range] = []
    for start, end in sorted(part for ranges in several for part in ranges):
        if found and found[-1].end >= start:
            found[-1] = Range(found[-1].start, max(end, found[-1].end))
        else:
            found.append(Range(start, end))
    return tuple(found)


def difference(some: Ranges, others: Ranges) -> Ranges:
    """What is in `some` and not in `others`."""
    bounds = [0, *(bound for part in others for bound in part), 1 << POSITION_BITS]
    gaps = tuple(Range(start, end) for start, end in zip(bounds[::2], bounds[1::2], strict=True) if start < end)
    return intersection(some, gaps)


def covers(ranges: Ranges, position: int) -> bool:
    """Whether a position is in one of the ranges."""
    low, high = 0, len(ranges)
    while low < high:
        middle = (low + high) // 2
        if ranges[middle].end <= position:
            low = middle + 1
        else:
            high = middle
    return low < len(ranges) and ranges[low].start <= position
