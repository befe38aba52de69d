"""Who keeps a view up to date, as a pure state machine: whom to subscribe to, when to renew, what to do without.

At least two replicas hold a subscription of ours and announce. Each renewal compares what they know with what we know,
so that whatever an announcement that got lost would have said is fetched then. A replica that is lost is replaced at
once. `SourceMachine` is told what happens and what time it is, and says what to do next; `registry.watch.follower` does
it. Renewals are of all resources of a peer together (`registry.watch.watches`); the machine is told what came of them.

A replica without a place names watchers that serve others. All sources but one may be such watchers, as long as there
are replicas to ask, so that no set of watchers can keep changes from others. Without any place at replicas, they serve.
How far they are from a replica is bounded, and so is how long ago what they know was compared with one: watchers that
only listen to each other notice.

A replica is in one of the states of `SourceState`, which change by the table `SOURCE_TRANSITIONS`. The machine goes
through the phases of `FollowPhase` in their order, round after round.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from typing import Final

from registry.model.merge import ResourceState
from registry.watch.messages import LONGEST_AGE, MAX_DEPTH, SubscriptionReply
from registry.watch.source_states import (
    NEXT_PHASE,
    SOURCE_TRANSITIONS,
    FollowAction,
    FollowPhase,
    LookUp,
    Read,
    ReadOwn,
    SourceEvent,
    SourceState,
    Subscribe,
    Wait,
)
from registry.watch.view import View

SOURCES: Final = 2  # replicas that hold a subscription of ours
RENEW: Final = 15.0  # seconds between renewals, of all resources at once
SOONEST: Final = 0.001  # seconds until the next renewal at least
SETTLE: Final = 1.0  # seconds until a new source is compared again: its topic wasn't joined when it was first
RETRY: Final = (0.25, 4.0)  # seconds until sources are looked for again, at first and at most
AVOID: Final = 10.0  # seconds for which a replica that refused or failed isn't asked
TIMEOUT: Final = 3.0  # seconds for a call
FRESH: Final = RENEW + 2 * TIMEOUT  # seconds after a comparison for which this knowledge is as good as a replica's
LONGEST_WAIT: Final = 3600.0  # seconds
MAX_NAMED: Final = 16  # watchers named by others that are asked in one round
_READ: Final = "a read"  # as the source of what a read of the neighbourhood found
EXPIRY_MARGIN: Final = 0.01  # seconds after which something has expired for certain


def next_renewal(now: float, phase: float) -> float:
    """All resources of a peer are renewed at the same time, so that one call per replica does it."""
    left = RENEW - (now - phase) % RENEW
    # Where rounding makes it now, it's the one after: else who renews never waits, until time goes on.
    return now + (left if left > SOONEST else left + RENEW)


class _Replica:
    __slots__ = ("avoid_until", "depth", "digest", "state")

    def __init__(self) -> None:
        self.state = SourceState.STRANGER
        self.depth = 0  # watchers between it and a replica
        self.digest = b""  # of what it knew when we last merged that
        self.avoid_until = 0.0


class SourceMachine:
    """Keeps one view up to date. `now` and `until` are seconds of the monotonic clock, `wall_clock` since 1970."""

    def __init__(
        self, view: View, own_peer_id: str, randomness: random.Random, now: float, *, wanted: int = SOURCES
    ) -> None:
        """`wanted`: how many sources there should be."""
        self.view = view
        self._own_peer_id = own_peer_id
        self._random = randomness
        self._wanted = wanted
        self._replicas: dict[str, _Replica] = {}
        self._candidates: list[str] = []
        self._servers: dict[str, None] = {}  # watchers that others named
        self._servers_left = 0
        self._to_compare: set[str] = set()
        self._phase = FollowPhase.COMPARE
        self._is_phase_done = False
        self._open: set[str] = set()
        self._kept_here = False
        self._is_poked = False
        self._confirmed = -math.inf
        self._settle_at = math.inf
        self._retry_after = RETRY[0]
        self._wake_at = now

    @property
    def phase(self) -> FollowPhase:
        """What the round is at."""
        return self._phase

    @property
    def is_poked(self) -> bool:
        """Whether something happened that ends a wait."""
        return self._is_poked

    @property
    def sources(self) -> list[str]:
        """The replicas that hold subscriptions of ours."""
        return [peer_id for peer_id, replica in self._replicas.items() if replica.state is SourceState.SOURCE]

    @property
    def depth(self) -> int:
        """How many watchers a change passes before it gets here, this one not counted; `MAX_DEPTH` + 1 without any
        source."""
        return min((self._replicas[each].depth for each in self.sources), default=MAX_DEPTH + 1)

    def age(self, now: float) -> float:
        """Seconds since this was as good as what a replica knows, at most `LONGEST_AGE`."""
        return min(max(now - self._confirmed, 0.0), LONGEST_AGE)

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
            if self._phase is FollowPhase.COMPARE:
                self._is_poked = False
            elif self._phase is FollowPhase.WAIT:
                self._prepare_to_wait(now, wall_clock)

    def agreed(self, peer_id: str, reply: SubscriptionReply, now: float) -> bool:
        """A replica holds a subscription; whether it knows what we lack, so that its state is to be fetched."""
        if self.state_of(peer_id) is SourceState.ASKED or not reply.digest:
            self._settle_at = min(self._settle_at, now + SETTLE)
        return self._knows_more(peer_id, reply)

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
            self.view.merge(theirs, int(wall_clock), source=peer_id)
        self._change(peer_id, SourceEvent.AGREE if is_connected else SourceEvent.VANISH)
        replica = self._replicas.get(peer_id)
        if replica is not None and replica.state is SourceState.SOURCE:
            # What was told and isn't good by our clock, which may be wrong for a moment, is fetched again.
            is_whole = theirs is None or theirs.digest() == reply.digest
            replica.digest, replica.depth = reply.digest if is_whole else b"", reply.depth
            if is_connected and reply.digest:
                self._confirm(now - reply.age)

    def refused(self, peer_id: str, now: float, servers: Collection[str] = ()) -> None:
        """A replica, or a watcher, refused a subscription, or failed. `servers`: who may have a place, as it says."""
        self._open.discard(peer_id)
        self._drop(peer_id, now)
        for server in servers:
            if len(self._servers) < MAX_NAMED and server != self._own_peer_id:
                self._servers[server] = None

    def renewed(self, peer_id: str, reply: SubscriptionReply, now: float) -> None:
        """A source's answer to a renewal of all subscriptions there."""
        if self.state_of(peer_id) is not SourceState.SOURCE:
            return
        replica = self._replicas[peer_id]
        if reply.error is not None or reply.depth > MAX_DEPTH:
            self._drop(peer_id, now)
            self._is_poked = True
        elif not reply.digest or self._knows_more(peer_id, reply):
            self._to_compare.add(peer_id)
            self._is_poked = True
        else:
            replica.depth = reply.depth
            self._confirm(now - reply.age)

    def unrenewed(self, peer_id: str, now: float) -> None:
        """A source didn't answer to a renewal."""
        self.distrust(peer_id, now)

    def own_read(self, own: ResourceState | None, now: float, wall_clock: float) -> None:
        """What this peer keeps as a replica whose answers count; None if it is none."""
        self._kept_here = own is not None and own.key is not None
        if own is not None and (own.key is not None or own.key_tombstone is not None):
            self.view.merge(own, int(wall_clock))
            self._confirm(now)

    def looked_up(self, peer_ids: Sequence[str], now: float) -> None:
        """Takes what a lookup found: who keeps the resource, nearest first."""
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
        self.view.merge(resource, int(wall_clock), source=_READ)
        if is_complete:
            self.view.make_ready()

    def members_changed(self, members: Collection[str], now: float) -> list[str]:
        """Notes that members came or went, and tells which sources were lost by that."""
        lost = [peer_id for peer_id in self.sources if peer_id not in members]
        for peer_id in lost:
            self._drop(peer_id, now)
        if lost or len(self.sources) < self._wanted:
            self._is_poked = True
        return lost

    def known_changed(self, now: float, wall_clock: float) -> None:
        """What is known changed: it may end sooner than what was known when the wait began, by a certificate."""
        expiry = self.view.next_expiry(wall_clock)
        if expiry is not None and now + expiry + EXPIRY_MARGIN < self._wake_at:
            self._is_poked = True

    def distrust(self, peer_id: str, now: float) -> None:
        """A source told what can't be true, or fails otherwise."""
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
        if self._phase is FollowPhase.COMPARE:
            action = self._ask(self._due(now))
        elif self._phase is FollowPhase.OWN:
            action = ReadOwn()
        elif self._phase is FollowPhase.LOOK_UP:
            self._candidates = []
            self._servers.clear()
            self._servers_left = MAX_NAMED
            if len(self.sources) < self._wanted:
                action = LookUp(
                    frozenset(
                        each
                        for each, replica in self._replicas.items()
                        if replica.state is SourceState.AVOIDED and replica.avoid_until > now
                    )
                )
        elif not self.sources and not self._kept_here:
            action = Read()
        return action

    def _due(self, now: float) -> list[str]:
        """The sources to compare with."""
        due = self._to_compare
        if now >= self._settle_at:
            self._settle_at = math.inf
            due = set(self.sources)
        self._to_compare = set()
        return [peer_id for peer_id in self.sources if peer_id in due]

    def _next_candidates(self) -> list[str]:
        """Whom to ask next: replicas, but for all sources except one also watchers that replicas named."""
        peer_ids: list[str] = []
        has_replica = any(self._replicas[each].depth == 0 for each in self.sources)
        for _ in range(self._wanted - len(self.sources)):
            server = self._next_server(peer_ids) if has_replica or not self._candidates else None
            if server is not None:
                peer_ids.append(server)
            elif self._candidates:
                peer_ids.append(self._candidates.pop(0))
                has_replica = True
        return peer_ids

    def _next_server(self, chosen: Collection[str]) -> str | None:
        """The next watcher that was named and is neither asked already, nor `chosen` or waiting as a replica."""
        for server in list(self._servers):
            del self._servers[server]
            is_replica = server in chosen or server in self._candidates
            if self.state_of(server) is SourceState.STRANGER and not is_replica:
                self._servers_left -= 1
                return server if self._servers_left >= 0 else None
        return None

    def _ask(self, peer_ids: Sequence[str]) -> Subscribe | None:
        for peer_id in peer_ids:
            self._change(peer_id, SourceEvent.ASK)
        self._open.update(peer_ids)
        return Subscribe(tuple(peer_ids)) if peer_ids else None

    def _prepare_to_wait(self, now: float, wall_clock: float) -> None:
        self.view.refresh(int(wall_clock))
        expiry = self.view.next_expiry(wall_clock)
        expire_at = now + (LONGEST_WAIT if expiry is None else expiry) + EXPIRY_MARGIN
        self._wake_at = min(self._settle_at, expire_at)
        if len(self.sources) >= self._wanted:
            self._retry_after = RETRY[0]
        elif self.sources:
            self._retry_after = RETRY[0]
            self._wake_at = min(self._wake_at, now + RENEW * self._random.uniform(0.8, 1.2))
        else:
            self._wake_at = min(self._wake_at, now + self._retry_after * self._random.uniform(0.8, 1.2))
            self._retry_after = min(self._retry_after * 2, RETRY[1])

    def _knows_more(self, peer_id: str, reply: SubscriptionReply) -> bool:
        """Whether what a source knows is neither known here nor what was merged last."""
        return bool(reply.digest) and reply.digest not in (
            self._replicas[peer_id].digest,
            self.view.state.digest(),
        )

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
        self._confirmed = max(self._confirmed, now)
        self.view.make_ready()
