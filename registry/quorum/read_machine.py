"""The decisions of a read, as a pure state machine: whom to ask, how long to wait, when it is done.

`ReadMachine` is told what replicas answer and what time it is, and says what to do next. It neither waits nor sends;
`registry.quorum.read` does that for it.

Rules (docs/design.md, Writing and reading):
1. This node's own replica answers first and alone, if its answer counts: that costs no call.
2. The read is done once `ack` replicas are known to hold the key and there are records (or the key alone is wanted).
3. One answer doesn't decide that there is nothing: an empty result, or a key that a majority doesn't hold, waits until
   a majority of the replicas has replied, or `EMPTY_PATIENCE` seconds more.
4. Only as many replicas are asked as are needed, the nearest first. Each that fails is made up for by the next; when
   none answers within `HEDGE` seconds, all the others are asked.
5. Whatever happens, the read is done by its deadline, and as soon as nobody is left who could answer.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

from registry.codes import Code
from registry.errors import KeyNotExists, KeyRemoved
from registry.model.merge import ResourceState, merged
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_ERRORS
from registry.settings import RegistrySettings

HEDGE: Final = 0.05  # seconds after which more replicas are asked than are needed
EMPTY_PATIENCE: Final = 0.3  # seconds that an empty result waits for a majority


class ReadOutcome:
    """What replicas know together of a resource, how many answered for its key, and why others didn't."""

    __slots__ = ("answered", "errors", "resource", "timed_out")

    def __init__(self) -> None:
        self.resource = ResourceState()
        self.answered = 0
        self.errors: list[ErrorInfo] = []
        self.timed_out = False


class Ask(NamedTuple):
    """Ask these replicas; each answer or failure is told to the machine once."""

    peer_ids: tuple[str, ...]


class AwaitAnswer(NamedTuple):
    """Wait for an answer or a failure, at most until then (seconds of the monotonic clock)."""

    until: float


class Finish(NamedTuple):
    """The read is done. Whoever still is being asked needn't answer."""

    outcome: ReadOutcome


class ReadPhase(enum.Enum):
    """What a read waits for."""

    OWN = "own"
    """This node's own replica, alone (rule 1)."""
    GATHERING = "gathering"
    """Replicas that hold the key (rules 2 and 4)."""
    DOUBTING = "doubting"
    """A majority, for a limited time, since what there is may be nothing (rule 3)."""
    FINISHED = "finished"


TRANSITIONS: Final[dict[ReadPhase, frozenset[ReadPhase]]] = {
    ReadPhase.OWN: frozenset({ReadPhase.GATHERING, ReadPhase.DOUBTING, ReadPhase.FINISHED}),
    ReadPhase.GATHERING: frozenset({ReadPhase.DOUBTING, ReadPhase.FINISHED}),
    ReadPhase.DOUBTING: frozenset({ReadPhase.GATHERING, ReadPhase.FINISHED}),
    ReadPhase.FINISHED: frozenset(),
}


