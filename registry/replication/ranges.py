"""Which parts of the keyspace have which replicas: pure arithmetic over members' positions.

The *keepers* of a position are the `size` members nearest to it. In an aligned block of the keyspace, of 2**height
positions, a member's distance is told apart from another's by its bits above `height`, unless these are equal: so the
keepers are the same everywhere in the block when the last of them and the first who isn't one differ in those bits.
Blocks in which they don't are cut in half. So the keyspace falls into blocks with keepers each, and what a change of
the members changes is told by the blocks, without looking at a single key (docs/design.md, Replication).

Where members crowd around a position (`overlay.discovery.density`), all others of its region keep it too. Whether
that is so, and who they are, is the same everywhere in a block that is small enough: blocks are cut until it is.

Ids that are ground close together are told apart by late bits alone, so far away from them, too, blocks would be cut
until those differ: by the hundred thousand, of 124 members. So `Nearby` ends the cutting `DEEPEST` bits below the home
and below each farther bucket. In what is undecided then all who may be keepers somewhere count as such: a few keys more
are compared with a replica, which says what it doesn't take.

A member sees only those around itself: completely in the smallest aligned subtree around it with `HOME_SIZE` members,
and in each farther bucket of which it sees anybody (`overlay.discovery.home`); of others it knows that many are there.
So it knows where it may be a keeper, or be so within some margin, and who is nearer there; blocks farther away are left
out. *Limit*: in a network of more members whose ids leave a bucket beyond the home empty, which random ones don't, what
is there isn't compared by ranges.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

from overlay.discovery.density import CROWD, Crowding
from overlay.discovery.home import HOME_SIZE
from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES

DEEPEST: Final = 10
"""Bits below the home, or a bucket, by which blocks are cut."""
_A_STEP: Final = 16  # blocks: a millisecond or two

Found = TypeVar("Found")
Steps = Generator[None, None, Found]
"""Something that takes long, in steps of a few milliseconds; what it returns is what was found."""

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
        """Once it is decided; before, those that keep everything in the block whatever comes of the rest."""
        if self.crowd.is_dense:
            return frozenset((*self.view.certain, *self.crowd.region()))
        return frozenset(self.view.certain)

    def possible_keepers(self) -> Keepers:
        """Those that may be keepers anywhere in the block."""
        undecided = self.view.undecided if self.view.open_places else ()
        return frozenset((*self.view.certain, *(name for _, name in (*undecided, *self.crowd.candidates))))

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


def within_reach(
    own: int, *views: Members, reach: int, crowdings: Iterable[Crowding] = (), deepest: int = DEEPEST
) -> Nearby:
    """Where a member at `own` may be among the `reach` nearest, or in a region by one of `crowdings`, in one of the
    views: for the functions below."""
    sides, positions, home_height = [], [], POSITION_BITS
    for view in views:
        home_height = min(home_height, _home_height(own, view.values()))
        members = {member: position for member, position in view.items() if position != own} | {_OURSELVES: own}
        sides.append((_view_of(members, reach), unknown_buckets(own, view.values())))
        positions.append(tuple(members.values()))
    return Nearby(own, tuple(sides), tuple(crowdings), tuple(positions), home_height, deepest)


def keeper_blocks(
    members: Members, size: int, nearby: Nearby | None = None, *, crowding: Crowding = NEVER_DENSE
) -> Iterator[KeeperBlock]:
    """The blocks of the keyspace in order, each with its keepers, without those that aren't wanted."""
    return (found for found in _keeper_blocks(members, size, nearby, crowding) if found is not None)


def _keeper_blocks(
    members: Members, size: int, nearby: Nearby | None, crowding: Crowding
) -> Iterator[KeeperBlock | None]:
    """The same, with None after each step."""
    waiting, looked_at = [(WHOLE, _side_of(members, size, crowding), nearby)], 0
    while waiting:
        block, side, near = waiting.pop()
        looked_at += 1
        if looked_at % _A_STEP == 0:
            yield None
        if near is not None and not near.is_wanted(block):
            continue
        if side.is_decided:
            yield KeeperBlock(block, side.keepers())
        elif near is not None and near.is_finest(block):
            yield KeeperBlock(block, side.possible_keepers())
        else:
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
    found = changes_in_steps(before, after, size, nearby, crowdings=crowdings)
    return (change for change in found if change is not None)


