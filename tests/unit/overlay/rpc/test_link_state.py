"""The life of a link, event by event, without a stream."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.rpc.link_state import Action, Cause, Ended, LinkState, Phase
from overlay.rpc.protocol import (
    Bye,
    Cancel,
    Failed,
    Fault,
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

HELLO = Hello(1, True, b"session1")
FRAMES: dict[str, Frame | Unknown] = {
    "hello": HELLO,
    "request": Request(1, "echo", b"", 1000),
    "response": Response(1, b""),
    "refused": Refused(1, "full", "no more"),
    "failed": Failed(1, Fault.TIMEOUT),
    "cancel": Cancel(1),
    "ping": Ping(),
    "pong": Pong(),
    "bye": Bye(),
    "idle": Bye(Reason.IDLE),
    "stopping": Bye(Reason.STOPPING),
    "full": Bye(Reason.FULL),
    "accused": Bye(Reason.BROKE_PROTOCOL),
    "outside": Bye(Reason.NOT_ADMITTED),
    "keep": Keep(False),
    "stay": Stay(),
    "notice": Notice("topic", b""),
    "unknown": Unknown(),
}
DEEDS = ("opened", "listen", "admit", "retire", "ask", "agree", "drained")
LIMITS = CallLimits(hello_timeout=5, ping_interval=8, ping_timeout=5)
AFTER_HELLO = {
    Action.GREETED,
    Action.REPLY,
    Action.SERVE,
    Action.SETTLE,
    Action.CANCEL,
    Action.READ,
    Action.SEND_PONG,
    Action.SEND_BYE,
}

WAYS_TO: dict[Phase, list[str]] = {
    Phase.NEW: [],
    Phase.LISTENING: ["listen"],
    Phase.GREETING: ["opened"],
    Phase.UP: ["opened", "hello", "admit"],
    Phase.ASKING: ["opened", "hello", "admit", "ask"],
    Phase.RETIRING: ["opened", "hello", "admit", "retire"],
    Phase.LEFT: ["opened", "hello", "admit", "bye"],
    Phase.DRAINING: ["opened", "hello", "admit", "bye", "retire"],
    Phase.ENDED: ["opened", "hello", "admit", "bye", "retire", "drained"],
}

EXPECTED = """
         NEW            LISTENING        GREETING   UP           ASKING        RETIRING        LEFT         DRAINING        ENDED
