"""What one member knows completely of the keyspace, and the neighbourhoods that it can name without asking anybody.

Rules (k = 20 members keep a resource; H = k + 8):
1. *Bucket* i of a member holds the others whose positions differ from its own first at bit i.
2. The *home* is the smallest aligned subtree around the own position with at least H members, or all of the keyspace
   where there are fewer; all of it is known and linked. It is cut where it would hold more than `MOST_HOME` members.
   What is linked *reaches* farther where a dense region around us would be larger (`overlay.discovery.density`), so
   that ids ground close to this member don't leave it alone with them. Nothing is claimed of that part: its members
   link to us only if they estimate the same.
3. A farther bucket is *thin* when a lookup in it, asking for H, got fewer: then these are all, and they are linked
   too. What we happen to be linked with never says so. It counts as complete while it has fewer than `THIN`.
4. A neighbourhood is *exact* when each bucket that its members come from is complete: in the home, or thin. Bucket i
   holds just the distances from ((d >> i) ^ 1) << i on, 2**i of them, where d is the distance of the target from us:
   the buckets' ranges of distances are disjoint, and walking them in that order meets members in theirs.
5. Exactness is claimed only while two of our three nearest confirmed our home within `CONFIRMED_FOR` seconds. Where
   members crowd around us, one of each of the three largest buckets of the region has their place. Whoever lets a
   question about its home go unanswered gives its place to the next nearest until it answers: else two silent ids
   ground close to us would keep us from ever claiming anything.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, zip_longest
from typing import Final

from overlay.discovery.density import BEGINS, Density, SteadySize, estimated_size
from overlay.discovery.keyspace import POSITION_BITS

HOME_SIZE: Final = 28
"""Members that a home has at least: k and the margin by which views of the network may differ."""
THIN: Final = HOME_SIZE - 4
"""From so many members on, a thin bucket isn't taken as known completely: while it has fewer than `HOME_SIZE`, its
members have us in their own homes and newcomers among them link to us; from then on they would go unnoticed."""
MOST_HOME: Final = 160
CONFIRMED_FOR: Final = 600.0
CONFIRMERS: Final = 3
ENOUGH_CONFIRMERS: Final = 2


class Home:
    """Pure: members come and go by `add` and `remove`, times in seconds come in as `now`."""

    def __init__(self, own: int) -> None:
        """`own`: this member's position."""
        self.own = own
        self._buckets: dict[int, dict[str, int]] = {}
        self._thin_since: dict[int, float] = {}
        self._full: set[int] = set()
        self._confirmed: dict[str, tuple[float, int]] = {}  # when, and how high the home was
        self._unanswered: set[str] = set()
        self._steady = SteadySize()
        self._density: Density | None = None
        self._height: int | None = None
        self._reach: int | None = None

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, member: str, position: int) -> None:
        """A verified member that is linked, at its position."""
        if position != self.own:
            self._buckets.setdefault(self.bucket_of(position), {})[member] = position
            self._forget_measures()

    def remove(self, member: str, position: int) -> None:
        """A member that has gone."""
        bucket = self._buckets.get(self.bucket_of(position), {})
        if bucket.pop(member, None) is not None:
            self._forget_measures()
            self._confirmed.pop(member, None)
            self._unanswered.discard(member)

    def bucket_of(self, position: int) -> int:
        """The bucket of another's position."""
        return (position ^ self.own).bit_length() - 1

    def note_asked(self, member: str, *, has_answered: bool) -> None:
        """`member`, which is linked, was asked whom it knows near its position."""
        if has_answered:
            self._unanswered.discard(member)
        elif any(member in members for members in self._buckets.values()):
            self._unanswered.add(member)

    @property
    def unanswered(self) -> list[str]:
        """Linked members that didn't answer when they were asked last."""
        return sorted(self._unanswered)

    def note_confirmed(self, member: str, now: float, height: int) -> None:
        """`member` told whom it knows near our position, and all of them are linked or couldn't be reached.

        `height`: of the home, when whoever told of it began to be asked.
        """
        self._confirmed[member] = now, height

    def note_bucket(self, bucket: int, found: int, now: float) -> None:
        """A lookup in a bucket outside of the home asked for H members and got `found`."""
        if found < HOME_SIZE:
            self._thin_since[bucket] = now
            self._full.discard(bucket)
        else:
            self._thin_since.pop(bucket, None)
            self._full.add(bucket)
        self._density = self._reach = None

    @property
    def height(self) -> int:
        """Bits of the home's subtree: positions below 2**height from ours; 256 when it is everything."""
        if self._height is None:
            self._height = self._measured({}, floor=0)
        return self._height

    @property
    def reach(self) -> int:
        """Bits of the subtree whose members are linked: the home, or more where it is full of ground ids."""
        if self._reach is None:
            self._reach = self._measured({}, floor=self.density.height)
        return self._reach

    @property
    def density(self) -> Density:
        """What the members in the home and in thin buckets let expect of the network."""
        if self._density is None:
            thin = self.thin_buckets()
            known = [self.own, *self.members().values()]
            known += [position for bucket in thin for position in self._buckets.get(bucket, {}).values()]
            self._density = Density(self._steady.note(estimated_size(known, [self.height, *thin])))
        return self._density

    def reach_with(self, positions: Iterable[int]) -> int:
        """What `reach` would be if members at these positions were known, too."""
        return self._measured(Counter(map(self.bucket_of, positions)), floor=self.density.height)

    def members(self) -> dict[str, int]:
        """The home's members but ourselves, with their positions."""
        return {m: p for i in range(self.height) for m, p in self._buckets.get(i, {}).items()}

    def kept_members(self) -> list[str]:
        """The members that have to be linked, those of the home and of thin buckets: `keeps` says so of each."""
        return [m for bucket, members in self._buckets.items() if self.keeps_bucket(bucket) for m in members]

    def thin_buckets(self) -> list[int]:
        """Buckets outside of the home that are known completely."""
        return [bucket for bucket in self._thin_since if bucket >= self.height and self._is_thin(bucket)]

    def keeps(self, position: int) -> bool:
        """Whether a link to a member at `position` belongs to what has to be known completely."""
        return self.keeps_bucket(self.bucket_of(position))

    def keeps_bucket(self, bucket: int) -> bool:
        """The same of a whole bucket."""
        return bucket < self.reach or bucket in self._thin_since

    def has_filled(self, bucket: int) -> bool:
        """Whether a bucket that was found thin has at least H members by now, as is seen from those that are linked."""
        return bucket in self._thin_since and len(self._buckets.get(bucket, ())) >= HOME_SIZE

    def is_confirmed(self, now: float) -> bool:
        """Rule 5; for a home that has grown since, as members left, what was confirmed before says nothing."""
        return self.confirmed_height(now) == self.height

    def confirmed_height(self, now: float) -> int:
        """Bits of the subtree around us that may be claimed to be known completely: the home, or what it was before it
        grew; 0 when nothing is confirmed."""
        near = self.confirmers()
        confirmed = [self._confirmed[member] for member in near if member in self._confirmed]
        heights = sorted(height for since, height in confirmed if now - since <= CONFIRMED_FOR)
        needed = min(ENOUGH_CONFIRMERS, max(1, len(set(near) - self._unanswered)), len(near))
        if len(heights) < needed:
            return 0
        return min(self.height, heights[-needed]) if needed else self.height

    def confirmers(self) -> list[str]:
        """Whose word tells whether the home is complete (rule 5): those who didn't answer only where others lack."""
        in_order = self._in_order_of_confirming()
        answering = list(islice((name for name in in_order() if name not in self._unanswered), CONFIRMERS))
        silent = (name for name in in_order() if name in self._unanswered) if self._unanswered else ()
        return [*answering, *islice(silent, CONFIRMERS - len(answering))]

    def _in_order_of_confirming(self) -> Callable[[], Iterator[str]]:
        if not self.density.is_dense(self.own, self._positions()):
            return self._by_nearness
        buckets = [self._buckets.get(bucket, {}) for bucket in reversed(range(self.density.height))]
        largest = [members for members in buckets if members][:CONFIRMERS]
        return lambda: _in_turns([_by_distance(self.own, members) for members in largest])

    def _by_nearness(self) -> Iterator[str]:
        for bucket in sorted(self._buckets):
            yield from _by_distance(self.own, self._buckets[bucket])

    def exact(self, target: int, count: int, *, own_name: str) -> list[str] | None:
        """The `count` members nearest to `target`, nearest first, ourselves (`own_name`) among them; None if unknown.

        Rule 4. Whether they may be claimed is `is_confirmed`'s to say.
        """
        found: list[str] = []
        for bucket in walk(self.own ^ target):
            if bucket is None:
                found.append(own_name)
            elif bucket < self.height or self._is_thin(bucket):
                members = self._buckets.get(bucket)
                if members:
                    found += _by_distance(target, members)
            else:
                return None
            if len(found) >= count:
                return found[:count]
        return found

    def is_among_nearest(self, target: int, count: int) -> bool:
        """Whether we are among the `count` members nearest to `target`, as far as is known.

        Links that happen to be open in a far bucket say nothing: one in which a lookup found H members holds as many.
        """
        before = 0
        for bucket in walk(self.own ^ target):
            if bucket is None:
                return True
            known = len(self._buckets.get(bucket, ()))
            before += max(known, HOME_SIZE) if bucket >= self.height and bucket in self._full else known
            if before >= count:
                return False
        return True

    def is_in_region(self, target: int, *, part: float = BEGINS, wider: int = 0) -> bool:
        """Whether `target` is dense, and we are in its region, or one larger by so many bits, as far as is known.

        In a wider one we may not know who is near the target: then it may be dense.
        """
        if (self.own ^ target).bit_length() > self.density.height + wider:
            return False
        if wider and not self.keeps(target):
            return True
        return self.density.is_dense(target, self._positions(), part)

    def region(self, target: int, *, own_name: str) -> dict[str, int] | None:
        """All members in the region that `target` has where it is dense, with their positions, ourselves
        (`own_name`) among them; None if unknown."""
        height, distance = self.density.height, (self.own ^ target).bit_length()
        buckets = range(height) if distance <= height else (distance - 1,)
        if not all(bucket < self.reach or self._is_thin(bucket) for bucket in buckets):
            return None
        members = self.inside(target, height)
        return {**members, own_name: self.own} if distance <= height else members

    def inside(self, around: int, height: int) -> dict[str, int]:
        """The members known whose positions differ from `around` only in the last `height` bits, with positions."""
        bucket = self.bucket_of(around)
        buckets = [self._buckets.get(bucket, {})] if bucket >= height else list(self._buckets.values())
        return {m: p for members in buckets for m, p in members.items() if (p ^ around).bit_length() <= height}

    def height_around(self, position: int) -> int:
        """How high the home of a member at `position` is, as far as we know who is there."""
        distances = [other ^ position for members in self._buckets.values() for other in members.values()]
        nearest = heapq.nsmallest(HOME_SIZE, [*distances, self.own ^ position])
        return nearest[-1].bit_length() if len(nearest) == HOME_SIZE else POSITION_BITS

    def _is_thin(self, bucket: int) -> bool:
        return bucket in self._thin_since and len(self._buckets.get(bucket, ())) < THIN

    def _measured(self, more: Mapping[int, int], *, floor: int) -> int:
        """The home's height but at least `floor`, with so many `more` members in each bucket."""
        count, height = 1, POSITION_BITS
        for bucket in sorted({*self._buckets, *more}):
            count += len(self._buckets.get(bucket, ())) + more.get(bucket, 0)
            if count >= HOME_SIZE:
                height = max(bucket + 1, floor)
                break
        return self._cut(height, more)

    def _positions(self) -> Iterable[int]:
        yield self.own
        for members in self._buckets.values():
            yield from members.values()

    def _forget_measures(self) -> None:
        self._height = self._reach = self._density = None

    def _cut(self, height: int, more: Mapping[int, int]) -> int:
        count = 1
        for bucket in sorted({*self._buckets, *more}):
            if bucket >= height:
                break
            count += len(self._buckets.get(bucket, ())) + more.get(bucket, 0)
            if count > MOST_HOME:
                return bucket
        return height


def walk(distance: int) -> Iterable[int | None]:
    """All buckets of a member at `distance` from a target, nearest to the target first; None stands for itself."""
    yield from (bucket for bucket in reversed(range(distance.bit_length())) if distance >> bucket & 1)
    yield None
    yield from (bucket for bucket in range(POSITION_BITS) if not distance >> bucket & 1)


def _by_distance(target: int, members: Mapping[str, int]) -> list[str]:
    return [member for _, member in sorted((position ^ target, member) for member, position in members.items())]


def _in_turns(lists: Iterable[Iterable[str]]) -> Iterator[str]:
    """The first of each, then the second of each, and on."""
    return (member for row in zip_longest(*lists) for member in row if member is not None)
