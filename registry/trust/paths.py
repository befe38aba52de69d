"""Paths from a root to a peer: which weights they lend, and the certificates that they are. Pure.

Rules:
1. A path is a chain of trusts that count, from a root's trust in itself to the peer. It visits nobody twice, except
   that a peer's trust in itself may lie between; no peer on it has revoked one further down.
2. A root lends weight down to as many steps as it was given (`MAX_STEPS` at most), half as much with each: a chain of
   n + 1 trusts has weight 2^(steps - n). Longer chains are no paths.
3. The heaviest come first; of equal weight, those whose last issuers come first in order of their ids.
4. A search takes `MAX_VISITS` steps at most, and tells what it has found by then.

The search goes from the peer to the roots, best first: `reach` is what a peer could have at most, revocations aside, so
that what leads to no root is never looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

from registry.trust.statements import Chain, Revocation, Statement, TrustStatement

MAX_VISITS: Final = 2_000  # some 10 ms

Statements = Mapping[str, Mapping[str, Statement]]
"""For whom, by whom: what counts of it."""


def reach(roots: Mapping[str, int], trusted: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many steps, at most, each peer could be above the end of a root's chains; only those who can be on one.

    `roots`: the steps of each that trusts itself; `trusted`: whom each peer trusts.
    """
    found: dict[str, int] = {}
    levels: dict[int, list[str]] = {}
    for peer_id, steps in roots.items():
        levels.setdefault(steps, []).append(peer_id)
    for level in range(max(levels, default=-1), -1, -1):
        for peer_id in levels.get(level, ()):
            if peer_id not in found:
                found[peer_id] = level
                levels.setdefault(level - 1, []).extend(trusted.get(peer_id, ()))
    return found


class Path(NamedTuple):
    """One way to a root, and the exponent of the weight that it lends."""

    exponent: int
    chain: Chain


class _Open(NamedTuple):
    """A chain to be extended by one of its choices; the next one is taken up when this one is."""

    exponent: int
    order: int
    trusts: tuple[TrustStatement, ...]
    """From the peer upwards."""
    choices: Sequence[TrustStatement]
    choice: int
    is_path: bool
    """`trusts` are a path, and there is nothing to extend."""


class Search:
    """Finds the paths to peers among `statements` that count."""

    def __init__(
        self,
        roots: Mapping[str, int],
        reachable: Mapping[str, int],
        statements: Statements,
    ) -> None:
        """`reachable`: their `reach`."""
        self._roots = roots
        self._reachable = reachable
        self._statements = statements
        self._choices: dict[tuple[str, bool], Sequence[TrustStatement]] = {}

    def paths(self, peer_id: str, visits: int = MAX_VISITS) -> Iterator[Path]:
        """The paths to a peer, the heaviest first."""
        numbers, left = count(), visits
        waiting: list[tuple[int, int, _Open]] = []

        def add(
            exponent: int,
            trusts: tuple[TrustStatement, ...],
            choices: Sequence[TrustStatement],
            choice: int,
            is_path: bool,
        ) -> None:
            if exponent >= 0:
                one = _Open(exponent, next(numbers), trusts, choices, choice, is_path)
                heapq.heappush(waiting, (-exponent, one.order, one))

        def extend(trusts: tuple[TrustStatement, ...], choices: Sequence[TrustStatement], first: int) -> None:
            """Takes up the next choice that may follow."""
            nonlocal left
            for choice in range(first, min(len(choices), first + max(left, 0))):
                left -= 1
                trust = choices[choice]
                if self._may_follow(trusts, trust.issued_by):
                    add(self._most(trust, bool(trusts)) - len(trusts), trusts, choices, choice, False)
                    return

        extend((), self._issuers(peer_id, False), 0)
        while waiting and left > 0:
            left -= 1
            _, _, best = heapq.heappop(waiting)
            if best.is_path:
                yield Path(best.exponent, tuple(reversed(best.trusts)))
                continue
            extend(best.trusts, best.choices, best.choice + 1)
            last = best.choices[best.choice]
            trusts = (*best.trusts, last)
            if best.trusts and self._may_end(last):
                add(self._roots[last.issued_by] - len(trusts) + 1, trusts, (), 0, True)
            extend(trusts, self._issuers(last.issued_by, True), 0)

    def _issuers(self, peer_id: str, has_below: bool) -> Sequence[TrustStatement]:
        """The trusts in a peer by which a path may go on, those first that leave most.

        `has_below`: some are below already.
        """
        held = self._statements.get(peer_id)
        if held is None:
            return ()
        found = self._choices.get((peer_id, has_below))
        if found is None:
            trusts = (
                trust
                for trust in held.values()
                if isinstance(trust, TrustStatement) and trust.issued_by in self._reachable
            )
            found = sorted(trusts, key=lambda trust: (-self._most(trust, has_below), trust.issued_by))
            self._choices[peer_id, has_below] = found
        return found

    def _most(self, trust: TrustStatement, has_below: bool) -> int:
        """The exponent that is left below a trust at most; a root's in itself at the end of a path is no step."""
        return self._reachable[trust.issued_by] - (0 if has_below and self._may_end(trust) else 1)

    def _may_end(self, trust: TrustStatement) -> bool:
        return trust.is_of_itself and trust.issued_by in self._roots

    def _may_follow(self, trusts: tuple[TrustStatement, ...], above: str) -> bool:
        for trust in trusts:
            if trust.issued_for == above:
                return False
            if isinstance(self._statements.get(trust.issued_for, {}).get(above), Revocation):
                return False
        return True
