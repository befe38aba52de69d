"""What a host does for being known as alive: it beats to its witnesses, and answers accusations by a newer version.

1. A beat goes to each witness that took our presence, every `BEAT` seconds and on waking from a stall.
2. The sequence rises when we are accused at our current version, within `BUMP_RATE`, and after an own stall of more
   than `LONG_STALL`. Each new version is signed and told to all keepers.
3. The incarnation is above all that keepers tell of us: our clock may have gone back, our disk may be lost.
4. A light client doesn't beat: it tells its presence, which names its nodes, to these, and they tell its keepers
   (`overlay.presence.clients`). What follows of keepers goes for its nodes.
5. A keeper that has yet to take our version is told it when its link is up, and dialled by a timer of its own until
   then, whatever becomes of the dials.

Pure: events and the time come in, and actions go out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from overlay.limits.token_bucket import TokenBuckets
from overlay.presence.actions import Action, Dial, Role, SendTo
from overlay.presence.messages import Beat, Proven, Told
from overlay.presence.statements import NEVER, Presence, Proof, Version
from overlay.presence.timings import (
    BEAT,
    BUMP_BURST,
    BUMP_RATE,
    JOIN_FAST,
    JOIN_PAUSE,
    JOIN_PAUSES,
    JOIN_SLOW,
    JOINING,
    LONG_STALL,
    PROOF_BURST,
    PROOF_RATE,
    WITNESSES,
)

_SLACK: Final = 1e-9


class _Reaching(Struct):
    """How a keeper is reached that has yet to take our version."""

    tries: int
    at: float


class OwnPresence:
    """A peer's own presence. It begins to tell it by `set_keepers`."""

    def __init__(
        self,
        presence: Presence,
        *,
        sign_presence: Callable[[Presence], Presence],
        sign_proof: Callable[[Proof], Proof],
        phase: float = 1.0,
    ) -> None:
        """`presence`: without a signature; its incarnation is above those of all earlier runs. `phase`: part of a
        beat's pause until the first one."""
        self._sign_presence = sign_presence
        self._sign_proof = sign_proof
        self.presence = sign_presence(presence)
        """What we say of ourselves now, signed."""
        self._phase = phase
        self._keepers: dict[str, Version] = {}  # nearest first, with the version that each of them took
        self._joining: dict[str, _Reaching] = {}
        self._beat_at = math.inf
        self._bumps = TokenBuckets(BUMP_RATE, BUMP_BURST)
        self._proofs = TokenBuckets(PROOF_RATE, PROOF_BURST)
        self._bump_at = math.inf
        self._proof: Proof | None = None  # the last one: several keepers want the same

    @property
    def version(self) -> Version:
        """Our current version."""
        return self.presence.version

    @property
    def keepers(self) -> list[str]:
        """Whom we tell our presence, nearest first."""
        return list(self._keepers)

    @property
    def witnesses(self) -> list[str]:
        """Whom we beat to."""
        return self.keepers[:WITNESSES]

    def set_keepers(self, keepers: Sequence[str], now: float) -> list[Action]:
        """Who lies nearest to us, nearest first."""
        if self._beat_at == math.inf and not self.presence.via:
            self._beat_at = now + self._phase * BEAT
        self._keepers = {keeper: self._keepers.get(keeper, NEVER) for keeper in keepers}
        self._joining = {keeper: joining for keeper, joining in self._joining.items() if keeper in self._keepers}
        new = [keeper for keeper in keepers if self._keepers[keeper] < self.version and keeper not in self._joining]
        return [action for keeper in new for action in self._tell(keeper, now)]

    def link_up(self, peer_id: str, now: float) -> list[Action]:
        """A link came up; to a keeper it may be another run of its process, which knows nothing of us."""
        return self._tell(peer_id, now) if peer_id in self._keepers else []

    def link_ended(self, peer_id: str, now: float) -> None:
        """A link broke."""
        if peer_id in self._keepers:
            self._keepers[peer_id] = NEVER
            self._joining[peer_id] = _Reaching(0, now + JOIN_PAUSES[0])

    def taken(self, keeper: str, version: Version, now: float) -> list[Action]:
        """A keeper says which version of ours it has; one above ours is of an earlier run, and signed by us."""
        if keeper not in self._keepers:
            return []
        self._keepers[keeper] = version
        if version == self.version:
            self._joining.pop(keeper, None)
            return []
        return self._tell(keeper, now) if version < self.version else []

    def exceeded(self, presence: Presence, now: float) -> list[Action]:
        """A keeper has a presence of ours, which is genuine, from another run."""
        if presence.version <= self.version and presence != self.presence:
            return []
        if presence.version > self.version and (not self.presence.via or self._bumps.take("", now)):
            # Of a light client's key two processes may tell: they would go on for ever.
            return self._change(replace(self.presence, version=Version(presence.version.incarnation + 1)), now)
        return []

    def accused(self, version: Version, now: float) -> list[Action]:
        """A witness holds us to be down at that version."""
        if version != self.version or self.presence.is_leaving or self._bump_at != math.inf:
            return []
        if self._bumps.take("", now):
            return self._bump(now)
        self._bump_at = now + self._bumps.wait("", now)
        return []

    def stalled(self, seconds: float, now: float) -> list[Action]:
        """This peer stood still for so long, until now."""
        self._beat_at = min(self._beat_at, now)
        return self._bump(now) if seconds > LONG_STALL and not self.presence.is_leaving else []

    def change(
        self, now: float, *, exceptions: bytes | None = None, via: tuple[str, ...] | None = None
    ) -> list[Action]:
        """Say something else of ourselves from now on."""
        presence = replace(
            self.presence,
            version=self._next(),
            exceptions=self.presence.exceptions if exceptions is None else exceptions,
            via=self.presence.via if via is None else via,
        )
        return self._change(presence, now)

    def leave(self, now: float) -> list[Action]:
        """Say that we stop, once and for all."""
        self._beat_at = self._bump_at = math.inf
        actions = self._change(replace(self.presence, version=self._next(), is_leaving=True), now)
        self._joining.clear()
        return [action for action in actions if isinstance(action, SendTo)]

    def prove(self, asker: str, nonce: bytes, replica: str, now: float) -> list[Action]:
        """`asker` wants a proof for a replica; one that wants too many gets none."""
        if self.presence.is_leaving or not self._proofs.take(asker, now):
            return []
        proof = self._proof
        if proof is None or (proof.nonce, proof.replica, proof.version) != (nonce, replica, self.version):
            proof = self._proof = self._sign_proof(Proof(self.presence.peer_id, self.version, nonce, replica))
        return [SendTo(asker, Proven(proof))]

    @property
    def wake_at(self) -> float:
        """When to call `wake` next."""
        due = min(self._beat_at, self._bump_at)
        return min(due, *(joining.at for joining in self._joining.values())) if self._joining else due

    def wake(self, now: float, *, ahead: float = 0.0) -> list[Action]:
        """Time has passed. `ahead`: seconds by which a beat may be early."""
        now += _SLACK
        actions: list[Action] = []
        if now >= self._bump_at:
            self._bump_at = math.inf
            if self._bumps.take("", now):
                actions += self._bump(now)
        if self.presence.via:
            self._beat_at = math.inf
        if now + ahead >= self._beat_at:
            self._beat_at = max(now, self._beat_at) + BEAT
            beat = Beat(self.version)
            actions += [SendTo(witness, beat) for witness in self.witnesses]
        for keeper, joining in self._joining.items():
            if now >= joining.at:
                joining.tries += 1
                joining.at = now + _pause(joining.tries)
                actions += [Dial(keeper, JOINING, Role.HOST), SendTo(keeper, Told(self.presence))]
        return actions

    def _next(self) -> Version:
        return Version(self.version.incarnation, self.version.sequence + 1)

    def _bump(self, now: float) -> list[Action]:
        return self._change(replace(self.presence, version=self._next()), now)

    def _change(self, presence: Presence, now: float) -> list[Action]:
        self.presence = self._sign_presence(replace(presence, signature=b""))
        return [action for keeper in self._keepers for action in self._tell(keeper, now)]

    def _tell(self, keeper: str, now: float) -> list[Action]:
        """Tell a keeper our presence, and see to it that it gets there."""
        if keeper not in self._joining:
            self._joining[keeper] = _Reaching(0, now + JOIN_PAUSES[0])
        return [SendTo(keeper, Told(self.presence))]


def _pause(tries: int) -> float:
    if tries < len(JOIN_PAUSES):
        return JOIN_PAUSES[tries]
    return JOIN_PAUSE if tries < JOIN_FAST else JOIN_SLOW
