"""Who keeps a block of the keyspace, by one view of the network, and what isn't decided of it yet.

In an aligned block, of 2**height positions, a member's distance is told apart from another's by its bits above
`height`, unless these are equal: so the keepers are the same everywhere in the block when the last of them and the
first who isn't one differ in those bits. A `BlockView` is halved with its block until that is so.

Where members crowd around a position (`overlay.discovery.density`), all others of its region keep it too. Whether
that is so, and who they are, is the same everywhere in a block that is small enough: blocks are cut until it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from overlay.discovery.density import CROWD, Crowding
from registry.replication.ranges import WHOLE, Block

Members = Mapping[str, int]
"""The position of each."""
Keepers = frozenset[str]

NEVER_DENSE = Crowding(0, 0)


class NearestView(NamedTuple):
    """What is known of a block's keepers: those that are nearest everywhere in it, and those among whom it isn't
    decided yet, since they share the bits above the block's height, in order of their positions: `open_places` of them
    are keepers."""

    certain: tuple[str, ...]
    undecided: tuple[tuple[int, str], ...]
    open_places: int

    def half(self, block: Block) -> NearestView:
        """The view of a half of the block, which is `block`."""
        if not self.open_places:
            return self
        last = self.undecided[-1][0]
        if not (self.undecided[0][0] ^ last) >> block.height:  # as in most blocks that are far from a crowd
            return self
        middle = bisect_left(self.undecided, (last >> block.height << block.height, ""))
        lower, upper = self.undecided[:middle], self.undecided[middle:]
        near, far = (upper, lower) if block.start >> block.height & 1 else (lower, upper)
        if len(near) > self.open_places:
            return NearestView(self.certain, near, self.open_places)
        certain = (*self.certain, *(name for _, name in near))
        left = self.open_places - len(near)
        if not left or len(far) <= left:
            return NearestView((*certain, *(name for _, name in far)) if left else certain, (), 0)
        return NearestView(certain, far, left)


class CrowdView(NamedTuple):
    """What is known of whether a block is dense, and of its region: those who may be in it, or near enough to make it
    dense; `is_dense` is None while that, or the region, isn't the same everywhere in it."""

    candidates: tuple[tuple[int, str], ...]
    crowding: Crowding
    is_dense: bool | None = None

    def within(self, block: Block) -> CrowdView:
        """The same for a block in it."""
        if self.is_dense is not None:
            return self
        (within, height), start = (self.crowding.within, self.crowding.height), block.start >> block.height
        farthest = max(within, 1 << height)
        candidates, near, surely_near = [], 0, 0
        for candidate in self.candidates:
            distance = (candidate[0] >> block.height ^ start) << block.height  # from the nearest position of the block
            if distance < farthest:
                candidates.append(candidate)
            near += distance < within
            surely_near += distance + (1 << block.height) <= within
        if near < CROWD:
            return CrowdView((), self.crowding, is_dense=False)
        if block.height > height or surely_near < CROWD:
            return CrowdView(tuple(candidates), self.crowding)
        region = (member for member in candidates if not (member[0] ^ block.start) >> height)
        return CrowdView(tuple(region), self.crowding, is_dense=True)

    def region(self) -> Iterator[str]:
        """Once it is decided: who keeps everything in the block, since it is dense."""
        return (name for _, name in self.candidates)


class BlockView(NamedTuple):
    """What is known of a block's keepers, by one view of the network."""

    view: NearestView
    crowd: CrowdView
    has_nearest_in_region: bool
    """Whether those nearest to what is dense all lie in its region, so that it doesn't matter which they are."""

    @property
    def is_decided(self) -> bool:
        """Whether all positions of the block have the same keepers, so that it needn't be cut."""
        if self.crowd.is_dense and self.has_nearest_in_region:
            return True
        return not self.view.open_places and self.crowd.is_dense is not None

    def half(self, block: Block) -> BlockView:
        """The same for a half of the block, which is `block`."""
        return self._replace(view=self.view.half(block), crowd=self.crowd.within(block))

    def keepers(self) -> Keepers:
        """Once it is decided; before, those that keep everything in the block whatever comes of the rest."""
        if self.crowd.is_dense:
            return frozenset((*self.view.certain, *self.crowd.region()))
        return frozenset(self.view.certain)

    def possible_keepers(self) -> Keepers:
        """The members that may be keepers anywhere in the block."""
        undecided = self.view.undecided if self.view.open_places else ()
        return frozenset((*self.view.certain, *(name for _, name in (*undecided, *self.crowd.candidates))))

    def is_keeper(self, name: str) -> bool | None:
        """Whether a member is one everywhere in the block; None while that differs."""
        view, crowd = self.view, self.crowd
        if name in view.certain or (crowd.is_dense and name in crowd.region()):
            return True
        open_to = (*(view.undecided if view.open_places else ()), *(crowd.candidates if crowd.is_dense is None else ()))
        return None if any(member == name for _, member in open_to) else False


def nearest_view_of(members: Members, size: int) -> NearestView:
    """What is known of the `size` nearest members, of the whole keyspace."""
    if len(members) <= size:
        return NearestView(tuple(members), (), 0)
    return NearestView((), tuple(sorted((position, member) for member, position in members.items())), size)


def block_view_of(members: Members, size: int, crowding: Crowding) -> BlockView:
    """The view of the whole keyspace: what is known of its keepers, where the `size` nearest members keep what isn't
    crowded."""
    view = nearest_view_of(members, size)
    if not view.open_places:
        return BlockView(view, CrowdView((), NEVER_DENSE, is_dense=False), has_nearest_in_region=False)
    has_nearest_in_region = size <= CROWD and crowding.within <= 1 << crowding.height
    return BlockView(view, CrowdView(view.undecided, crowding).within(WHOLE), has_nearest_in_region)
