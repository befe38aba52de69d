"""The life of a link, without its stream: what each event makes of it, and what is to be done then.

    NEW --opened--> GREETING --hello, admit--> UP ---------bye-------> LEFT
     |                                        ^ | |                      |
   listen                                     | | retire               retire
     v                                        | |   v                    v
    LISTENING --hello, admit------------------' | RETIRING --bye--> DRAINING --drained--> ENDED
                                                ask                      ^
                                      UP <-stay-- ASKING ------bye-------'

From everywhere `end` leads to ENDED, and so do a frame that the table below doesn't allow and a bye after which nothing
is said. `retire` and `ask` say our own bye. A bye that asks is answered by `agree`, which leads from UP to DRAINING, or
by a `Stay` that changes nothing; whoever is asked chooses.

Pure: events and the time come in, in seconds of any clock that doesn't go back, and an `Action` comes out. After ENDED
every event comes to nothing, so a link ends once and says nothing afterwards.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from overlay.rpc.protocol import (
    IMMEDIATE,
    Bye,
    Cancel,
    Failed,
    Frame,
    Hello,
    Keep,
    Notice,
    Ping,
    Pong,
    Reason,
    Refused,
    Request,
    Response,
    Stay,
    Unknown,
)
from overlay.settings import CallLimits

_SECOND_TO_ASK: Final = 1.25  # ping intervals after which the side that didn't open the link asks


class Phase(enum.Enum):
    """How far a link is in its life."""

    NEW = enum.auto()
    """There is a stream; nothing was said."""
    LISTENING = enum.auto()
    """The peer has to say hello first, and to be admitted."""
    GREETING = enum.auto()
    """We said hello, the peer didn't yet, or has yet to be admitted."""
    UP = enum.auto()
    """Both said hello: calls go both ways."""
    ASKING = enum.auto()
    """We asked whether the link may end, and make no calls meanwhile; the peer's requests are served."""
    RETIRING = enum.auto()
    """We said bye: the peer's requests are served, own calls are made no more."""
    LEFT = enum.auto()
    """The peer said bye: it makes no more requests, own calls are still made."""
    DRAINING = enum.auto()
    """Both said bye: what is under way ends, then the link does."""
    ENDED = enum.auto()
    """`LinkState.ended` says why."""


class Event(enum.Enum):
    """What happens to a link: a frame of the peer's, or what we do, from `OPENED` on."""

    HELLO = enum.auto()
    REQUEST = enum.auto()
    ANSWER = enum.auto()
    CANCEL = enum.auto()
    PING = enum.auto()
    PONG = enum.auto()
    BYE = enum.auto()
    QUESTION = enum.auto()
    """A bye that asks, or answers our own so."""
    KEEP = enum.auto()
    STAY = enum.auto()
    NOTICE = enum.auto()
    UNKNOWN = enum.auto()
    OPENED = enum.auto()
    LISTEN = enum.auto()
    ADMIT = enum.auto()
    RETIRE = enum.auto()
    ASK = enum.auto()
    AGREE = enum.auto()
    DRAINED = enum.auto()


class Action(enum.Enum):
    """What is to be done after an event."""

    NOTHING = enum.auto()
    SEND_HELLO = enum.auto()
    SEND_PING = enum.auto()
    SEND_PONG = enum.auto()
    SEND_BYE = enum.auto()
    GREETED = enum.auto()
    """Nothing more is to be said: the link is up."""
    CHOOSE = enum.auto()
    """Admit the peer that said hello, or end the link."""
    REPLY = enum.auto()
    """Agree that the link ends, or say `Stay`."""
    STAY_UP = enum.auto()
    """Go on making calls."""
    SERVE = enum.auto()
    """Serve the request."""
    SETTLE = enum.auto()
    """Hand the answer to the call that waits for it."""
    CANCEL = enum.auto()
    """Stop serving the request."""
    READ = enum.auto()
    """Hand the notice to whoever knows its topic."""
    STOP = enum.auto()
    """The link ended: stop all of its tasks, and close its stream, or reset it."""


