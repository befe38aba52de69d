"""What hash trees are made of, in memory by blocks of the keyspace: only what a write changed is read anew.

The digests of all that two replicas share are compared hourly, with each of the others, and a node may keep hundreds of
thousands of records. Rules:
1. The keyspace is cut into blocks of one size, with `FEWEST` to `MOST` entries each where there are any.
2. A block is read once. What a commit changes of it is noted, by the first eight bytes of its position; what is there
   is read anew when the block is wanted next.
3. It holds until the oldest signature of all that lived when it was read is too old. What didn't live even then is told
   apart, each time: some of it may.
4. Of blocks that lie in the ranges in part, that part is read, each time.
5. `MAX_KEPT` entries are kept at most, of those blocks that were wanted last.
6. Only what was read by this node's own rules is kept. By a peer's, which may be stricter, or made up, little or
   nothing may live: kept, it would be told apart, and digested one by one, in each comparison with anybody.
7. A block that somebody has isn't changed any more: what is stored now becomes another one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from operator import gt
from typing import Final, Generic, NamedTuple, TypeVar

from cachetools import LRUCache

from overlay.discovery.keyspace import POSITION_BITS
from overlay.limits.time_slices import turn
from registry.replication.hash_tree import POSITION_PREFIX, Prefix
from registry.replication.ranges import EVERYWHERE, Range, Ranges, intersection, union
from registry.replication.stored_places import PAGE, Span, spans_of

FEWEST, MOST = 8, 1024  # far apart: two peers' ranges may differ in how much is in a block, as indexes of owners do
MAX_KEPT: Final = 65_536  # entries and blocks; 250 bytes each
MAX_BLOCKS: Final = 4096  # of one size in some ranges; of more, that size was chosen for others
PER_ROW: Final = 1e-5  # seconds
_PER_SORTED: Final = 2e-6  # seconds for an entry
_DEEPEST: Final = 6  # steps of four bits
_PREFIX_BITS: Final = 8 * POSITION_PREFIX
_TELLS_SIZE: Final = 64  # entries in some ranges, or a few blocks' ranges, which tell how large blocks should be
_FEW: Final = 4
_MOST_CHANGED: Final = MOST // 2  # positions of a block, beyond which it is read as a whole
_BLOCKS_AT_ONCE: Final = 256  # that are gone through before other tasks get their turn
_ANYTHING: Final = b""  # is the prefix of all positions
_MOST_DIGESTS: Final = 32  # that are known of a block: of it alone, and with what else there is to compare with a peer

Times = tuple[int, ...]
"""Those of an `ExpiryHorizon` that count, in its order."""
Named = TypeVar("Named")


class Row(NamedTuple, Generic[Named]):
    """What is stored at a position: its `entry` in a tree, the oldest signature of each kind in it, and what it is."""

    position: bytes
    entry: bytes
    oldest: Times
    name: Named

    @property
    def prefix(self) -> bytes:
        """By which a change of it is noted."""
        return self.position[:POSITION_PREFIX]

    def lives(self, horizon: Times) -> bool:
        """Whether nothing in it is too old."""
        return all(map(gt, self.oldest, horizon))


class KeptBlock(Generic[Named]):
    """What is in one block."""

    def __init__(
        self, living: Mapping[bytes, bytes] | None = None, rest: Iterable[Row[Named]] = (), oldest: Times = ()
    ) -> None:
        self.changed: set[bytes] = set()
        """Prefixes of positions where something changed since they were read."""
        self.digests: dict[tuple[bytes, ...], bytes] = {}
        """That of all that lives here, and that together with further entries; by these."""
        # Entries, and the prefixes of their positions: bytes alone, in which Python looks for no garbage meanwhile.
        self._living = dict(living or {})
        self._rest = list(rest)
        self._oldest = oldest
        self._in_order: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self._living) + len(self._rest)

    def without_changed(self) -> KeptBlock[Named]:
        """Another block, of what is here but where something changed, for what is there now to be added."""
        living = {entry: prefix for entry, prefix in self._living.items() if prefix not in self.changed}
        return KeptBlock(living, (row for row in self._rest if row.prefix not in self.changed), self._oldest)

    def add(self, row: Row[Named], horizon: Times) -> None:
        """Puts in what was read; before anybody has the block."""
        if row.lives(horizon):
            self._living[row.entry] = row.prefix
            self._oldest = tuple(map(min, self._oldest, row.oldest)) if self._oldest else row.oldest
        else:
            self._rest.append(row)

    def holds(self, horizon: Times) -> bool:
        """Whether all that lived when it was read lives by this horizon too."""
        return all(map(gt, self._oldest, horizon))

    @property
    def is_in_order(self) -> bool:
        """Whether `living` has nothing to sort."""
        return self._in_order is not None

    def living(self) -> list[bytes]:
        """The entries of what lives, in order; not to be changed."""
        if self._in_order is None:
            self._in_order = sorted(self._living)
        return self._in_order

    def rest(self) -> Sequence[Row[Named]]:
        """What didn't live, as a whole, when it was read."""
        return self._rest

    def without(self, prefixes: Collection[bytes]) -> tuple[list[bytes], list[Row[Named]]]:
        """`living` and `rest`, but for what is at positions with these prefixes."""
        living = [entry for entry, prefix in self._living.items() if prefix not in prefixes]
        return sorted(living), [row for row in self._rest if row.prefix not in prefixes]


