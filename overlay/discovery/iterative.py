"""The iterative lookup of Kad-DHT (FIND_NODE), as a step machine: whom to ask next, and when the nearest are found.

It knows nothing of links, messages or what is looked up for. Times in seconds come in as `now`; whoever drives it asks
those that `to_ask` names, tells what came of it, and comes back at `wakes_at`.

1. The nearest candidates that weren't asked yet are asked, `PARALLEL` at a time (Kademlia's alpha); each answer or
   failure lets the next be asked at once, nothing waits for a round.
2. Whoever doesn't answer within its patience is passed by: another is asked in its place, its answer still counts.
3. Whoever lives but has no place for a link can't be asked, yet is found.
4. The lookup ends when the `ENOUGH_ANSWERED` nearest of those who may live have answered, or nobody is left to ask.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections.abc import Callable, Collection, Iterable
from typing import Final

PARALLEL: Final = 6
ENOUGH_ANSWERED: Final = 6
MOST_CANDIDATES: Final = 1024
"""Candidates kept, the nearest: answers of liars grow nothing beyond it."""


class PeerState(enum.Enum):
    """What became of a candidate. HEARD -> ASKED -> ANSWERED, FULL, FAILED or SLOW; SLOW -> one of the first three."""

    HEARD = enum.auto()
    ASKED = enum.auto()
    SLOW = enum.auto()
    """Asked, without answer within its patience."""
    ANSWERED = enum.auto()
    FULL = enum.auto()
    """It lives, and has no place for whoever asks."""
    FAILED = enum.auto()


_NOT_LIVING: Final = (PeerState.FAILED, PeerState.SLOW)
_NOT_ASKABLE: Final = (*_NOT_LIVING, PeerState.FULL)
_DROPPABLE: Final = (PeerState.HEARD, PeerState.FULL, PeerState.FAILED)


class IterativeLookup:
    """One lookup of the members nearest to `target`. Pure."""

    def __init__(self, target: int, own: str, *, count: int, answers: int = ENOUGH_ANSWERED) -> None:
        """`own`: the name of whoever looks up, which is never asked.

        `answers`: of how many nearest ones it waits for.
        """
        self._target = target
        self._own = own
        self._count = count
        self._answers = answers
        self._distances: dict[str, int] = {}
        self._states: dict[str, PeerState] = {}
        self._patience: dict[str, float] = {}

    def heard(self, peers: Iterable[tuple[str, int]]) -> None:
        """Peers that may be near, with their positions: those known at the start, then those told in answers."""
        for peer, position in peers:
            if peer != self._own and peer not in self._states:
                self._states[peer] = PeerState.HEARD
                self._distances[peer] = position ^ self._target
        if len(self._states) > MOST_CANDIDATES:
            self._drop_farthest()

    def to_ask(self, now: float, patience: Callable[[str], float]) -> list[str]:
        """Whom to ask now; they count as asked. `patience(peer)`: seconds until that one is passed by."""
        self._pass_by(now)
        flying = sum(state is PeerState.ASKED for state in self._states.values())
        chosen: list[str] = []
        for peer in self._candidates(self._count, but=_NOT_ASKABLE):
            if flying + len(chosen) >= PARALLEL:
                break
            if self._states[peer] is PeerState.HEARD:
                chosen.append(peer)
        for peer in chosen:
            self._states[peer] = PeerState.ASKED
            self._patience[peer] = now + patience(peer)
        return chosen

    def answered(self, peer: str, told: Iterable[tuple[str, int]]) -> None:
        """`peer` answered with the peers that it knows near the target."""
        if self._states.get(peer) in (PeerState.ASKED, PeerState.SLOW):
            self._states[peer] = PeerState.ANSWERED
            self._patience.pop(peer, None)
        self.heard(told)

    def failed(self, peer: str) -> None:
        """`peer` can't be asked, or gave no good answer."""
        self._end(peer, PeerState.FAILED)

    def had_no_place(self, peer: str) -> None:
        """`peer` turned away whoever wanted to ask it, since it is linked to as many as it may be."""
        self._end(peer, PeerState.FULL)

    def is_done(self, now: float) -> bool:
        """Whether the nearest were found, or nobody is left who could name nearer ones."""
        self._pass_by(now)
        nearest = self._candidates(self._answers, but=_NOT_ASKABLE)
        return all(self._states[peer] is PeerState.ANSWERED for peer in nearest)

    def wakes_at(self) -> float:
        """When somebody is passed by if nothing comes before; infinite when nobody is waited for."""
        return min(self._patience.values(), default=math.inf)

    def found(self) -> list[str]:
        """The `count` nearest of those that aren't known to have failed, nearest first, without the own name."""
        return self._candidates(self._count)

    def state_of(self, peer: str) -> PeerState | None:
        """What became of a candidate; None for one never heard of."""
        return self._states.get(peer)

    def _end(self, peer: str, state: PeerState) -> None:
        if peer in self._states:
            self._states[peer] = state
            self._patience.pop(peer, None)

    def _candidates(self, count: int, *, but: Collection[PeerState] = _NOT_LIVING) -> list[str]:
        living = (peer for peer, state in self._states.items() if state not in but)
        return heapq.nsmallest(count, living, key=self._distances.__getitem__)

    def _pass_by(self, now: float) -> None:
        for peer in [peer for peer, until in self._patience.items() if until <= now]:
            self._states[peer] = PeerState.SLOW
            del self._patience[peer]

    def _drop_farthest(self) -> None:
        droppable = [peer for peer, state in self._states.items() if state in _DROPPABLE]
        surplus = len(self._states) - MOST_CANDIDATES
        for peer in heapq.nlargest(surplus, droppable, key=self._distances.__getitem__):
            del self._states[peer], self._distances[peer]
