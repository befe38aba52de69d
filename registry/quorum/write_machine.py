"""The decisions of a write, as a pure state machine: to whom it is sent directly, and who passes it on to whom.

Rules (docs/design.md, Writing and reading):
1. Up to `ALL_DIRECTLY` replicas all get it directly: so few aren't worth a second hop.
2. Of more, `factor` replicas get it directly, `DIRECTLY` at least, in the order given, which is random, but for those
   that are doubted (`registry.quorum.doubts`): the nearest could be chosen by whoever makes keys until one lies near a
   resource. This node comes first when it is a replica.
   Two more get it directly when they announce it to watchers.
3. These split the others among themselves and pass it on, each to its share, so that nobody gets it twice. This node
   sends to its share as to those above.
4. Each that refuses or doesn't answer within `PATIENCE` seconds is made up for by another, of its own share if it has
   one, that takes over the rest of the share. When all have refused, all the others get it directly.
5. Only the own word of a replica to this node counts for `factor`. With a `factor` of more than 1 the words have to
   be of two address groups, if there are such, and those of doubted replicas don't count: one more of another group
   gets it directly where chance chose none. But that only takes `PATIENCE` seconds, or until nobody is left who could
   answer: then any words count, or a single replica that refuses would make writes fail.
6. Where members crowd around a resource, whoever was drawn from its whole region gets it first, in the order drawn, and
   `DIRECTLY` more get it directly, and all of those drawn to whom a link is open: those who crowd could be one liar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple

from registry.protocol.address_groups import GROUPS
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_ERRORS

ALL_DIRECTLY: Final = 8  # replicas
DIRECTLY: Final = 3  # replicas of more
ANNOUNCERS: Final = 2
PATIENCE: Final = 1.0  # seconds


class Send(NamedTuple):
    """Send the write to this replica, which is to pass it on to its share; `urgent` if somebody waits for its word."""

    peer_id: str
    share: tuple[str, ...] = ()
    urgent: bool = True


class WriteMachine:
    """One write. Do what `begin` and `step` return, tell it by `report` how each of these went."""

    def __init__(
        self,
        targets: Sequence[str],
        *,
        here: str | None,
        factor: int,
        announcers: Collection[str] = (),
        drawn: Sequence[str] = (),
        linked: Collection[str] = (),
        group_of: Callable[[str], str] = str,
        doubted: Collection[str] = (),
    ) -> None:
        """`targets`: all replicas, in random order. `here`: this node, if it is one of them. `announcers`: peers that
        tell watchers of the resource. `drawn`: further replicas, from the region of a resource that members crowd
        around. `linked`: peers to whom a link is open. `group_of`: the address group of each. `doubted`: those whose
        word is worth less (rule 5)."""
        self.targets = (*drawn, *targets)
        self.factor = max(factor, 1)
        self.errors: list[ErrorInfo] = []
        self.stored: set[str] = set()
        """Replicas that said themselves that they have it on disk."""
        self.shares: dict[str, tuple[str, ...]] = {}
        """Who was sent it directly, and what each is to pass on, unless another took over."""
        self._here = here
        self._group_of = group_of
        self._doubted = frozenset(doubted)
        self._patient_until: float | None = None
        self._is_patient = True
        self._failed: set[str] = set()
        self._made_up_for: set[str] = set()
        self._answer_by: dict[str, float] = {}
        ordered = sorted(self.targets, key=lambda peer_id: peer_id != here)
        count = len(ordered) if len(ordered) <= ALL_DIRECTLY else max(self.factor, DIRECTLY)
        if drawn:
            count += DIRECTLY
        self._direct, rest = ordered[:count], ordered[count:]
        self._groups = min(GROUPS, self.factor, len(self._groups_of(self.targets)))
        if len(groups := self._groups_of(self._direct)) < self._groups:
            trusted = (peer_id for peer_id in rest if peer_id not in self._doubted)
            other = next(peer_id for peer_id in trusted if group_of(peer_id) not in groups)
            rest.remove(other)
            self._direct.append(other)
        self._direct += [peer_id for peer_id in rest if peer_id in announcers][:ANNOUNCERS]
        self._direct += [peer_id for peer_id in drawn if peer_id in linked and peer_id not in self._direct]
        self._rest = [peer_id for peer_id in rest if peer_id not in self._direct]

    @property
    def is_settled(self) -> bool:
        """Whether enough replicas have it; or that has become impossible, and nobody is waited for who may have it."""
        awaited = [peer_id for peer_id, until in self._answer_by.items() if until < math.inf]
        if len(self.stored) >= self.factor:
            may_be_credible = self._is_patient and self._is_credible({*self.stored, *awaited})
            return not may_be_credible or self._is_credible(self.stored)
        return len(self.targets) - len(self._failed) < self.factor and not awaited

    @property
    def is_direct(self) -> bool:
        """Whether nobody is asked to pass it on."""
        return not any(share for peer_id, share in self.shares.items() if peer_id != self._here)

    def begin(self, now: float) -> list[Send]:
        """Begins the write, and says to whom to send it first. `now`: seconds of the monotonic clock."""
        sends: list[Send] = []
        self._patient_until = now + PATIENCE
        # When the own disk is all that the caller waits for, the others' copies may share frames with later ones.
        urgent = self.factor > 1 or self._here is None
        passing_on = sorted(self._direct, key=lambda peer_id: peer_id == self._here)
        for peer_id in self._direct:
            share = tuple(self._share(passing_on.index(peer_id)))
            sends.append(self._sent(Send(peer_id, share, urgent), now))
            if peer_id == self._here:
                sends.extend(self._sent(Send(other, urgent=False), math.inf) for other in share)
        return sends

    def report(self, peer_id: str, error: ErrorInfo | None) -> None:
        """How the write to one of those that it was sent to went: why it was refused, None when it is on disk."""
        self._answer_by.pop(peer_id, None)
        if error is None:
            self.stored.add(peer_id)
            self._failed.discard(peer_id)
        else:
            self._failed.add(peer_id)
            self.errors.append(error.on(peer_id))
            del self.errors[MAX_ERRORS:]

    def step(self, now: float) -> list[Send]:
        """To whom to send it instead of those that failed, or were too slow (rule 4)."""
        if self._patient_until is not None and now >= self._patient_until:
            self._is_patient = False
        late = {peer_id for peer_id, until in self._answer_by.items() if until <= now}
        sends: list[Send] = []
        for peer_id in late:
            self._answer_by[peer_id] = math.inf  # it may still answer
        lost = sorted((late | self._failed) - self._made_up_for - {self._here})
        self._made_up_for.update(lost)
        hopeless = not self.stored and self._failed.issuperset(self.shares)
        for peer_id in lost:
            unsent = [other for other in self.shares[peer_id] if other not in self.shares]
            instead = unsent or [other for other in self._rest if other not in self.shares]
            if instead and not hopeless:
                self.shares[peer_id] = ()
                sends.append(self._sent(Send(instead[0], tuple(unsent[1:])), now))
        if hopeless:
            sends.extend(self._sent(Send(other), now) for other in self._rest if other not in self.shares)
        return sends

    def wake_at(self) -> float | None:
        """When to `step` at the latest (seconds of the monotonic clock); None when all have answered."""
        if not self._answer_by:
            return None
        patience = [] if self._patient_until is None or not self._is_patient else [self._patient_until]
        return min(*self._answer_by.values(), *patience, math.inf)

    def _share(self, number: int) -> Sequence[str]:
        """What the n-th of those that get it directly, this node last, is to pass on. In one piece: as long as the
        order stays about the same, each passes on to the same ones, so that writes share frames and commits."""
        first, last = (at * len(self._rest) // len(self._direct) for at in (number, number + 1))
        return self._rest[first:last]

    def _is_credible(self, words: Collection[str]) -> bool:
        """Whether the words of these replicas suffice at once (rule 5)."""
        believed = {*words} - self._doubted
        groups = set[str]()
        for peer_id in believed:  # asked at each answer, and seldom to the end
            if len(groups) >= self._groups:
                break
            groups.add(self._group_of(peer_id))
        return len(believed) >= self.factor and len(groups) >= self._groups

    def _groups_of(self, peer_ids: Iterable[str]) -> set[str]:
        return {self._group_of(peer_id) for peer_id in peer_ids if peer_id not in self._doubted}

    def _sent(self, send: Send, now: float) -> Send:
        self.shares[send.peer_id] = send.share
        self._answer_by[send.peer_id] = now + PATIENCE
        return send