class Cause(enum.Enum):
    """Why a link ended."""

    DONE = enum.auto()
    """Both sides said bye and nothing is under way."""
    CLOSED = enum.auto()
    """This side gave it up for reasons of its own."""
    LEFT = enum.auto()
    """The peer left, and said why."""
    REFUSED = enum.auto()
    """We had no place for the peer, or it may not be in this network."""
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
    said: Reason = Reason.OTHER
    """What the bye said that ended it, whosever it was."""


def _stay(phase: Phase, **actions: Action) -> dict[Event, tuple[Phase, Action]]:
    return {Event[event]: (phase, action) for event, action in actions.items()}


def _always(phase: Phase) -> dict[Event, tuple[Phase, Action]]:
    """What is allowed in every phase between hello and end."""
    return _stay(
        phase,
        ANSWER=Action.SETTLE,
        CANCEL=Action.CANCEL,
        PING=Action.SEND_PONG,
        PONG=Action.NOTHING,
        KEEP=Action.NOTHING,
        STAY=Action.NOTHING,
        NOTICE=Action.READ,
        UNKNOWN=Action.NOTHING,
    )


_TABLE: Final[dict[Phase, dict[Event, tuple[Phase, Action]]]] = {
    Phase.NEW: {
        Event.OPENED: (Phase.GREETING, Action.SEND_HELLO),
        Event.LISTEN: (Phase.LISTENING, Action.NOTHING),
        Event.RETIRE: (Phase.ENDED, Action.STOP),
    },
    Phase.LISTENING: {
        Event.HELLO: (Phase.LISTENING, Action.CHOOSE),
        Event.ADMIT: (Phase.UP, Action.SEND_HELLO),
        Event.RETIRE: (Phase.ENDED, Action.STOP),
    },
    Phase.GREETING: {
        Event.HELLO: (Phase.GREETING, Action.CHOOSE),
        Event.ADMIT: (Phase.UP, Action.GREETED),
        Event.RETIRE: (Phase.ENDED, Action.STOP),
    },
    Phase.UP: {
        **_always(Phase.UP),
        Event.REQUEST: (Phase.UP, Action.SERVE),
        Event.BYE: (Phase.LEFT, Action.NOTHING),
        Event.QUESTION: (Phase.UP, Action.REPLY),
        Event.RETIRE: (Phase.RETIRING, Action.SEND_BYE),
        Event.ASK: (Phase.ASKING, Action.SEND_BYE),
        Event.AGREE: (Phase.DRAINING, Action.SEND_BYE),
    },
    Phase.ASKING: {
        **_always(Phase.ASKING),
        Event.REQUEST: (Phase.ASKING, Action.SERVE),
        Event.BYE: (Phase.DRAINING, Action.NOTHING),
        Event.QUESTION: (Phase.DRAINING, Action.NOTHING),
        Event.STAY: (Phase.UP, Action.STAY_UP),
        Event.RETIRE: (Phase.RETIRING, Action.NOTHING),
    },
    Phase.RETIRING: {
        **_always(Phase.RETIRING),
        Event.REQUEST: (Phase.RETIRING, Action.SERVE),
        Event.BYE: (Phase.DRAINING, Action.NOTHING),
        Event.QUESTION: (Phase.DRAINING, Action.NOTHING),
        # It answers what was asked before this link was retired, and so wasn't taken as a bye yet.
        Event.STAY: (Phase.RETIRING, Action.SEND_BYE),
    },
    Phase.LEFT: {
        **_always(Phase.LEFT),
        Event.BYE: (Phase.LEFT, Action.NOTHING),
        Event.QUESTION: (Phase.LEFT, Action.NOTHING),
        Event.RETIRE: (Phase.DRAINING, Action.SEND_BYE),
    },
    Phase.DRAINING: {
        **_always(Phase.DRAINING),
        Event.BYE: (Phase.DRAINING, Action.NOTHING),
        Event.QUESTION: (Phase.DRAINING, Action.NOTHING),
        Event.DRAINED: (Phase.ENDED, Action.STOP),
    },
    Phase.ENDED: _stay(Phase.ENDED, **{event.name: Action.NOTHING for event in Event}),
}
"""Of each phase, what each event leads to. A frame that isn't here breaks the protocol; another event is ignored."""

