"""Remembers which witnesses accused one host falsely, so that liars cost less and less. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from overlay.presence.timings import DISTRUST, HINT_DISTRUST


class Accusers:
    """The keepers of one host, as one replica trusts them; it holds as many entries as there are keepers."""

    __slots__ = ("_distrusted", "_hints")

    def __init__(self) -> None:
        self._distrusted: dict[str, tuple[int, float]] = {}  # how often in a row, and until when
        self._hints: dict[str, float] = {}

    def note_false(self, witnesses: Iterable[str], hinted: Iterable[str], now: float) -> None:
        """The host proved to be alive in spite of these witnesses' words, and of these ones' hints."""
        for witness in witnesses:
            times, until = self._distrusted.get(witness, (0, -math.inf))
            if now < until:
                continue  # it wasn't listened to
            times = times + 1 if now - until <= DISTRUST[1] else 1
            self._distrusted[witness] = times, now + min(DISTRUST[0] * 2.0 ** (times - 1), DISTRUST[1])
        for witness in hinted:
            self._hints[witness] = now + HINT_DISTRUST

    def believes(self, witness: str, now: float) -> bool:
        """Whether a word of the witness is worth looking for oneself."""
        return now >= self._distrusted.get(witness, (0, -math.inf))[1]

    def heeds_hint(self, witness: str, now: float) -> bool:
        """Whether a hint of the witness is."""
        return now >= self._hints.get(witness, -math.inf) and self.believes(witness, now)

    def keep(self, keepers: Iterable[str]) -> None:
        """Forget all but these."""
        kept = {*keepers}
        self._distrusted = {name: entry for name, entry in self._distrusted.items() if name in kept}
        self._hints = {name: until for name, until in self._hints.items() if name in kept}
