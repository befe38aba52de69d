"""What a replica thinks of one host that it follows: whether it is shown, doubted or hidden.

    SHOWN ---- hint, word, complaint: ask for proof, try ---------------> DOUBTED
    DOUBTED -- proof, own try that reached it, newer version -----------> SHOWN
    DOUBTED -- all that rule 7 wants -----------------------------------> HIDDEN
    HIDDEN --- proof, own try, newer version ---------------------------> SHOWN, or HELD when it flaps
    HELD ----- the hold is over, nobody doubts it meanwhile ------------> SHOWN, else HIDDEN, and tried at once
    any ------ it says that it leaves ----------------------------------> LEFT
    LEFT ----- newer version -------------------------------------------> SHOWN, or HELD

A host is hidden when all of this holds (rule 7): enough words for how long the doubt has lasted; our own try failed
within `TRY_COUNTS`, later than any proof; having asked for proof brought none for `ASK_ANSWERED`, unless the host's
machine refused the connection; we don't doubt ourselves. One timer tries a hidden host again, whatever becomes of the
tries. What ends a doubt that outlasted a hold is no return of its own, lest one witness that lies all the time has the
host held again and again. Before anything is known of a host, as of those that have no presence yet, nothing hides it.

Pure: events and the time come in, and `Move`s go out. Own stalls are told by `stalled`: doubts and tries start anew.
"""

from __future__ import annotations

import enum
import math
from typing import Final

from msgspec import Struct

from overlay.presence.accusers import Accusers
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.flap import Flap
from overlay.presence.statements import NEVER, Version, Word
from overlay.presence.timings import (
    ASK_ANSWERED,
    ASK_COUNTS,
    ASK_MORE,
    ASK_PAUSE,
    ASKS_GROW,
    ENOUGH_WORDS,
    NO_BEAT,
    OWN_TRY,
    PROOF_PATIENCE,
    REPLICA_RETRY,
    RETRY_SHARE,
    SPOKEN_LATELY,
    TRY_AGAIN,
    TRY_COUNTS,
    TRY_PAUSE,
    WITH_WORDS,
    WORD_TTL,
)

_JUDGE_AGAIN: Final = 1.0  # seconds until a judgement that had to wait is looked at again
_SLACK: Final = 1e-6


class ViewState(enum.Enum):
    """Whether a replica lists a host."""

    SHOWN = enum.auto()
    DOUBTED = enum.auto()
    """Still listed."""
    HIDDEN = enum.auto()
    HELD = enum.auto()
    """Alive, and not listed yet, as it comes and goes."""
    LEFT = enum.auto()
    """Not listed, as it said itself."""


class Move(enum.Enum):
    """What a replica has to do about a host."""

    ASK_FEW = enum.auto()
    """Ask two keepers for proof."""
    ASK = enum.auto()
    """Ask the witnesses for proof."""
    ASK_MORE = enum.auto()
    """Ask the other keepers."""
    TRY = enum.auto()
    """Dial the host, within `OWN_TRY`, and tell `tried`."""
    HIDE = enum.auto()
    SHOW = enum.auto()


LISTED: Final = frozenset({ViewState.SHOWN, ViewState.DOUBTED})


class _Heard(Struct):
    """The last word of one witness."""

    number: int
    version: Version
    until: float


