"""What a witness thinks of one light client, which nobody can dial: by its nodes' word, and by proofs through them.

    OK ----- its nodes say that it is gone, a proof is due, another witness says that it is down: challenge -> DOUBT
    DOUBT -- it proves itself through any of its nodes, or tells a newer version ----------------------------> OK
    DOUBT -- gone from all of its nodes for `CLIENT_GRACE`, else without a proof for `NO_BEAT`: a word ------> DOWN
    DOWN --- a node says that it is there: challenge
    DOWN --- its own newer version --------------------------------------------------------------------------> OK
    any ---- it says that it leaves -------------------------------------------------------------------------> LEFT

A client without its node looks for another one, and has `CLIENT_GRACE` to tell so. Each witness wants a proof every
`CLIENT_CHALLENGE`, all of them at different times, as a node could say for ever that a client is there. The proof is
signed over a number that the witness drew, so no node can make it up. The last keepers want one when they are asked.

Pure, with the events of `overlay.presence.witness`; those of links and dials tell nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.timings import (
    CLIENT_CHALLENGE,
    CLIENT_GRACE,
    CLIENT_RETRY,
    CLIENT_RETRY_DOWN,
    CONNECTING,
    NO_BEAT,
    RETRY_SHARE,
)
from overlay.presence.witness import Duty, WitnessState

_VERDICT_AGAIN = 1.0  # seconds until a verdict that had to wait is looked at again
_SLACK = 1e-9


class ClientWitness:
    """One light client, as one of its keepers sees it."""

    __slots__ = (
        "_absent",
        "_again_at",
        "_challenge_at",
        "_challenged_at",
        "_doubted_since",
        "_is_witness",
        "_jitter",
        "_phase",
        "_via",
        "dial_timeout",
        "down_since",
        "state",
    )

    def __init__(
        self, now: float, via: Sequence[str], *, is_witness: bool, phase: float = 1.0, jitter: float = 1.0
    ) -> None:
        """`via`: its nodes. `phase`: part of a pause until the first challenge. `jitter`: about 1."""
        self.state = WitnessState.OK
        self.dial_timeout = CONNECTING
        self.down_since = math.inf
        self._via = tuple(via)
        self._is_witness = is_witness
        self._phase = phase
        self._jitter = jitter
        self._absent: dict[str, float] = {}  # its nodes that say it isn't there, or are gone, and since when
        self._doubted_since = math.inf
        self._again_at = math.inf  # of a challenge while it is doubted, or down
        self._challenged_at = -math.inf  # while it is down
        self._challenge_at = now + phase * CLIENT_CHALLENGE if is_witness else math.inf

    # What is told of the client.

    def set_role(self, now: float, *, is_witness: bool) -> None:
        """Whether this keeper is one of the witnesses."""
        if is_witness != self._is_witness:
            self._is_witness = is_witness
            self._challenge_at = now + self._phase * CLIENT_CHALLENGE if is_witness else math.inf

    def renewed(self, now: float, via: Sequence[str]) -> None:
        """The client told a newer version, and through whom it is reached."""
        self._via, self._absent = tuple(via), {}
        self.state, self.down_since = WitnessState.OK, math.inf
        self._calm(now, self._phase)  # all witnesses hear this at the same moment

    def left(self) -> None:
        """The client said that it leaves."""
        self.state, self.down_since = WitnessState.LEFT, math.inf
        self._doubted_since = self._again_at = self._challenge_at = math.inf

    def proven(self, node: str, now: float) -> list[Duty]:
        """The client proved through one of its nodes that it is there."""
        self._absent.pop(node, None)
        if self.state is WitnessState.LEFT:
            return []
        if self.state is WitnessState.DOWN:
            return [Duty.ACCUSE]
        self.state = WitnessState.OK
        self._calm(now)
        return []

    def gone(self, node: str, now: float) -> list[Duty]:
        """One of its nodes says that it isn't there, or is gone itself."""
        if node not in self._via or self.state is WitnessState.DOWN or self.state is WitnessState.LEFT:
            return []
        self._absent.setdefault(node, now)
        return self._doubt(now)

    def there(self, node: str, now: float) -> None:
        """One of its nodes says that it is there; a proof has yet to come."""
        self._absent.pop(node, None)
        if self.state is WitnessState.DOWN:
            self._again_at = min(self._again_at, max(now, self._challenged_at + CLIENT_RETRY))

    def warned(self, now: float) -> list[Duty]:
        """Another keeper says that it is down."""
        return self._doubt(now) if self.state is WitnessState.OK else []

    def asked(self, now: float) -> list[Duty]:
        """A replica asked for a proof, which was passed on."""
        return self._doubt(now) if self.state is WitnessState.OK and not self._is_witness else []

    def stalled(self, now: float) -> None:
        """This peer itself stood still until now: what came meanwhile is yet to be read."""
        if self._doubted_since != math.inf and self.state is WitnessState.DOUBT:
            self._doubted_since = now
        self._absent = dict.fromkeys(self._absent, now)

    # What tells nothing of a light client.

    def link_ended(self, now: float) -> list[Duty]:  # noqa: ARG002
        """Its node tells of it."""
        return []

    def silent(self, since: float, now: float, *, judges: bool = True) -> list[Duty]:  # noqa: ARG002
        """As well."""
        return []

    def acknowledged(self, now: float) -> None:
        """As well."""

    def dialled(self, outcome: DialOutcome, began: float, now: float, *, judges: bool = True) -> list[Duty]:  # noqa: ARG002
        """It was dialled before it was known to be one."""
        return []

    # Time.

    @property
    def wake_at(self) -> float:
        """When to call `wake` next."""
        if self.state is WitnessState.LEFT:
            return math.inf
        if self.state is WitnessState.OK:
            return self._challenge_at
        return min(self._again_at, self._verdict_at) if self.state is WitnessState.DOUBT else self._again_at

    def wake(self, now: float, *, judges: bool = True) -> list[Duty]:
        """Time has passed."""
        now += _SLACK
        match self.state:
            case WitnessState.OK if now >= self._challenge_at:
                return self._doubt(now)
            case WitnessState.DOUBT if now >= self._verdict_at:
                if judges:
                    self.state, self.down_since = WitnessState.DOWN, now
                    self._again_at = now + CLIENT_RETRY_DOWN[0] * self._jitter
                    return [Duty.SAY_DOWN]
                self._doubted_since += _VERDICT_AGAIN
                self._absent = {node: since + _VERDICT_AGAIN for node, since in self._absent.items()}
            case WitnessState.DOUBT if now >= self._again_at:
                self._again_at = now + CLIENT_RETRY
                return [Duty.CHALLENGE]
            case WitnessState.DOWN if now >= self._again_at:
                shortest, longest = CLIENT_RETRY_DOWN
                pause = min(max((now - self.down_since) / RETRY_SHARE, shortest), longest)
                self._challenged_at, self._again_at = now, now + pause * self._jitter
                return [Duty.CHALLENGE]
        return []

    @property
    def _verdict_at(self) -> float:
        if self._via and all(node in self._absent for node in self._via):
            return max(self._absent.values()) + CLIENT_GRACE
        return self._doubted_since + NO_BEAT

    def _doubt(self, now: float) -> list[Duty]:
        if self.state is WitnessState.DOUBT:
            return []
        self.state, self._doubted_since = WitnessState.DOUBT, now
        self._again_at = now + CLIENT_RETRY
        return [Duty.CHALLENGE]

    def _calm(self, now: float, share: float = 1.0) -> None:
        self._doubted_since = self._again_at = math.inf
        self._challenge_at = now + share * CLIENT_CHALLENGE if self._is_witness else math.inf
