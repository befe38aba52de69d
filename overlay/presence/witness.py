"""What a witness thinks of one host, by its beats, its kernel's acknowledgements and its links.

    OK ----- late beat, silent kernel, link ended, or unknown when asked: dial, hint -----> DOUBT
    OK <---- beat, acknowledgement, dial that proves it, or (but for late beats) a mute one --- DOUBT
    DOUBT -- refused; silent after the link ended; KERNEL_DOWN; NO_BEAT: a word -----------> DOWN
    DOWN --- its own newer version, from itself -------------------------------------------> OK
    any ---- it says that it leaves -------------------------------------------------------> LEFT
    LEFT --- its own newer version --------------------------------------------------------> OK

A host that is heard while it is down is accused: it answers by a newer version. While it is down it is dialled again
and again by one timer, whatever becomes of the dials. A keeper that isn't one of the witnesses gets no beats: it knows
the links alone, and looks when it is asked and no proof passed it within `PROOF_PATIENCE`.

Pure: events and the time come in, and `Duty`s go out. The clock is any that doesn't go back; times before this peer's
own last stall don't count (`stalled`). Each event takes `judges`: while it is false, a verdict waits.
"""

from __future__ import annotations

import enum
import math
from typing import Final

from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.timings import (
    CONNECTING,
    KERNEL_DOUBT,
    KERNEL_DOUBT_EASED,
    KERNEL_DOWN,
    KERNEL_EASED_FOR,
    LATE_BEAT,
    MUTE_PAUSE,
    NO_BEAT,
    PROOF_PATIENCE,
    RETRIED_DIAL,
    RETRY_SHARE,
    WITNESS_RETRY,
)

_VERDICT_AGAIN: Final = 1.0  # seconds until a verdict that had to wait is looked at again
_SLACK: Final = 1e-9


class WitnessState(enum.Enum):
    """What a witness thinks of a host."""

    OK = enum.auto()
    DOUBT = enum.auto()
    DOWN = enum.auto()
    LEFT = enum.auto()


class Duty(enum.Enum):
    """What a witness has to do."""

    DIAL = enum.auto()
    """Dial it anew, within `Witness.dial_timeout`, and tell `dialled`."""
    HINT = enum.auto()
    """Warn subscribers."""
    SAY_DOWN = enum.auto()
    """Give a word."""
    CHALLENGE = enum.auto()
    """Have a light client prove itself through its nodes."""
    ACCUSE = enum.auto()
    """Tell the host at which version it is held to be down."""


