"""The recursive lookup's hops, and what their answers come to."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.discovery.home import HOME_SIZE, Home
from overlay.discovery.keyspace import POSITION_BITS
from overlay.discovery.recursive_machine import (
    MOST_FORWARDS,
    MOST_HOPS,
    PATHS,
    TRIES,
    Hop,
    NextHop,
    RouteAnswer,
    RouteRequest,
    RouteResult,
    first_contacts,
    requests,
)
from tests.simulation.overlay.positions import nearest_of, some_positions

K = 20
TOP = 1 << POSITION_BITS - 1


def a_home() -> Home:
    """Of a member at 0 in a network of far more than it knows: its home is the smallest positions."""
    home = Home(0)
    for position in range(1, HOME_SIZE + 1):
        home.add(str(position), position)
    return home


def a_hop(target: int, links: dict[str, int], *, hops: int = MOST_HOPS, forwards: int = MOST_FORWARDS) -> Hop:
    """The member at 0, asked by a peer that it must not ask back."""
    return Hop(RouteRequest(b"1", target, K, hops, forwards), a_home(), links, own_name="own", avoid=["asker"])


def test_a_hop_that_knows_exactly_answers() -> None:
    answer = a_hop(0, {}).next_step(is_confirmed=True)
    assert answer == RouteAnswer(("own", *map(str, range(1, HOME_SIZE + 1))), True, 5)


def test_outside_of_its_home_it_names_those_asked_for_alone() -> None:
    home = a_home()
    home.note_bucket(POSITION_BITS - 1, 2, 0.0)
    for position in (TOP, TOP + 1):
        home.add(str(position), position)
    request = RouteRequest(b"1", TOP, 2, MOST_HOPS, MOST_FORWARDS)
    answer = Hop(request, home, {}, own_name="own", avoid=[]).next_step(is_confirmed=True)
    assert answer == RouteAnswer((str(TOP), str(TOP + 1)), True)


def test_without_confirmation_it_claims_nothing() -> None:
    answer = a_hop(0, {"1": 1}).next_step(is_confirmed=False)
    assert answer == RouteAnswer(("own", "1"), False)


def test_it_passes_on_to_the_nearest_that_is_nearer_then_to_the_next() -> None:
    links = {"far": 1, "near": TOP + 5, "nearest": TOP + 1, "asker": TOP}
    hop = a_hop(TOP, links)
    steps = [hop.next_step(is_confirmed=True) for _ in range(3)]
    assert [step.to for step in steps[:2] if isinstance(step, NextHop)] == ["nearest", "near"]
    assert isinstance(steps[2], RouteAnswer)
    assert not steps[2].is_exact
    assert steps[2].names[:3] == ("asker", "nearest", "near")


def test_tries_are_bounded() -> None:
    hop = a_hop(TOP, {str(number): TOP + number for number in range(1, 30)})
    steps = [hop.next_step(is_confirmed=True) for _ in range(TRIES + 1)]
    assert [isinstance(step, NextHop) for step in steps] == [True] * TRIES + [False]


@pytest.mark.parametrize(("hops", "forwards"), [(0, 5), (5, 0)])
def test_hops_and_forwards_are_bounded(hops: int, forwards: int) -> None:
    assert isinstance(a_hop(TOP, {"near": TOP}, hops=hops, forwards=forwards).next_step(is_confirmed=True), RouteAnswer)


def test_each_forward_leaves_less() -> None:
    hop = a_hop(TOP, {"a": TOP, "b": TOP + 1}, hops=3, forwards=10)
    first, second = hop.next_step(is_confirmed=True), hop.next_step(is_confirmed=True)
    assert isinstance(first, NextHop)
    assert isinstance(second, NextHop)
    assert (first.request.hops, first.request.forwards) == (2, 9)
    assert (second.request.hops, second.request.forwards) == (2, 8)


def test_paths_begin_at_the_nearest_links_and_share_the_budget() -> None:
    links = {str(number): number for number in range(10)}
    begins = first_contacts(3, links)
    assert begins == ["3", "2", "1"]
    assert requests(b"1", 3, K, len(begins)).forwards * PATHS <= MOST_FORWARDS


def result_of(*answers: list[int]) -> RouteResult:
    """Answers that name members at these positions, for target 0."""
    result = RouteResult(0, K)
    for positions in answers:
        result.add(RouteAnswer(tuple(map(str, positions)), True), positions)
    return result


def test_answers_are_added_to_each_other() -> None:
    assert result_of([1, 3], [2, 3]).names() == ["1", "2", "3"]


def test_what_is_sparser_than_the_network_is_not_believed() -> None:
    spacing = 2**POSITION_BITS // 1000
    as_expected = [number * spacing for number in range(1, K + 1)]
    assert result_of(as_expected).is_believable(1000.0)
    assert not result_of([3 * position for position in as_expected]).is_believable(1000.0)
    assert not result_of(as_expected[:5]).is_believable(1000.0)
    assert not result_of([]).is_believable(1000.0)
    assert result_of(as_expected[:5]).is_believable(6.0)


LINKED = {"2": 2, str(TOP): TOP}
"""Members that whoever looks up is linked to: one near the target, and one at the other end."""


@pytest.mark.parametrize(
    ("names", "height", "is_taken"),
    [
        (range(1, K + 1), 0, True),
        (range(1, K + 9), 5, True),
        ([1, *range(3, K + 2)], 0, False),
        ([1, *range(3, K + 9)], 5, False),
        (range(1, 7), 0, False),  # of the whole network these are all, as it says
        (range(1, K + 9), POSITION_BITS, False),
    ],
)
def test_who_leaves_out_a_member_that_is_linked_knows_nothing_exactly(
    names: Sequence[int], height: int, *, is_taken: bool
) -> None:
    result = RouteResult(0, K, LINKED)
    answer = RouteAnswer(tuple(map(str, names)), True, height)
    assert result.add(answer, names) is is_taken
    assert result.is_exact is is_taken
    assert result.is_believable(float(len(names))) is is_taken
    assert (result.region(1.0) is not None) is (is_taken and height > 0)
    whole = range(1, K + 1)
    result.add(RouteAnswer(tuple(map(str, whole)), True), whole)
    assert result.is_believable(float(K)), "another answer is exact"
    assert result.names() == list(map(str, whole))


def test_who_claims_nothing_may_leave_out_whom_it_does_not_know() -> None:
    names = range(3, K + 3)
    result = RouteResult(0, K, LINKED)
    assert not result.add(RouteAnswer(tuple(map(str, names)), False), names)
    assert result.is_believable(float(K))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([30, 66, 200]))
def test_liars_who_leave_out_members_are_believed_only_by_who_is_linked_to_none_of_those(seed: int, size: int) -> None:
    """Whatever an answer lacks, what is taken as exact names all that are linked where it says that it knows all."""
    draw = random.Random(seed)
    live = some_positions(size, draw)
    target = draw.getrandbits(POSITION_BITS)
    linked = {str(position): position for position in draw.sample(live, draw.randint(0, size))}
    result = RouteResult(target, K, linked)
    for _ in range(PATHS):
        left_out = {*draw.sample(live, draw.choice((0, 1, size // 3)))}
        told = [position for position in nearest_of(live, target, K) if position not in left_out]
        is_taken = result.add(RouteAnswer(tuple(map(str, told)), True), told)
        end = max((position ^ target for position in told), default=0) if len(told) == K else 1 << POSITION_BITS
        lacks = [name for name, position in linked.items() if position ^ target < end and position not in told]
        assert is_taken is not bool(lacks)
