"""Paths from a root to a peer: which weights they lend, and the certificates that they are. Pure.

Rules:
1. A path is a chain of trusts that count, from a root's trust in itself to the peer. It visits nobody twice, except
   that a peer's trust in itself may lie between; no peer on it has revoked one further down.
2. A root lends weight down to as many steps as it was given (`MAX_STEPS` at most), half as much with each: a chain of
   n + 1 trusts has weight 2^(steps - n). Longer chains are no paths.
3. The heaviest come first; of equal weight, those whose last issuers come first in order of their ids.
4. A search takes `MAX_VISITS` steps at most, and tells what it has found by then.

The search goes from the peer to the roots, best first: `reach`, without those who revoked somebody on the chain so far,
is what the rest of it could lend at most. So what leads to no root is never looked at, and nobody hides the paths to a
peer among a thousand that lead nowhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

from cachetools import LRUCache

from registry.trust.statements import Chain, Statement, TrustRevocation, TrustStatement

MAX_VISITS: Final = 1_500  # some 5 ms
VISITS_OF_REACH: Final = 300  # what finding the reach without some peers counts for, of all 4,096 statements

Statements = Mapping[str, Mapping[str, Statement]]
"""For whom, by whom: what counts of it."""


def reach(
    roots: Mapping[str, int], trusted: Mapping[str, Sequence[str]], avoided: Container[str] = ()
) -> dict[str, int]:
    """How many steps, at most, each peer could be above the end of a root's chains; only those who can be on one.

    `roots`: the steps of each that trusts itself; `trusted`: whom each peer trusts; `avoided`: who is on no chain.
    """
    found: dict[str, int] = {}
    levels: dict[int, list[str]] = {}
    for peer_id, steps in roots.items():
        levels.setdefault(steps, []).append(peer_id)
    for level in range(max(levels, default=-1), -1, -1):
        for peer_id in levels.get(level, ()):
            if peer_id not in found and peer_id not in avoided:
                found[peer_id] = level
                levels.setdefault(level - 1, []).extend(trusted.get(peer_id, ()))
    return found


class Path(NamedTuple):
    """One way to a root, and the exponent of the weight that it lends."""

    exponent: int
    chain: Chain


class _Choices(NamedTuple):
    """By which trusts a chain may go on, those first that leave most, and the exponent of each."""

    trusts: Sequence[TrustStatement]
    exponents: Sequence[int]
    revokers: frozenset[str]
    """Who revoked somebody on the chain."""


_Open = tuple[int, int, tuple[TrustStatement, ...], _Choices, int]
"""A chain to be extended: its weight's exponent at most, negated; its number; its trusts, from the peer upwards; which
may come next, and the place of the one that does. With the place `_WHOLE` it is a path."""

_WHOLE: Final = -1
_REMEMBERED_REACH: Final = 32
_REMEMBERED_CHOICES: Final = 2_048
_NOBODY: Final[frozenset[str]] = frozenset()
_NOTHING: Final = _Choices((), (), _NOBODY)


class Search:
    """Finds the paths to peers among `statements` that count."""

    def __init__(self, roots: Mapping[str, int], statements: Statements, trusted: Mapping[str, Sequence[str]]) -> None:
        """`trusted`: whom each peer trusts."""
        self._roots = {peer_id: steps for peer_id, steps in roots.items() if peer_id in trusted.get(peer_id, ())}
        self._statements = statements
        self._trusted = trusted
        self.reachable: Mapping[str, int] = reach(self._roots, trusted)
        """The `reach` of all."""
        self._reach: LRUCache[frozenset[str], Mapping[str, int]] = LRUCache(_REMEMBERED_REACH)
        self._choices: LRUCache[tuple[str, bool, frozenset[str]], _Choices] = LRUCache(_REMEMBERED_CHOICES)

    def paths(self, peer_id: str, visits: int = MAX_VISITS) -> Iterator[Path]:
        """The paths to a peer, the heaviest first."""
        numbers, left = count(), visits
        waiting: list[_Open] = []

        def extend(below: tuple[TrustStatement, ...], choices: _Choices, first: int) -> None:
            """Takes up the next choice that may follow; the first is the best of those left."""
            nonlocal left
            for place in range(first, min(len(choices.trusts), first + max(left, 0))):
                left -= 1
                exponent = choices.exponents[place] - len(below)
                if exponent < 0:
                    return
                above = choices.trusts[place].issued_by
                if not any(trust.issued_for == above for trust in below):
                    heapq.heappush(waiting, (-exponent, next(numbers), below, choices, place))
                    return

        def go_on(below: tuple[TrustStatement, ...], peer_id: str, revokers: frozenset[str]) -> None:
            nonlocal left
            revokers |= self._revokers(peer_id)
            if revokers and revokers not in self._reach:
                left -= VISITS_OF_REACH
                if left <= 0:
                    return
            extend(below, self._choices_of(peer_id, bool(below), revokers), 0)

        go_on((), peer_id, _NOBODY)
        while waiting and left > 0:
            left -= 1
            exponent, _, below, choices, place = heapq.heappop(waiting)
            if place == _WHOLE:
                yield Path(-exponent, tuple(reversed(below)))
                continue
            extend(below, choices, place + 1)
            last = choices.trusts[place]
            trusts = (*below, last)
            if below and self._may_end(last) and (exponent := len(below) - self._roots[last.issued_by]) <= 0:
                heapq.heappush(waiting, (exponent, next(numbers), trusts, _NOTHING, _WHOLE))
            go_on(trusts, last.issued_by, choices.revokers)

    def _revokers(self, peer_id: str) -> frozenset[str]:
        """Who revoked a peer and could be above it."""
        held = self._statements.get(peer_id, {})
        return frozenset(
            by for by, statement in held.items() if type(statement) is TrustRevocation and by in self.reachable
        )

    def _choices_of(self, peer_id: str, has_below: bool, revokers: frozenset[str]) -> _Choices:
        """`has_below`: there are trusts below already."""
        held = self._statements.get(peer_id)
        if not held:
            return _NOTHING
        found = self._choices.get((peer_id, has_below, revokers))
        if found is None:
            reachable = self._reach_without(revokers)

            def left(trust: TrustStatement) -> int:
                """The exponent below it; a root's trust in itself at the end of a path is no step."""
                return reachable[trust.issued_by] - (0 if has_below and self._may_end(trust) else 1)

            trusts = sorted(
                (one for one in held.values() if type(one) is TrustStatement and one.issued_by in reachable),
                key=lambda trust: (-left(trust), trust.issued_by),
            )
            found = _Choices(trusts, [left(trust) for trust in trusts], revokers)
            self._choices[peer_id, has_below, revokers] = found
        return found

    def _reach_without(self, revokers: frozenset[str]) -> Mapping[str, int]:
        if not revokers:
            return self.reachable
        found = self._reach.get(revokers)
        if found is None:
            found = self._reach[revokers] = reach(self._roots, self._trusted, revokers)
        return found

    def _may_end(self, trust: TrustStatement) -> bool:
        return trust.is_of_itself and trust.issued_by in self._roots
