"""The life of a link, event by event, without a stream."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.rpc.link_state import Action, Cause, Ended, LinkState, Phase
from overlay.rpc.protocol import (
    Bye,
    Cancel,
    Failed,
    Fault,
    Frame,
    Hello,
    Ping,
    Pong,
    Refused,
    Request,
    Response,
)
from overlay.settings import CallLimits

HELLO = Hello(1, True, b"session1")
FRAMES: dict[str, Frame] = {
    "hello": HELLO,
    "request": Request(1, "echo", b"", 1000),
    "response": Response(1, b""),
    "refused": Refused(1, "full", "no more"),
    "failed": Failed(1, Fault.TIMEOUT),
    "cancel": Cancel(1),
    "ping": Ping(),
    "pong": Pong(),
    "bye": Bye(),
}
LIMITS = CallLimits(hello_timeout=5, ping_interval=8, ping_timeout=5)
AFTER_HELLO = {Action.GREETED, Action.SERVE, Action.SETTLE, Action.CANCEL, Action.SEND_PONG, Action.SEND_BYE}

WAYS_TO: dict[Phase, list[str]] = {
    Phase.NEW: [],
    Phase.GREETING: ["opened"],
    Phase.UP: ["opened", "hello"],
    Phase.RETIRING: ["opened", "hello", "retire"],
    Phase.LEFT: ["opened", "hello", "bye"],
    Phase.DRAINING: ["opened", "hello", "bye", "retire"],
    Phase.ENDED: ["opened", "hello", "bye", "retire", "drained"],
}

EXPECTED = """
           NEW              GREETING    UP                 RETIRING          LEFT               DRAINING          ENDED
opened     GREETING:hello   -           -                  -                 -                  -                 -
hello      broken           UP:greeted  broken             broken            broken             broken            -
request    broken           broken      UP:serve           RETIRING:serve    broken             broken            -
response   broken           broken      UP:settle          RETIRING:settle   LEFT:settle        DRAINING:settle   -
refused    broken           broken      UP:settle          RETIRING:settle   LEFT:settle        DRAINING:settle   -
failed     broken           broken      UP:settle          RETIRING:settle   LEFT:settle        DRAINING:settle   -
cancel     broken           broken      UP:cancel          RETIRING:cancel   LEFT:cancel        DRAINING:cancel   -
ping       broken           broken      UP:pong            RETIRING:pong     LEFT:pong          DRAINING:pong     -
pong       broken           broken      -                  -                 -                  -                 -
bye        broken           broken      LEFT               DRAINING          -                  -                 -
retire     done             done        RETIRING:bye       -                 DRAINING:bye       -                 -
drained    -                -           -                  -                 -                  done              -
"""
"""Of each event in each phase: the next phase and what is to be done; "-": nothing happens."""

ACTIONS = {
    "": Action.NOTHING,
    "hello": Action.SEND_HELLO,
    "pong": Action.SEND_PONG,
    "bye": Action.SEND_BYE,
    "greeted": Action.GREETED,
    "serve": Action.SERVE,
    "settle": Action.SETTLE,
    "cancel": Action.CANCEL,
}


def expectations() -> list[tuple[Phase, str, str]]:
    phases, *rows = EXPECTED.strip().splitlines()
    return [
        (Phase[phase], event, expected)
        for event, *row in map(str.split, rows)
        for phase, expected in zip(phases.split(), row, strict=True)
    ]


def tell(link: LinkState, event: str, now: float) -> Action:
    """One event, as the driver of a link tells it."""
    if event == "opened":
        return link.opened(now)
    if event == "retire":
        return link.retire()
    if event == "drained":
        return link.drained()
    if event == "wake":
        return link.wake(now)
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
        (phase, event) for phase in Phase for event in (*FRAMES, "opened", "retire", "drained")
    }


@pytest.mark.parametrize(("phase", "event", "expected"), expectations())
def test_event_leads_to(phase: Phase, event: str, expected: str) -> None:
    link = link_in(phase)
    before = link.ended
    action = tell(link, event, 101.0)
    if expected in {"broken", "done"}:
        assert (link.phase, action) == (Phase.ENDED, Action.STOP)
        assert link.ended is not None
        assert link.ended.cause is (Cause.DONE if expected == "done" else Cause.BROKE_PROTOCOL)
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

OFTEN = ["ping", "pong", "response", "request", "bye", "retire", "drained"]
ENDS = ["closed", "lost", "stalled", "broke_protocol"]
EVENTS = st.sampled_from([*FRAMES, *OFTEN, *OFTEN, "wake", "wake", *ENDS])
STEPS = st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 0.5, 3.0, 5.0, 8.0, 20.0])), max_size=40)


@settings(max_examples=500)
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
        assert action is not Action.SERVE or link.phase in {Phase.UP, Phase.RETIRING}
        assert was_usable or not link.usable or action is Action.GREETED, "what isn't usable is never again"
        if link.ended is None:
            assert link.wake_at > now or event != "wake", "a driver that sleeps until then doesn't spin"
    if Action.STOP in actions:
        assert set(actions[actions.index(Action.STOP) + 1 :]) <= {Action.NOTHING}
    assert actions.count(Action.SEND_HELLO) == 1
    assert actions.count(Action.SEND_BYE) <= 1
    assert actions.count(Action.GREETED) <= 1
    after_hello = [action for action in actions if action in AFTER_HELLO]
    assert not after_hello or after_hello[0] is Action.GREETED, "nothing is served, settled or said before the hello"


@settings(max_examples=300)
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
    assert tell(theirs, "bye", 101.0) is Action.NOTHING
    assert tell(ours, "request", 101.0) is Action.SERVE, "it crossed the bye"
    assert theirs.retire() is Action.SEND_BYE
    assert tell(ours, "bye", 102.0) is Action.NOTHING
    for link in (ours, theirs):
        assert not link.usable
        assert link.drained() is Action.STOP
        assert link.ended == Ended(Cause.DONE, "the link was closed")
