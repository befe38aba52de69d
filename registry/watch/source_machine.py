"""Who keeps a view up to date, as a pure state machine: whom to subscribe to, when to renew, what to do without.

At least two replicas hold a subscription of ours and announce. Each renewal compares what they know with what we know,
so that whatever an announcement that got lost would have said is fetched then. A replica that is lost is replaced at
once. `SourceMachine` is told what happens and what time it is, and says what to do next; `registry.watch.follower` does
it.

A replica is in one of the states of `SourceState`, which change by the table `SOURCE_TRANSITIONS`. The machine goes
through the phases of `FollowPhase` in their order, round after round.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from registry.model.merge import ResourceState
from registry.watch.messages import SubscriptionReply
from registry.watch.view import View

SOURCES: Final = 2  # replicas that hold a subscription of ours
RENEW: Final = 15.0  # seconds between renewals, of all resources at once
SOONEST: Final = 0.001  # seconds until the next renewal at least
SETTLE: Final = 1.0  # seconds until a new source is compared again: its topic wasn't joined when it was first
RETRY: Final = (0.25, 4.0)  # seconds until sources are looked for again, at first and at most
AVOID: Final = 10.0  # seconds for which a replica that refused or failed isn't asked
TIMEOUT: Final = 3.0  # seconds for a call
FRESH: Final = RENEW + 2 * TIMEOUT  # seconds after a comparison for which this knowledge is as good as a replica's
EXPIRY_MARGIN: Final = 0.01  # seconds after which something has expired for certain


class SourceState(enum.Enum):
    """What a replica is to a view."""

    STRANGER = "stranger"
    """Not asked yet."""
    ASKED = "asked"
    """Asked for a first subscription."""
    SOURCE = "source"
    """Holds a subscription of ours; it may be renewed at the moment."""
    AVOIDED = "avoided"
    """Refused, failed, was lost or told lies; not asked for `AVOID` seconds."""


class SourceEvent(enum.Enum):
    """What happens between a view and a replica."""

    ASK = "ask"
    AGREE = "agree"
    VANISH = "vanish"
    """It agreed, but isn't connected (any more)."""
    DROP = "drop"
    FORGIVE = "forgive"


SOURCE_TRANSITIONS: Final[dict[tuple[SourceState, SourceEvent], SourceState]] = {
    (SourceState.STRANGER, SourceEvent.ASK): SourceState.ASKED,
    (SourceState.ASKED, SourceEvent.AGREE): SourceState.SOURCE,
    (SourceState.ASKED, SourceEvent.VANISH): SourceState.STRANGER,
    (SourceState.ASKED, SourceEvent.DROP): SourceState.AVOIDED,
    (SourceState.SOURCE, SourceEvent.ASK): SourceState.SOURCE,
    (SourceState.SOURCE, SourceEvent.AGREE): SourceState.SOURCE,
    (SourceState.SOURCE, SourceEvent.VANISH): SourceState.SOURCE,  # `members_changed` will tell
    (SourceState.SOURCE, SourceEvent.DROP): SourceState.AVOIDED,
    # Dropped while it was being renewed: whatever it answers then, it isn't trusted again so soon.
    (SourceState.AVOIDED, SourceEvent.AGREE): SourceState.AVOIDED,
    (SourceState.AVOIDED, SourceEvent.VANISH): SourceState.AVOIDED,
    (SourceState.AVOIDED, SourceEvent.DROP): SourceState.AVOIDED,
    (SourceState.AVOIDED, SourceEvent.FORGIVE): SourceState.STRANGER,
}


class FollowPhase(enum.Enum):
    """What a round does, in this order; what isn't needed is left out."""

    RENEW = "renew"
    """Renew all subscriptions, when that is due."""
    OWN = "own"
    """Merge what this peer's own replica has."""
    LOOK_UP = "look up"
    """Find out who keeps the resource, if sources are lacking."""
    SUBSCRIBE = "subscribe"
    """Ask those for subscriptions, until there are enough."""
    READ = "read"
    """Read the resource once, if there is no source and it isn't kept here."""
    WAIT = "wait"
    """Wait for the next renewal, expiry or retry, or until something happens."""


NEXT_PHASE: Final[dict[FollowPhase, FollowPhase]] = dict(
    zip(FollowPhase, [*list(FollowPhase)[1:], FollowPhase.RENEW], strict=True)
)


class Subscribe(NamedTuple):
    """Ask these replicas, all at once, to hold or renew a subscription. Of each, tell `refused`; or `agreed`, and when
    it has been compared with, `compared` (or `refused`)."""

    peer_ids: tuple[str, ...]


