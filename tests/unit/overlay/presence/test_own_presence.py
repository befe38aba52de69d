"""How a host makes itself known, and that nobody can make it work for long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.presence.actions import Action, Dial, Role, SendTo
from overlay.presence.messages import Beat, Proven, Told
from overlay.presence.own_presence import OwnPresence
from overlay.presence.statements import Presence, Version
from overlay.presence.timings import BEAT, BUMP_BURST, BUMP_RATE, LONG_STALL, PROOF_BURST, WITNESSES

KEEPERS = [f"keeper-{number}" for number in range(8)]


def started(incarnation: int = 5) -> OwnPresence:
    """A host whose keepers took its presence."""
    host = OwnPresence(
        Presence("host", Version(incarnation)), sign_presence=lambda each: each, sign_proof=lambda each: each
    )
    host.set_keepers(KEEPERS, 0.0)
    for keeper in KEEPERS:
        host.taken(keeper, host.version, 0.1)
    return host


def told(actions: list[Action]) -> list[Version]:
    """The versions that keepers are told."""
    return [
        each.message.presence.version for each in actions if isinstance(each, SendTo) and isinstance(each.message, Told)
    ]


def test_beats_go_to_the_witnesses_alone() -> None:
    host = started()
    at = host.wake_at
    assert at == BEAT
    assert host.wake(at) == [SendTo(name, Beat(Version(5))) for name in KEEPERS[:WITNESSES]]
    assert host.wake_at == pytest.approx(2 * BEAT)


def test_keeper_is_dialled_by_a_timer_until_it_took_the_presence() -> None:
    host = started()
    host.link_ended(KEEPERS[6], 1.0)
    dials: list[float] = []
    now = 1.0
    while now < 40.0:
        now = host.wake_at
        dials += [now - 1.0 for action in host.wake(now) if action == Dial(KEEPERS[6], 2.0, Role.HOST)]
    assert [round(at, 2) for at in dials[:5]] == [0.25, 0.75, 1.75, 2.75, 3.75]
    assert round(dials[-1] - dials[-2], 2) == 5.0
    host.taken(KEEPERS[6], host.version, now)
    for _ in range(20):
        now = host.wake_at
        assert not any(isinstance(action, Dial) for action in host.wake(now))


def test_accusation_at_the_current_version_raises_it() -> None:
    host = started()
    assert host.accused(Version(4, 9), 1.0) == []
    assert told(host.accused(Version(5, 0), 1.0)) == [Version(5, 1)] * 8
    assert host.accused(Version(5, 0), 1.1) == []


@given(st.lists(st.floats(0.0, 0.5), max_size=300))
def test_liars_raise_it_no_oftener_than_the_rate(pauses: list[float]) -> None:
    host, now = started(), 0.0
    for pause in pauses:
        now += pause
        if host.wake_at <= now:
            host.wake(now)
        host.accused(host.version, now)
    assert host.version.sequence <= BUMP_BURST + BUMP_RATE * now + 1


def test_accusation_beyond_the_rate_is_answered_later() -> None:
    host = started()
    for _ in range(int(BUMP_BURST) + 1):
        host.accused(host.version, 1.0)
    version = host.version
    for now in range(2, 8):
        host.wake(float(now))
    assert host.version > version


def test_long_stall_is_told_before_anybody_accuses() -> None:
    host = started()
    assert host.stalled(LONG_STALL - 1, 3.0) == []
    assert host.wake_at == 3.0
    assert told(host.stalled(LONG_STALL + 1, 30.0)) == [Version(5, 1)] * 8


def test_incarnation_rises_above_what_a_keeper_has_of_an_earlier_run() -> None:
    host = started(5)
    assert told(host.exceeded(Presence("host", Version(9, 3)), 1.0)) == [Version(10, 0)] * 8
    assert host.exceeded(Presence("host", Version(9, 3)), 1.1) == []


def test_leaving_is_the_last_word() -> None:
    host = started()
    assert told(host.leave(1.0)) == [Version(5, 1)] * 8
    assert host.presence.is_leaving
    assert host.wake_at > 1e9
    assert (
        host.accused(host.version, 2.0)
        == host.stalled(60.0, 2.0)
        == host.prove("keeper-0", b"12345678", "r", 2.0)
        == []
    )


def test_proof_is_signed_once_for_all_keepers_that_want_it() -> None:
    signed = []
    host = OwnPresence(
        Presence("host", Version(5)),
        sign_presence=lambda each: each,
        sign_proof=lambda each: (signed.append(each), each)[1],
    )
    for keeper in KEEPERS[:5]:
        [action] = host.prove(keeper, b"12345678", "replica", 1.0)
        assert isinstance(action, SendTo)
        assert action.to == keeper
        assert isinstance(action.message, Proven)
    assert len(signed) == 1
    answered = sum(bool(host.prove("keeper-0", number.to_bytes(8, "big"), "replica", 1.0)) for number in range(1000))
    assert answered <= PROOF_BURST


@given(
    st.lists(
        st.tuples(st.sampled_from(["accused", "stalled", "exceeded", "wake", "change", "leave"]), st.integers(0, 9))
    )
)
def test_version_never_falls(events: list[tuple[str, int]]) -> None:
    host, now = started(), 0.0
    for event, number in events:
        now += number / 3
        version = host.version
        match event:
            case "accused":
                host.accused(Version(5, number), now)
            case "stalled":
                host.stalled(float(number), now)
            case "exceeded":
                host.exceeded(Presence("host", Version(number + 3, number)), now)
            case "change":
                host.change(now, exceptions=bytes(number))
            case "leave":
                host.leave(now)
            case _:
                host.wake(now)
        assert host.version >= version