class Part(NamedTuple):
    """Entries, in order. `digests` are those of the block that they are all of, and `prefix` is where that is."""

    entries: list[bytes]
    prefix: Prefix = b""
    digests: dict[tuple[bytes, ...], bytes] | None = None

    def remember(self, others: tuple[bytes, ...], digest: bytes) -> None:
        """What was found to be the digest of the block, together with others' entries."""
        if self.digests is not None:
            if len(self.digests) >= _MOST_DIGESTS:
                self.digests.clear()
            self.digests[others] = digest


class Collected(NamedTuple, Generic[Named]):
    """What is in some ranges: of what lives, the entries, and `rest`, of which a part may live, or another peer took
    nothing."""

    parts: list[Part]
    rest: list[Row[Named]]


ReadPage = Callable[[list[Span], Times], Awaitable[list[Row[Named]]]]
"""(spans that are left, of which the last one is next; horizon) -> the next rows; it takes what it read from the spans.
Raises StorageError."""


class KeptEntries(Generic[Named]):
    """Remembers blocks; see the rules above. `note_changed` has to be told of what each commit changed."""

    def __init__(self, read_page: ReadPage[Named]) -> None:
        self._read_page = read_page
        self._depth = 0
        self._blocks: LRUCache[int, KeptBlock[Named]] = LRUCache(MAX_KEPT, getsizeof=lambda block: len(block) + 1)
        self._reads: dict[object, set[bytes]] = {}
        """Of each time that blocks are read just now: prefixes of positions where something changed since it began."""

    def note_changed(self, positions: Iterable[bytes]) -> None:
        """Something at these positions changed, and is on disk."""
        for position in positions:
            prefix = position[:POSITION_PREFIX]
            for changed in self._reads.values():
                changed.add(prefix)
            index = _index_of(prefix, self._depth)
            block = self._blocks.get(index)
            if block is not None:
                block.changed.add(prefix)
                if len(block.changed) > _MOST_CHANGED:
                    del self._blocks[index]

    def forget(self) -> None:
        """Anything may have changed."""
        self._blocks.clear()
        for changed in self._reads.values():
            changed.add(_ANYTHING)

    async def collect(
        self,
        ranges: Ranges,
        horizon: Times,
        apart: Collection[bytes] = (),
        *,
        fits: bool = True,
        by_own_rules: bool = True,
    ) -> Collected[Named]:
        """What is in these ranges; all that is at positions with the prefixes `apart` is told with the rest.

        `fits`: whether the size of blocks is chosen by these ranges. `by_own_rules`: whether the horizon is (rule 6).
        Raises StorageError.
        """
        depth = self._depth
        whole, partly = _cut(ranges, depth)
        blocks = await self._up_to_date(whole, depth, horizon, keep=by_own_rules)
        living: list[bytes] = []
        rest: list[Row[Named]] = []

        def take(rows: list[Row[Named]]) -> None:
            for row in rows:
                if row.prefix in apart:
                    continue
                if row.lives(horizon):
                    living.append(row.entry)
                else:
                    rest.append(row)

        await self._read(partly, horizon, take)
        count = sum(map(len, blocks.values())) + len(living) + len(rest)
        await self._read_at(apart, ranges, horizon, rest.extend)
        if fits and depth == self._depth:
            self._depth = _fitting(depth, ranges, count)
            if depth != self._depth:
                self._blocks.clear()
        found: Collected[Named] = Collected([Part(sorted(living))], rest)
        hit = {_index_of(prefix, depth) for prefix in apart}
        for number, (index, block) in enumerate(blocks.items()):
            if index in hit or not block.is_in_order:
                await turn(len(block) * _PER_SORTED)
            elif number % _BLOCKS_AT_ONCE == 0:
                await turn(_BLOCKS_AT_ONCE * PER_ROW)
            if index in hit:
                kept, others = block.without(apart)
                found.parts.append(Part(kept))
                found.rest.extend(others)
            else:
                found.parts.append(Part(block.living(), _prefix_of(index, depth), block.digests))
                found.rest.extend(block.rest())
        return found

    async def _up_to_date(
        self, indices: Iterable[int], depth: int, horizon: Times, *, keep: bool
    ) -> dict[int, KeptBlock[Named]]:
        """These blocks, as they are now. Who wants one while it is read reads it too; of who is cancelled, or can't
        read, nothing is kept, and nothing forgotten."""
        blocks, missing, changed = dict[int, KeptBlock[Named]](), list[int](), dict[int, frozenset[bytes]]()
        for index in indices:
            block = self._blocks.get(index)
            if block is None or not block.holds(horizon):
                missing.append(index)
                block = KeptBlock()
            elif block.changed:
                changed[index] = frozenset(block.changed)
                block = block.without_changed()
            blocks[index] = block
        reading = object()
        since = self._reads[reading] = set()
        try:
            await self._read_blocks(blocks, missing, frozenset[bytes]().union(*changed.values()), depth, horizon)
        finally:
            del self._reads[reading]
        for index in (*missing, *changed) if keep and depth == self._depth and _ANYTHING not in since else ():
            if len(blocks[index]) < MAX_KEPT:
                self._blocks[index] = blocks[index]
        for prefix in since - {_ANYTHING}:
            index = _index_of(prefix, depth)
            if index in blocks:
                blocks[index].changed.add(prefix)
        return blocks

    async def _read_blocks(
        self,
        blocks: dict[int, KeptBlock[Named]],
        missing: Iterable[int],
        changed: Collection[bytes],
        depth: int,
        horizon: Times,
    ) -> None:
        """Adds to these what is stored now: all of those that are missing, and of the others what changed."""
        height = _height(depth)

        def take(rows: list[Row[Named]]) -> None:
            for row in rows:
                block = blocks.get(_index_of(row.prefix, depth))
                if block is not None:
                    block.add(row, horizon)

        ranges = union(tuple(Range(index << height, (index + 1) << height) for index in missing))
        await self._read(ranges, horizon, take)
        await self._read_at(changed, EVERYWHERE, horizon, take)

    async def _read_at(
        self, prefixes: Iterable[bytes], ranges: Ranges, horizon: Times, take: Callable[[list[Row[Named]]], None]
    ) -> None:
        """Has `take` called with what is at positions with these prefixes, as far as it lies in the ranges."""
        ordered = sorted(prefixes)
        for start in range(0, len(ordered), PAGE):
            await self._read(intersection(ranges, around(ordered[start : start + PAGE])), horizon, take)

    async def _read(self, ranges: Ranges, horizon: Times, take: Callable[[list[Row[Named]]], None]) -> None:
        """Has `take` called with each page: all that a node has would take long, and much memory, at once."""
        left = spans_of(ranges)
        while left:
            await turn(PAGE * PER_ROW)
            take(await self._read_page(left, horizon))


