"""Virtual time: whenever every task waits, it is the moment for which the first of them waits."""

from __future__ import annotations

import math
from typing import Final

import trio

TICK: Final = 0.01
"""Seconds by which time advances at least: what happens within them happens together, in fewer turns of the loop."""

LOOKS: Final = 20
"""How often in a row Trio asks, with nothing to wait for but what is outside, before this counts as an error."""
LOOKED_AFTER: Final = 0.1
"""Real seconds from one to the next."""


class VirtualClock(trio.abc.Clock):
    """A clock for `trio.run`. For tasks that wait for each other and for time only, not for threads or sockets.

    As `trio.testing.MockClock` with `autojump_threshold=0`, at half the turns of the loop and fewer. When every task
    waits and none for a time, nothing would ever happen again: then the run fails.
    """

    def __init__(self, tick: float = TICK) -> None:
        self._tick = tick
        self._ticks = 0
        self._looks = 0

    def start_clock(self) -> None:
        """Trio begins to run."""

    def current_time(self) -> float:
        """Seconds since the start."""
        return self._ticks * self._tick

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks for how long it may sleep when nothing is left to run: not at all, for it is then already."""
        if deadline == math.inf:
            self._looks += 1
            if self._looks > LOOKS:
                raise RuntimeError(f"at {self.current_time():g} s every task waits, and none for a time")
            return LOOKED_AFTER
        self._looks = 0
        self._ticks = max(self._ticks, math.ceil(deadline / self._tick))
        if self.current_time() < deadline:  # by the error of the multiplication
            self._ticks += 1
        return 0.0
