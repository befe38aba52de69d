"""Neighbourhoods remembered from lookups, so that the resources near one needn't each be looked up.

A lookup asks for `ASK_FOR` members. Those within the subtree one level below the farthest of them are all that there
are in it; where they are at least k, the neighbourhood of every position in that subtree is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cachetools import TTLCache
from msgspec import Struct

from overlay.discovery.keyspace import POSITION_BITS

ASK_FOR: Final = 48
BELIEVED_FOR: Final = 300.0
MOST_REGIONS: Final = 256


class Region(Struct, frozen=True):
    """All members whose positions differ from `around` only in the last `height` bits."""

    around: int
    height: int
    members: Mapping[str, int]


class Regions:
    """What was looked up lately: bounded, and believed for `BELIEVED_FOR` seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds of any clock that doesn't go back."""
        self._regions: TTLCache[tuple[int, int], Region] = TTLCache(MOST_REGIONS, BELIEVED_FOR, timer=clock)

    def __len__(self) -> int:
        return len(self._regions)

    def remember(self, target: int, members: Mapping[str, int], least: int) -> Region | None:
        """The region that a lookup around `target` found, if at least `least` of its members are in it.

        `members`: those found, with their positions; when fewer than `ASK_FOR` were found, they're all that there are.
        """
        distances = sorted(position ^ target for position in members.values())
        height = distances[-1].bit_length() - 1 if len(distances) >= ASK_FOR else POSITION_BITS
        inside = {name: position for name, position in members.items() if (position ^ target).bit_length() <= height}
        if height < 0 or len(inside) < min(least, len(members)):
            return None
        region = self._regions[height, target >> height] = Region(target, height, inside)
        return region

    def nearest(self, target: int, count: int) -> list[str] | None:
        """The `count` members nearest to `target`, nearest first, if a region that is remembered tells; else None."""
        for (height, prefix), region in list(self._regions.items()):
            if target >> height == prefix and (len(region.members) >= count or height == POSITION_BITS):
                ranked = sorted((position ^ target, name) for name, position in region.members.items())
                return [name for _, name in ranked[:count]]
        return None

    def forget(self, member: str) -> None:
        """A member couldn't be reached: the regions that name it are looked up anew."""
        for key in [key for key, region in self._regions.items() if member in region.members]:
            self._regions.pop(key, None)

    def clear(self) -> None:
        """Believe nothing any more, as after an isolation."""
        self._regions.clear()
