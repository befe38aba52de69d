"""The life of a link, without its stream: what each event makes of it, and what is to be done then.

    NEW --opened--> GREETING --hello--> UP --------bye------> LEFT
                                        |                      |
                                      retire                 retire
                                        v                      v
                                    RETIRING ------bye-----> DRAINING --drained--> ENDED

From everywhere `end` leads to ENDED, and so does a frame that the table below doesn't allow. `retire` says our own bye.

Pure: events and the time come in, in seconds of any clock that doesn't go back, and an `Action` comes out. After ENDED
every event comes to nothing, so a link ends once and says nothing afterwards.
"""

from __future__ import annotations

import enum
import math
from typing import Final

from msgspec import Struct

from overlay.rpc.protocol import Bye, Cancel, Failed, Frame, Hello, Ping, Pong, Refused, Request, Response
from overlay.settings import CallLimits

_SECOND_TO_ASK: Final = 1.25  # ping intervals after which the side that didn't open the link asks


class Phase(enum.Enum):
    """How far a link is in its life."""

    NEW = enum.auto()
    """There is a stream; nothing was said."""
    GREETING = enum.auto()
    """We said hello, the peer didn't yet."""
    UP = enum.auto()
    """Both said hello: calls go both ways."""
    RETIRING = enum.auto()
    """We said bye: the peer's requests are served, own calls are made no more."""
    LEFT = enum.auto()
    """The peer said bye: it makes no more requests, own calls are still made."""
    DRAINING = enum.auto()
    """Both said bye: what is under way ends, then the link does."""
    ENDED = enum.auto()
    """`LinkState.ended` says why."""


class Event(enum.Enum):
    """What happens to a link: a frame of the peer's, or one of the last three."""

    HELLO = enum.auto()
    REQUEST = enum.auto()
    ANSWER = enum.auto()
    CANCEL = enum.auto()
    PING = enum.auto()
    PONG = enum.auto()
    BYE = enum.auto()
    OPENED = enum.auto()
    RETIRE = enum.auto()
    DRAINED = enum.auto()


class Action(enum.Enum):
    """What is to be done after an event."""

    NOTHING = enum.auto()
    SEND_HELLO = enum.auto()
    SEND_PING = enum.auto()
    SEND_PONG = enum.auto()
    SEND_BYE = enum.auto()
    GREETED = enum.auto()
    """Tell that the link is up."""
    SERVE = enum.auto()
    """Serve the request."""
    SETTLE = enum.auto()
    """Hand the answer to the call that waits for it."""
    CANCEL = enum.auto()
    """Stop serving the request."""
    STOP = enum.auto()
    """The link ended: stop all of its tasks, and close its stream, or reset it."""


class Cause(enum.Enum):
    """Why a link ended."""

    DONE = enum.auto()
    """Both sides said bye and nothing is under way."""
    CLOSED = enum.auto()
    """This side gave it up for reasons of its own."""
    LOST = enum.auto()
    """The stream broke or ended."""
    BROKE_PROTOCOL = enum.auto()
    """The peer broke the rules."""
    STALLED = enum.auto()
    """The peer didn't say hello, or doesn't read."""
    SILENT = enum.auto()
    """The peer, once met, gave no sign of life any more."""


class Ended(Struct, frozen=True):
    """Why a link ended, for programs and for people."""

    cause: Cause
    reason: str


def _stay(phase: Phase, **actions: Action) -> dict[Event, tuple[Phase, Action]]:
    return {Event[event]: (phase, action) for event, action in actions.items()}


def _always(phase: Phase) -> dict[Event, tuple[Phase, Action]]:
    """What is allowed in every phase between hello and end."""
    return _stay(phase, ANSWER=Action.SETTLE, CANCEL=Action.CANCEL, PING=Action.SEND_PONG, PONG=Action.NOTHING)


_TABLE: Final[dict[Phase, dict[Event, tuple[Phase, Action]]]] = {
    Phase.NEW: {
        Event.OPENED: (Phase.GREETING, Action.SEND_HELLO),
        Event.RETIRE: (Phase.ENDED, Action.STOP),
    },
    Phase.GREETING: {
        Event.HELLO: (Phase.UP, Action.GREETED),
        Event.RETIRE: (Phase.ENDED, Action.STOP),
    },
    Phase.UP: {
        **_always(Phase.UP),
        Event.REQUEST: (Phase.UP, Action.SERVE),
        Event.BYE: (Phase.LEFT, Action.NOTHING),
        Event.RETIRE: (Phase.RETIRING, Action.SEND_BYE),
    },
    Phase.RETIRING: {
        **_always(Phase.RETIRING),
        Event.REQUEST: (Phase.RETIRING, Action.SERVE),
        Event.BYE: (Phase.DRAINING, Action.NOTHING),
    },
    Phase.LEFT: {
        **_always(Phase.LEFT),
        Event.BYE: (Phase.LEFT, Action.NOTHING),
        Event.RETIRE: (Phase.DRAINING, Action.SEND_BYE),
    },
    Phase.DRAINING: {
        **_always(Phase.DRAINING),
        Event.BYE: (Phase.DRAINING, Action.NOTHING),
        Event.DRAINED: (Phase.ENDED, Action.STOP),
    },
    Phase.ENDED: _stay(Phase.ENDED, **{event.name: Action.NOTHING for event in Event}),
}
"""Of each phase, what each event leads to. A frame that isn't here breaks the protocol; another event is ignored."""