class ReadOwn(NamedTuple):
    """Tell what this peer's own replica has: `own_read`."""


class LookUp(NamedTuple):
    """Tell who keeps the resource: `looked_up`."""


class Read(NamedTuple):
    """Read the resource from its neighbourhood: `read`."""


class Wait(NamedTuple):
    """Nothing to do until then (seconds of the monotonic clock), unless something happens before."""

    until: float


FollowAction = Subscribe | ReadOwn | LookUp | Read | Wait


def next_renewal(now: float, phase: float) -> float:
    """All resources of a peer are renewed at the same time, so that one call per replica does it."""
    left = RENEW - (now - phase) % RENEW
    # Where rounding makes it now, it's the one after: else who renews never waits, until time goes on.
    return now + (left if left > SOONEST else left + RENEW)


class _Replica:
    __slots__ = ("avoid_until", "digest", "state")

    def __init__(self) -> None:
        self.state = SourceState.STRANGER
        self.digest = b""  # of what it knew when we last merged that
        self.avoid_until = 0.0


class SourceMachine:
    """Keeps one view up to date. `now` and `until` are seconds of the monotonic clock, `wall_clock` since 1970."""

    def __init__(
        self, view: View, own_peer_id: str, renewal_phase: float, randomness: random.Random, now: float
    ) -> None:
        """`renewal_phase`: when renewals are due, in seconds modulo `RENEW`; the same for all views of a peer."""
        self.view = view
        self._own_peer_id = own_peer_id
        self._renewal_phase = renewal_phase
        self._random = randomness
        self._replicas: dict[str, _Replica] = {}
        self._candidates: list[str] = []
        self._phase = FollowPhase.RENEW
        self._is_phase_done = False
        self._open: set[str] = set()
        self._kept_here = False
        self._is_poked = False
        self._confirmed = -math.inf
        self._renew_at = next_renewal(now, renewal_phase)
        self._settle_at = math.inf
        self._retry_after = RETRY[0]
        self._wake_at = now

    @property
    def phase(self) -> FollowPhase:
        """What the round is at."""
        return self._phase

    @property
    def sources(self) -> list[str]:
        """The replicas that hold subscriptions of ours."""
        return [peer_id for peer_id, replica in self._replicas.items() if replica.state is SourceState.SOURCE]

    def state_of(self, peer_id: str) -> SourceState:
        """What a replica is to this view."""
        replica = self._replicas.get(peer_id)
        return replica.state if replica is not None else SourceState.STRANGER

    def is_fresh(self, now: float) -> bool:
        """Whether a replica was compared with lately, and lives."""
        return self.view.is_ready and now - self._confirmed <= FRESH

    def step(self, now: float, wall_clock: float) -> FollowAction:
        """What to do next; call it again when that has been done and told."""
        assert not self._open, f"not done: {sorted(self._open)}"
        while True:
            action = self._act(now)
            if action is not None:
                return action
            self._phase = NEXT_PHASE[self._phase]
            self._is_phase_done = False
            if self._phase is FollowPhase.RENEW:
                self._is_poked = False
            elif self._phase is FollowPhase.WAIT:
                self._prepare_to_wait(now, wall_clock)

    def agreed(self, peer_id: str, reply: SubscriptionReply, now: float) -> bool:
        """A replica holds a subscription; whether it knows what we lack, so that its state is to be fetched."""
        state = self.state_of(peer_id)
        if state is SourceState.ASKED:
            self._settle_at = min(self._settle_at, now + SETTLE)
        return reply.digest not in (self._replicas[peer_id].digest, self.view.state.digest())

    def compared(
        self,
        peer_id: str,
        reply: SubscriptionReply,
        theirs: ResourceState | None,
        *,
        is_connected: bool,
        now: float,
        wall_clock: float,
    ) -> None:
        """What a replica that agreed knows has arrived: `theirs`, or None where nothing was to be fetched."""
        self._open.discard(peer_id)
        if theirs is not None:
            self.view.merge(theirs, int(wall_clock))
        self._change(peer_id, SourceEvent.AGREE if is_connected else SourceEvent.VANISH)
        replica = self._replicas.get(peer_id)
        if replica is not None and replica.state is SourceState.SOURCE:
            replica.digest = reply.digest
            if is_connected:
                self._confirm(now)

    def refused(self, peer_id: str, now: float) -> None:
        """A replica refused a subscription, or failed."""
        self._open.discard(peer_id)
        self._drop(peer_id, now)

    def own_read(self, own: ResourceState | None, now: float, wall_clock: float) -> None:
        """What this peer keeps as a replica whose answers count; None if it is none."""
        self._kept_here = own is not None and own.key is not None
        if own is not None and (own.key is not None or own.key_tombstone is not None):
            self.view.merge(own, int(wall_clock))
            self._confirm(now)

    def looked_up(self, peer_ids: Sequence[str], now: float) -> None:
        """Who keeps the resource, nearest first."""
        for peer_id, replica in list(self._replicas.items()):
            if replica.state is SourceState.AVOIDED and replica.avoid_until <= now:
                self._change(peer_id, SourceEvent.FORGIVE)
        self._candidates = [
            peer_id
            for peer_id in dict.fromkeys(peer_ids)  # whoever told may have named one twice
            if peer_id != self._own_peer_id and self.state_of(peer_id) is SourceState.STRANGER
        ]

    def read(self, resource: ResourceState, *, is_complete: bool, wall_clock: float) -> None:
        """What a read of the neighbourhood found."""
        self.view.merge(resource, int(wall_clock))
        if is_complete:
            self.view.make_ready()

    def members_changed(self, members: Collection[str], now: float) -> list[str]:
        """Somebody came or went; which sources were lost by that."""
        lost = [peer_id for peer_id in self.sources if peer_id not in members]
        for peer_id in lost:
            self._drop(peer_id, now)
        if lost or len(self.sources) < SOURCES:
            self._is_poked = True
        return lost

    def distrust(self, peer_id: str, now: float) -> None:
        """A source told what can't be true."""
        if self.state_of(peer_id) is SourceState.SOURCE:
            self._drop(peer_id, now)
            self._is_poked = True

    def _act(self, now: float) -> FollowAction | None:
        """What the phase still has to do; None when it is through."""
        action: FollowAction | None = None
        if self._phase is FollowPhase.WAIT:
            if not self._is_poked and now < self._wake_at:
                action = Wait(self._wake_at)
        elif self._phase is FollowPhase.SUBSCRIBE:
            action = self._ask(self._next_candidates())
        elif not self._is_phase_done:
            self._is_phase_done = True
            action = self._begin(now)
        return action

    def _begin(self, now: float) -> FollowAction | None:
        """What a phase does that does one thing at most."""
        action: FollowAction | None = None
        if self._phase is FollowPhase.RENEW:
            if self._is_renewal_due(now):
                action = self._ask(self.sources)
        elif self._phase is FollowPhase.OWN:
            action = ReadOwn()
        elif self._phase is FollowPhase.LOOK_UP:
            self._candidates = []
            if len(self.sources) < SOURCES:
                action = LookUp()
        elif not self.sources and not self._kept_here:
            action = Read()
        return action

    def _is_renewal_due(self, now: float) -> bool:
        if now >= self._renew_at:
            self._renew_at = next_renewal(now, self._renewal_phase)
            return True
        if now >= self._settle_at:
            self._settle_at = math.inf
            return True
        return False

    def _next_candidates(self) -> list[str]:
        lacking = max(SOURCES - len(self.sources), 0)
        peer_ids, self._candidates = self._candidates[:lacking], self._candidates[lacking:]
        return peer_ids

    def _ask(self, peer_ids: Sequence[str]) -> Subscribe | None:
        for peer_id in peer_ids:
            self._change(peer_id, SourceEvent.ASK)
        self._open.update(peer_ids)
        return Subscribe(tuple(peer_ids)) if peer_ids else None

    def _prepare_to_wait(self, now: float, wall_clock: float) -> None:
        self.view.refresh(int(wall_clock))
        expiry = self.view.next_expiry(wall_clock)
        expire_at = now + (RENEW if expiry is None else expiry) + EXPIRY_MARGIN
        self._wake_at = min(self._renew_at, self._settle_at, expire_at)
        if self.sources:
            self._retry_after = RETRY[0]
        else:
            self._wake_at = min(self._wake_at, now + self._retry_after * self._random.uniform(0.8, 1.2))
            self._retry_after = min(self._retry_after * 2, RETRY[1])

    def _drop(self, peer_id: str, now: float) -> None:
        self._change(peer_id, SourceEvent.DROP)
        self._replicas[peer_id].avoid_until = now + AVOID
        if not self.sources:
            self._confirmed = -math.inf

    def _change(self, peer_id: str, event: SourceEvent) -> None:
        replica = self._replicas.setdefault(peer_id, _Replica())
        replica.state = SOURCE_TRANSITIONS[replica.state, event]
        if replica.state is SourceState.STRANGER:
            del self._replicas[peer_id]
        elif replica.state is SourceState.AVOIDED:
            replica.digest = b""

    def _confirm(self, now: float) -> None:
        self._confirmed = now
        self.view.make_ready()
