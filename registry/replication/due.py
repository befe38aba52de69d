"""What is due to be compared: with one peer, and with whom after the members changed. Pure."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import Final, NamedTuple

from overlay.discovery.density import Crowding
from registry.replication.block_view import Keepers, Members
from registry.replication.keepers import Steps, changes_in_steps, nearest_within
from registry.replication.nearby import within_reach
from registry.replication.ranges import Range, Ranges, union

PARTS_AT_ONCE: Final = 64  # of a block of the keyspace, each of which somebody else compares first: a few ms


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


class DueAfterChange(NamedTuple):
    """The ranges to compare with each peer: where we are the nearest of those who kept them, and where others are."""

    first: dict[str, Ranges]
    later: dict[str, Ranges]


class _Run(NamedTuple):
    """A range everywhere in which the same are `behind`; whether we are the nearest of those who kept it."""

    range: Range
    behind: Keepers
    is_first: bool


def due_after_change(
    here: str, before: Members, after: Members, size: int, *, reach: int, crowdings: tuple[Crowding, Crowding]
) -> Steps[DueAfterChange]:
    """What is to be compared with whom, since the members were `before` and are `after` now, and what counted as dense,
    and does now. `here`: this member, in both. `reach`: as `RangeView.reach`.

    That is each block with each peer that became one of its keepers: by what counts as dense, and by the nearest alone.
    """
    runs: list[_Run] = []
    nearby = within_reach(after[here], before, after, reach=reach, crowdings=crowdings)
    for change in chain(
        changes_in_steps(before, after, size, nearby, crowdings=crowdings),
        changes_in_steps(before, after, size, nearby),
    ):
        if change is None:
            yield
            continue
        block, were, are = change
        behind = are - were - {here}
        if not behind:
            continue
        stayed = {peer_id: after[peer_id] for peer_id in are & were}
        # Where all keepers are new, nobody is first, and whoever has something of theirs hands it over later.
        parts = nearest_within(block, stayed, nearby) if stayed else ((block, None),)
        for number, (part, nearest) in enumerate(parts, start=1):
            if number % PARTS_AT_ONCE == 0:
                yield
            _add(runs, _Run(Range(part.start, part.end), behind, nearest == here))
    due = DueAfterChange({}, {})
    for is_first, of_peers in ((True, due.first), (False, due.later)):
        ranges: defaultdict[str, list[Range]] = defaultdict(list)
        for run in runs:
            if run.is_first is is_first:
                for peer_id in sorted(run.behind):
                    ranges[peer_id].append(run.range)
                yield
        for peer_id, of_peer in ranges.items():
            of_peers[peer_id] = union(tuple(of_peer))
            yield
    return due


def _add(runs: list[_Run], run: _Run) -> None:
    """Ids ground close together change together in hundreds of blocks beside each other: as one they cost little."""
    last = runs[-1] if runs else None
    if last is not None and last[1:] == run[1:] and last.range.end == run.range.start:
        runs[-1] = run._replace(range=Range(last.range.start, run.range.end))
    else:
        runs.append(run)
