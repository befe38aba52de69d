"""Decides when this node compares with whom: hourly, as in the original, and at once when a neighbourhood changes.

Rules (docs/design.md, Replication):
1. When members come or go, only the ranges of the keyspace are compared whose keepers changed, with whoever became one
   of them: a newcomer, or a peer that moved up. A newcomer does the same, so each side sends what the other lacks. A
   departed peer gets some seconds to come back first; then it counts as a newcomer. Likewise where members begin to
   crowd; and with whoever moved up to the nearest, though it was a keeper as one of a region: what wavers between
   being dense or not was written to the nearest alone (`overlay.discovery.density`).
2. Hourly (`replicate` of `registry.settings`) all that this node and another keep is compared, a pair at a time.
3. A peer that a write didn't reach is compared with for that resource, later and later.
4. A node that isn't a keeper any more takes part in 1: so it hands its surplus over. What is left of it, where this
   node knows nobody, is compared with its keepers a little at a time, hourly (`registry.replication.surplus`).
5. Of the keepers of a resource the nearest acts first, the others some seconds later: mostly they find nothing to do.
6. A replica that lacks something, having refused or lost it, asks for a comparison (`registry.pull`), and is told when
   it is done.
7. This is background work: two comparisons at a time, with a pause after each that is as long as it took. Ranges come
   first; the resources that differ in them are due next. Who takes very long is left for others, and tried again later.

Pure: events and the time come in, and what is to be done comes out of `step`, which is to be called after each event
and at `wake_at`. The clock is any that doesn't go back. `registry.replication.scheduler` drives it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from overlay.discovery.density import Crowding
from overlay.limits.token_bucket import TokenBuckets
from registry.replication.due import Due
from registry.replication.messages import MAX_RANGES
from registry.replication.ranges import Ranges, intersection, union
from registry.settings import UpkeepSettings

AT_ONCE: Final = 2  # comparisons
COMPARED_AT_ONCE: Final = 512  # resources of one turn of a peer
LONGEST_PAUSE: Final = 1.0  # seconds
LONGEST_RESOURCES: Final = 60.0  # seconds of one turn; what was sent by then needn't be sent again
LONGEST_RANGES: Final = 300.0  # seconds of one turn, of which nothing is kept
UNWANTED_RETRIES: Final = 5  # then the hourly comparison will do
RETRY_LIMIT: Final = 300.0  # seconds
MAX_PULLED: Final = 8  # callers at the same time
PULL_RATE: Final = 0.5  # comparisons a second that one caller may ask for
PULL_BURST: Final = 4.0
MAX_FAILED: Final = 10_000  # resources remembered for a peer that writes didn't reach; beyond it, it gets all


class FindChanges(NamedTuple):
    """Find what a change of the members makes due (`registry.replication.due.due_after_change`), and tell it by
    `changes_found`."""

    came: frozenset[str]
    went: frozenset[str]
    before: frozenset[str]
    """The members without those who came."""
    after: frozenset[str]
    """The members of now."""
    crowdings: tuple[Crowding, Crowding]
    """What counted as dense before, and does now."""


class CompareRanges(NamedTuple):
    """Compare these ranges with a peer, and with `everything` all that is shared with it, as far as one comparison goes
    (`batch`). Tell what came of it by `ranges_compared` or `failed`, and in any case by `ended`."""

    peer_id: str
    due: Due
    timeout: float

    def batch(self, shared: Ranges) -> tuple[Ranges, Ranges]:
        """What is compared now, and what is left for later, where that much is shared."""
        ranges = union(self.due.ranges, shared)
        return ranges[:MAX_RANGES], ranges[MAX_RANGES:]

    def is_last(self, rest: Ranges) -> bool:
        """Whether a batch is all for now, where that much is left."""
        return not (rest or self.due.key_ids)


class CompareResources(NamedTuple):
    """Compare these resources with a peer. Tell what came of it by `finished` or `failed`, and in any case by
    `ended`."""

    peer_id: str
    due: Due
    key_ids: tuple[str, ...]
    is_last: bool
    """Whether this is all for now."""
    timeout: float


class ComparisonPlan:
    """What is due to be compared with whom, and when; see the rules above. Do what `step` returns."""

    def __init__(
        self,
        own_id: str,
        settings: UpkeepSettings,
        *,
        neighbours: Callable[[], Collection[str]],
        crowding: Callable[[], Crowding],
        uniform: Callable[[float, float], float],
    ) -> None:
        """`neighbours`: who is linked now of those who may keep the same. `crowding`: what counts as dense now.
        `uniform`: draws a number between two."""
        self._own_id = own_id
        self._settings = settings
        self._neighbours = neighbours
        self._crowding_now = crowding
        self._uniform = uniform
        self._members: set[str] = set()  # those that the pending comparisons are for
        self._crowding = crowding()  # likewise
        self._departing: dict[str, float] = {}  # gone since
        self._has_changed = False
        self._look_at: float | None = None
        self._is_finding = False
        self._due: defaultdict[str, Due] = defaultdict(Due)
        self._later: defaultdict[str, Due] = defaultdict(Due)
        self._wants_turn = False
        self._turn_at: float | None = None
        self._unwanted: dict[str, Ranges] = {}
        self._retries: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._under_way: dict[str, float] = {}  # since when
        self._pauses: list[float] = []  # until when each lasts
        self._pulled: set[str] = set()
        self._pulls = TokenBuckets(PULL_RATE, PULL_BURST)

    # How things stand.

    @property
    def pending(self) -> int:
        """Comparisons of a resource, or of a range of the keyspace, with a peer that are due."""
        return sum(len(due) for dues in (self._due, self._later) for due in dues.values()) + len(self._under_way)

    @property
    def due_now(self) -> int:
        """Those among them that wait for nobody else, and aren't under way."""
        return sum(map(len, self._due.values()))

    @property
    def is_settled(self) -> bool:
        """Whether nothing is pending, and the members are those that it was done for."""
        is_busy = self.pending or self._is_finding or self._departing or self._has_changed
        return not is_busy and self._members == set(self._neighbours())

    def has_work(self, now: float) -> bool:
        """Whether anything is due now or under way, not only later."""
        return bool(self._under_way) or self._next_peer(now) is not None

    def is_waiting(self, peer_id: str) -> bool:
        """Whether something is to be compared with a peer, or is being compared."""
        return peer_id in self._due or peer_id in self._under_way

    def is_postponed(self, peer_id: str, now: float) -> bool:
        """Whether comparing with a peer failed, and is tried again later."""
        return self._not_before.get(peer_id, -math.inf) > now

    # What makes comparisons due.

    def note_change(self, now: float) -> None:
        """Members came or went: even after a short absence, writes may have been missed."""
        for peer_id in self._members.difference(self._neighbours()):
            self._departing.setdefault(peer_id, now)
        self._has_changed = True

    def note_failure(self, peer_id: str, key_ids: Iterable[str], now: float) -> None:
        """A write of these resources didn't reach a peer (rule 3)."""
        if peer_id == self._own_id or peer_id not in self._neighbours():
            return  # rule 1 will bring it what it missed
        due = self._due[peer_id]
        if len(due.key_ids) < MAX_FAILED:
            due.key_ids.update(key_ids)
        else:
            due.everything = True
        if not self.is_postponed(peer_id, now):  # many writes that fail together are one failure
            self._postpone(peer_id, now)

    def add_everything(self, peer_ids: Iterable[str]) -> None:
        """All that is shared with these peers is due (rule 2)."""
        for peer_id in peer_ids:
            self._due[peer_id].everything = True

    def add_resource(self, peer_id: str, key_id: str) -> None:
        """One resource is due, with one of its keepers (rule 4)."""
        self._due[peer_id].key_ids.add(key_id)

    def begin_pull(self, caller: str, now: float) -> bool:
        """A replica asks for a comparison (rule 6). Each has one at a time, and pauses between them: False if it isn't
        to have one now. Once it is answered, call `end_pull`."""
        if caller in self._pulled or len(self._pulled) >= MAX_PULLED or not self._pulls.take(caller, now):
            return False
        self._pulled.add(caller)
        self._due[caller].everything = True
        self._not_before.pop(caller, None)
        return True

    def end_pull(self, caller: str) -> None:
        """A replica that asked for a comparison is answered, or has gone."""
        self._pulled.discard(caller)

    # Time.

    @property
    def wake_at(self) -> float:
        """When to call `step` next, if nothing happens until then."""
        return min(self._look_next_at(), self._turn_next_at(), self._compare_next_at())

    def step(self, now: float) -> list[FindChanges | CompareRanges | CompareResources]:
        """What is to be done now."""
        actions: list[FindChanges | CompareRanges | CompareResources] = []
        self._take_turn(now)
        change = self._look(now)
        if change is not None:
            actions.append(change)
        self._pauses = [until for until in self._pauses if now < until]
        while len(self._under_way) + len(self._pauses) < AT_ONCE and (peer_id := self._next_peer(now)) is not None:
            actions.append(self._begin(peer_id, now))
        return actions

    # Who came and went (rule 1).

    def _look_next_at(self) -> float:
        if self._is_finding:
            return math.inf
        if self._look_at is not None:
            return self._look_at
        return -math.inf if self._has_changed else self._next_departure()

    def _next_departure(self) -> float:
        return min(self._departing.values(), default=math.inf) + self._settings.departure_grace

    def _look(self, now: float) -> FindChanges | None:
        while not self._is_finding:
            if self._look_at is None:
                if not self._has_changed and now < self._next_departure():
                    return None
                self._has_changed = False
                # A little later: many peers come and go together, and both ends needn't begin in the same moment.
                self._look_at = now + self._settings.join_delay * self._uniform(0.5, 1.0)
            if now < self._look_at:
                return None
            self._look_at = None
            change = self._change_until(now)
            if change is not None:
                self._is_finding = True
                return change
        return None

    def _change_until(self, now: float) -> FindChanges | None:
        """Who came and went; those who went are forgotten."""
        present = set(self._neighbours())
        came = present - self._members | (present & self._departing.keys())
        went = {
            peer_id
            for peer_id, since in self._departing.items()
            if peer_id not in present and now >= since + self._settings.departure_grace
        }
        for peer_id in came | went:
            self._departing.pop(peer_id, None)
        if not (came or went):
            return None
        before, after = self._members - came, (self._members - went) | came
        self._members -= went
        for peer_id in went:
            for of_peer in (self._due, self._later, self._unwanted, self._retries, self._not_before):
                of_peer.pop(peer_id, None)
        crowdings = self._crowding, self._crowding_now()
        self._crowding = crowdings[1]
        return FindChanges(frozenset(came), frozenset(went), frozenset(before), frozenset(after), crowdings)

    def changes_found(self, change: FindChanges, first: Mapping[str, Ranges], later: Mapping[str, Ranges]) -> None:
        """What `FindChanges` asked for makes these ranges due, with each peer: where this node is to be the first to
        compare, and where others are (rule 5)."""
        self._is_finding = False
        for dues, found in ((self._due, first), (self._later, later)):
            for peer_id, ranges in found.items():
                dues[peer_id].ranges = union(dues[peer_id].ranges, ranges)
        present = set(self._neighbours())
        for peer_id in sorted(change.came):
            if peer_id in present:
                self._members.add(peer_id)
                _ = self._due[peer_id]  # be it only to say that this is all
            else:
                self._has_changed = True
        self._wants_turn = True

    # What others of the neighbourhood should have compared first (rule 5).

    def _turn_next_at(self) -> float:
        if self._turn_at is not None:
            return self._turn_at
        return -math.inf if self._wants_turn else math.inf

    def _take_turn(self, now: float) -> None:
        while True:
            if self._turn_at is None:
                if not self._wants_turn:
                    return
                self._wants_turn = False
                self._turn_at = now + self._settings.head_start * self._uniform(0.75, 1.25)
            if now < self._turn_at:
                return
            self._turn_at = None
            later, self._later = self._later, defaultdict(Due)
            present = set(self._neighbours())
            for peer_id, due in later.items():
                if peer_id in present:
                    self._due[peer_id].add(due)

    # One comparison after the other (rule 7).

    def _compare_next_at(self) -> float:
        if len(self._under_way) >= AT_ONCE:
            return math.inf
        waiting = [self._not_before.get(peer, -math.inf) for peer in self._due if peer not in self._under_way]
        next_at = min(waiting, default=math.inf)
        has_room = len(self._under_way) + len(self._pauses) < AT_ONCE
        return next_at if has_room else max(next_at, min(self._pauses))

    def _next_peer(self, now: float) -> str | None:
        for peer_id in self._due:
            if peer_id not in self._under_way and not self.is_postponed(peer_id, now):
                return peer_id
        return None

    def _begin(self, peer_id: str, now: float) -> CompareRanges | CompareResources:
        self._under_way[peer_id] = now
        due = self._due.pop(peer_id)
        if due.everything or due.ranges:
            return CompareRanges(peer_id, due, LONGEST_RANGES)
        key_ids = sorted(due.key_ids)[:COMPARED_AT_ONCE]
        rest = due.key_ids.difference(key_ids)
        if rest:
            self._due[peer_id].key_ids |= rest
        return CompareResources(peer_id, due, tuple(key_ids), not rest, LONGEST_RESOURCES)

    def ranges_compared(
        self, comparison: CompareRanges, rest: Ranges, differing: Collection[str], unwanted: Ranges
    ) -> bool:
        """A batch of ranges was compared, and `rest` is left: these resources differ, and this the peer didn't take.
        True if that was all for now: then what comes of it is told by `finished`."""
        peer_id, due = comparison.peer_id, comparison.due
        if unwanted:
            asked_for = intersection(unwanted, due.ranges)
            self._unwanted[peer_id] = union(self._unwanted.get(peer_id, ()), asked_for)
        if not (rest or due.key_ids or differing):
            return True
        left = self._due[peer_id]
        left.ranges = union(left.ranges, rest)
        left.key_ids.update(due.key_ids, differing)
        return False

    def take_unwanted(self, peer_id: str) -> Ranges:
        """What a peer didn't take since all was compared last."""
        return self._unwanted.pop(peer_id, ())

    def finished(self, peer_id: str, key_ids: Collection[str], ranges: Ranges, now: float) -> None:
        """A comparison is done but for what the peer said it isn't responsible for, and is by what this node sees: that
        is compared again later. For some seconds after a change, peers see differently who is near."""
        if (key_ids or ranges) and self._retries.get(peer_id, 0) < UNWANTED_RETRIES:
            due = self._due[peer_id]
            due.key_ids.update(key_ids)
            due.ranges = union(due.ranges, ranges)
            self._postpone(peer_id, now)
        else:
            self._retries.pop(peer_id, None)

    def failed(self, comparison: CompareRanges | CompareResources, now: float) -> bool:
        """A comparison failed, or took too long; whether it is tried again later."""
        if comparison.peer_id not in self._neighbours():
            return False
        self._due[comparison.peer_id].add(comparison.due)
        self._postpone(comparison.peer_id, now)
        return True

    def ended(self, peer_id: str, now: float) -> None:
        """A comparison is over, whatever came of it: a pause follows."""
        self._pauses.append(now + min(now - self._under_way.pop(peer_id), LONGEST_PAUSE))

    def _postpone(self, peer_id: str, now: float) -> None:
        retries = self._retries[peer_id] = self._retries.get(peer_id, 0) + 1
        delay = min(2.0 ** min(retries, 30), RETRY_LIMIT) * self._uniform(0.5, 1.0)
        self._not_before[peer_id] = now + delay
