"""One bound for what many sources take of one thing, such as bytes, calls or connections: the heaviest gives way.

Rules:
1. All sources together never hold more than `most`, and none holds more than `most_per_source`.
2. A source at its own bound first loses what is idle of its own, the oldest first; if that isn't enough, it is refused.
3. When everything is taken, the source that holds most gives way: what is idle first, then the oldest. If the source
   that asks would then hold as much as the heaviest, it is refused instead.

So with n sources, each has a fair share of most / n: nobody who stays within it is refused, and nobody who stays within
it has to give way to others, however much the others ask for.
"""

from __future__ import annotations

from collections.abc import Callable


def _never() -> bool:
    return False


class Holding:
    """What one thing, such as a message or a task, holds for the source that answers for it. Made by `FairQuota.open`.

    It counts from its first `take` until it is closed; closing it twice is harmless.
    """

    __slots__ = ("_give_way", "_is_idle", "_quota", "amount", "is_closed", "source")

    def __init__(
        self, quota: FairQuota, source: str, give_way: Callable[[], None], is_idle: Callable[[], bool]
    ) -> None:
        self._quota = quota
        self._give_way = give_way
        self._is_idle = is_idle
        self.source = source
        self.amount = 0
        """What it holds now."""
        self.is_closed = False

    def take(self, amount: int) -> bool:
        """Hold `amount` more; False where the rules refuse it, and when the holding is closed.

        Others may be told to give way before this returns, and so may what this holding belongs to.
        """
        return not self.is_closed and self._quota._make_room(self, amount)

    def give_back(self, amount: int) -> None:
        """Hold `amount` less, at most what it holds; nothing when the holding is closed."""
        if not self.is_closed:
            self._quota._change(self, -amount)

    def close(self) -> None:
        """Give everything back, and let go of what it belongs to."""
        if not self.is_closed:
            self._quota._change(self, -self.amount)
            self.is_closed = True
            self._give_way, self._is_idle = _nothing, _never


class FairQuota:
    """Use `open`. Pure: it knows of no time and starts nothing."""

    def __init__(self, most: int, most_per_source: int) -> None:
        """In any one unit."""
        self._most = most
        self._most_per_source = most_per_source
        self._amounts: dict[str, int] = {}
        self._holdings: dict[str, dict[Holding, None]] = {}  # those that hold something, the oldest first
        self.total = 0
        """What all sources hold together."""

    def open(self, source: str, give_way: Callable[[], None], *, is_idle: Callable[[], bool] = _never) -> Holding:
        """A holding of a source, which is empty at first.

        `give_way` is called when it has to give everything back: it ends what needs it. The holding is closed then.
        `is_idle`: whether what it is held for does nothing at the moment, so that losing it costs little.
        """
        return Holding(self, source, give_way, is_idle)

    def of(self, source: str) -> int:
        """What a source holds."""
        return self._amounts.get(source, 0)

    def fits_source(self, source: str, amount: int) -> bool:
        """Whether `amount` more is within what one source may hold: if not, a refusal is of its own making."""
        return self.of(source) + amount <= self._most_per_source

    def _make_room(self, holding: Holding, amount: int) -> bool:
        source = holding.source
        while not self.fits_source(source, amount):
            idle = self._first(source, besides=holding, only_idle=True)
            if idle is None:
                return False
            self._end(idle)
        while self.total + amount > self._most:
            heaviest = max(self._amounts, key=self._amounts.__getitem__, default=source)
            first = self._first(heaviest, besides=holding)
            if first is None or self.of(heaviest) <= self.of(source) + amount:
                return False
            self._end(first)
        if holding.is_closed:  # what it belongs to had to give way itself
            return False
        self._change(holding, amount)
        return True

    def _first(self, source: str, besides: Holding, *, only_idle: bool = False) -> Holding | None:
        """Which holding of a source gives way first."""
        oldest: Holding | None = None
        for holding in self._holdings.get(source, ()):
            if holding is besides:
                continue
            if holding._is_idle():
                return holding
            oldest = oldest or holding
        return None if only_idle else oldest

    def _end(self, holding: Holding) -> None:
        holding._give_way()
        holding.close()

    def _change(self, holding: Holding, change: int) -> None:
        source = holding.source
        if not holding.amount + change >= 0:
            raise ValueError(f"{-change} is given back of {holding.amount}")
        holding.amount += change
        self.total += change
        self._amounts[source] = self.of(source) + change
        of_source = self._holdings.setdefault(source, {})
        if holding.amount:
            of_source[holding] = None
        else:
            of_source.pop(holding, None)
        if not of_source:
            del self._holdings[source], self._amounts[source]


def _nothing() -> None:
    """What a closed holding would call."""