_EVENTS: Final[dict[type[Frame], Event]] = {
    Hello: Event.HELLO,
    Request: Event.REQUEST,
    Response: Event.ANSWER,
    Refused: Event.ANSWER,
    Failed: Event.ANSWER,
    Cancel: Event.CANCEL,
    Ping: Event.PING,
    Pong: Event.PONG,
    Bye: Event.BYE,
}


class LinkState:
    """Where one link is in its life, and when it needs to be looked at again."""

    __slots__ = ("_asked_at", "_heard_at", "_interval", "_limits", "_opened_at", "ended", "phase", "remote", "up_since")

    def __init__(self, limits: CallLimits, *, opened_by_peer: bool) -> None:
        self.phase = Phase.NEW
        self.remote: Hello | None = None
        """What the peer said of itself; None until it did."""
        self.up_since = 0.0
        """When it said so."""
        self.ended: Ended | None = None
        """Why the link ended; None while it lives."""
        self._limits = limits
        # One side's ping is the other's sign of life, so one side asks, unless it's the one that is silent.
        self._interval = limits.ping_interval * (_SECOND_TO_ASK if opened_by_peer else 1.0)
        self._opened_at = 0.0
        self._heard_at = 0.0
        self._asked_at: float | None = None  # for a sign of life, which hasn't come yet

    @property
    def usable(self) -> bool:
        """Whether calls can be made on the link."""
        return self.phase is Phase.UP or self.phase is Phase.LEFT

    @property
    def wake_at(self) -> float:
        """When to call `wake` next. What is heard puts it off; a call that comes too early does nothing."""
        if self.phase is Phase.GREETING:
            return self._opened_at + self._limits.hello_timeout
        if self.phase is Phase.NEW or self.phase is Phase.ENDED:
            return math.inf
        if self._asked_at is not None:
            return self._asked_at + self._limits.ping_timeout
        return self._heard_at + self._interval

    def opened(self, now: float) -> Action:
        """The stream is there."""
        self._opened_at = self._heard_at = now
        return self._step(Event.OPENED)

    def heard(self, now: float) -> None:
        """The peer sent something, whatever it was: a sign of life."""
        self._heard_at = now
        self._asked_at = None

    def receive(self, frame: Frame, now: float) -> Action:
        """A frame of the peer's came."""
        event = _EVENTS[type(frame)]
        step = _TABLE[self.phase].get(event)
        if step is None:
            return self.end(Cause.BROKE_PROTOCOL, f"the peer broke the protocol: {self._fault(event)}")
        self.phase, action = step
        if action is Action.GREETED and isinstance(frame, Hello):
            self.remote = frame
            self.up_since = now
        return action

    def wake(self, now: float) -> Action:
        """Time has passed: ask for a sign of life, or give the link up, when it is time to."""
        if now < self.wake_at:
            return Action.NOTHING
        if self.phase is Phase.GREETING:
            return self.end(Cause.STALLED, f"the peer said no hello within {self._limits.hello_timeout:g} s")
        if self._asked_at is None:
            self._asked_at = now
            return Action.SEND_PING
        return self.end(Cause.SILENT, f"the peer was silent for {self._interval + self._limits.ping_timeout:g} s")

    def retire(self) -> Action:
        """Make no more calls on the link, and end it when those under way are done, both ways."""
        return self._step(Event.RETIRE)

    def drained(self) -> Action:
        """Nothing is under way, nor waits for being written."""
        return self._step(Event.DRAINED)

    def end(self, cause: Cause, reason: str) -> Action:
        """The link ends, whatever is under way."""
        if self.phase is Phase.ENDED:
            return Action.NOTHING
        self.phase = Phase.ENDED
        self.ended = Ended(cause, reason)
        return Action.STOP

    def _step(self, event: Event) -> Action:
        following, action = _TABLE[self.phase].get(event, (self.phase, Action.NOTHING))
        if action is Action.STOP:
            return self.end(Cause.DONE, "the link was closed")
        self.phase = following
        return action

    def _fault(self, event: Event) -> str:
        if self.remote is None:
            return "the first frame isn't a hello"
        return "a second hello" if event is Event.HELLO else "a request after a bye"
