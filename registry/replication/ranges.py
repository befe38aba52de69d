"""Which parts of the keyspace have which replicas: pure arithmetic over members' positions.

The *keepers* of a position are the `size` members nearest to it. In an aligned block of the keyspace, of 2**height
positions, a member's distance is told apart from another's by its bits above `height`, unless these are equal: so the
keepers are the same everywhere in the block when the last of them and the first who isn't one differ in those bits.
Blocks in which they don't are cut in half. So the keyspace falls into blocks with keepers each, and what a change of
the members changes is told by the blocks, without looking at a single key (docs/design.md, Replication).

Where members crowd around a position (`overlay.discovery.density`), all others of its region keep it too. Whether
that is so, and who they are, is the same everywhere in a block that is small enough: blocks are cut until it is.

A member sees only those around itself: completely in the smallest aligned subtree around it with `HOME_SIZE` members,
and in each farther bucket of which it sees anybody (`overlay.discovery.home`); of others it knows that many are there.
So it knows where it may be a keeper, or be so within some margin, and who is nearer there; blocks farther away are left
out. *Limit*: in a network of more members whose ids leave a bucket beyond the home empty, which random ones don't, what
is there isn't compared by ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from overlay.discovery.density import CROWD, Crowding
from overlay.discovery.home import HOME_SIZE
from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES

Members = Mapping[str, int]
"""The position of each."""
Keepers = frozenset[str]


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
NEVER_DENSE = Crowding(0, 0)


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


class KeeperBlock(NamedTuple):
    """A block, everywhere in which the same members are nearest."""

    block: Block
    keepers: Keepers


class BlockChange(NamedTuple):
    """A block, everywhere in which the keepers were `before`, and are `after` now."""

    block: Block
    before: Keepers
    after: Keepers


class _View(NamedTuple):
    """What is known of a block's keepers: those that are nearest everywhere in it, and those among whom it isn't
    decided yet, since they share the bits above the block's height: `open_places` of them are keepers."""

    certain: tuple[str, ...]
    undecided: tuple[tuple[int, str], ...]
    open_places: int

    def half(self, block: Block) -> _View:
        """The view of a half of the block, which is `block`."""
        if not self.open_places:
            return self
        wanted = block.start >> block.height & 1
        near: list[tuple[int, str]] = []
        far: list[tuple[int, str]] = []
        for member in self.undecided:
            (near if member[0] >> block.height & 1 == wanted else far).append(member)
        if len(near) > self.open_places:
            return _View(self.certain, tuple(near), self.open_places)
        certain = (*self.certain, *(name for _, name in near))
        left = self.open_places - len(near)
        if not left or len(far) <= left:
            return _View((*certain, *(name for _, name in far)) if left else certain, (), 0)
        return _View(certain, tuple(far), left)


class _Crowd(NamedTuple):
    """What is known of whether a block is dense, and of its region: those who may be in it, or near enough to make it
    dense; `is_dense` is None while that, or the region, isn't the same everywhere in it."""

    candidates: tuple[tuple[int, str], ...]
    crowding: Crowding
    is_dense: bool | None = None

    def within(self, block: Block) -> _Crowd:
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
            return _Crowd((), self.crowding, is_dense=False)
        if block.height > height or surely_near < CROWD:
            return _Crowd(tuple(candidates), self.crowding)
        region = (member for member in candidates if not (member[0] ^ block.start) >> height)
        return _Crowd(tuple(region), self.crowding, is_dense=True)

    def region(self) -> Iterator[str]:
        """Once it is decided: who keeps everything in the block, since it is dense."""
        return (name for _, name in self.candidates)


