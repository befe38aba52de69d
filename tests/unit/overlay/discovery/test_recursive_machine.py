"""The recursive lookup's hops, and what their answers come to."""

from __future__ import annotations

import pytest

from overlay.discovery.home import HOME_SIZE, Home
from overlay.discovery.keyspace import POSITION_BITS
from overlay.discovery.recursive_machine import (
    MOST_FORWARDS,
    MOST_HOPS,
    PATHS,
    TRIES,
    Forward,
    Hop,
    RouteAnswer,
    RouteRequest,
    RouteResult,
    first_contacts,
    requests,
)

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
    assert [step.to for step in steps[:2] if isinstance(step, Forward)] == ["nearest", "near"]
    assert isinstance(steps[2], RouteAnswer)
    assert not steps[2].is_exact
    assert steps[2].names[:3] == ("asker", "nearest", "near")


def test_tries_are_bounded() -> None:
    hop = a_hop(TOP, {str(number): TOP + number for number in range(1, 30)})
    steps = [hop.next_step(is_confirmed=True) for _ in range(TRIES + 1)]
    assert [isinstance(step, Forward) for step in steps] == [True] * TRIES + [False]


@pytest.mark.parametrize(("hops", "forwards"), [(0, 5), (5, 0)])
def test_hops_and_forwards_are_bounded(hops: int, forwards: int) -> None:
    assert isinstance(a_hop(TOP, {"near": TOP}, hops=hops, forwards=forwards).next_step(is_confirmed=True), RouteAnswer)


def test_each_forward_leaves_less() -> None:
    hop = a_hop(TOP, {"a": TOP, "b": TOP + 1}, hops=3, forwards=10)
    first, second = hop.next_step(is_confirmed=True), hop.next_step(is_confirmed=True)
    assert isinstance(first, Forward)
    assert isinstance(second, Forward)
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
