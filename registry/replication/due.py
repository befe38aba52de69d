"""What is due to be compared with one peer."""

from __future__ import annotations

from registry.replication.ranges import Ranges, union


class Due:
    """What is to be compared with one peer: resources, ranges, and hourly everything shared, as it is then."""

    __slots__ = ("everything", "key_ids", "ranges")

    def __init__(self) -> None:
        self.key_ids: set[str] = set()
        self.ranges: Ranges = ()
        self.everything = False

    def __len__(self) -> int:
        return len(self.key_ids) + len(self.ranges) + self.everything

    def add(self, other: Due) -> None:
        """All that is due in `other`."""
        self.key_ids |= other.key_ids
        self.ranges = union(self.ranges, other.ranges)
        self.everything |= other.everything
