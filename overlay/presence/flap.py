"""Holds back a host that comes and goes, so that callers aren't sent to it each time. Pure."""

from __future__ import annotations

from collections import deque

from overlay.presence.timings import FLAP_WINDOW, FLAPS, HOLD


class Flap:
    """The reappearances of one host, as one replica sees them."""

    __slots__ = ("_hold", "_returns")

    def __init__(self) -> None:
        self._returns: deque[float] = deque(maxlen=FLAPS)
        self._hold = 0.0

    def returned(self, now: float) -> float:
        """The host came back; seconds for which it is held back."""
        self._returns.append(now)
        if len(self._returns) < FLAPS or now - self._returns[0] > FLAP_WINDOW:
            self._hold = 0.0
            return 0.0
        self._hold = min(max(2 * self._hold, HOLD[0]), HOLD[1])
        return self._hold
