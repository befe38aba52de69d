"""Sessions between the ends of relayed calls."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import Identity
from overlay.relaying.sealing import WINDOW, BadSeal, Offer, Session, accept, opening_of
from overlay.relaying.sessions import IDLE, LIFETIME, RENEWED_AFTER, AcceptedSessions, OwnSessions

CALLER, TARGET = Identity.from_seed(bytes(32)), Identity.from_seed(bytes([1]) * 32)
IDS = count()


def ends() -> tuple[Session, Session]:
    """The caller's and the called one's part of a new session."""
    offer = Offer(CALLER, TARGET.peer_id, 0.0)
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
    with pytest.raises(BadSeal):
        theirs.open_request(number, sealed)


def test_a_request_is_no_answer_and_has_its_own_number() -> None:
    ours, theirs = ends()
    number, sealed = ours.seal_request(b"text")
    with pytest.raises(BadSeal):
        ours.open_answer(number, sealed)
    with pytest.raises(BadSeal):
        theirs.open_request(number + 1, sealed)


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=60))
def test_each_request_is_opened_once_in_whatever_order_they_come(numbers: list[int]) -> None:
    ours, theirs = ends()
    opened: set[int] = set()
    for number in numbers:
        sealed = ours._seal(ours._requests, number, b"text")
        try:
            theirs.open_request(number, sealed)
        except BadSeal:
            assert number in opened or number <= max(opened) - WINDOW
        else:
            assert number not in opened
            opened.add(number)


def test_what_cannot_be_opened_uses_no_number_up() -> None:
    ours, theirs = ends()
    number, sealed = ours.seal_request(b"text")
    with pytest.raises(BadSeal):
        theirs.open_request(number + WINDOW + 1, bytes(100))
    assert theirs.open_request(number, sealed) == b"text"


@given(st.binary(max_size=300))
def test_garbage_opens_no_session(garbage: bytes) -> None:
    with pytest.raises(BadSeal):
        opening_of(garbage, TARGET.peer_id)
    with pytest.raises(BadSeal):
        Offer(CALLER, TARGET.peer_id, 0.0).accepted(garbage)


def test_an_opening_for_another_peer_is_refused() -> None:
    with pytest.raises(BadSeal, match="for another peer"):
        opening_of(Offer(CALLER, TARGET.peer_id, 0.0).sealed, CALLER.peer_id)


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


def test_expired_sessions_make_room_first() -> None:
    accepted = AcceptedSessions(2)
    first, second, third = (ends()[1] for _ in range(3))
    accepted.put(first, 0.0)
    accepted.note_used(first.id)
    accepted.put(second, LIFETIME)
    accepted.put(third, LIFETIME + 1)
    assert accepted.get(first.id, LIFETIME + 1) is None
    assert accepted.get(second.id, LIFETIME + 1) is second
    assert accepted.get(third.id, LIFETIME + 1) is third