class _Side(NamedTuple):
    """What is known of a block's keepers, by one view of the network."""

    view: _View
    crowd: _Crowd
    has_nearest_in_region: bool
    """Whether those nearest to what is dense all lie in its region, so that it doesn't matter which they are."""

    @property
    def is_decided(self) -> bool:
        if self.crowd.is_dense and self.has_nearest_in_region:
            return True
        return not self.view.open_places and self.crowd.is_dense is not None

    def half(self, block: Block) -> _Side:
        """The same for a half of the block, which is `block`."""
        return self._replace(view=self.view.half(block), crowd=self.crowd.within(block))

    def keepers(self) -> Keepers:
        """Once it is decided."""
        return frozenset((*self.view.certain, *self.crowd.region()))

    def is_keeper(self, name: str) -> bool | None:
        """Whether a member is one everywhere in the block; None while that differs."""
        view, crowd = self.view, self.crowd
        if name in view.certain or (crowd.is_dense and name in crowd.region()):
            return True
        open_to = (*(view.undecided if view.open_places else ()), *(crowd.candidates if crowd.is_dense is None else ()))
        return None if any(member == name for _, member in open_to) else False


def _view_of(members: Members, size: int) -> _View:
    if len(members) <= size:
        return _View(tuple(members), (), 0)
    return _View((), tuple((position, member) for member, position in members.items()), size)


def _side_of(members: Members, size: int, crowding: Crowding) -> _Side:
    view = _view_of(members, size)
    if not view.open_places:
        return _Side(view, _Crowd((), NEVER_DENSE, is_dense=False), has_nearest_in_region=False)
    has_nearest_in_region = size <= CROWD and crowding.within <= 1 << crowding.height
    return _Side(view, _Crowd(view.undecided, crowding).within(WHOLE), has_nearest_in_region)


_OURSELVES: Final = ""  # no member has this name


class Nearby(NamedTuple):
    """Tells of a block whether a member may be among the so many nearest to anything in it, or in a dense region, in
    one of some views of the network. Made by `within_reach`, and halved with the block."""

    own: int
    sides: tuple[tuple[_View, int], ...]
    """Per view who is nearest in the block, and the buckets of which it knows nobody."""
    crowdings: tuple[Crowding, ...]
    positions: tuple[tuple[int, ...], ...]
    """Of the members of each view, ourselves included."""

    def is_wanted(self, block: Block) -> bool:
        """Whether anything in the block matters."""
        distance = (self.own ^ block.start) >> block.height
        return any(
            not unknown >> block.height & distance and self._may_be_in(view) for view, unknown in self.sides
        ) or any(self._may_be_in_region(block, crowding) for crowding in self.crowdings)

    def half(self, block: Block) -> Nearby:
        """The same for a half of the block, which is `block`."""
        return self._replace(sides=tuple((view.half(block), unknown) for view, unknown in self.sides))

    def _may_be_in(self, view: _View) -> bool:
        return _OURSELVES in view.certain or (self.own, _OURSELVES) in view.undecided

    def _may_be_in_region(self, block: Block, crowding: Crowding) -> bool:
        height, start = block.height, block.start
        if not crowding.within or (self.own ^ start) >> max(height, crowding.height):
            return False
        return any(
            sum((position ^ start) >> height << height < crowding.within for position in positions) >= CROWD
            for positions in self.positions
        )


def within_reach(own: int, *views: Members, reach: int, crowdings: Iterable[Crowding] = ()) -> Nearby:
    """Where a member at `own` may be among the `reach` nearest, or in a region by one of `crowdings`, in one of the
    views: for the functions below."""
    sides, positions = [], []
    for view in views:
        members = {member: position for member, position in view.items() if position != own} | {_OURSELVES: own}
        sides.append((_view_of(members, reach), unknown_buckets(own, view.values())))
        positions.append(tuple(members.values()))
    return Nearby(own, tuple(sides), tuple(crowdings), tuple(positions))


def keeper_blocks(
    members: Members, size: int, nearby: Nearby | None = None, *, crowding: Crowding = NEVER_DENSE
) -> Iterator[KeeperBlock]:
    """The blocks of the keyspace in order, each with its keepers, without those that aren't wanted."""
    waiting = [(WHOLE, _side_of(members, size, crowding), nearby)]
    while waiting:
        block, side, near = waiting.pop()
        if near is not None and not near.is_wanted(block):
            continue
        if side.is_decided:
            yield KeeperBlock(block, side.keepers())
            continue
        for half in reversed(block.halves()):
            waiting.append((half, side.half(half), near and near.half(half)))