_EVENTS: Final[dict[type[Frame | Unknown], Event]] = {
    Hello: Event.HELLO,
    Request: Event.REQUEST,
    Response: Event.ANSWER,
    Refused: Event.ANSWER,
    Failed: Event.ANSWER,
    Cancel: Event.CANCEL,
    Ping: Event.PING,
    Pong: Event.PONG,
    Bye: Event.BYE,
    Keep: Event.KEEP,
    Stay: Event.STAY,
    Notice: Event.NOTICE,
    Unknown: Event.UNKNOWN,
}

_SAID: Final[dict[Reason, str]] = {
    Reason.OTHER: "the peer closed the link",
    Reason.REPLACED: "another link replaced it",
    Reason.STOPPING: "the peer is stopping",
    Reason.IDLE: "neither side keeps the link",
    Reason.FULL: "the peer has no place for another link",
    Reason.BROKE_PROTOCOL: "the peer says that we broke the protocol",
    Reason.NOT_ADMITTED: "the peer doesn't let us into its network",
}


class LinkState:
    """Where one link is in its life, and when it needs to be looked at again."""

    __slots__ = (
        "_asked_at",
        "_heard_at",
        "_limits",
        "_opened_at",
        "_opened_by_peer",
        "_own_interval",
        "_reply_by",
        "_rest",
        "bye",
        "ended",
        "kept_there",
        "phase",
        "remote",
        "up_since",
    )

    def __init__(
        self, limits: CallLimits, *, opened_by_peer: bool, ping_interval: Callable[[], float] | None = None
    ) -> None:
        """`ping_interval`: seconds of silence after which this side asks for a sign of life; it may change."""
        self.phase = Phase.NEW
        self.remote: Hello | None = None
        """What the peer said of itself; None until it did."""
        self.up_since = 0.0
        """When it said so."""
        self.ended: Ended | None = None
        """Why the link ended; None while it lives."""
        self.kept_there = True
        """Whether the peer keeps the link, as far as it told."""
        self.bye = Bye(Reason.REPLACED)
        """What to say where `Action.SEND_BYE` is to be done."""
        self._limits = limits
        self._own_interval = ping_interval or (lambda: limits.ping_interval)
        self._opened_by_peer = opened_by_peer
        self._rest = 0.0  # seconds of silence for which the peer would be left alone
        self._opened_at = 0.0
        self._heard_at = 0.0
        self._asked_at: float | None = None  # for a sign of life, which hasn't come yet
        self._reply_by = math.inf  # when the peer has to have answered whether the link may end

    @property
    def usable(self) -> bool:
        """Whether calls can be made on the link."""
        return self.phase is Phase.UP or self.phase is Phase.LEFT

    @property
    def wake_at(self) -> float:
        """When to call `wake` next. What is heard puts it off; a call that comes too early does nothing."""
        if self.phase is Phase.GREETING or self.phase is Phase.LISTENING:
            return self._opened_at + self._limits.hello_timeout
        if self.phase is Phase.NEW or self.phase is Phase.ENDED:
            return math.inf
        if self._asked_at is not None:
            return min(self._asked_at + self._limits.ping_timeout, self._reply_by)
        return min(self._heard_at + self._interval, self._reply_by)

    @property
    def pong(self) -> Pong:
        """How we answer a ping."""
        return Pong(math.ceil(self._own_interval()))

    @property
    def _interval(self) -> float:
        """Seconds of silence after which we ask."""
        # One side's ping is the other's sign of life, so one side asks, unless it's the one that is silent.
        interval = max(self._own_interval(), min(self._rest, self._limits.max_ping_interval))
        return interval * (_SECOND_TO_ASK if self._opened_by_peer else 1.0)

    def opened(self, now: float, *, greet: bool = True) -> Action:
        """The stream is there. `greet`: whether we say hello at once, or admit the peer after it said who it is."""
        self._opened_at = self._heard_at = now
        return self._step(Event.OPENED if greet else Event.LISTEN)

    def admit(self, now: float) -> Action:
        """The peer that said hello may link to us, and there is a place for it."""
        self.up_since = now
        return self._step(Event.ADMIT)

    def heard(self, now: float) -> None:
        """The peer sent something, whatever it was: a sign of life."""
        self._heard_at = now
        self._asked_at = None

    def receive(self, frame: Frame | Unknown, now: float) -> Action:
        """A frame of the peer's came."""
        event = _EVENTS[type(frame)]
        if isinstance(frame, Bye):
            if frame.reason in IMMEDIATE and self.phase is not Phase.ENDED:
                return self.end(Cause.LEFT, _SAID[frame.reason], frame.reason)
            event = Event.QUESTION if frame.reason is Reason.IDLE else Event.BYE
        step = _TABLE[self.phase].get(event)
        if step is None:
            return self.end(Cause.BROKE_PROTOCOL, f"the peer broke the protocol: {self._fault(event)}")
        self.phase, action = step
        if isinstance(frame, Keep):
            self.kept_there = frame.kept
        elif isinstance(frame, Pong):
            self._rest = frame.rest
        elif isinstance(frame, Hello) and self.remote is None:
            self.remote = frame
            self.up_since = now
        if self.phase is not Phase.ASKING:
            self._reply_by = math.inf
        return action

    def wake(self, now: float) -> Action:
        """Time has passed: ask for a sign of life, or give the link up, when it is time to."""
        if now < self.wake_at:
            return Action.NOTHING
        if self.phase is Phase.GREETING or self.phase is Phase.LISTENING:
            return self.end(Cause.STALLED, f"the peer said no hello within {self._limits.hello_timeout:g} s")
        if now >= self._reply_by:
            return self.end(Cause.STALLED, "the peer didn't answer whether the link may end")
        if self._asked_at is None:
            self._asked_at = now
            return Action.SEND_PING
        return self.end(Cause.SILENT, f"the peer was silent for {now - self._heard_at:.3g} s")

    def retire(self) -> Action:
        """Make no more calls on the link, and end it when those under way are done, both ways."""
        self.bye = Bye(Reason.REPLACED)
        self._reply_by = math.inf
        return self._step(Event.RETIRE)

    def ask(self, now: float) -> Action:
        """Ask the peer whether the link may end. Nothing happens where the link isn't up."""
        if self.phase is Phase.UP:
            self.bye = Bye(Reason.IDLE)
            self._reply_by = now + self._limits.ping_timeout
        return self._step(Event.ASK)

    def agree(self) -> Action:
        """The link may end, as the peer asked."""
        self.bye = Bye(Reason.IDLE)
        return self._step(Event.AGREE)

    def drained(self) -> Action:
        """Nothing is under way, nor waits for being written."""
        return self._step(Event.DRAINED)

    def end(self, cause: Cause, reason: str, said: Reason = Reason.OTHER) -> Action:
        """The link ends, whatever is under way. `said`: what the peer's bye said, if that ends it, or ours."""
        if self.phase is Phase.ENDED:
            return Action.NOTHING
        self.phase = Phase.ENDED
        self.ended = Ended(cause, reason, said)
        return Action.STOP

    def _step(self, event: Event) -> Action:
        following, action = _TABLE[self.phase].get(event, (self.phase, Action.NOTHING))
        if action is Action.STOP:
            return self.end(Cause.DONE, _SAID[self.bye.reason], self.bye.reason)
        self.phase = following
        return action

    def _fault(self, event: Event) -> str:
        if self.remote is None:
            return "the first frame isn't a hello"
        return "a second hello" if event is Event.HELLO else "a request after a bye"
