"""Where members crowd together more than chance explains, and who keeps what lies there.

Whoever makes keys until some lie near a resource can take all its nearest places. So a neighbourhood that is much
denser than the network isn't left to its nearest members alone. Rules (`CROWD` = 20 members; N: the network's size):
1. A position is *dense* when the `CROWD`-th member nearest to it is nearer than a part of the distance that N lets
   expect, `CROWD` / N of the keyspace. It is written and read as dense below `BEGINS` of it, and kept as dense below
   `ENDS`: what wavers between is moved nowhere. Whoever is sent something takes it below `TAKEN`, since estimates of N
   differ.
2. The *region* of a dense position is the smallest aligned subtree around it that N lets expect `CROWD` members in. All
   members there are responsible; a subtree twice as large takes what it is sent.
3. N comes from our own verified links alone, and from keyspace that is known completely. Each of its cells counts
   once, however many members are in it: keys ground close together fill few cells. It is held until it has changed by
   `STEADY`, so that a member that comes or goes moves nothing.
4. Of a region those others that are written to and asked are drawn evenly over its keyspace, not over its members.
   Keys ground close together have little of it.

Distances are rounded down to `DIGITS` leading bits: then the same members are within one of them everywhere in an
aligned block that isn't much smaller, and replicas can tell by blocks of positions who keeps them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from msgspec import Struct

from overlay.discovery.keyspace import POSITION_BITS

CROWD: Final = 20
MOST_OTHERS: Final = 44
"""Members of a region that are written to and asked, beyond the nearest."""
BEGINS: Final = 0.5
ENDS: Final = 0.7
TAKEN: Final = 1.0
STEADY: Final = 1.25
DIGITS: Final = 3
HALF_FULL: Final = 0.5


class Crowding(Struct, frozen=True):
    """A position with `CROWD` members nearer than `within` is dense; its region has others whose positions differ from
    it in the last `height` bits."""

    within: int
    height: int
    linked: int = 0
    """Bits of the subtree around a member in which it links everybody, be its home smaller."""


class Density(Struct, frozen=True):
    """What a network of `size` members lets expect."""

    size: float

    def crowding(self, part: float, *, wider: int = 0) -> Crowding:
        """What is dense below a part of what is expected (`BEGINS`, `ENDS`, `TAKEN`), with regions that are larger by
        so many bits."""
        return Crowding(self.distance(part), min(self.height + wider, POSITION_BITS), self.height)

    def distance(self, part: float) -> int:
        """Below which the `CROWD`-th nearest member makes a position dense."""
        if self.size <= CROWD * part:
            return 1 << POSITION_BITS
        distance = int(part * CROWD / self.size * 2.0**POSITION_BITS)
        rounded_off = max(distance.bit_length() - DIGITS, 0)
        return distance >> rounded_off << rounded_off

    @property
    def height(self) -> int:
        """Of a region: bits in which its members' positions may differ from the dense one."""
        return POSITION_BITS - max(math.floor(math.log2(max(self.size, 1.0) / CROWD)), 0)

    def is_dense(self, position: int, members: Iterable[int], part: float = BEGINS) -> bool:
        """Whether `CROWD` of the members, given by their positions, are so near to a position."""
        distance = self.distance(part)
        return sum(member ^ position < distance for member in members) >= CROWD

    def region(self, position: int, members: Mapping[str, int]) -> list[str]:
        """The members in the region of a position."""
        height = self.height
        return [member for member, at in members.items() if (at ^ position).bit_length() <= height]


def keepers(position: int, members: Mapping[str, int], count: int, density: Density, part: float = ENDS) -> list[str]:
    """The members, of those given with positions, that keep what is at `position`: the `count` nearest, nearest first,
    and, where it is dense, the others of its region."""
    ranked = sorted(members, key=lambda member: members[member] ^ position)
    if len(ranked) <= count or not density.is_dense(position, members.values(), part):
        return ranked[:count]
    region = set(density.region(position, members))
    return ranked[:count] + [member for member in ranked[count:] if member in region]


def drawn(members: Mapping[str, int], around: int, height: int, count: int, randomness: random.Random) -> list[str]:
    """Up to `count` of the members of a subtree, those nearest to random positions in it, in the order drawn."""
    left, found = dict(members), list[str]()
    while left and len(found) < count:
        position = around ^ randomness.getrandbits(height)
        member = min(left, key=lambda name: left[name] ^ position)
        found.append(member)
        del left[member]
    return found


def estimated_size(positions: Collection[int], heights: Collection[int]) -> float:
    """How many members the network has, by those that disjoint subtrees of these heights hold, all of whose positions
    are given. Cells that several members share count once (linear counting)."""
    occupied, cells = 0, 1
    for height in reversed(range(min(heights))):
        cells = sum(1 << of - height for of in heights)
        occupied = len({position >> height for position in positions})
        if occupied <= HALF_FULL * cells:
            break
    share = sum(2.0 ** (height - POSITION_BITS) for height in heights)
    return -cells * math.log1p(-min(occupied / cells, HALF_FULL)) / share


class SteadySize:
    """A size that stays as it is until the estimate has left it by `STEADY`."""

    def __init__(self) -> None:
        self.value = 1.0

    def note(self, estimate: float) -> float:
        """The size to go by, now that it is estimated so."""
        if not self.value / STEADY <= estimate <= self.value * STEADY:
            self.value = estimate
        return self.value