def changes(
    before: Members,
    after: Members,
    size: int,
    nearby: Nearby | None = None,
    *,
    crowdings: tuple[Crowding, Crowding] = (NEVER_DENSE, NEVER_DENSE),
) -> Iterator[BlockChange]:
    """The blocks whose keepers changed when the members did, and what counts as dense, in order; fastest when both name
    those who stayed in the same order."""
    waiting = [(WHOLE, _side_of(before, size, crowdings[0]), _side_of(after, size, crowdings[1]), nearby)]
    while waiting:
        block, old, new, near = waiting.pop()
        if old == new or (near is not None and not near.is_wanted(block)):
            continue
        if old.is_decided and new.is_decided:
            was, now = old.keepers(), new.keepers()
            if was != now:
                yield BlockChange(block, was, now)
            continue
        for half in reversed(block.halves()):
            waiting.append((half, old.half(half), new.half(half), near and near.half(half)))


def unknown_buckets(own: int, positions: Iterable[int]) -> int:
    """The buckets of a member at `own`, as bits, that hold many members of whom its view has none. Bucket i has those
    whose positions differ from its own first at bit i."""
    buckets = sorted((position ^ own).bit_length() - 1 for position in positions if position != own)
    if len(buckets) < HOME_SIZE - 1:
        return 0
    home = buckets[HOME_SIZE - 2] + 1  # with ourselves so many are within
    unknown = (1 << POSITION_BITS) - (1 << home)
    for bucket in buckets[HOME_SIZE - 1 :]:
        unknown &= ~(1 << bucket)
    return unknown


def shared_ranges(members: Members, own: str, size: int, crowding: Crowding = NEVER_DENSE) -> dict[str, Ranges]:
    """What a member keeps together with each other one, as it sees it; by itself, what it keeps."""
    nearby = within_reach(members[own], members, reach=size, crowdings=[crowding])
    shared: dict[str, list[Block]] = {member: [] for member in members}
    for block, keepers in keeper_blocks(members, size, nearby, crowding=crowding):
        for member in keepers if own in keepers else ():
            shared[member].append(block)
    return {member: joined(blocks) for member, blocks in shared.items()}


def kept_ranges(
    members: Members, own: str, peer_id: str, size: int, reach: int, crowding: Crowding = NEVER_DENSE
) -> Ranges:
    """What a member keeps as `own` sees it, as far as `own` is within `reach` itself, or in its region."""
    nearby = within_reach(members[own], members, reach=reach, crowdings=[crowding])

    def blocks() -> Iterator[Block]:
        waiting = [(WHOLE, _side_of(members, size, crowding), nearby)]
        while waiting:
            block, side, near = waiting.pop()
            is_keeper = side.is_keeper(peer_id)
            if is_keeper is False or not near.is_wanted(block):
                continue
            if is_keeper:  # who the others are makes no difference
                yield block
                continue
            for half in reversed(block.halves()):
                waiting.append((half, side.half(half), near.half(half)))

    return joined(blocks())


def nearest_within(block: Block, members: Members) -> Iterator[tuple[Block, str]]:
    """Cuts a block into those in which one of the members is the nearest, in order, with that member."""
    waiting = [(block, tuple((position, member) for member, position in members.items()))]
    # Whoever differs from the block in its highest bits is farther from everything in it.
    closest = min(((position ^ block.start) >> block.height for position, _ in waiting[0][1]), default=0)
    waiting = [(block, tuple(m for m in waiting[0][1] if (m[0] ^ block.start) >> block.height == closest))]
    while waiting:
        part, candidates = waiting.pop()
        if not candidates:
            continue
        if len(candidates) == 1:
            yield part, candidates[0][1]
            continue
        for half in reversed(part.halves()):
            wanted = half.start >> half.height & 1
            near = tuple(member for member in candidates if member[0] >> half.height & 1 == wanted)
            waiting.append((half, near or candidates))


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
