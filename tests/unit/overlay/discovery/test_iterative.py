"""The iterative lookup as a machine: whom it asks, whom it passes by, when it ends."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.iterative import MOST_CANDIDATES, PARALLEL, IterativeLookup, PeerState

PEERS = {f"peer {number}": number for number in range(1, 41)}
PATIENCE = 3.0


def patiently(_: str) -> float:
    return PATIENCE


def a_lookup(*heard: str, answers: int = 3) -> IterativeLookup:
    """A lookup of position 0 that has heard of some peers."""
    lookup = IterativeLookup(0, "own", count=20, answers=answers)
    lookup.heard((peer, PEERS[peer]) for peer in heard)
    return lookup


def test_the_nearest_are_asked_so_many_at_a_time() -> None:
    lookup = a_lookup(*PEERS)
    assert lookup.to_ask(0.0, patiently) == [f"peer {number}" for number in range(1, PARALLEL + 1)]
    assert lookup.to_ask(0.0, patiently) == []


def test_each_answer_lets_the_next_be_asked_at_once() -> None:
    lookup = a_lookup(*PEERS)
    lookup.to_ask(0.0, patiently)
    lookup.answered("peer 3", [])
    assert lookup.to_ask(0.1, patiently) == [f"peer {PARALLEL + 1}"]


def test_it_ends_when_the_nearest_have_answered_though_farther_ones_have_not() -> None:
    lookup = a_lookup("peer 1", "peer 2", "peer 3", "peer 9")
    lookup.to_ask(0.0, patiently)
    for peer in ("peer 1", "peer 2"):
        lookup.answered(peer, [])
        assert not lookup.is_done(0.1)
    lookup.answered("peer 3", [])
    assert lookup.is_done(0.1)


def test_a_nearer_peer_that_an_answer_names_is_asked_before_it_ends() -> None:
    lookup = a_lookup("peer 5", answers=1)
    lookup.to_ask(0.0, patiently)
    lookup.answered("peer 5", [("peer 2", 2)])
    assert not lookup.is_done(0.1)
    assert lookup.to_ask(0.1, patiently) == ["peer 2"]
    lookup.answered("peer 2", [])
    assert lookup.is_done(0.2)
    assert lookup.found() == ["peer 2", "peer 5"]


def test_a_silent_peer_is_passed_by_and_its_late_answer_counts() -> None:
    lookup = a_lookup("peer 1", "peer 2", answers=1)
    lookup.to_ask(0.0, patiently)
    lookup.answered("peer 2", [])
    assert not lookup.is_done(PATIENCE - 0.1)
    assert lookup.is_done(PATIENCE)
    assert lookup.state_of("peer 1") is PeerState.SLOW
    assert lookup.found() == ["peer 2"]
    lookup.answered("peer 1", [])
    assert lookup.found() == ["peer 1", "peer 2"]


def test_who_failed_is_in_no_result_and_is_not_asked_again() -> None:
    lookup = a_lookup("peer 1", "peer 2")
    lookup.to_ask(0.0, patiently)
    lookup.failed("peer 1")
    lookup.answered("peer 2", [("peer 1", 1)])
    assert lookup.to_ask(0.1, patiently) == []
    assert lookup.found() == ["peer 2"]
    assert lookup.is_done(0.1)


def test_who_lives_but_has_no_place_for_a_link_is_found_and_not_waited_for() -> None:
    lookup = a_lookup("peer 1", "peer 2", answers=1)
    assert lookup.to_ask(0.0, patiently) == ["peer 1", "peer 2"]
    lookup.had_no_place("peer 1")
    assert not lookup.is_done(0.1), "it named nobody"
    lookup.answered("peer 2", [("peer 1", 1)])
    assert lookup.is_done(0.1)
    assert lookup.to_ask(0.1, patiently) == []
    assert lookup.found() == ["peer 1", "peer 2"]


def test_where_the_nearest_have_no_place_those_behind_them_are_asked() -> None:
    lookup = IterativeLookup(0, "own", count=3)
    lookup.heard(PEERS.items())
    asked: list[str] = []
    while not lookup.is_done(0.0):
        now = lookup.to_ask(0.0, patiently)
        assert now, "it waits for nobody"
        for peer in now:
            lookup.had_no_place(peer)
        asked += now
    assert len(asked) == len(PEERS)
    assert lookup.found() == ["peer 1", "peer 2", "peer 3"]


def test_with_nobody_known_it_is_done_at_once() -> None:
    lookup = IterativeLookup(0, "own", count=20)
    assert lookup.is_done(0.0)
    assert lookup.found() == []


def test_the_own_name_is_never_asked() -> None:
    lookup = IterativeLookup(0, "own", count=20)
    lookup.heard([("own", 1)])
    assert lookup.to_ask(0.0, patiently) == []


def test_candidates_are_bounded_to_the_nearest() -> None:
    lookup = IterativeLookup(0, "own", count=20)
    lookup.heard((str(number), number) for number in range(3 * MOST_CANDIDATES, 0, -1))
    assert lookup.found() == [str(number) for number in range(1, 21)]
    assert lookup.state_of(str(MOST_CANDIDATES)) is PeerState.HEARD
    assert lookup.state_of(str(MOST_CANDIDATES + 1)) is None


@given(st.integers(0, 2**32), st.integers(0, 40), st.floats(0, 0.6), st.floats(0, 0.6))
def test_whatever_fails_it_ends_asks_nobody_twice_and_finds_the_nearest_that_answer(
    seed: int, known: int, dead: float, told: float
) -> None:
    """Each living peer tells some others; at the end the nearest of those that were reachable are in the result."""
    randomness = random.Random(seed)
    gone = {peer for peer in PEERS if randomness.random() < dead}
    tells = {peer: [(o, PEERS[o]) for o in PEERS if randomness.random() < told] for peer in PEERS}
    lookup = a_lookup(*randomness.sample(sorted(PEERS), known))
    asked: list[str] = []
    waiting: list[str] = []
    for _ in range(10_000):
        if lookup.is_done(0.0):
            break
        new = lookup.to_ask(0.0, patiently)
        asked += new
        waiting += new
        peer = waiting.pop(randomness.randrange(len(waiting)))
        if peer in gone:
            lookup.failed(peer)
        else:
            lookup.answered(peer, tells[peer])
    assert lookup.is_done(0.0)
    assert len(asked) == len(set(asked))
    answered = [peer for peer in asked if lookup.state_of(peer) is PeerState.ANSWERED]
    assert set(lookup.found()[:3]) <= set(answered)
    farthest = max((PEERS[peer] for peer in lookup.found()[:3]), default=0)
    heard = {name for peer in answered for name, _ in tells[peer]}
    assert all(peer in asked for peer in heard if PEERS[peer] < farthest), "nobody nearer was left out"
