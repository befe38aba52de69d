"""The states of a view's sources, the phases of a round and its actions, of which `registry.watch.source_machine` is
made."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


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

    COMPARE = "compare"
    """Compare with sources that are new or know something else, renewing their subscriptions."""
    OWN = "own"
    """Merge what this peer's own replica has."""
    LOOK_UP = "look up"
    """Find out who keeps the resource, if sources are lacking."""
    SUBSCRIBE = "subscribe"
    """Ask those for subscriptions, until there are enough."""
    READ = "read"
    """Read the resource once, if there is no source and it isn't kept here."""
    WAIT = "wait"
    """Wait for the next expiry or retry, or until something happens."""


NEXT_PHASE: Final[dict[FollowPhase, FollowPhase]] = dict(
    zip(FollowPhase, [*list(FollowPhase)[1:], FollowPhase.COMPARE], strict=True)
)


class Subscribe(NamedTuple):
    """Ask these, all at once, to hold or renew a subscription. Of each, tell `refused`; or `agreed`, and when it has
    been compared with, `compared` (or `refused`)."""

    peer_ids: tuple[str, ...]


class ReadOwn(NamedTuple):
    """Tell what this peer's own replica has: `own_read`."""


class LookUp(NamedTuple):
    """Tell who keeps the resource: `looked_up`. Those who are avoided aren't asked in any case."""

    avoided: frozenset[str]


class Read(NamedTuple):
    """Read the resource from its neighbourhood: `read`."""


class Wait(NamedTuple):
    """Nothing to do until then (seconds of the monotonic clock), unless something happens before."""

    until: float


FollowAction = Subscribe | ReadOwn | LookUp | Read | Wait
