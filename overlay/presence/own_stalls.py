"""Notices that this process stood still, whether it was stopped, starved, or its machine slept. Pure."""

from __future__ import annotations

from overlay.presence.timings import STALL


class OwnStalls:
    """Told the time with every event, and every `LOOK` seconds at least. The clock runs on while the machine sleeps."""

    def __init__(self, now: float) -> None:
        self._noted_at = now

    def note(self, now: float) -> float:
        """Seconds for which this process did nothing until now; 0 unless that is more than `STALL`."""
        pause, self._noted_at = now - self._noted_at, now
        return pause if pause > STALL else 0.0