class ReadMachine:
    """One read. Tell it what happens by `answered` and `failed`, then call `step` until it waits or has finished."""

    def __init__(
        self,
        key_id: str,
        replicas: Sequence[str],
        settings: RegistrySettings,
        *,
        own: str | None,
        ack: int,
        key_suffices: bool,
        deadline: float,
    ) -> None:
        """`replicas`: the whole neighbourhood, nearest first. `own`: this node's peer id, if its replica's answer
        counts at once. `deadline`: seconds of the monotonic clock."""
        self.known: dict[str, ResourceState] = {}
        """What each replica knew, by its peer id."""
        self._key_id = key_id
        self._settings = settings
        self._own = own if own in replicas else None
        self._others = tuple(peer_id for peer_id in replicas if peer_id != self._own)  # nearest first
        self._majority = len(replicas) // 2 + 1
        self._ack = max(ack, 1)
        self._key_suffices = key_suffices
        self._deadline = deadline
        self._outcome = ReadOutcome()
        self._phase = ReadPhase.GATHERING if self._own is None else ReadPhase.OWN
        self._asked = 0  # of the others
        self._open: set[str] = set()
        self._replied = 0  # with an answer, be it that they don't hold the key
        self._hedge_at: float | None = None
        self._doubt_until = 0.0

    @property
    def phase(self) -> ReadPhase:
        """What the read waits for, as of the last step."""
        return self._phase

    @property
    def resource(self) -> ResourceState:
        """What the answers so far come to, merged."""
        return self._outcome.resource

    def answered(self, peer_id: str, theirs: ResourceState, *, caught_up: bool) -> None:
        """A replica that was asked told what it knows. What it lacks proves nothing while it hasn't `caught_up`."""
        self._close(peer_id)
        self.known[peer_id] = theirs
        if not theirs.is_empty():  # a key tombstone counts even where it left no key
            self._outcome.resource = merged(self._outcome.resource, theirs)
        if not caught_up:
            self._outcome.errors.append(ErrorInfo(Code.CATCHING_UP, "the replica is catching up").on(peer_id))
            return
        self._replied += 1
        if theirs.key is None:
            self._outcome.errors.append(ErrorInfo.of(KeyNotExists(self._key_id)).on(peer_id))
            return
        self._outcome.answered += 1

    def failed(self, peer_id: str, cause: ErrorInfo) -> None:
        """A replica that was asked gave no answer."""
        self._close(peer_id)
        self._outcome.errors.append(cause.on(peer_id))

    def step(self, now: float, wall_clock: int) -> Ask | AwaitAnswer | Finish:
        """What to do next. `now`: seconds of the monotonic clock; `wall_clock`: seconds since 1970, by which records
        are live or expired."""
        if self._phase is not ReadPhase.FINISHED and self._own is not None:
            self._open.add(self._own)
            own, self._own = self._own, None
            return Ask((own,))
        if self._is_done(now, wall_clock):
            return Finish(self._outcome)
        if self._phase is ReadPhase.OWN:
            return AwaitAnswer(self._deadline)
        peer_ids = self._next_to_ask(now, wall_clock)
        if peer_ids:
            return Ask(peer_ids)
        if not self._open:
            self._finish()
            return Finish(self._outcome)
        return AwaitAnswer(min(self._wake_at(now), self._deadline))

    def _is_done(self, now: float, wall_clock: int) -> bool:
        if self._phase is ReadPhase.FINISHED:
            return True
        waits_for_own = self._phase is ReadPhase.OWN and bool(self._open)
        if not waits_for_own and self._is_enough(wall_clock):
            self._finish()
            return True
        if now >= self._deadline:
            self._finish(timed_out=True)
            return True
        if waits_for_own:
            return False
        self._move_on(now)
        patient = self._phase is not ReadPhase.DOUBTING or now < self._doubt_until
        if not patient:
            self._finish()
        return not patient

    def _close(self, peer_id: str) -> None:
        if peer_id not in self._open:
            raise ValueError(f"{peer_id} wasn't asked, or has answered already")
        self._open.remove(peer_id)
        self._hedge_at = None

    def _move_on(self, now: float) -> None:
        """Between gathering and doubting. The patience of rule 3 is had once, however answers trickle in, unless it was
        about the key and somebody turns out to hold that."""
        if self._phase is not ReadPhase.DOUBTING:
            doubted = self._has_ack() or (self._outcome.answered == 0 and self._replied >= self._majority)
            if doubted:
                self._doubt_until = now + EMPTY_PATIENCE
            self._enter(ReadPhase.DOUBTING if doubted else ReadPhase.GATHERING)
        elif not self._has_ack() and self._outcome.answered:
            self._enter(ReadPhase.GATHERING)

    def _next_to_ask(self, now: float, wall_clock: int) -> tuple[str, ...]:
        if self._phase is ReadPhase.GATHERING and self._hedge_at is not None and now >= self._hedge_at:
            count = len(self._others)
        elif not self._has_ack():
            count = self._ack - self._outcome.answered - len(self._open)
        elif not self._has_records(wall_clock):
            count = self._majority - self._replied - len(self._open)
        else:
            count = 0
        peer_ids = self._others[self._asked : self._asked + max(count, 0)]
        self._asked += len(peer_ids)
        self._open.update(peer_ids)
        return peer_ids

    def _wake_at(self, now: float) -> float:
        if self._phase is ReadPhase.DOUBTING:
            return self._doubt_until
        if self._asked == len(self._others):
            return self._deadline
        if self._hedge_at is None:
            self._hedge_at = now + HEDGE
        return self._hedge_at

    def _has_ack(self) -> bool:
        return self._outcome.answered >= self._ack

    def _has_records(self, wall_clock: int) -> bool:
        if self._key_suffices and self._outcome.resource.key is not None:
            return True
        return bool(self._outcome.resource.records(wall_clock, self._settings))

    def _is_enough(self, wall_clock: int) -> bool:
        return self._has_ack() and (self._replied >= self._majority or self._has_records(wall_clock))

    def _enter(self, phase: ReadPhase) -> None:
        if phase is not self._phase:
            assert phase in TRANSITIONS[self._phase], f"{self._phase} -> {phase}"
            self._phase = phase

    def _finish(self, *, timed_out: bool = False) -> None:
        self._enter(ReadPhase.FINISHED)
        outcome = self._outcome
        outcome.timed_out = timed_out
        if outcome.resource.key is None and outcome.resource.key_tombstone is not None:
            outcome.answered = 0  # whoever still served the key is behind
            outcome.errors.insert(0, ErrorInfo.of(KeyRemoved(self._key_id)))
        del outcome.errors[MAX_ERRORS:]