def changes_in_steps(
    before: Members,
    after: Members,
    size: int,
    nearby: Nearby | None = None,
    *,
    crowdings: tuple[Crowding, Crowding] = (NEVER_DENSE, NEVER_DENSE),
) -> Iterator[BlockChange | None]:
    """The same, with None after each step."""
    waiting = [(WHOLE, _side_of(before, size, crowdings[0]), _side_of(after, size, crowdings[1]), nearby)]
    looked_at = 0
    while waiting:
        block, old, new, near = waiting.pop()
        looked_at += 1
        if looked_at % _A_STEP == 0:
            yield None
        if old == new or (near is not None and not near.is_wanted(block)):
            continue
        if old.is_decided and new.is_decided:
            was, now = old.keepers(), new.keepers()
            if was != now:
                yield BlockChange(block, was, now)
        elif near is not None and near.is_finest(block):
            # Whoever may have become a keeper somewhere in it counts as new, unless it was one everywhere.
            yield BlockChange(block, old.keepers(), new.possible_keepers())
        else:
            for half in reversed(block.halves()):
                waiting.append((half, old.half(half), new.half(half), near and near.half(half)))


def _home_height(own: int, positions: Iterable[int]) -> int:
    """Bits of the smallest subtree around a member with `HOME_SIZE` members, by those that it sees."""
    buckets = sorted((position ^ own).bit_length() for position in positions if position != own)
    return buckets[HOME_SIZE - 2] if len(buckets) >= HOME_SIZE - 1 else POSITION_BITS


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


def shared_ranges(
    members: Members, own: str, size: int, crowding: Crowding = NEVER_DENSE, *, deepest: int = DEEPEST
) -> Steps[dict[str, Ranges]]:
    """What a member keeps together with each other one, as it sees it; by itself, what it keeps."""
    nearby = within_reach(members[own], members, reach=size, crowdings=[crowding], deepest=deepest)
    shared: dict[str, list[Block]] = {member: [] for member in members}
    for found in _keeper_blocks(members, size, nearby, crowding):
        if found is None:
            yield
        elif own in found.keepers:
            for member in found.keepers:
                shared[member].append(found.block)
    ranges: dict[str, Ranges] = {}
    for member, blocks in shared.items():
        ranges[member] = joined(blocks)
        yield
    return ranges


def kept_ranges(
    members: Members,
    own: str,
    peer_id: str,
    size: int,
    reach: int,
    crowding: Crowding = NEVER_DENSE,
    *,
    deepest: int = DEEPEST,
) -> Steps[Ranges]:
    """What a member keeps as `own` sees it, as far as `own` is within `reach` itself, or in its region."""
    nearby = within_reach(members[own], members, reach=reach, crowdings=[crowding], deepest=deepest)
    waiting, looked_at = [(WHOLE, _side_of(members, size, crowding), nearby)], 0
    blocks: list[Block] = []
    while waiting:
        block, side, near = waiting.pop()
        looked_at += 1
        if looked_at % _A_STEP == 0:
            yield
        is_keeper = side.is_keeper(peer_id)
        if is_keeper is False or not near.is_wanted(block):
            continue
        if is_keeper or near.is_finest(block):  # who the others are makes no difference
            blocks.append(block)
            continue
        for half in reversed(block.halves()):
            waiting.append((half, side.half(half), near.half(half)))
    return joined(blocks)


def nearest_within(block: Block, members: Members, nearby: Nearby | None = None) -> Iterator[tuple[Block, str]]:
    """Cuts a block into those in which one of the members is the nearest, in order, with that member; in what isn't to
    be cut any more, with the same one of those that may be nearest in it for everybody."""
    waiting = [(block, tuple((position, member) for member, position in members.items()))]
    # Whoever differs from the block in its highest bits is farther from everything in it.
    closest = min(((position ^ block.start) >> block.height for position, _ in waiting[0][1]), default=0)
    waiting = [(block, tuple(m for m in waiting[0][1] if (m[0] ^ block.start) >> block.height == closest))]
    while waiting:
        part, candidates = waiting.pop()
        if not candidates:
            continue
        if len(candidates) == 1 or (nearby is not None and nearby.is_finest(part)):
            yield part, min(candidates)[1]
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
