"""What one member knows completely of the keyspace, and the neighbourhoods that it can name without asking anybody.

Rules (k = 20 members keep a resource; H = k + 8):
1. *Bucket* i of a member holds the others whose positions differ from its own first at bit i.
2. The *home* is the smallest aligned subtree around the own position with at least H members, or all of the keyspace
   where there are fewer; all of it is known and linked. It is never smaller than the subtree in which the estimate of
   the network's size expects 14 members, so that ids ground close to this member don't shrink it; and it is cut where
   it would hold more than `MOST_HOME` members.
3. A farther bucket is *thin* when a lookup in it, asking for H, got fewer: then these are all, and they are linked
   too. What we happen to be linked with never says so. It counts as complete while it has fewer than `THIN`.
4. A neighbourhood is *exact* when each bucket that its members come from is complete: in the home, or thin. Bucket i
   holds just the distances from ((d >> i) ^ 1) << i on, 2**i of them, where d is the distance of the target from us:
   the buckets' ranges of distances are disjoint, and walking them in that order meets members in theirs.
5. Exactness is claimed only while two of our three nearest confirmed our home within `CONFIRMED_FOR` seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from overlay.discovery.keyspace import POSITION_BITS

HOME_SIZE: Final = 28
"""Members that a home has at least: k and the margin by which views of the network may differ."""
THIN: Final = HOME_SIZE - 4
"""From so many members on, a thin bucket isn't taken as known completely: while it has fewer than `HOME_SIZE`, its
members have us in their own homes and newcomers among them link to us; from then on they would go unnoticed."""
MOST_HOME: Final = 160
FLOOR_EXPECTS: Final = 14
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
        self._confirmed: dict[str, tuple[float, int]] = {}  # when, and how high the home was
        self._expected: float | None = None
        self._height: int | None = None

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, member: str, position: int) -> None:
        """A verified member that is linked, at its position."""
        if position != self.own:
            self._buckets.setdefault(self.bucket_of(position), {})[member] = position
            self._height = None

    def remove(self, member: str, position: int) -> None:
        """A member that has gone."""
        bucket = self._buckets.get(self.bucket_of(position), {})
        if bucket.pop(member, None) is not None:
            self._height = None
            self._confirmed.pop(member, None)

    def bucket_of(self, position: int) -> int:
        """The bucket of another's position."""
        return (position ^ self.own).bit_length() - 1

    def note_size(self, expected: float) -> None:
        """How many members the network is estimated to have."""
        self._expected, self._height = expected, None

    def note_confirmed(self, member: str, now: float) -> None:
        """`member` told whom it knows near our position, and all of them are linked or couldn't be reached."""
        self._confirmed[member] = now, self.height

    def note_bucket(self, bucket: int, found: int, now: float) -> None:
        """A lookup in a bucket outside of the home asked for H members and got `found`."""
        if found < HOME_SIZE:
            self._thin_since[bucket] = now
        else:
            self._thin_since.pop(bucket, None)

    @property
    def height(self) -> int:
        """Bits of the home's subtree: positions below 2**height from ours; 256 when it is everything."""
        if self._height is None:
            self._height = self._measured({})
        return self._height

    def height_with(self, positions: Iterable[int]) -> int:
        """What `height` would be if members at these positions were known, too."""
        return self._measured(Counter(map(self.bucket_of, positions)))

    def members(self) -> dict[str, int]:
        """The home's members but ourselves, with their positions."""
        return {m: p for i in range(self.height) for m, p in self._buckets.get(i, {}).items()}

    def thin_buckets(self) -> list[int]:
        """Buckets outside of the home that are known completely."""
        return [bucket for bucket in self._thin_since if bucket >= self.height and self._is_thin(bucket)]

    def far_buckets(self) -> list[int]:
        """Buckets outside of the home that aren't: where far contacts are needed."""
        return [bucket for bucket in range(self.height, POSITION_BITS) if not self._is_thin(bucket)]

    def keeps(self, position: int) -> bool:
        """Whether a link to a member at `position` belongs to what has to be known completely."""
        bucket = self.bucket_of(position)
        return bucket < self.height or bucket in self._thin_since

    def is_confirmed(self, now: float) -> bool:
        """Rule 5; for a home that has grown since, as members left, what was confirmed before says nothing."""
        near = self.nearest_members(CONFIRMERS)
        confirmed = [self._confirmed[member] for member in near if member in self._confirmed]
        good = sum(now - since <= CONFIRMED_FOR and height >= self.height for since, height in confirmed)
        return good >= min(ENOUGH_CONFIRMERS, len(near))

    def nearest_members(self, count: int) -> list[str]:
        """The members nearest to our own position, nearest first."""
        near: list[tuple[int, str]] = []
        for bucket in sorted(self._buckets):
            near += sorted((position ^ self.own, member) for member, position in self._buckets[bucket].items())
            if len(near) >= count:
                break
        return [member for _, member in near[:count]]

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

    def _is_thin(self, bucket: int) -> bool:
        return bucket in self._thin_since and len(self._buckets.get(bucket, ())) < THIN

    def _measured(self, more: Mapping[int, int]) -> int:
        """The home's height, with so many `more` members in each bucket."""
        count, height = 1, POSITION_BITS
        for bucket in sorted({*self._buckets, *more}):
            count += len(self._buckets.get(bucket, ())) + more.get(bucket, 0)
            if count >= HOME_SIZE:
                height = max(bucket + 1, self._floor())
                break
        return self._cut(height, more)

    def _floor(self) -> int:
        if self._expected is None or self._expected <= FLOOR_EXPECTS:
            return POSITION_BITS if self._expected is not None else 0
        # The subtree of height h is expected to hold expected / 2**(256 - h) members.
        return POSITION_BITS - (int(self._expected // FLOOR_EXPECTS).bit_length() - 1)

    def _cut(self, height: int, more: Mapping[int, int]) -> int:
        count = 1
        for bucket in range(height):
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
