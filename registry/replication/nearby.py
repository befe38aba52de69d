"""Where in the keyspace a member may be a keeper, by what it sees of the network.

A member sees only those around itself: completely in the smallest aligned subtree around it with `HOME_SIZE` members,
or in one as large as a region where that is more, since ids ground close to it make the former small and leave nobody
between; and in each farther bucket of which it sees anybody (`overlay.discovery.home`). Of others it knows that many
are there. So it knows where it may be a keeper, or be so within some margin, and who is nearer there; blocks farther
away are left out. *Limit*: in a network of more members whose ids leave a bucket beyond both empty, which random ones
don't, what isn't nearer to this member than to that bucket isn't compared by ranges.

Ids that are ground close together are told apart by late bits alone, so far away from them, too, blocks would be cut
until those differ: by the hundred thousand, of 124 members. So `Nearby` ends the cutting `DEEPEST` bits below the home
and below each farther bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from overlay.discovery.density import CROWD, Crowding
from overlay.discovery.home import HOME_SIZE
from overlay.discovery.keyspace import POSITION_BITS
from registry.replication.block_view import NEVER_DENSE, Members, NearestView, nearest_view_of
from registry.replication.ranges import WHOLE, Block

DEEPEST: Final = 10
"""Bits below the home, or a bucket, by which blocks are cut."""
_OURSELVES: Final = ""  # no member has this name


class Crowd(NamedTuple):
    """Members of one view that are near enough to a block to make something in it dense: their positions, in order."""

    crowding: Crowding
    positions: tuple[int, ...]


class Nearby(NamedTuple):
    """Tells of a block whether a member may be among the so many nearest to anything in it, or in a dense region, in
    one of some views of the network. Made by `within_reach`, and halved with the block."""

    own: int
    sides: tuple[tuple[NearestView, int], ...]
    """Per view who is nearest in the block, and the buckets of which it knows nobody."""
    crowds: tuple[Crowd, ...]
    """Those that may make something in the block dense, with ourselves in its region."""
    home_height: int
    """Of the smallest home in any view."""
    deepest: int
    """Bits below the home, or a farther bucket, by which blocks are cut."""

    def is_finest(self, block: Block) -> bool:
        """Whether the block isn't to be cut any more."""
        bucket = max((self.own ^ block.start) >> block.height << block.height, (1 << self.home_height) - 1)
        return block.height <= bucket.bit_length() - self.deepest

    def is_wanted(self, block: Block) -> bool:
        """Whether anything in the block matters."""
        if self.crowds:
            return True
        distance = (self.own ^ block.start) >> block.height
        return any(not unknown >> block.height & distance and self._may_be_in(view) for view, unknown in self.sides)

    def half(self, block: Block) -> Nearby:
        """The same for a half of the block, which is `block`."""
        return self._replace(
            sides=tuple((view.half(block), unknown) for view, unknown in self.sides),
            crowds=_crowds_around(block, self.own, self.crowds),
        )

    def _may_be_in(self, view: NearestView) -> bool:
        return _OURSELVES in view.certain or (self.own, _OURSELVES) in view.undecided


def _crowds_around(block: Block, own: int, crowds: Iterable[Crowd]) -> tuple[Crowd, ...]:
    """Those that may make the block part of a dense region with `own`, with whoever is near enough to it: all of them
    are for the block that it is a half of."""
    height, start = block.height, block.start
    found: list[Crowd] = []
    for crowd in crowds:
        within, positions = crowd.crowding.within, crowd.positions
        if (own ^ start) >> max(height, crowd.crowding.height):
            continue
        if 1 << max((positions[0] ^ start).bit_length(), (positions[0] ^ positions[-1]).bit_length()) <= within:
            found.append(crowd)  # nobody is farther
            continue
        near = [at for at in positions if (at ^ start) >> height << height < within]
        if len(near) >= CROWD:
            found.append(Crowd(crowd.crowding, tuple(near)))
    return tuple(found)


def within_reach(
    own: int, *views: Members, reach: int, crowdings: Sequence[Crowding] = (), deepest: int = DEEPEST
) -> Nearby:
    """Where a member at `own` may be among the `reach` nearest, or in a region by one of `crowdings`, in one of the
    views, each of which has its own: for the functions below."""
    sides, home_height = [], POSITION_BITS
    for view, crowding in zip(views, crowdings or [NEVER_DENSE] * len(views), strict=True):
        home_height = min(home_height, _home_height(own, view.values()))
        members = {member: position for member, position in view.items() if position != own} | {_OURSELVES: own}
        sides.append((nearest_view_of(members, reach), unknown_buckets(own, view.values(), crowding.linked)))
    seen = [{own, *view.values()} for view in views]
    fullest = [positions for positions in seen if not any(positions < more for more in seen)]
    crowds = [
        Crowd(crowding, tuple(sorted(positions)))
        for crowding in dict.fromkeys(crowdings)
        if crowding.within
        for positions in fullest
        if len(positions) >= CROWD
    ]
    return Nearby(own, tuple(sides), _crowds_around(WHOLE, own, crowds), home_height, deepest)


def _home_height(own: int, positions: Iterable[int]) -> int:
    """Bits of the smallest subtree around a member with `HOME_SIZE` members, by those that it sees."""
    buckets = sorted((position ^ own).bit_length() for position in positions if position != own)
    return buckets[HOME_SIZE - 2] if len(buckets) >= HOME_SIZE - 1 else POSITION_BITS


def unknown_buckets(own: int, positions: Iterable[int], linked: int) -> int:
    """The buckets of a member at `own`, as bits, that hold many members of whom its view has none. Bucket i has those
    whose positions differ from its own first at bit i; of the lowest `linked` ones it sees everybody."""
    buckets = sorted((position ^ own).bit_length() - 1 for position in positions if position != own)
    if len(buckets) < HOME_SIZE - 1:
        return 0
    home = buckets[HOME_SIZE - 2] + 1  # with ourselves so many are within
    unknown = (1 << POSITION_BITS) - (1 << max(home, linked))
    for bucket in buckets[HOME_SIZE - 1 :]:
        unknown &= ~(1 << bucket)
    return unknown
