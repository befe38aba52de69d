"""Whether this peer lost its own links rather than the others: then it judges nobody. Pure.

1. The doubt begins when more than half of the home was lost within `LOST_WITHIN` seconds.
2. All of the home are pinged then, those that were lost too. The doubt ends when `needed` of them answered, in any way
   that only another machine can: also a refused connection shows that packets go and come.
3. It ends after `SELF_DOUBT` seconds in any case.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from overlay.presence.timings import ANSWERS_SHARE, FEWEST_ANSWERS, LOST_WITHIN, SELF_DOUBT


class SelfDoubt:
    """Told which members of the home are lost and come back."""

    def __init__(self) -> None:
        self._home: dict[str, float] = {}  # when each was lost; infinity while it isn't
        self._began = -math.inf
        self._ends = -math.inf
        self._answered: set[str] = set()

    def note_home(self, members: Iterable[str], now: float) -> None:
        """Who is linked around us; those that were lost lately belong to the home, too."""
        lost = [member for member, at in self._home.items() if 0 <= now - at <= LOST_WITHIN or self.is_doubting(now)]
        self._home = {member: self._home.get(member, math.inf) for member in dict.fromkeys([*members, *lost])}

    def home(self) -> list[str]:
        """The members of the home, those that were lost among them."""
        return list(self._home)

    def lost(self, member: str, now: float) -> bool:
        """The link to a member broke, or its kernel is silent. True when the doubt begins: ping `home` now."""
        if self._home.get(member) != math.inf:
            return False
        self._home[member] = now
        recent = sum(0 <= now - at <= LOST_WITHIN for at in self._home.values())
        if 2 * recent <= len(self._home) or self.is_doubting(now) or now - self._began <= LOST_WITHIN:
            return False
        self._began, self._ends = now, now + SELF_DOUBT
        self._answered.clear()
        return True

    def answered(self, member: str, now: float) -> None:
        """A member answered something that was sent to it after it was lost, or after the doubt began."""
        if member not in self._home:
            return
        self._home[member] = math.inf
        if self.is_doubting(now):
            self._answered.add(member)
            if len(self._answered) >= self.needed:
                self._ends = now

    @property
    def needed(self) -> int:
        """Answers that end the doubt: 3 or an eighth of the home, of a home of few members half."""
        size = len(self._home)
        return min(max(FEWEST_ANSWERS, size // ANSWERS_SHARE), max(size // 2, 1))

    def is_doubting(self, now: float) -> bool:
        """Whether this peer judges nobody at present."""
        return now < self._ends