class Witness:
    """One host, as one of its keepers sees it."""

    __slots__ = (
        "_asked_at",
        "_dial_began",
        "_eased_until",
        "_ended",
        "_fault_since",
        "_heard_at",
        "_is_witness",
        "_jitter",
        "_kernel_doubt",
        "_kernel_from",
        "_known",
        "_mute_since",
        "_redial_at",
        "_retry_at",
        "_silent_since",
        "_stalled_at",
        "_verdict_at",
        "dial_timeout",
        "down_since",
        "state",
    )

    def __init__(self, now: float, *, is_witness: bool, is_known: bool = True, jitter: float = 1.0) -> None:
        """`is_witness`: whether beats come. `is_known`: whether the host was heard before; else it is dialled when
        somebody asks. `jitter`: about 1, by which pauses are multiplied."""
        self.state = WitnessState.OK
        self.dial_timeout = CONNECTING
        """Seconds for the dial that was asked for last."""
        self.down_since = math.inf
        """When the word was said; infinity while the host isn't down."""
        self._is_witness = is_witness
        self._jitter = jitter
        self._known = is_known
        self._heard_at = now
        self._silent_since = math.inf
        self._ended = False  # the link ended, and the dial since then tells whether the host is down
        self._dial_began = math.inf
        self._fault_since = math.inf  # from which on all dials failed for our own fault
        self._redial_at = math.inf
        self._mute_since = math.inf
        self._asked_at = math.inf
        self._kernel_doubt = KERNEL_DOUBT
        self._eased_until = -math.inf
        self._kernel_from = -math.inf  # before that its silence doesn't count
        self._retry_at = math.inf
        self._verdict_at = math.inf
        self._stalled_at = -math.inf

    # What is told of the host.

    def set_role(self, now: float, *, is_witness: bool) -> None:
        """The host beats to us from now on, or doesn't any more, as others came nearer to it."""
        if is_witness != self._is_witness:
            self._is_witness = is_witness
            self._heard_at = now

    def heard(self, now: float) -> list[Duty]:
        """The host's process said something."""
        if self.state is WitnessState.DOUBT and now - self._silent_since >= KERNEL_DOUBT:
            # What it says comes through, and what we send doesn't: not to be looked at with each beat.
            self._kernel_doubt, self._eased_until = KERNEL_DOUBT_EASED, now + KERNEL_EASED_FOR
        elif now >= self._eased_until:
            self._kernel_doubt = KERNEL_DOUBT
        self._heard_at = self._kernel_from = now
        self._known, self._ended = True, False
        self._silent_since = self._mute_since = self._asked_at = self._verdict_at = self._redial_at = math.inf
        if self.state is WitnessState.DOUBT:
            self.state = WitnessState.OK
        return [Duty.ACCUSE] if self.state is WitnessState.DOWN else []

    def renewed(self, now: float, *, from_itself: bool) -> list[Duty]:
        """A newer version came, from the host itself or by others; those are no sign for us, and make us look."""
        if self.state is WitnessState.LEFT or from_itself:
            self.state, self.down_since, self._retry_at = WitnessState.OK, math.inf, math.inf
            return self.heard(now)
        if self.state is WitnessState.DOWN:
            return self._dial(now, RETRIED_DIAL)
        if not self._known:
            self._known, self._heard_at = True, now
        return []

    def left(self) -> None:
        """The host said that it leaves."""
        self.state, self.down_since = WitnessState.LEFT, math.inf
        self._silent_since = self._mute_since = self._asked_at = self._verdict_at = math.inf
        self._retry_at = self._redial_at = math.inf
        self._ended = False

    def link_ended(self, now: float) -> list[Duty]:
        """The link to the host broke."""
        if self.state is WitnessState.DOWN or self.state is WitnessState.LEFT:
            return []
        self._ended = True
        self._silent_since = math.inf
        return self._doubt(now, CONNECTING)

    def silent(self, since: float, now: float, *, judges: bool = True) -> list[Duty]:
        """The host's kernel acknowledged nothing since then; told at each look."""
        if self.state is WitnessState.DOWN or self.state is WitnessState.LEFT or self._ended:
            return []
        self._silent_since = max(since, self._kernel_from)
        return self.wake(now, judges=judges)

    def acknowledged(self, now: float) -> None:
        """The host's kernel acknowledged something."""
        self._silent_since = math.inf
        if not self._ended:
            self._verdict_at = math.inf
            if self.state is WitnessState.DOUBT and not self._is_late(now):
                self.state = WitnessState.OK

    def asked(self, now: float) -> list[Duty]:
        """A replica asked for proof, which was passed on to the host."""
        if self.state is WitnessState.DOWN or self.state is WitnessState.LEFT:
            return []
        if not self._known:
            self._ended = True
            return self._doubt(now, CONNECTING)
        if not self._is_witness and self._asked_at == math.inf:
            self._asked_at = now
        return []

    def dialled(self, outcome: DialOutcome, began: float, now: float, *, judges: bool = True) -> list[Duty]:
        """What became of a dial that began then."""
        self._dial_began = math.inf
        self._fault_since = min(self._fault_since, began) if outcome is DialOutcome.OWN_FAULT else math.inf
        if outcome is DialOutcome.ALIVE:
            return self.heard(now)
        if self.state is WitnessState.DOWN or self.state is WitnessState.LEFT:
            return []
        if outcome is DialOutcome.REFUSED:
            return self._verdict(now, judges=judges)
        if outcome is DialOutcome.OWN_FAULT or self._stalled_at > began:
            # It says nothing; what waits for its outcome tries again.
            if outcome is DialOutcome.OWN_FAULT and not self._known:  # anybody can ask about what has no address
                self._ended, self.state = False, WitnessState.OK
                self._silent_since, self._kernel_from = math.inf, now  # or its silence would have it dialled for ever
            pause = 0.0
            if outcome is DialOutcome.OWN_FAULT:  # rarer each time: who links once and has no address stays so
                pause = min(max((now - self._fault_since) / RETRY_SHARE, _VERDICT_AGAIN), WITNESS_RETRY[1])
            self._redial_at = now + pause if self._ended else math.inf
            return []
        if outcome is DialOutcome.SILENT:
            return self._verdict(now, judges=judges) if self._ended else self.wake(now, judges=judges)
        return self._mute(began, now, judges=judges)

    def stalled(self, now: float) -> None:
        """This peer itself stood still until now: the clocks of others' silence start anew."""
        self._stalled_at = self._kernel_from = now
        self._heard_at = max(self._heard_at, now)
        self._asked_at = self._verdict_at = math.inf
        if self._silent_since != math.inf:
            self._silent_since = now
        if self._mute_since != math.inf:
            self._mute_since = now
        if self._ended and self._dial_began == math.inf:
            self._redial_at = now

    # Time.

    @property
    def wake_at(self) -> float:
        """When to call `wake` next."""
        if self.state is WitnessState.LEFT:
            return math.inf
        if self.state is WitnessState.DOWN:
            return self._retry_at
        due = self._redial_at if self._dial_began != math.inf else min(self._redial_at, self._verdict_at)
        if self._asked_at != math.inf:
            due = min(due, self._asked_at + PROOF_PATIENCE)
        if self._dial_began == math.inf and self._verdict_at == math.inf:
            if self._has_beats:
                due = min(due, self._heard_at + (NO_BEAT if self.state is WitnessState.DOUBT else LATE_BEAT))
            if not self._ended:  # else the dial since then tells
                due = min(due, self._silent_since + KERNEL_DOWN)
        if self.state is WitnessState.OK:
            due = min(due, self._silent_since + self._kernel_doubt)
        return due

    def wake(self, now: float, *, judges: bool = True) -> list[Duty]:
        """Time has passed."""
        now += _SLACK
        if self.state is WitnessState.LEFT:
            return []
        if self.state is WitnessState.DOWN:
            return self._try_again(now)
        if now >= self._redial_at:
            self._redial_at = math.inf
            return self._dial(now, CONNECTING)
        if now >= self._asked_at + PROOF_PATIENCE:
            self._asked_at = math.inf
            self._ended = True
            return self._doubt(now, CONNECTING)
        duties: list[Duty] = []
        silence = now - self._silent_since
        if silence >= self._kernel_doubt and self.state is WitnessState.OK:
            duties += self._doubt(now, max(1.0, KERNEL_DOWN - KERNEL_DOUBT))
        if self._is_late(now) and self.state is WitnessState.OK:
            duties += self._doubt(now, NO_BEAT - LATE_BEAT)
        is_over = silence >= KERNEL_DOWN or (self._has_beats and now - self._heard_at >= NO_BEAT)
        is_over = is_over or now >= self._verdict_at
        if is_over and self._dial_began == math.inf and (not self._ended or self._verdict_at <= now):
            duties += self._verdict(now, judges=judges)
        return duties

    def _is_late(self, now: float) -> bool:
        return self._has_beats and now - self._heard_at >= LATE_BEAT

    @property
    def _has_beats(self) -> bool:
        return self._is_witness and self._known and not self._ended

    def _doubt(self, now: float, timeout: float) -> list[Duty]:
        is_new = self.state is WitnessState.OK
        self.state = WitnessState.DOUBT
        return [*self._dial(now, timeout), *([Duty.HINT] if is_new else [])]

    def _dial(self, now: float, timeout: float) -> list[Duty]:
        if self._dial_began != math.inf:
            return []
        self._dial_began = now
        self.dial_timeout = timeout
        return [Duty.DIAL]

    def _mute(self, began: float, now: float, *, judges: bool) -> list[Duty]:
        """The machine answers, so the links say nothing; only the long clock counts."""
        self._silent_since, self._kernel_from = math.inf, now
        if self._is_witness:
            if self._ended:
                self._ended, self._known, self._heard_at = False, True, max(self._heard_at, began)
            if not self._is_late(now):
                self.state = WitnessState.OK
            return self.wake(now, judges=judges)
        if self._mute_since == math.inf:
            self._mute_since = began
        if now - self._mute_since >= NO_BEAT:
            return self._verdict(now, judges=judges)
        self._ended = True
        self._redial_at = now + MUTE_PAUSE
        return []

    def _verdict(self, now: float, *, judges: bool) -> list[Duty]:
        if not judges:
            self._verdict_at = now + _VERDICT_AGAIN
            return []
        self.state, self.down_since = WitnessState.DOWN, now
        self._ended = False
        self._silent_since = self._mute_since = self._asked_at = self._verdict_at = self._redial_at = math.inf
        self._retry_at = now + WITNESS_RETRY[0] * self._jitter
        return [Duty.SAY_DOWN]

    def _try_again(self, now: float) -> list[Duty]:
        if now < self._retry_at:
            return []
        shortest, longest = WITNESS_RETRY
        pause = min(max((now - self.down_since) / RETRY_SHARE, shortest), longest)
        self._retry_at = now + pause * self._jitter
        return self._dial(now, RETRIED_DIAL)
