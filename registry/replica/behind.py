"""Resources of which this node lacks something that others have, and why: it refused it for a while, or lost it.

Rules (docs/design.md, Replication):
1. What was refused because the disk failed, or was lost by it, makes this node *behind* for that resource: its answers
   don't count there, until replicas have compared all that both keep with it, having begun after the loss. Those that
   did so far are remembered: two words may come at different times.
2. What was refused for its time, for load or for room is asked for again in the same way; but this node isn't behind
   for it, since anybody can send what every replica refuses. Nor does it keep this node behind for what the disk lost.
3. After its clock was wrong nobody knows what it refused, or hid: it is behind for everything, until its nearest
   neighbours have compared all with it; if none does after `MOST_TRIES`, its answers count all the same.
   What is dated ahead is kept besides (`registry.replica.early_items`): nobody has taken it yet.
4. It is asked for again soon, and then later and later, `LONGEST_DELAY` seconds at most; where there was no room,
   `LONGEST_WITHOUT_ROOM`, but at once when there is room again; what somebody sent too fast, `LONGEST_TOO_FAST`.
   About what was refused it asks every `PAUSE` seconds at most: the others compare with nobody more often, and what the
   disk lost comes first. Of that, what would be due within `TOGETHER` seconds comes along, for the same reason: who
   compares does so for everything. That isn't one of its `MOST_TRIES`.
5. Of too many, what was refused for load gives way to other causes, and all of those to what the disk lost: anybody can
   have this node refuse whatever he likes, by sending too fast, or what is dated ahead.

Pure: times in seconds of any clock come in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from registry.codes import Code, Kind

FIRST_DELAY: Final = 1.0  # seconds
LONGEST_DELAY: Final = 8.0
LONGEST_WITHOUT_ROOM: Final = 600.0
LONGEST_TOO_FAST: Final = 60.0
PAUSE: Final = 3.0  # seconds
TOGETHER: Final = LONGEST_DELAY / 2
MOST_TRIES: Final = 6  # of getting everything, or a second replica's word: half a minute
MAX_BEHIND: Final = 4096  # resources; what is beyond waits for the hourly comparison
MAX_WORDS: Final = 32  # replicas of whom it is remembered that they compared a resource: more than keep it

_LONGEST: Final = {Code.DISK_FULL: LONGEST_WITHOUT_ROOM, Code.RATE_EXCEEDED: LONGEST_TOO_FAST}


class _Lack(msgspec.Struct):
    code: Code
    """The gravest, or the latest of equally grave ones."""
    noted_at: float
    lost_at: float | None = None
    """When the disk lost something, the latest time."""
    refused: Code | None = None
    """What was refused besides, since `lost_at`."""
    tries: int = 0
    due_at: float = 0.0
    words: dict[str, None] = msgspec.field(default_factory=dict)
    """Who has compared it since, in that order."""

    @property
    def since(self) -> float:
        """When a comparison has to have begun to count."""
        return self.noted_at if self.lost_at is None else self.lost_at


class Behind:
    """What this node lacks."""

    def __init__(self) -> None:
        self._lacks: dict[str, _Lack] = {}
        self._count: Counter[Code] = Counter()
        self._everything: _Lack | None = None
        self._others_from = -math.inf  # when it may ask again about what was refused

    def __len__(self) -> int:
        return len(self._lacks)

    def note(self, key_id: str, code: Code, now: float) -> bool:
        """Something of a resource was refused for a cause that passes, or lost; whether it will be asked for."""
        if not is_passing(code):
            return False
        lack = self._lacks.get(key_id)
        if lack is None:
            if len(self._lacks) >= MAX_BEHIND and not self._make_room(code):
                return False
            lack = self._lacks[key_id] = _Lack(code, now, due_at=now + FIRST_DELAY)
            self._count[code] += 1
        lack.noted_at = now
        if _makes_behind(code):
            lack.lost_at, lack.refused = now, None
        elif lack.lost_at is not None:
            lack.refused = code
            return True
        lack.words.clear()
        self._change(lack, code)
        return True

    def _change(self, lack: _Lack, code: Code) -> None:
        self._count[lack.code] -= 1
        self._count[code] += 1
        lack.code = code

    def _make_room(self, code: Code) -> bool:
        """Rule 5."""
        lowest = min(_gravity(each) for each, count in self._count.items() if count)
        if lowest >= _gravity(code):
            return False
        self._drop(next(key_id for key_id, lack in self._lacks.items() if _gravity(lack.code) == lowest))
        return True

    def _drop(self, key_id: str) -> None:
        self._count[self._lacks.pop(key_id).code] -= 1

    def is_behind(self, key_id: str) -> bool:
        """Whether this node's answers for a resource don't count (rule 1)."""
        lack = self._lacks.get(key_id)
        return lack is not None and lack.lost_at is not None

    @property
    def lacks_everything(self) -> bool:
        """Whether it is behind for all resources (rule 3)."""
        return self._everything is not None

    def note_everything(self, now: float) -> None:
        """The clock is wrong."""
        self._everything = _Lack(Code.CLOCK, now)

    def clock_is_right(self, now: float) -> None:
        """What was refused for its time may be asked for now."""
        for lack in self._lacks.values():
            if any(code is not None and code.kind is Kind.CLOCK for code in (lack.code, lack.refused)):
                lack.tries, lack.due_at = 0, now + FIRST_DELAY  # everything comes first
        if self._everything is not None:
            self._everything.tries, self._everything.due_at = 0, now

    def is_everything_due(self, now: float) -> bool:
        """Whether to ask neighbours for everything now; it counts as asked for."""
        lack = self._everything
        if lack is None or lack.due_at > now:
            return False
        if lack.tries >= MOST_TRIES:
            self._everything = None
            return False
        lack.tries += 1
        lack.due_at = now + min(FIRST_DELAY * 2.0**lack.tries, LONGEST_DELAY)
        return True

    def compared_everything(self, since: float) -> None:
        """Neighbours have compared everything with this node, having begun at `since` or later."""
        if self._everything is not None and self._everything.noted_at <= since:
            self._everything = None

    def due(self, now: float, most: int = MAX_BEHIND) -> list[str]:
        """The resources to ask others about now; they count as asked about. `most` of those that have waited longest:
        of what the disk lost, or, where none of that is due, of what was refused (rule 4)."""
        due = [key_id for key_id, lack in self._lacks.items() if lack.due_at <= now]
        is_lost = any(map(self.is_behind, due))
        if is_lost:
            due = [
                key_id for key_id in self._lacks if self.is_behind(key_id) and self._due_at(key_id) <= now + TOGETHER
            ]
        elif now < self._others_from:
            return []
        found = sorted(due, key=self._due_at)[:most]
        if found and not is_lost:
            self._others_from = now + PAUSE
        for key_id in found:
            lack = self._lacks[key_id]
            longest = _LONGEST.get(lack.code, LONGEST_DELAY)
            lack.tries += lack.due_at <= now
            lack.due_at = now + min(FIRST_DELAY * 2.0 ** min(lack.tries, 30), longest)
        return found

    def _due_at(self, key_id: str) -> float:
        return self._lacks[key_id].due_at

    def is_patient(self, key_id: str) -> bool:
        """Whether others may yet be asked about a resource that don't answer now: `MOST_TRIES` times, in all."""
        lack = self._lacks.get(key_id)
        return lack is not None and lack.tries <= MOST_TRIES

    def wakes_at(self) -> float:
        """When something is due if nothing comes before; infinite when nothing is lacking."""
        everything = math.inf if self._everything is None else self._everything.due_at
        lacks = self._lacks.values()
        lost = min((lack.due_at for lack in lacks if lack.lost_at is not None), default=math.inf)
        others = min((lack.due_at for lack in lacks if lack.lost_at is None), default=math.inf)
        return min(everything, lost, max(others, self._others_from))

    def room_again(self, now: float) -> None:
        """The database has room again."""
        for lack in self._lacks.values():
            if Code.DISK_FULL in (lack.code, lack.refused):
                lack.tries, lack.due_at = 0, now

    def note_word(self, peer_id: str, key_ids: Iterable[str], since: float) -> None:
        """One replica has compared these resources with this node, having begun at `since` or later; whether its word
        suffices is another question."""
        for key_id in key_ids:
            lack = self._lacks.get(key_id)
            if lack is not None and lack.since <= since:
                lack.words[peer_id] = None
                if len(lack.words) > MAX_WORDS:
                    del lack.words[next(iter(lack.words))]

    def words(self, key_id: str) -> frozenset[str]:
        """Who has compared a resource with this node since the latest of it was refused or lost."""
        lack = self._lacks.get(key_id)
        return frozenset() if lack is None else frozenset(lack.words)

    def compared(self, key_ids: Iterable[str], since: float) -> None:
        """Enough replicas have compared these resources with this node, having begun at `since` or later."""
        for key_id in key_ids:
            lack = self._lacks.get(key_id)
            if lack is None or lack.since > since:
                continue
            if lack.noted_at <= since or lack.refused is None:
                self._drop(key_id)
            else:  # something was refused meanwhile, which is asked for yet
                self._change(lack, lack.refused)
                lack.lost_at = lack.refused = None
                lack.words.clear()

    def causes(self) -> dict[str, int]:
        """How many resources there are by cause, for the node's status."""
        return {code.value: count for code, count in self._count.items() if count}


def is_passing(code: Code) -> bool:
    """Whether what was refused with this code may be taken by the same node later."""
    return code.kind in (Kind.CLOCK, Kind.DISK, Kind.LOAD)


def _gravity(code: Code) -> int:
    """The order in which causes give way, the lowest first (rule 5)."""
    return 2 if _makes_behind(code) else int(code.kind is not Kind.LOAD)


def _makes_behind(code: Code) -> bool:
    return code is Code.STORAGE
