"""The decisions of a read, as a pure state machine: whom to ask, how long to wait, when it is done.

`ReadMachine` is told what replicas answer and what time it is, and says what to do next. It neither waits nor sends;
`registry.quorum.read` does that for it.

Rules (docs/design.md, Writing and reading):
1. This node's own replica answers first, and alone if its answer counts and `ack` is 1: that costs no call. Otherwise
   at least two answers are merged, of peers in different address groups, as far as there are such and the second comes
   in time (rule 4). Where members crowd around the resource, four are, two of which were drawn from its whole region.
2. The read is done once `ack` replicas are known to hold the key and there are records (or the key alone is wanted).
3. When the key is known, but too few hold it yet, those that lacked it or are catching up are asked again, after
   `FIRST_AGAIN` seconds and then twice as long each time, as long as enough replicas are there that may hold it yet.
4. One answer doesn't decide that there is nothing, nor what there is. An empty result, or a key that a majority doesn't
   hold, waits until a majority has replied, or `PATIENCE` seconds. A single answer, or those of a single address group,
   wait for another up to `ALONE` seconds, or half of the time that is left.
5. Only as many replicas are asked as are needed, the nearest first, but one of each address group in turn, and those
   that are doubted (`registry.quorum.doubts`) last. Each that
   fails is made up for by the next; when none answers within `HEDGE` seconds, as many again are asked, then after twice
   that time, and so on.
6. Whatever happens, the read is done by its deadline, and as soon as nobody is left who could answer. With fewer
   replicas than `ack` each is asked once, and the result says so.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from itertools import chain, zip_longest
from typing import Final, NamedTuple

from registry.codes import Code
from registry.errors import KeyNotExists, KeyRemoved, TooFewReplicas
from registry.model.merge import ResourceState, merged
from registry.protocol.address_groups import GROUPS
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_ERRORS
from registry.settings import RegistrySettings

HEDGE: Final = 0.05  # seconds after which more replicas are asked than are needed
PATIENCE: Final = 0.3  # seconds that a doubtful result waits for further answers
ALONE: Final = 2.0  # seconds that the answers of one replica or address group wait for another's
FIRST_AGAIN: Final = 0.05  # seconds after which those that lacked a known key are asked again
OPINIONS: Final = 2  # answers that are merged, unless this node's own counts


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
    """Replicas that hold the key (rules 2 and 5)."""
    ASKING_AGAIN = "asking again"
    """Those that lacked a key which is known (rule 3)."""
    DOUBTING = "doubting"
    """Further answers, for a limited time, since what there is may be nothing, or of one replica alone (rule 4)."""
    FINISHED = "finished"


TRANSITIONS: Final[dict[ReadPhase, frozenset[ReadPhase]]] = {
    ReadPhase.OWN: frozenset({ReadPhase.GATHERING, ReadPhase.ASKING_AGAIN, ReadPhase.DOUBTING, ReadPhase.FINISHED}),
    ReadPhase.GATHERING: frozenset({ReadPhase.ASKING_AGAIN, ReadPhase.DOUBTING, ReadPhase.FINISHED}),
    ReadPhase.ASKING_AGAIN: frozenset({ReadPhase.GATHERING, ReadPhase.DOUBTING, ReadPhase.FINISHED}),
    ReadPhase.DOUBTING: frozenset({ReadPhase.GATHERING, ReadPhase.ASKING_AGAIN, ReadPhase.FINISHED}),
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
        written: ResourceState | None = None,
        drawn: Sequence[str] = (),
        group_of: Callable[[str], str] = str,
        doubted: Collection[str] = (),
    ) -> None:
        """`replicas`: the whole neighbourhood, nearest first; `drawn`: others of the resource's region, where members
        crowd around it. `group_of`: the address group of each. `own`: this node's peer id, if its replica's answer
        counts at once. `deadline`: seconds of the monotonic clock. `written`: what is known of the resource before
        anybody is asked; it is merged into the result, and counts as nobody's answer. `doubted`: who is asked last."""
        self.known: dict[str, ResourceState] = {}
        """What each replica knew when it answered last, by its peer id."""
        self._key_id = key_id
        self._settings = settings
        everyone = (*replicas, *drawn)
        self._own = own if own in everyone else None
        self._group_of = group_of
        self._groups = min(GROUPS, len(set(map(group_of, everyone))))
        in_order = sorted(in_turn(replicas, drawn, group_of), key=doubted.__contains__)
        self._others = tuple(peer_id for peer_id in in_order if peer_id != self._own)
        self._majority = len(everyone) // 2 + 1
        self._opinions = min(2 * OPINIONS if drawn else OPINIONS, len(everyone))
        self._ack = max(ack, 1)
        self._too_few = len(everyone) < self._ack
        self._key_suffices = key_suffices
        self._deadline = deadline
        self._resource = written or ResourceState()
        self._outcome = ReadOutcome()
        self._phase = ReadPhase.GATHERING if self._own is None else ReadPhase.OWN
        self._own_asked = False
        self._asked = 0  # of the others
        self._open: set[str] = set()
        self._replied: set[str] = set()  # with an answer, be it that they don't hold the key
        self._holding: set[str] = set()
        self._lacking: dict[str, None] = {}  # in the order of their answers; asked again they leave, until they answer
        self._faults: dict[str, ErrorInfo] = {}  # of each replica the last one
        self._hedge_at: float | None = None
        self._hedge_after = HEDGE
        self._again_at: float | None = None
        self._again_after = FIRST_AGAIN
        self._doubting_since = 0.0

    @property
    def phase(self) -> ReadPhase:
        """What the read waits for, as of the last step."""
        return self._phase

    @property
    def replied(self) -> frozenset[str]:
        """The replicas whose answers counted, be it that they don't hold the key."""
        return frozenset(self._replied)

    @property
    def resource(self) -> ResourceState:
        """What the answers so far come to, merged with what was known before."""
        return self._resource

    def answered(self, peer_id: str, theirs: ResourceState, *, caught_up: bool) -> None:
        """A replica that was asked told what it knows. What it lacks proves nothing while it hasn't `caught_up`."""
        self._close(peer_id)
        self.known[peer_id] = theirs
        if not theirs.is_empty():  # a key tombstone counts even where it left no key
            self._resource = merged(self._resource, theirs)
        if not caught_up:
            self._faults[peer_id] = ErrorInfo(Code.CATCHING_UP, "the replica is catching up").on(peer_id)
            self._lacking[peer_id] = None
            return
        if peer_id == self._own:
            self._opinions = self._groups = 1
        self._replied.add(peer_id)
        if theirs.key is None:
            self._faults[peer_id] = ErrorInfo.of(KeyNotExists(self._key_id)).on(peer_id)
            self._lacking[peer_id] = None
            return
        self._faults.pop(peer_id, None)
        self._holding.add(peer_id)

    def failed(self, peer_id: str, cause: ErrorInfo) -> None:
        """A replica that was asked gave no answer."""
        self._close(peer_id)
        self._faults[peer_id] = cause.on(peer_id)
        if peer_id in self.known:  # it answered before, and may do so again
            self._lacking[peer_id] = None

    def step(self, now: float, wall_clock: int) -> Ask | AwaitAnswer | Finish:
        """What to do next. `now`: seconds of the monotonic clock; `wall_clock`: seconds since 1970, by which records
        are live or expired."""
        if self._own is not None and not self._own_asked:
            self._own_asked = True
            self._open.add(self._own)
            return Ask((self._own,))
        if self._is_done(now, wall_clock):
            return Finish(self._outcome)
        if self._phase is ReadPhase.OWN:
            return AwaitAnswer(self._deadline)
        peer_ids = self._next_to_ask(now, wall_clock)
        if peer_ids:
            return Ask(peer_ids)
        if not self._open and self._phase is not ReadPhase.ASKING_AGAIN:
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
        patient = self._phase is not ReadPhase.DOUBTING or now < self._doubt_until()
        if not patient:
            self._finish()
        return not patient

    def _close(self, peer_id: str) -> None:
        if peer_id not in self._open:
            raise ValueError(f"{peer_id} wasn't asked, or has answered already")
        self._open.remove(peer_id)
        self._hedge_at = None

    def _move_on(self, now: float) -> None:
        """Into the phase that the answers so far ask for. The patience of rule 4 is had once, however answers trickle
        in, unless it was about the key and somebody turns out to hold that."""
        if self._has_ack() or (self._resource.key is None and len(self._replied) >= self._majority):
            if self._phase is not ReadPhase.DOUBTING:
                self._doubting_since = now
            self._enter(ReadPhase.DOUBTING)
        elif self._can_ask_again():
            if self._again_at is None:
                self._again_at = now + self._again_after
            self._enter(ReadPhase.ASKING_AGAIN)
        else:
            self._enter(ReadPhase.GATHERING)

    def _can_ask_again(self) -> bool:
        if self._resource.key is None or not self._lacking or self._asked < len(self._others):
            return False
        return len(self._holding) + len(self._lacking) + len(self._open) >= self._ack

    def _next_to_ask(self, now: float, wall_clock: int) -> tuple[str, ...]:
        if self._again_at is not None and now >= self._again_at:
            self._again_at = None
            self._again_after *= 2
            if self._phase is ReadPhase.ASKING_AGAIN:
                again, self._lacking = tuple(self._lacking), {}
                self._open.update(again)
                return again
        if self._hedge_at is not None and now >= self._hedge_at:
            count = max(self._asked, 1)
            self._hedge_at = None
            self._hedge_after *= 2
        else:
            count = self._wanted(wall_clock) - len(self._open)
        peer_ids = self._others[self._asked : self._asked + max(count, 0)]
        self._asked += len(peer_ids)
        self._open.update(peer_ids)
        return peer_ids

    def _wanted(self, wall_clock: int) -> int:
        """How many answers more there have to be, if all go well."""
        opinions = max(self._opinions - len(self._replied), self._groups - self._groups_replied())
        if not self._has_ack():
            return max(self._ack - self._held(), opinions)
        return opinions if self._has_records(wall_clock) else self._majority - len(self._replied)

    def _wake_at(self, now: float) -> float:
        wake_at = self._deadline
        if self._phase is ReadPhase.DOUBTING:
            wake_at = self._doubt_until()
        elif self._phase is ReadPhase.ASKING_AGAIN and self._again_at is not None:
            wake_at = self._again_at
        if self._asked == len(self._others):
            return wake_at
        if self._hedge_at is None:
            self._hedge_at = now + self._hedge_after
        return min(wake_at, self._hedge_at)

    def _held(self) -> int:
        """How many replicas hold the key; whoever still serves a removed one is behind."""
        return 0 if self._resource.key is None else len(self._holding)

    def _has_ack(self) -> bool:
        return self._held() >= self._ack

    def _is_removed(self) -> bool:
        return self._resource.key is None and self._resource.key_tombstone is not None

    def _has_records(self, wall_clock: int) -> bool:
        if self._key_suffices and self._resource.key is not None:
            return True
        return bool(self._resource.records(wall_clock, self._settings))

    def _is_enough(self, wall_clock: int) -> bool:
        if len(self._replied) >= self._majority:
            return self._has_ack() or self._is_removed()
        if len(self._replied) < self._opinions or self._groups_replied() < self._groups:
            return False
        return self._has_ack() and self._has_records(wall_clock)

    def _doubt_until(self) -> float:
        """When patience ends (rule 4)."""
        is_alone = len(self._replied) < min(OPINIONS, self._opinions) or self._groups_replied() < self._groups
        if not is_alone or len(self._replied) >= self._majority:
            return self._doubting_since + PATIENCE
        left = (self._deadline - self._doubting_since) / 2
        return self._doubting_since + max(PATIENCE, min(ALONE, left))

    def _groups_replied(self) -> int:
        return len(set(map(self._group_of, self._replied)))

    def _enter(self, phase: ReadPhase) -> None:
        if phase is not self._phase:
            assert phase in TRANSITIONS[self._phase], f"{self._phase} -> {phase}"
            self._phase = phase

    def _finish(self, *, timed_out: bool = False) -> None:
        self._enter(ReadPhase.FINISHED)
        outcome = self._outcome
        outcome.resource, outcome.answered, outcome.timed_out = self._resource, self._held(), timed_out
        outcome.errors = list(self._faults.values())
        if self._too_few:
            outcome.errors.insert(0, ErrorInfo.of(TooFewReplicas(len(self._others) + bool(self._own), self._ack)))
        if self._is_removed():
            outcome.errors.insert(0, ErrorInfo.of(KeyRemoved(self._key_id)))
        del outcome.errors[MAX_ERRORS:]


def parted(neighbourhood: Sequence[str], size: int) -> tuple[Sequence[str], Sequence[str]]:
    """The `size` nearest of a neighbourhood, and who was drawn from its region where members crowd."""
    return neighbourhood[:size], neighbourhood[size:]


def in_turn(replicas: Sequence[str], drawn: Sequence[str], group_of: Callable[[str], str] = str) -> list[str]:
    """The order in which replicas are asked: of those drawn from a region and of the nearest in turn, as far as there
    are such, and in both the nearest of each address group in turn."""
    return _alternating([_by_group(drawn, group_of), _by_group(replicas, group_of)])


def _by_group(peer_ids: Sequence[str], group_of: Callable[[str], str]) -> list[str]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for peer_id in peer_ids:
        groups[group_of(peer_id)].append(peer_id)
    return _alternating([*groups.values()])


def _alternating(several: Sequence[Sequence[str]]) -> list[str]:
    return [peer_id for peer_id in chain.from_iterable(zip_longest(*several)) if peer_id is not None]
