"""What each source told of a watched resource, and what gives way where all of that together is too much.

Any source can tell genuine states without end: whoever has keys signs as many as he likes. So each counts to whoever
told of it, to the one that has told least of those, and of the source that told most what is newest gives way. An
honest replica has no more than any replica keeps: what it tells stays, whatever others tell beside it. Pure.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

from registry.model.values import Record, Slot, State

MOST_BYTES: Final = 32 * 2**20
"""Of one resource, what all sources told: twice what a replica keeps by default."""
LEAST_COUNTED: Final = 8 * 2**10
"""Bytes for which each state counts at least, so that there are no more than 4,096."""


class Brought:
    """For one resource."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        """`most`: bytes that all sources together may have told."""
        self._most = most
        self._tellers: dict[Slot, str] = {}
        self._of: dict[str, dict[Slot, int]] = {}  # by source, with what each counts for
        self._bytes: dict[str, int] = {}

    def note(self, source: str, states: Iterable[State]) -> None:
        """A source told these."""
        self._of.setdefault(source, {})
        self._bytes.setdefault(source, 0)
        for state in states:
            counted = max(_bytes_of(state), LEAST_COUNTED)
            teller = self._tellers.get(state.slot, source)
            if self._bytes[teller] > self._bytes[source]:
                self._drop(state.slot)
                teller = source
            self._put(teller, state.slot, counted)

    def forget_all_but(self, known: Container[Slot]) -> None:
        """What isn't known any more counts for nobody."""
        for slot in [slot for slot in self._tellers if slot not in known]:
            self._drop(slot)
        for source in [source for source, slots in self._of.items() if not slots]:
            del self._of[source], self._bytes[source]

    def giving_way(self) -> set[Slot]:
        """What is too much; it counts for nobody any more."""
        found: set[Slot] = set()
        while sum(self._bytes.values()) > self._most:
            slot = next(reversed(self._of[max(self._bytes, key=self._bytes.__getitem__)]))
            self._drop(slot)
            found.add(slot)
        return found

    def _put(self, source: str, slot: Slot, counted: int) -> None:
        self._tellers[slot] = source
        self._bytes[source] += counted - self._of[source].get(slot, 0)
        self._of[source][slot] = counted  # in its old place, where it has one

    def _drop(self, slot: Slot) -> None:
        source = self._tellers.pop(slot, None)
        if source is not None:
            self._bytes[source] -= self._of[source].pop(slot)


def _bytes_of(state: State) -> int:
    """About, and without encoding it: thousands come together."""
    if not isinstance(state, Record):
        return len(state.solution)
    value = state.metadata.value
    return len(value) * (1 if value.isascii() else 4) + len(state.metadata.solution)