def _height(depth: int) -> int:
    """The bits of a position within its block."""
    return POSITION_BITS - 4 * depth


def _index_of(prefix: bytes, depth: int) -> int:
    """Which block it is that a position with this prefix is in."""
    return int.from_bytes(prefix, "big") >> (_PREFIX_BITS - 4 * depth)


def _prefix_of(index: int, depth: int) -> Prefix:
    """The node of a hash tree that a block is."""
    return bytes(index >> 4 * (depth - step) & 15 for step in range(1, depth + 1))


def around(prefixes: Iterable[bytes]) -> Ranges:
    """All positions with these prefixes."""
    height = POSITION_BITS - _PREFIX_BITS
    starts = (int.from_bytes(prefix, "big") for prefix in prefixes)
    return union(tuple(Range(start << height, (start + 1) << height) for start in starts))


def _cut(ranges: Ranges, depth: int) -> tuple[list[int], Ranges]:
    """The blocks that lie in these ranges, and what of the ranges isn't in them."""
    height = _height(depth)
    whole: list[int] = []
    partly: list[Range] = []
    count = 0
    for part in ranges:
        first, end = -(-part.start >> height), part.end >> height
        if first >= end:
            partly.append(part)
            continue
        count += end - first
        if count > MAX_BLOCKS:
            return [], ranges
        whole += range(first, end)
        partly += [Range(part.start, first << height), Range(end << height, part.end)]
    return whole, tuple(part for part in partly if part.start < part.end)


def _fitting(depth: int, ranges: Ranges, count: int) -> int:
    """The depth of blocks for ranges in which there is so much: the same one, unless that is clearly wrong."""
    size = sum(part.end - part.start for part in ranges)
    while depth < _DEEPEST and count >= _TELLS_SIZE and count << _height(depth) > MOST * size:
        depth += 1
    while depth > 0 and size >> _height(depth) >= _FEW and count << _height(depth) < FEWEST * size:
        depth -= 1
    return depth
