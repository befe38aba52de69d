"""Virtual time: whenever every task waits, it is the moment for which the first of them waits."""

from __future__ import annotations

import math
from typing import Final

import trio

TICK: Final = 0.01
"""Seconds by which time advances at least: what happens within them happens together, in fewer turns of the loop."""


class VirtualClock(trio.abc.Clock):
    """A clock for `trio.run`. For tasks that wait for each other and for time only, not for threads or sockets.

    As `trio.testing.MockClock` with `autojump_threshold=0`, at half the turns of the loop and fewer.
    """

    def __init__(self, tick: float = TICK) -> None:
        self._tick = tick
        self._ticks = 0

    def start_clock(self) -> None:
        """Trio begins to run."""

    def current_time(self) -> float:
        """Seconds since the start."""
        return self._ticks * self._tick

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks for how long it may sleep when nothing is left to run: not at all, for it is then already."""
        if deadline == math.inf:
            return math.inf
        self._ticks = max(self._ticks, math.ceil(deadline / self._tick))
        if self.current_time() < deadline:  # by the error of the multiplication
            self._ticks += 1
        return 0.0
