"""What is held in memory for whom, within bounds: of all peers and of each."""

from __future__ import annotations


class Quota:
    """Amounts by source."""

    def __init__(self, most: int, most_per_source: int) -> None:
        self._most = most
        self._most_per_source = most_per_source
        self._held: dict[str, int] = {}
        self.total = 0

    def has_room(self, source: str, amount: int) -> bool:
        """Whether `amount` more fits."""
        return self.total + amount <= self._most and self.fits_source(source, amount)

    def fits_source(self, source: str, amount: int) -> bool:
        """Whether `amount` more fits into what one source may hold."""
        return self.of(source) + amount <= self._most_per_source

    def of(self, source: str) -> int:
        """What is held for one source."""
        return self._held.get(source, 0)

    def take(self, source: str, amount: int) -> bool:
        """Holds `amount` more, if there is room."""
        if not self.has_room(source, amount):
            return False
        self.add(source, amount)
        return True

    def add(self, source: str, amount: int) -> None:
        """Holds `amount` more (or less), room or not."""
        self.total += amount
        held = self._held[source] = self.of(source) + amount
        if not held:
            del self._held[source]

    def heaviest(self) -> str | None:
        """The source that holds most."""
        return max(self._held, key=self._held.__getitem__, default=None)
