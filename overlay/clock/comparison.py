"""Whether this machine's clock is right, as peers' clocks tell.

Rules (docs/design.md, Clocks):
1. Peers are asked for their time. An answer is worth half of the round trip; one that took long says nothing.
2. Peers of one address group have one opinion together, their median, since one party may run them all. Where all that
   were asked are of one group (one machine, one network), each has its own.
3. With `ENOUGH` opinions or more their median decides: a clock that differs from it by more than `LIMIT` is *off*. So
   liars that have fewer than half of the opinions move nothing out of what honest clocks differ by.
4. With fewer opinions a difference is *suspect*, which decides nothing.
5. What was decided holds as time goes by, measured by the monotonic clock: a jump of the wall clock shows at once.
6. Too few opinions don't change what was decided, but where the clock jumped since and there aren't enough to ask: it
   may have been set, or the machine may have slept. Unless those few say the same as what was decided.
7. Where nothing is decided, what was said before a jump of the wall clock says nothing of the time after it: the clock
   is *unchecked* until peers were asked again.

Pure: times come in, in seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum
from statistics import median
from typing import Final

import msgspec

LIMIT: Final = 10.0  # seconds
ENOUGH: Final = 3  # opinions
MOST_UNCERTAIN: Final = 2.0  # seconds: half of a round trip


class Standing(StrEnum):
    """What is known of this machine's clock."""

    UNCHECKED = "unchecked"
    """Nobody has answered yet who should, since the start or since the clock jumped."""
    UNKNOWN = "unknown"
    """Too few have an opinion, and they don't say otherwise."""
    SUSPECT = "suspect"
    """Too few have an opinion, and it differs."""
    RIGHT = "right"
    OFF = "off"


class Opinion(msgspec.Struct, frozen=True):
    """What one peer's clock says: by how many seconds ours is `ahead` of it, and how uncertain that is."""

    group: str
    ahead: float
    uncertainty: float


class ClockVerdict(msgspec.Struct, frozen=True):
    """What is known of this machine's clock: by how many seconds it is `ahead` (behind, below 0) of how many opinions'
    median."""

    standing: Standing
    ahead: float = 0.0
    opinions: int = 0

    @property
    def is_off(self) -> bool:
        """Whether enough peers say that this machine's clock is wrong."""
        return self.standing is Standing.OFF

    @property
    def is_suspect(self) -> bool:
        """Whether too few say so to tell who is wrong."""
        return self.standing is Standing.SUSPECT

    def __str__(self) -> str:
        """As in "172,800 s ahead of 5 peers'"."""
        how = f"{abs(self.ahead):,.0f} s {'ahead of' if self.ahead > 0 else 'behind'}"
        return f"{how} {self.opinions} {'peer' if self.opinions == 1 else 'peers'}'"


class Counted(msgspec.Struct, frozen=True):
    """Rule 2: what the opinions come to."""

    ahead: float
    uncertainty: float
    count: int


def counted(opinions: Iterable[Opinion]) -> Counted:
    """The median of what counts, and how much of it there is."""
    groups: defaultdict[str, list[Opinion]] = defaultdict(list)
    for opinion in opinions:
        if opinion.uncertainty <= MOST_UNCERTAIN:
            groups[opinion.group].append(opinion)
    if not groups:
        return Counted(0.0, 0.0, 0)
    several = [[one] for one in next(iter(groups.values()))] if len(groups) == 1 else list(groups.values())
    return Counted(
        median(median(one.ahead for one in each) for each in several),
        max(one.uncertainty for each in several for one in each),
        len(several),
    )


class ClockComparison:
    """Holds what was decided last. `wall` is this machine's clock, `monotonic` one that is never set."""

    def __init__(self) -> None:
        self._decided = Counted(0.0, 0.0, 0)
        self._network_time = 0.0  # less the monotonic time, as far as `_decided` has enough opinions
        self._was_off = False
        self._few = ClockVerdict(Standing.UNCHECKED)
        self._few_at = 0.0  # the wall clock less the monotonic one, when those few were asked

    def verdict(self, wall: float, monotonic: float) -> ClockVerdict:
        """What is known now."""
        if self._decided.count < ENOUGH:
            has_jumped = abs(wall - monotonic - self._few_at) > LIMIT  # rule 7
            return ClockVerdict(Standing.UNCHECKED) if has_jumped else self._few
        ahead = wall - monotonic - self._network_time
        is_off = abs(ahead) > LIMIT + self._decided.uncertainty
        return ClockVerdict(Standing.OFF if is_off else Standing.RIGHT, ahead, self._decided.count)

    def asked(self, opinions: Iterable[Opinion], wall: float, monotonic: float, *, could_tell: bool) -> None:
        """Peers were asked. `could_tell`: whether there are enough to ask, be it that they didn't answer now."""
        found = counted(opinions)
        if found.count >= ENOUGH:
            self._decided = found
            self._network_time = wall - found.ahead - monotonic
            self._was_off = self.verdict(wall, monotonic).is_off
            return
        if self._decided.count >= ENOUGH:
            verdict = self.verdict(wall, monotonic)
            jumped = verdict.is_off and not self._was_off
            if could_tell or not jumped:
                return  # rule 6
            if (
                found.count
                and abs(found.ahead - verdict.ahead) <= LIMIT + found.uncertainty + self._decided.uncertainty
            ):
                self._was_off = True
                return
            self._decided = Counted(0.0, 0.0, 0)
        if could_tell and not found.count and self.verdict(wall, monotonic).standing is Standing.UNCHECKED:
            return  # nothing came of asking
        is_suspect = abs(found.ahead) > LIMIT + found.uncertainty
        self._few_at = wall - monotonic
        self._few = ClockVerdict(Standing.SUSPECT if is_suspect else Standing.UNKNOWN, found.ahead, found.count)
