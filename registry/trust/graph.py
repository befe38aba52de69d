"""The graph of who trusts whom, in memory: what it takes in, and what follows from it. Pure: `now` is an argument.

Rules:
1. The operator names *roots*. What a peer signs is taken when it has weight, or is a root: a trust when enough of the
   weight is left for whom it is for (half as much; a peer's trust in itself keeps it), a revocation always. Strangers'
   statements change nothing and are kept nowhere.
2. Of what one peer says of another the latest counts (`statements`), until it ends.
3. An issuer has `PER_ISSUER` statements, all together `IN_ALL`. When that is full, a trust of the lightest issuer gives
   way to a heavier one's, and of equal weight to one who has fewer. Where there is none, a revocation of a peer in
   whom nobody trusts does, of the issuer that has most statements, to one that is as heavy and has fewer: else whoever
   weighs anything could fill all places with peers that it made up, for ten years. Other revocations never give way,
   and what replaces a statement of the same pair takes no place.
4. What has ended is left out at once, and forgotten when its place is needed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

from cachetools import LRUCache

from registry.errors import QuotaExceeded
from registry.trust.errors import RevokedByStranger, TrustExpired, TrustForm, TrustFromFuture, TrustSignature
from registry.trust.paths import Path, Search
from registry.trust.statements import (
    MAX_STEPS,
    Chain,
    Statement,
    TrustRevocation,
    TrustStatement,
    is_genuine,
    shown_signature,
)

PER_ISSUER: Final = 512
IN_ALL: Final = 4_096
MAX_ROOTS: Final = 64
MAX_CERTIFICATES: Final = 32  # told at once
MAX_REVOCATIONS: Final = 256  # told at once
_REMEMBERED: Final = 4_096  # peers whose weights are known until something changes
_U32_MAX: Final = 2**32 - 1


class StatementChange(NamedTuple):
    """A statement that takes the place of another of the same pair; None for none."""

    before: Statement | None
    after: Statement | None

    @property
    def pair(self) -> tuple[str, str]:
        """By whom and for whom."""
        statement = self.after or self.before
        assert statement is not None
        return statement.issued_by, statement.issued_for


_Kept = tuple[int, Statement]
"""When a statement ends, which takes long to compute for all; and the statement."""


class TakenTrust(NamedTuple):
    """What became of a trust: the weight that it lends, and what it changed."""

    weight: int
    changes: tuple[StatementChange, ...]


class _KnownWeights(NamedTuple):
    """What follows from the statements that count from one time until another."""

    since: float
    until: float
    search: Search
    weights: LRUCache[str, int]


class WebOfTrust:
    """Statements and roots. `take_*` decide and tell what changes; nothing changes before `apply`."""

    def __init__(self, roots: Mapping[str, int], statements: Iterable[Statement] = ()) -> None:
        """`roots`: peers to the steps down to which they lend weight. `statements` are genuine."""
        self._roots = {peer_id: max(0, min(steps, MAX_STEPS)) for peer_id, steps in roots.items()}
        self._kept: defaultdict[str, dict[str, _Kept]] = defaultdict(dict)
        """For whom, by whom."""
        self._of: Counter[str] = Counter()
        self._known: _KnownWeights | None = None
        for statement in statements:
            self.apply([StatementChange(None, statement)])

    def __len__(self) -> int:
        return self._of.total()

    def statements(self) -> Iterator[Statement]:
        """All statements that are kept, also those that have ended."""
        for by in self._kept.values():
            for _, statement in by.values():
                yield statement

    @property
    def roots(self) -> Mapping[str, int]:
        """The peers that lend weight first, and down to how many steps."""
        return self._roots

    def set_root(self, peer_id: str, steps: int) -> int:
        """Makes a peer a root, or changes one; the steps that it gets. Raises TrustForm, QuotaExceeded."""
        if not 0 <= steps <= _U32_MAX:
            raise TrustForm(f"max_chain_len isn't within 0 and {_U32_MAX}")
        if peer_id not in self._roots and len(self._roots) >= MAX_ROOTS:
            raise QuotaExceeded(f"{MAX_ROOTS} roots of the trust graph")
        self._roots[peer_id] = min(steps, MAX_STEPS)
        self._known = None
        return self._roots[peer_id]

    def weight(self, peer_id: str, now: int) -> int:
        """The weight of a peer: its own as a root, or what its heaviest path lends; 0 for strangers."""
        known = self._at(now)
        found = known.weights.get(peer_id)
        if found is None:
            found = 2 ** self._roots[peer_id] if peer_id in self._roots else 0
            for path in islice(known.search.paths(peer_id), 1):
                found = max(found, 2**path.exponent)
            known.weights[peer_id] = found
        return found

    def weight_from(self, peer_id: str, through: str, now: int) -> int:
        """The weight that paths through another peer lend."""
        return next((2**path.exponent for path in self._paths(peer_id, through, now)), 0)

    def certificates(self, peer_id: str, now: int, through: str | None = None) -> list[Chain]:
        """The paths to a peer, through another one if given: the heaviest, `MAX_CERTIFICATES` at most."""
        return [path.chain for path in islice(self._paths(peer_id, through, now), MAX_CERTIFICATES)]

    def revocations(self, peer_id: str, now: int) -> list[TrustRevocation]:
        """The revocations of a peer, in order of who revoked it, `MAX_REVOCATIONS` at most."""
        found = (
            statement
            for _, (ends_at, statement) in sorted(self._kept.get(peer_id, {}).items())
            if isinstance(statement, TrustRevocation) and ends_at > now
        )
        return list(islice(found, MAX_REVOCATIONS))

    def take_trust(self, trust: TrustStatement, now: int, clock_skew: int = 0) -> TakenTrust:
        """Decides on a trust. Raises RegistryRefusal."""
        check_trust(trust, now)
        if trust.issued_at > now + clock_skew:
            raise TrustFromFuture("trust")
        weight = self.weight(trust.issued_by, now)
        lent = weight if trust.is_of_itself else weight // 2
        return TakenTrust(lent, tuple(self._placing(trust, now)) if lent else ())

    def take_revocation(
        self, revocation: TrustRevocation, now: int, clock_skew: int = 0
    ) -> tuple[StatementChange, ...]:
        """Decides on a revocation; what changes. Raises RegistryRefusal."""
        if revocation.issued_at > now + clock_skew:
            raise TrustFromFuture("revoke")
        check_signature(revocation)
        if revocation.ends_at <= now:
            return ()  # so has whatever it revokes
        if not self.weight(revocation.issued_by, now):
            raise RevokedByStranger(revocation.issued_by)
        return tuple(self._placing(revocation, now))

    def apply(self, changes: Iterable[StatementChange]) -> None:
        """Has changes come about."""
        for change in changes:
            by, issued_for = change.pair
            held = self._kept[issued_for]
            self._of[by] += (change.after is not None) - (by in held)
            if change.after is not None:
                held[by] = change.after.ends_at, change.after
            else:
                held.pop(by, None)
                if not held:
                    del self._kept[issued_for]
            if not self._of[by]:
                del self._of[by]
            self._known = None

    def ended(self, now: int) -> list[StatementChange]:
        """What can be forgotten."""
        return [StatementChange(statement, None) for statement in self.statements() if statement.ends_at <= now]

    def _placing(self, statement: Statement, now: int) -> Iterator[StatementChange]:
        """What changes when a statement is taken in. Raises QuotaExceeded."""
        by = statement.issued_by
        if by in self._kept.get(statement.issued_for, {}):
            ends_at, before = self._kept[statement.issued_for][by]
            if ends_at <= now or before.order() < statement.order():
                yield StatementChange(before, statement)
            return
        places, own = len(self), self._of[by]
        if places >= IN_ALL or own >= PER_ISSUER:
            ended = self.ended(now)
            yield from ended
            places -= len(ended)
            own -= sum(change.pair[0] == by for change in ended)
        if own >= PER_ISSUER:
            raise QuotaExceeded(f"{PER_ISSUER} statements of {by} in the trust graph")
        if places >= IN_ALL:
            yield StatementChange(self._giving_way(by, now), None)
        yield StatementChange(None, statement)

    def _giving_way(self, by: str, now: int) -> Statement:
        """What gives way to a statement by this issuer (rule 3). Raises QuotaExceeded."""
        reachable = self._at(now).search.reachable  # weights, but for revocations: the weights of all take long to find

        def place(issuer: str, number: int) -> tuple[int, int]:
            return max(reachable.get(issuer, -1), self._roots.get(issuer, -1)), -number

        places = {issuer: place(issuer, number) for issuer, number in self._of.items()}
        lightest = min(
            (statement for statement in self.statements() if isinstance(statement, TrustStatement)),
            key=lambda trust: (places[trust.issued_by], trust.ends_at, trust.order()),
            default=None,
        )
        own = place(by, self._of[by] + 1)
        if lightest is not None and places[lightest.issued_by] < own:
            return lightest
        idle = max(
            (each for each in self._idle_revocations() if places[each.issued_by][0] <= own[0]),
            key=lambda revocation: (self._of[revocation.issued_by], revocation.order()),
            default=None,
        )
        if idle is None or self._of[idle.issued_by] <= self._of[by] + 1:
            raise QuotaExceeded(f"{IN_ALL} statements in the trust graph")
        return idle

    def _idle_revocations(self) -> Iterator[TrustRevocation]:
        """Those that end nothing: of peers in whom nobody trusts, as far as is known here."""
        for by in self._kept.values():
            kept = [statement for _, statement in by.values()]
            if not any(isinstance(statement, TrustStatement) for statement in kept):
                yield from (statement for statement in kept if isinstance(statement, TrustRevocation))

    def _paths(self, peer_id: str, through: str | None, now: int) -> Iterator[Path]:
        for path in self._at(now).search.paths(peer_id):
            if through is None or any(trust.issued_for == through for trust in path.chain):
                yield path

    def _at(self, now: int) -> _KnownWeights:
        known = self._known
        if known is None or not known.since <= now < known.until:
            known = self._known = self._look(now)
        return known

    def _look(self, now: int) -> _KnownWeights:
        """What counts now: until the next statement ends, as long as nothing changes."""
        statements: dict[str, dict[str, Statement]] = {}
        trusted: defaultdict[str, list[str]] = defaultdict(list)
        since, until = -math.inf, math.inf
        for issued_for, kept in self._kept.items():
            held = statements[issued_for] = {}
            for by, (ends_at, statement) in kept.items():
                if ends_at <= now:
                    since = max(since, ends_at)
                    continue
                until = min(until, ends_at)
                held[by] = statement
                if type(statement) is TrustStatement:
                    trusted[by].append(issued_for)
        return _KnownWeights(since, until, Search(self._roots, statements, trusted), LRUCache(_REMEMBERED))


def check_trust(trust: TrustStatement, now: int) -> None:
    """Whether it counts by itself. Raises TrustExpired, TrustSignature, PeerIdParseError, TrustForm."""
    if trust.ends_at <= now:
        raise TrustExpired(trust.ends_at, now)
    check_signature(trust)


def check_signature(statement: Statement) -> None:
    """Raises TrustSignature, PeerIdParseError, TrustForm."""
    if not is_genuine(statement):
        raise TrustSignature(shown_signature(statement), statement.issued_by)