opened   GREETING:hello -                -          -            -             -               -            -               -
listen   LISTENING      -                -          -            -             -               -            -               -
admit    -              UP:hello         UP:greeted -            -             -               -            -               -
hello    broken         LISTENING:choose GREETING:choose broken       broken        broken          broken       broken          -
request  broken         broken           broken     UP:serve     ASKING:serve  RETIRING:serve  broken       broken          -
response broken         broken           broken     UP:give    ASKING:give RETIRING:give LEFT:give  DRAINING:give -
refused  broken         broken           broken     UP:give    ASKING:give RETIRING:give LEFT:give  DRAINING:give -
failed   broken         broken           broken     UP:give    ASKING:give RETIRING:give LEFT:give  DRAINING:give -
cancel   broken         broken           broken     UP:drop    ASKING:drop RETIRING:drop LEFT:drop  DRAINING:drop -
ping     broken         broken           broken     UP:pong      ASKING:pong   RETIRING:pong   LEFT:pong    DRAINING:pong   -
pong     broken         broken           broken     -            -             -               -            -               -
keep     broken         broken           broken     -            -             -               -            -               -
notice   broken         broken           broken     UP:read      ASKING:read   RETIRING:read   LEFT:read    DRAINING:read   -
unknown  broken         broken           broken     -            -             -               -            -               -
bye      broken         broken           broken     LEFT         DRAINING      DRAINING        -            -               -
idle     broken         broken           broken     UP:reply     DRAINING      DRAINING        -            -               -
stay     broken         broken           broken     -            UP:stay       RETIRING:bye    -            -               -
stopping left           left             left       left         left          left            left         left            -
full     left           left             left       left         left          left            left         left            -
accused  left           left             left       left         left          left            left         left            -
outside  left           left             left       left         left          left            left         left            -
retire   done           done             done       RETIRING:bye RETIRING      -               DRAINING:bye -               -
ask      -              -                -          ASKING:bye   -             -               -            -               -
agree    -              -                -          DRAINING:bye -             -               -            -               -
drained  -              -                -          -            -             -               -            done            -
"""  # noqa: E501 - a table
"""Of each event in each phase: the next phase and what is to be done; "-": nothing happens."""

ACTIONS = {
    "": Action.NOTHING,
    "hello": Action.SEND_HELLO,
    "pong": Action.SEND_PONG,
    "bye": Action.SEND_BYE,
    "greeted": Action.GREETED,
    "serve": Action.SERVE,
    "give": Action.SETTLE,
    "drop": Action.CANCEL,
    "read": Action.READ,
    "choose": Action.CHOOSE,
    "reply": Action.REPLY,
    "stay": Action.STAY_UP,
}


ENDINGS = {"broken": Cause.BROKE_PROTOCOL, "done": Cause.DONE, "left": Cause.LEFT}


def expectations() -> list[tuple[Phase, str, str]]:
    phases, *rows = EXPECTED.strip().splitlines()
    return [
        (Phase[phase], event, expected)
        for event, *row in map(str.split, rows)
        for phase, expected in zip(phases.split(), row, strict=True)
    ]


def tell(link: LinkState, event: str, now: float) -> Action:
    """One event, as the driver of a link tells it."""
    deeds: dict[str, Callable[[], Action]] = {
        "opened": lambda: link.opened(now),
        "listen": lambda: link.opened(now, greet=False),
        "admit": lambda: link.admit(now),
        "retire": link.retire,
        "ask": lambda: link.ask(now),
        "agree": link.agree,
        "drained": link.drained,
        "wake": lambda: link.wake(now),
    }
    if event in deeds:
        return deeds[event]()
    if event in FRAMES:
        link.heard(now)
        return link.receive(FRAMES[event], now)
    return link.end(Cause[event.upper()], event)


def link_in(phase: Phase, *, opened_by_peer: bool = False, now: float = 100.0) -> LinkState:
    link = LinkState(LIMITS, opened_by_peer=opened_by_peer)
    for event in WAYS_TO[phase]:
        tell(link, event, now)
    assert link.phase is phase
    return link


# Every event in every phase


def test_every_event_is_expected_in_every_phase() -> None:
    assert {(phase, event) for phase, event, _ in expectations()} == {
        (phase, event) for phase in Phase for event in (*FRAMES, *DEEDS)
    }


@pytest.mark.parametrize(("phase", "event", "expected"), expectations())
def test_event_leads_to(phase: Phase, event: str, expected: str) -> None:
    link = link_in(phase)
    before = link.ended
    action = tell(link, event, 101.0)
    if expected in ENDINGS:
        assert (link.phase, action) == (Phase.ENDED, Action.STOP)
        assert link.ended is not None
        assert link.ended.cause is ENDINGS[expected]
    else:
        following, _, wanted = expected.partition(":")
        assert link.phase is (phase if following == "-" else Phase[following])
        assert action is ACTIONS[wanted]
        assert link.ended is before


@pytest.mark.parametrize("phase", Phase)
def test_calls_can_be_made_between_hello_and_own_bye(phase: Phase) -> None:
    assert link_in(phase).usable == (phase in {Phase.UP, Phase.LEFT})


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("phase", Phase)
def test_end_comes_once_and_its_first_reason_stays(phase: Phase, cause: Cause) -> None:
    link = link_in(phase)
    expected = link.ended or Ended(cause, "a reason")
    assert link.end(cause, "a reason") is (Action.NOTHING if phase is Phase.ENDED else Action.STOP)
    assert link.ended == expected
    assert link.end(Cause.LOST, "another reason") is Action.NOTHING
    assert link.ended == expected


@pytest.mark.parametrize(
    ("phase", "event", "reason"),
    [
        (Phase.GREETING, "ping", "the first frame isn't a hello"),
        (Phase.UP, "hello", "a second hello"),
        (Phase.LEFT, "request", "a request after a bye"),
        (Phase.DRAINING, "request", "a request after a bye"),
    ],
)
def test_reason_names_the_rule_that_was_broken(phase: Phase, event: str, reason: str) -> None:
    link = link_in(phase)
    tell(link, event, 101.0)
    assert link.ended == Ended(Cause.BROKE_PROTOCOL, f"the peer broke the protocol: {reason}")


@pytest.mark.parametrize("reason", [Reason.STOPPING, Reason.FULL, Reason.BROKE_PROTOCOL])
@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ENDED])
def test_bye_after_which_nothing_is_said_tells_why(phase: Phase, reason: Reason) -> None:
    link = link_in(phase)
    link.receive(Bye(reason), 101.0)
    assert link.ended is not None
    assert (link.ended.cause, link.ended.said) == (Cause.LEFT, reason)


def test_both_sides_keep_a_link_until_the_peer_says_else() -> None:
    link = link_in(Phase.UP)
    assert link.kept_there
    link.receive(Keep(False), 101.0)
    assert not link.kept_there
    link.receive(Keep(True), 102.0)
    assert link.kept_there


def test_hello_tells_who_the_peer_is_and_since_when() -> None:
    link = link_in(Phase.GREETING)
    assert link.remote is None
    tell(link, "hello", 102.5)
    assert (link.remote, link.up_since) == (HELLO, 102.5)


# Time


def test_newcomer_has_five_seconds_to_say_hello() -> None:
    link = link_in(Phase.GREETING, now=100.0)
    assert link.wake_at == 105.0
    assert link.wake(104.9) is Action.NOTHING
    assert link.wake(105.0) is Action.STOP
    assert link.ended == Ended(Cause.STALLED, "the peer said no hello within 5 s")


@pytest.mark.parametrize("phase", [Phase.UP, Phase.RETIRING, Phase.LEFT, Phase.DRAINING])
@pytest.mark.parametrize(("opened_by_peer", "asked_at", "silent"), [(False, 108.0, "13"), (True, 110.0, "15")])
def test_silent_peer_is_asked_and_then_given_up(
    phase: Phase, opened_by_peer: bool, asked_at: float, silent: str
) -> None:
    """The side that opened the link asks first, so that one ping is the sign of life of both."""
    link = link_in(phase, opened_by_peer=opened_by_peer, now=100.0)
    assert link.wake_at == asked_at
    assert link.wake(asked_at - 0.1) is Action.NOTHING
    assert link.wake(asked_at) is Action.SEND_PING
    assert link.wake(asked_at) is Action.NOTHING, "it is asked once"
    assert link.wake_at == asked_at + 5.0
    assert link.wake(asked_at + 4.9) is Action.NOTHING
    assert link.wake(asked_at + 5.0) is Action.STOP
    assert link.ended == Ended(Cause.SILENT, f"the peer was silent for {silent} s")


@pytest.mark.parametrize(
    ("own", "rest", "asked_after"),
    [(8.0, 0, 8.0), (30.0, 0, 30.0), (30.0, 20, 30.0), (8.0, 20, 20.0), (8.0, 3600, 60.0)],
)
def test_link_is_asked_as_rarely_as_either_side_with_many_links_wishes(
    own: float, rest: int, asked_after: float
) -> None:
    link = LinkState(LIMITS, opened_by_peer=False, ping_interval=lambda: own)
    link.opened(0.0)
    link.receive(HELLO, 0.0)
    link.admit(0.0)
    assert link.pong == Pong(int(own))
    link.receive(Pong(rest), 0.0)
    link.heard(100.0)
    assert link.wake_at == 100.0 + asked_after
    link.receive(Pong(0), 100.0)
    assert link.wake_at == 100.0 + own, "what the peer said last holds"


def test_peer_has_five_seconds_to_answer_whether_the_link_may_end() -> None:
    link = link_in(Phase.ASKING, now=100.0)
    assert link.wake_at == 105.0
    link.heard(104.0)
    assert link.wake(104.9) is Action.NOTHING
    assert link.wake(105.0) is Action.STOP
    assert link.ended == Ended(Cause.STALLED, "the peer didn't answer whether the link may end")


@pytest.mark.parametrize("answer", ["stay", "idle", "bye", "retire"])
def test_nothing_is_waited_for_once_it_answered(answer: str) -> None:
    link = link_in(Phase.ASKING, now=100.0)
    tell(link, answer, 104.0)
    link.heard(104.0)
    assert link.wake_at == 112.0


def test_newcomer_that_is_listened_to_has_five_seconds_too() -> None:
    link = link_in(Phase.LISTENING, now=100.0)
    assert link.wake(105.0) is Action.STOP
    assert link.ended == Ended(Cause.STALLED, "the peer said no hello within 5 s")


def test_any_sign_of_life_puts_off_asking_and_giving_up() -> None:
    link = link_in(Phase.UP, now=100.0)
    link.heard(107.0)
    assert link.wake(108.0) is Action.NOTHING
    assert link.wake_at == 115.0
    assert link.wake(115.0) is Action.SEND_PING
    link.heard(119.0)
    assert link.wake_at == 127.0
    assert link.wake(120.0) is Action.NOTHING
    assert link.wake(127.0) is Action.SEND_PING, "the next silence is asked about anew"


def test_own_stall_leaves_the_peer_its_time_to_answer() -> None:
    link = link_in(Phase.UP, now=100.0)
    assert link.wake(160.0) is Action.SEND_PING
    assert link.wake_at == 165.0


@pytest.mark.parametrize("phase", [Phase.NEW, Phase.ENDED])
def test_nothing_is_waited_for_before_and_after(phase: Phase) -> None:
    link = link_in(phase)
    assert link.wake_at == math.inf
    assert link.wake(1e9) is Action.NOTHING


# Sequences

OFTEN = ["ping", "pong", "response", "request", "bye", "idle", "stay", "ask", "agree", "retire", "drained"]
ENDS = ["closed", "lost", "stalled", "broke_protocol"]
EVENTS = st.sampled_from([*FRAMES, *OFTEN, *OFTEN, "wake", "wake", *ENDS])
STEPS = st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 0.5, 3.0, 5.0, 8.0, 20.0])), max_size=40)


@given(steps=STEPS, opened_by_peer=st.booleans(), greeted=st.booleans())
def test_whatever_happens_a_link_ends_once_and_says_nothing_afterwards(
    steps: list[tuple[str, float]], opened_by_peer: bool, greeted: bool
) -> None:
    link, now = LinkState(LIMITS, opened_by_peer=opened_by_peer), 100.0
    actions = [link.opened(now)]
    for event, passed in [("hello", 0.0), *steps] if greeted else steps:
        now += passed
        was_usable, was_ended = link.usable, link.ended
        action = tell(link, event, now)
        actions.append(action)
        assert (action is Action.STOP) == (link.ended is not None and was_ended is None)
        assert (link.phase is Phase.ENDED) == (link.ended is not None)
        assert action is not Action.SERVE or link.phase in {Phase.UP, Phase.ASKING, Phase.RETIRING}
        assert was_usable or not link.usable or action in {Action.GREETED, Action.STAY_UP}, (
            "what isn't usable is never again, unless it was asked for"
        )
        if link.ended is None:
            assert link.wake_at > now or event != "wake", "a driver that sleeps until then doesn't spin"
    if Action.STOP in actions:
        assert set(actions[actions.index(Action.STOP) + 1 :]) <= {Action.NOTHING}
    assert actions.count(Action.SEND_HELLO) == 1
    assert actions.count(Action.SEND_BYE) <= 1 + [event for event, _ in steps].count("stay"), "one, or one a question"
    assert actions.count(Action.GREETED) <= 1
    after_hello = [action for action in actions if action in AFTER_HELLO]
    assert not after_hello or after_hello[0] is Action.GREETED, "nothing is served, settled or said before the hello"


@given(
    heard=st.lists(st.floats(0.01, 7.9), max_size=20),
    opened_by_peer=st.booleans(),
    woken=st.lists(st.floats(0.0, 30.0), max_size=20),
)
def test_peer_is_given_up_just_when_it_was_silent_for_so_long(
    heard: list[float], opened_by_peer: bool, woken: list[float]
) -> None:
    """Woken at other times too, which changes nothing."""
    link, now = link_in(Phase.UP, opened_by_peer=opened_by_peer, now=0.0), 0.0
    for passed in heard:
        now += passed
        assert link.wake(now) is Action.NOTHING
        link.heard(now)
    interval = 10.0 if opened_by_peer else 8.0
    moments = sorted({now + extra for extra in woken} | {now + interval, now + interval + 5.0})
    sent = [moment for moment in moments if link.wake(moment) is Action.SEND_PING]
    assert sent == [now + interval]
    assert link.ended is not None
    assert link.ended.cause is Cause.SILENT


def test_two_links_that_retire_each_other_drain_and_end() -> None:
    """Both ends in one test: what one sends, the other hears."""
    ours, theirs = link_in(Phase.UP), link_in(Phase.UP, opened_by_peer=True)
    assert ours.retire() is Action.SEND_BYE
    assert ours.bye == Bye(Reason.REPLACED)
    assert tell(theirs, "bye", 101.0) is Action.NOTHING
    assert tell(ours, "request", 101.0) is Action.SERVE, "it crossed the bye"
    assert theirs.retire() is Action.SEND_BYE
    assert tell(ours, "bye", 102.0) is Action.NOTHING
    for link in (ours, theirs):
        assert not link.usable
        assert link.drained() is Action.STOP
        assert link.ended == Ended(Cause.DONE, "another link replaced it", Reason.REPLACED)


def answer(link: LinkState, kept: bool, now: float) -> str | None:
    """What the driver of a link says to a question, or None when both had asked."""
    action = tell(link, "idle", now)
    if action is not Action.REPLY:
        assert action is Action.NOTHING
        return None
    if kept:
        return "stay"
    assert link.agree() is Action.SEND_BYE
    return "idle"


@pytest.mark.parametrize("kept", [True, False])
def test_link_ends_after_a_bye_and_its_answer_only(kept: bool) -> None:
    ours, theirs = link_in(Phase.UP), link_in(Phase.UP, opened_by_peer=True)
    assert ours.ask(101.0) is Action.SEND_BYE
    said = answer(theirs, kept, 101.0)
    assert said is not None
    tell(ours, said, 102.0)
    for link in (ours, theirs):
        assert link.usable is kept
        assert link.drained() is (Action.NOTHING if kept else Action.STOP)
        assert link.ended == (None if kept else Ended(Cause.DONE, "neither side keeps the link", Reason.IDLE))


def test_link_that_both_ask_to_end_ends() -> None:
    ours, theirs = link_in(Phase.UP), link_in(Phase.UP, opened_by_peer=True)
    for link in (ours, theirs):
        assert link.ask(101.0) is Action.SEND_BYE
    for link in (ours, theirs):
        assert answer(link, True, 102.0) is None
        assert link.drained() is Action.STOP


@pytest.mark.parametrize("kept", [True, False])
def test_link_that_is_replaced_while_it_is_asked_ends_in_order(kept: bool) -> None:
    """What one side said before it knew of the other's doing is still answered once."""
    ours, theirs = link_in(Phase.UP), link_in(Phase.UP, opened_by_peer=True)
    assert ours.ask(101.0) is Action.SEND_BYE
    assert ours.retire() is Action.NOTHING
    said = answer(theirs, kept, 101.0)
    assert said is not None
    if tell(ours, said, 102.0) is Action.SEND_BYE:
        tell(theirs, "bye", 102.0)
        assert theirs.retire() is Action.SEND_BYE
        tell(ours, "bye", 103.0)
    assert (ours.phase, theirs.phase) == (Phase.DRAINING, Phase.DRAINING)