class HostView:
    """One host, as one replica sees it."""

    __slots__ = (
        "_accusers",
        "_ask_again",
        "_ask_more_at",
        "_asked_at",
        "_asked_before",
        "_asks_all_at",
        "_began",
        "_doubted_since",
        "_failed_at",
        "_failed_how",
        "_flap",
        "_held_until",
        "_hinted",
        "_jitter",
        "_judge_at",
        "_keepers",
        "_proven_at",
        "_retry_at",
        "_stalled_at",
        "_tried_at",
        "_was_held",
        "_words",
        "since",
        "state",
        "version",
    )

    def __init__(self, *, jitter: float = 1.0) -> None:
        """`jitter`: about 1, by which pauses are multiplied."""
        self.state = ViewState.SHOWN
        self.since = -math.inf
        """When the state became listed, or not listed."""
        self.version = NEVER
        """The latest that the host said itself."""
        self._jitter = jitter
        self._keepers = 0  # how many there are
        self._words: dict[str, _Heard] = {}
        self._hinted: set[str] = set()
        self._accusers = Accusers()
        self._flap = Flap()
        self._was_held = False  # and nothing but a doubt keeps it hidden since
        self._doubted_since = math.inf
        self._proven_at = -math.inf
        self._asked_at = self._asked_before = -math.inf
        self._ask_more_at = math.inf
        self._asks_all_at = math.inf
        self._ask_again = math.inf
        self._began = math.inf  # of the try that is under way
        self._tried_at = -math.inf
        self._failed_at = -math.inf
        self._failed_how = DialOutcome.SILENT
        self._stalled_at = -math.inf
        self._judge_at = math.inf
        self._retry_at = math.inf
        self._held_until = math.inf

    @property
    def is_listed(self) -> bool:
        """Whether it is up, as far as this replica says."""
        return self.state in LISTED

    def count(self, now: float) -> int:
        """Words that speak against the current version."""
        return sum(word.version == self.version and now < word.until for word in self._words.values())

    def accusing(self, now: float) -> list[str]:
        """The witnesses whose words those are."""
        return [name for name, word in self._words.items() if word.version == self.version and now < word.until]

    def spoken_lately(self, now: float) -> list[str]:
        """Those of them who said so just now: asked again they would say the same, and pass no request for proof on."""
        since = now + WORD_TTL - SPOKEN_LATELY
        return [name for name, word in self._words.items() if word.version == self.version and since < word.until]

    # What others say.

    def is_newer(self, word: Word) -> bool:
        """Whether a keeper's word says anything that isn't known."""
        known = self._words.get(word.witness)
        return word.version >= self.version and (known is None or word.number > known.number)

    def hinted(self, witness: str, now: float) -> list[Move]:
        """A witness began to doubt the host."""
        if not self.is_listed or self.version == NEVER or not self._accusers.heeds_hint(witness, now):
            return []
        self._hinted.add(witness)
        self._begin_doubt(now)
        return [*self._ask(now), *self._try(now)]

    def said(self, word: Word, now: float, *, judges: bool = True) -> list[Move]:
        """A keeper's word, verified."""
        if not self.is_newer(word):
            return []
        until = now + min(word.ttl, WORD_TTL) if word.is_down else -math.inf
        self._words[word.witness] = _Heard(word.number, word.version, until)
        if not word.is_down or word.version != self.version or self.version == NEVER or self.state is ViewState.LEFT:
            return []
        if not any(self._accusers.believes(witness, now) for witness in self.accusing(now)):
            return []
        self._begin_doubt(now)
        if not self.is_listed:
            return []
        moves: list[Move] = []
        is_answered = self._proven_at >= self._asked_at
        if now - self._proven_at > ASK_PAUSE and (is_answered or now - self._asked_at > ASK_COUNTS):
            moves += self._ask(now)
        if now - self._failed_at > TRY_AGAIN:
            moves += self._try(now)
        return [*moves, *self._judge(now, judges=judges)]

    def complained(self, now: float) -> list[Move]:
        """A caller couldn't reach the host, or the witness at which we subscribed is gone."""
        if self.state is not ViewState.SHOWN or self.version == NEVER:
            return []
        self._begin_doubt(now)
        if now - self._asked_at <= ASK_PAUSE:
            return self._try(now)
        self._asks_all_at = now + PROOF_PATIENCE
        return [Move.ASK_FEW]

    def proven(self, version: Version, now: float) -> list[Move]:
        """The host proved that it is there now."""
        if self.state is ViewState.LEFT and version <= self.version:
            return []  # it answers until it has stopped
        self._proven_at = now
        self._failed_at = -math.inf
        if self.is_listed:
            self._accusers.note_false(self.accusing(now), self._hinted, now)
        self.version = max(self.version, version)
        self._end_doubt(self.version)
        return self._reappear(now)

    def renewed(self, version: Version, now: float, *, is_leaving: bool = False) -> list[Move]:
        """The host's own statement of this version came, from whomever, and is genuine."""
        if version <= self.version:
            return []
        self._end_doubt(self.version)
        self.version = version
        self._failed_at = -math.inf
        if not is_leaving:
            moves = self._reappear(now)
            if self.count(now):  # said of this version already, before it came here
                self._begin_doubt(now)
                moves += self._try(now)
            return moves
        was_listed = self.is_listed
        self.state, self._was_held = ViewState.LEFT, False
        self.since = now if was_listed else self.since
        self._held_until = math.inf
        self._begin_retries(now)
        return [Move.HIDE] if was_listed else []

    def tried(self, outcome: DialOutcome, began: float, now: float, *, judges: bool = True) -> list[Move]:
        """What became of our own try, which began then."""
        self._began = math.inf
        if outcome is DialOutcome.ALIVE:
            return self.proven(self.version, now)
        is_certain = outcome is DialOutcome.REFUSED  # its machine said so, however late we read it
        if outcome is DialOutcome.OWN_FAULT or (self._stalled_at > began and not is_certain):
            return self._try(now) if outcome is not DialOutcome.OWN_FAULT and self._doubted_since != math.inf else []
        self._failed_at, self._failed_how, self._was_held = now, outcome, False
        return self._judge(now, judges=judges)

    def stalled(self, now: float) -> None:
        """This peer itself stood still until now."""
        self._stalled_at = now
        if self._doubted_since != math.inf:
            if not self.is_refused:  # else a peer that stalls again and again would never hide anybody
                self._doubted_since = now
            self._judge_at = now
        if not self.is_refused:
            self._failed_at = -math.inf
        if self._asks_all_at != math.inf:
            self._asks_all_at = now + PROOF_PATIENCE

    @property
    def is_refused(self) -> bool:
        """Whether its machine said last that the process is gone."""
        return self._failed_how is DialOutcome.REFUSED and self._failed_at > self._proven_at

    def links_returned(self, now: float) -> None:
        """Links came back after a cut: whoever is hidden is tried soon."""
        if self._retry_at != math.inf:
            self._retry_at = min(self._retry_at, now + REPLICA_RETRY[0] * self._jitter)
            self._ask_again = min(self._ask_again, now)

    def keep_keepers(self, keepers: list[str]) -> None:
        """Only words of these count."""
        self._keepers = len(keepers)
        self._words = {name: word for name, word in self._words.items() if name in keepers}
        self._hinted &= {*keepers}
        self._accusers.keep(keepers)

    # Time.

    @property
    def wake_at(self) -> float:
        """When to call `wake` next."""
        return min(self._judge_at, self._retry_at, self._held_until, self._ask_more_at, self._asks_all_at)

    def wake(self, now: float, *, judges: bool = True) -> list[Move]:
        """Time has passed."""
        now += _SLACK
        moves: list[Move] = []
        if now >= self._held_until:
            moves += self._release(now)
        if now >= self._ask_more_at:
            self._ask_more_at = math.inf
            if self.state is ViewState.DOUBTED and self.count(now) < ENOUGH_WORDS and self._proven_at < self._asked_at:
                moves.append(Move.ASK_MORE)
        if now >= self._asks_all_at:
            self._asks_all_at = math.inf
            if self.state is ViewState.DOUBTED:
                moves += [*self._ask(now), Move.ASK_MORE, *self._try(now)]
                moves += self._judge(now, judges=judges)
        if now >= self._judge_at:
            moves += self._judge(now, judges=judges)
        if now >= self._retry_at:
            moves += self._retry(now)
        return moves

    def _retry(self, now: float) -> list[Move]:
        elapsed = now - self.since
        shortest, longest = REPLICA_RETRY
        self._retry_at = now + min(max(elapsed / RETRY_SHARE, shortest), longest) * self._jitter
        moves = [] if self.state is ViewState.LEFT else self._try(now)
        if now >= self._ask_again:
            self._ask_again = self.since + min(max(elapsed, 1.0) * ASKS_GROW, elapsed + longest)
            self._asked_at = now
            moves.append(Move.ASK)
        return moves

    def _begin_retries(self, now: float) -> None:
        self._retry_at = now + REPLICA_RETRY[0] * self._jitter
        self._ask_again = now
        self._judge_at = self._ask_more_at = self._asks_all_at = math.inf

    def _begin_doubt(self, now: float) -> None:
        if self._doubted_since == math.inf:
            self._doubted_since = now
            self._judge_at = now  # the deadline, whatever becomes of what we do meanwhile
        if self.state is ViewState.SHOWN:
            self.state = ViewState.DOUBTED

    def _end_doubt(self, version: Version) -> None:
        """Words up to this version were disproved."""
        self._doubted_since = math.inf
        self._judge_at = self._ask_more_at = self._asks_all_at = math.inf
        self._hinted.clear()
        for word in self._words.values():
            if word.version <= version:  # its number stays: nobody says it again
                word.until = -math.inf
        if self.state is ViewState.DOUBTED:
            self.state = ViewState.SHOWN

    def _ask(self, now: float) -> list[Move]:
        if now - self._asked_at <= ASK_PAUSE:
            return []
        self._asked_before, self._asked_at = self._asked_at, now
        self._ask_more_at = now + ASK_MORE
        return [Move.ASK]

    def _try(self, now: float) -> list[Move]:
        if self._began != math.inf or now - self._tried_at < TRY_PAUSE:
            return []
        self._began = self._tried_at = now
        return [Move.TRY]

    def _judge(self, now: float, *, judges: bool) -> list[Move]:  # noqa: PLR0911 - a condition each
        """Rule 7. Sets when to look again, unless the host is hidden."""
        if self.state is not ViewState.DOUBTED or self._doubted_since == math.inf:
            self._judge_at = math.inf
            return []
        due = self._doubted_since + self._needed(now)
        if now < due - OWN_TRY - _SLACK:
            self._judge_at = due - OWN_TRY
            return []
        if now < due - _SLACK:  # what is needed then is begun, lest it takes as long again
            self._judge_at = due
            is_asked = due - self._asked_at <= ASK_COUNTS and self._proven_at < self._asked_at
            is_tried = due - self._failed_at <= TRY_COUNTS
            return [*([] if is_tried else self._try(now)), *([] if is_asked else self._ask(now))]
        self._judge_at = now + _JUDGE_AGAIN
        if not judges:
            return []
        if now - self._failed_at > TRY_COUNTS or self._failed_at <= self._proven_at:
            return self._try(now)  # its end leads here again
        if self._failed_how is not DialOutcome.REFUSED and not self._has_asked_in_vain(now):
            if now - self._asked_at > ASK_COUNTS or self._proven_at >= self._asked_at:
                self._judge_at = max(now + ASK_ANSWERED, self._asked_at + ASK_PAUSE + _SLACK)
                return self._ask(now)
            self._judge_at = self._asked_at + ASK_ANSWERED
            return []
        self.state, self.since = ViewState.HIDDEN, now
        self._begin_retries(now)
        return [Move.HIDE]

    def _has_asked_in_vain(self, now: float) -> bool:
        return any(
            ASK_ANSWERED - _SLACK <= now - asked_at <= ASK_COUNTS and self._proven_at < asked_at
            for asked_at in (self._asked_at, self._asked_before)
        )

    def _needed(self, now: float) -> float:
        """Seconds that the doubt has to last, by how many words there are."""
        count = self.count(now)
        is_unanimous = 0 < self._keepers <= count  # in networks of fewer peers than `ENOUGH_WORDS`
        if count >= ENOUGH_WORDS or (is_unanimous and self.is_refused):
            return 0.0
        if count == 0 and self._failed_how is DialOutcome.MUTE and self._failed_at > self._proven_at:
            return NO_BEAT
        return WITH_WORDS[count]

    def _reappear(self, now: float) -> list[Move]:
        if self.is_listed or self.state is ViewState.HELD:
            return []
        hold = 0.0 if self._was_held else self._flap.returned(now)
        self._was_held = False
        self._retry_at = math.inf
        if hold:
            self.state = ViewState.HELD
            self._held_until = now + hold
            return []
        return self._show(now)

    def _release(self, now: float) -> list[Move]:
        self._held_until = math.inf
        if self._doubted_since == math.inf:
            return self._show(now)
        self.state, self._was_held = ViewState.HIDDEN, True
        self._begin_retries(now)
        return self._try(now)

    def _show(self, now: float) -> list[Move]:
        self.state, self.since = ViewState.SHOWN, now
        return [Move.SHOW]
