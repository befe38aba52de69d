"""Neighbourhoods remembered from lookups, so that the resources near one needn't each be looked up.

Whoever answers a lookup tells its whole home when the target lies in it (`overlay.discovery.recursive_machine`): a
subtree of the keyspace with all of its members. The neighbourhood of every position in that subtree is among them. A
region is taken as it is for `FRESH_FOR` seconds; later one of its members is asked by digest first whether it still is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cachetools import TTLCache
from msgspec import Struct

from overlay.discovery.keyspace import POSITION_BITS

BELIEVED_FOR: Final = 300.0
FRESH_FOR: Final = 10.0
MOST_REGIONS: Final = 256


class Region(Struct, frozen=True):
    """All members whose positions differ from `around` only in the last `height` bits."""

    around: int
    height: int
    members: Mapping[str, int]
    checked: float
    """When it was told, or found to be still so."""

    def nearest(self, target: int, count: int) -> list[str]:
        """The `count` members nearest to a position in it, nearest first."""
        ranked = sorted((position ^ target, name) for name, position in self.members.items())
        return [name for _, name in ranked[:count]]


class Regions:
    """What was looked up lately: bounded, and believed for `BELIEVED_FOR` seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds of any clock that doesn't go back."""
        self._clock = clock
        self._regions: TTLCache[tuple[int, int], Region] = TTLCache(MOST_REGIONS, BELIEVED_FOR, timer=clock)

    def __len__(self) -> int:
        return len(self._regions)

    def remember(self, target: int, height: int, members: Mapping[str, int]) -> None:
        """All members whose positions differ from `target` only in the last `height` bits are these, as somebody told.

        Whoever is named but lies elsewhere doesn't count.
        """
        inside = {name: position for name, position in members.items() if (position ^ target).bit_length() <= height}
        self._regions[height, target >> height] = Region(target, height, inside, self._clock())

    def around(self, target: int, count: int) -> Region | None:
        """The region that tells the `count` members nearest to `target`, if one is remembered."""
        for (height, prefix), region in list(self._regions.items()):
            if target >> height == prefix and (len(region.members) >= count or height == POSITION_BITS):
                return region
        return None

    def is_fresh(self, region: Region) -> bool:
        """Whether it may be taken as it is."""
        return self._clock() - region.checked <= FRESH_FOR

    def drop(self, region: Region) -> None:
        """Forgets a region: what was told of it isn't so any more."""
        self._regions.pop((region.height, region.around >> region.height), None)

    def forget(self, member: str) -> None:
        """A member couldn't be reached: the regions that name it are looked up anew."""
        for key in [key for key, region in self._regions.items() if member in region.members]:
            self._regions.pop(key, None)

    def note_member(self, position: int) -> None:
        """A member came up there: the regions around it are looked up anew."""
        for height, prefix in [key for key in self._regions if position >> key[0] == key[1]]:
            self._regions.pop((height, prefix), None)

    def clear(self) -> None:
        """Believe nothing any more, as after an isolation."""
        self._regions.clear()
