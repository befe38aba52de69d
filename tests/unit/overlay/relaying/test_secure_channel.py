"""Sessions between the two peers of a relayed call."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import Identity
from overlay.relaying.secure_channel import (
    WINDOW,
    PendingSession,
    SecureChannelError,
    SecureSession,
    accept,
    opening_of,
)
from overlay.relaying.sessions import IDLE, LIFETIME, OF_ONE_CALLER, RENEWED_AFTER, AcceptedSessions, OwnSessions

CALLER, TARGET = Identity.from_seed(bytes(32)), Identity.from_seed(bytes([1]) * 32)
IDS = count()
KEYS = bytes(32), bytes([1]) * 32


def ends() -> tuple[SecureSession, SecureSession]:
    """The caller's and the called one's part of a new session."""
    offer = PendingSession(CALLER, TARGET.peer_id, 0.0)
    opening = opening_of(offer.sealed, TARGET.peer_id)
    theirs, answer = accept(TARGET, offer.sealed, opening, next(IDS).to_bytes(16, "big"))
    return offer.accepted(answer), theirs


def test_both_ends_know_each_other_and_understand_what_is_sealed() -> None:
    ours, theirs = ends()
    assert (ours.peer_id, theirs.peer_id) == (TARGET.peer_id, CALLER.peer_id)
    for text in (b"", b"one", b"two" * 100_000):
        number, sealed = ours.seal_request(text)
        assert theirs.open_request(number, sealed) == text
        assert ours.open_answer(number, theirs.seal_answer(number, text)) == text


def test_no_two_sessions_share_a_key() -> None:
    ours, _ = ends()
    _, theirs = ends()
    number, sealed = ours.seal_request(b"text")
    with pytest.raises(SecureChannelError):
        theirs.open_request(number, sealed)


def test_a_request_is_no_answer_and_has_its_own_number() -> None:
    ours, theirs = ends()
    number, sealed = ours.seal_request(b"text")
    with pytest.raises(SecureChannelError):
        ours.open_answer(number, sealed)
    with pytest.raises(SecureChannelError):
        theirs.open_request(number + 1, sealed)


CALLING = SecureSession(bytes(16), TARGET.peer_id, *KEYS)
SEALED = [CALLING.seal_request(b"text")[1] for _ in range(3 * WINDOW + 1)]
"""Requests by their numbers."""


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=60))
def test_each_request_is_opened_once_in_whatever_order_they_come(numbers: list[int]) -> None:
    theirs = SecureSession(bytes(16), CALLER.peer_id, *KEYS)
    opened: set[int] = set()
    for number in numbers:
        try:
            theirs.open_request(number, SEALED[number])
        except SecureChannelError:
            assert number in opened or number <= max(opened) - WINDOW
        else:
            assert number not in opened
            opened.add(number)


def test_what_cannot_be_opened_uses_no_number_up() -> None:
    ours, theirs = ends()
    number, sealed = ours.seal_request(b"text")
    with pytest.raises(SecureChannelError):
        theirs.open_request(number + WINDOW + 1, bytes(100))
    assert theirs.open_request(number, sealed) == b"text"


@given(st.binary(max_size=300))
def test_garbage_opens_no_session(garbage: bytes) -> None:
    with pytest.raises(SecureChannelError):
        opening_of(garbage, TARGET.peer_id)
    with pytest.raises(SecureChannelError):
        PendingSession(CALLER, TARGET.peer_id, 0.0).accepted(garbage)


def test_an_opening_for_another_peer_is_refused() -> None:
    with pytest.raises(SecureChannelError, match="for another peer"):
        opening_of(PendingSession(CALLER, TARGET.peer_id, 0.0).sealed, CALLER.peer_id)


def test_callers_renew_sessions_before_they_are_refused_and_after_a_pause() -> None:
    ours, theirs = ends()
    own, accepted = OwnSessions(10), AcceptedSessions(10)
    own.put(ours, 0.0)
    accepted.put(theirs, 0.0)
    for second in range(0, int(RENEWED_AFTER), int(IDLE)):
        assert own.get(TARGET.peer_id, float(second)) is ours
    assert own.get(TARGET.peer_id, RENEWED_AFTER + 1) is None
    assert accepted.get(theirs.id, RENEWED_AFTER + 1) is theirs
    assert accepted.get(theirs.id, LIFETIME + 1) is None
    own.put(ours, 0.0)
    assert own.get(TARGET.peer_id, IDLE + 1) is None


def of_caller(number: int) -> SecureSession:
    return SecureSession(next(IDS).to_bytes(16, "big"), f"caller {number}", bytes(32), bytes(32))


def test_idle_sessions_make_room_first_then_unused_ones_then_the_least_recently_used() -> None:
    accepted = AcceptedSessions(3)
    idle, busy, unused, first, second = (of_caller(number) for number in range(5))
    accepted.put(idle, 0.0)
    accepted.note_used(idle.id, 0.0)
    accepted.put(busy, 0.0)
    accepted.note_used(busy.id, 3 * IDLE)
    accepted.put(unused, 2 * IDLE)
    accepted.put(first, 3 * IDLE)
    assert accepted.get(idle.id, 3 * IDLE) is None
    accepted.put(second, 3 * IDLE)
    assert accepted.get(unused.id, 3 * IDLE) is None
    assert [accepted.get(one.id, 3 * IDLE) for one in (busy, first, second)] == [busy, first, second]


def test_a_session_just_opened_stays_until_its_first_request_can_be_there() -> None:
    accepted = AcceptedSessions(8)
    for number in range(6):
        used = of_caller(number)
        accepted.put(used, 0.0)
        accepted.note_used(used.id, 10.0)
    one, other = of_caller(10), of_caller(11)
    accepted.put(one, 10.0)
    accepted.put(other, 10.0)
    for number in range(12, 14):
        accepted.put(of_caller(number), 10.0)
        assert accepted.get(one.id, 10.0) is one


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.floats(0, 100)), max_size=80))
def test_sessions_are_few_of_each_caller_and_bounded_in_all(openings: list[tuple[int, bool, float]]) -> None:
    accepted = AcceptedSessions(10)
    now = 0.0
    ids: dict[int, list[bytes]] = {}
    for caller, is_used, later in openings:
        now += later
        session = of_caller(caller)
        accepted.put(session, now)
        assert accepted.get(session.id, now) is session
        if is_used:
            accepted.note_used(session.id, now)
        ids.setdefault(caller, []).append(session.id)
        kept = [sum(accepted.get(one, now) is not None for one in of_one) for of_one in ids.values()]
        assert sum(kept) <= len(accepted) <= 10
        assert max(kept) <= OF_ONE_CALLER
