"""The state of one check, out of its results: thresholds, damping, and when it is due. Pure: `now` is an argument.

Rules:
1. A check is critical until it passed: nobody is sent to what wasn't looked at.
2. Critical becomes something else after `passes` good results in a row, and something else critical after `failures`
   critical ones. A warning is a good result.
3. It is due an interval after its last start, up to a tenth of it earlier, so that many checks don't run at once and a
   state is never older than interval and timeout. The first is due within a second.
4. Each change of the state costs a point; half of the points are forgotten in `HALF_LIFE` intervals. From `DAMPED`
   points on the check flaps: it may get worse at once, and better only when no more than `CALM` points are left. One
   restart, or three in a row, don't get that far.
5. What is as another check is has neither thresholds nor damping of its own: it hears of a change once.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from aqua_compat.agent.definitions import CheckTiming

MAX_NOTE: Final = 256  # bytes
JITTER: Final = 0.1  # of an interval
FIRST_WITHIN: Final = 1.0  # seconds
HALF_LIFE: Final = 6.0  # intervals
DAMPED: Final = 4.0  # points
CALM: Final = 1.0
MOST_POINTS: Final = 8.0  # three half-lives until it is calm


class CheckState(enum.IntEnum):
    """How a service is as far as a check tells, the better state before the worse one."""

    PASSING = 0
    WARNING = 1
    CRITICAL = 3

    def __str__(self) -> str:
        return self.name.lower()


class CheckResult(NamedTuple):
    """What one run of a check came to: the state, and why, for people."""

    state: CheckState
    note: str = ""


NOT_CHECKED: Final = CheckResult(CheckState.CRITICAL, "not checked yet")


class Check:
    """A check over time. `shown` is what is told of it, `since` when that state began, `due` when it is to run."""

    def __init__(self, timing: CheckTiming, now: float, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 to 1."""
        self._timing = timing
        self._random = random
        self._state = CheckState.CRITICAL
        self._is_new = True
        self._was_good = False
        self._in_a_row = 0
        self._points = 0.0
        self._counted = now
        self._is_damped = False
        self.shown = NOT_CHECKED
        self.since = now
        self.due = now + random() * min(FIRST_WITHIN, timing.interval)

    def start(self, now: float) -> float:
        """Notes that it runs from `now` on. When it has to have ended, by the same clock."""
        self.due = now + self._timing.interval * (1 - JITTER * self._random())
        return now + self._timing.timeout

    def take(self, result: CheckResult, now: float) -> bool:
        """Takes the result of a run. Whether what is shown changed: the state, or why it isn't passing."""
        is_good = result.state is not CheckState.CRITICAL
        self._in_a_row = self._in_a_row + 1 if is_good is self._was_good else 1
        self._was_good = is_good
        state, is_critical = self._state, self._state is CheckState.CRITICAL
        if self._in_a_row >= (self._timing.passes if is_good else self._timing.failures) or is_good is not is_critical:
            state = result.state
        self._count(now, changed=state is not self._state and not self._is_new)
        self._is_new = self._is_new and is_critical and not is_good
        self._state = state
        note = result.note
        if self._is_damped and self.shown.state > state:
            state, note = self.shown.state, f"it flaps; last: {note or state}"
        elif state is not result.state:
            note = self.shown.note  # what it still is, the result that may end it doesn't explain
        return self._show(CheckResult(state, cut(note)), now)

    def follow(self, result: CheckResult, now: float) -> bool:
        """Shows what another check shows, to which thresholds and damping were applied. Whether that is a change."""
        return self._show(CheckResult(result.state, cut(result.note)), now)

    def _show(self, result: CheckResult, now: float) -> bool:
        before, self.shown = self.shown, result
        if before.state is not result.state:
            self.since = now
            return True
        return result.state is not CheckState.PASSING and result.note != before.note

    def _count(self, now: float, *, changed: bool) -> None:
        half_lives = max(now - self._counted, 0.0) / (HALF_LIFE * self._timing.interval)
        self._points = min(self._points * 0.5**half_lives + changed, MOST_POINTS)
        self._counted = now
        self._is_damped = self._points >= DAMPED or (self._is_damped and self._points > CALM)


def worst_of(results: Iterable[CheckResult]) -> CheckResult:
    """The worst of several, of equal ones the first; passing where there is none."""
    return max(results, key=lambda result: result.state, default=CheckResult(CheckState.PASSING))


def cut(note: str) -> str:
    """A note as it is kept: what can't be printed is a blank, and what is beyond 256 bytes is left out."""
    shown = "".join(character if character.isprintable() else " " for character in note[:MAX_NOTE]).strip()
    return shown.encode(errors="replace")[:MAX_NOTE].decode(errors="ignore")
