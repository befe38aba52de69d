"""What a member knows completely: against brute force, for ids of several kinds."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.home import CONFIRMED_FOR, HOME_SIZE, MOST_HOME, THIN, Home, walk
from overlay.discovery.keyspace import POSITION_BITS
from tests.simulation.overlay.positions import KINDS, nearest_of, some_positions

K = 20


def knowing(own: int, positions: Sequence[int]) -> Home:
    """The home of the member at `own` as the rules would have it in a network of members at `positions`."""
    home = Home(own)
    buckets: dict[int, list[int]] = {}
    for position in positions:
        if position != own:
            buckets.setdefault((position ^ own).bit_length() - 1, []).append(position)
    # The home first, from the inside; buckets outside only as far as a lookup says that they are thin.
    count, height = 1, 0
    for bucket in range(POSITION_BITS):
        if count >= HOME_SIZE:
            break
        height = bucket + 1
        for position in buckets.get(bucket, ()):
            home.add(str(position), position)
            count += 1
    for bucket in range(height, POSITION_BITS):
        found = buckets.get(bucket, [])
        home.note_bucket(bucket, min(len(found), HOME_SIZE), 0.0)
        if len(found) < HOME_SIZE:
            for position in found:
                home.add(str(position), position)
    for bucket in range(home.reach):
        for position in buckets.get(bucket, ()):
            home.add(str(position), position)
    return home


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 5, 19, 20, 21, 27, 28, 29, 40, 64, 100, 300, 1000])
def test_what_is_claimed_exact_is_what_brute_force_finds(kind: str, size: int) -> None:
    randomness = random.Random(size)
    positions = some_positions(size, randomness, kind)
    for _ in range(12):
        target = randomness.getrandbits(POSITION_BITS)
        if randomness.random() < 0.6:  # resources near members, where homes are small
            target = randomness.choice(positions) ^ randomness.getrandbits(randomness.randrange(1, POSITION_BITS))
        expected = nearest_of(positions, target, K)
        for own in {*expected[:3], expected[-1], randomness.choice(positions)}:
            found = knowing(own, positions).exact(target, K, own_name=str(own))
            if found is not None:
                assert found == [str(position) for position in expected]
            else:
                assert size >= HOME_SIZE, "a network smaller than a home is known to everybody"


@pytest.mark.parametrize("size", [100, 1000, 3000])
def test_replicas_nearly_always_know_their_resources_neighbourhoods(size: int) -> None:
    randomness = random.Random(size)
    positions = some_positions(size, randomness, "random")
    knew = []
    for _ in range(60):
        target = randomness.getrandbits(POSITION_BITS)
        own = randomness.choice(nearest_of(positions, target, K))
        knew.append(knowing(own, positions).exact(target, K, own_name=str(own)) is not None)
    assert sum(knew) >= 0.95 * len(knew)


@given(st.integers(0, 2**POSITION_BITS - 1), st.sets(st.integers(0, 2**POSITION_BITS - 1), max_size=40))
def test_buckets_are_walked_by_growing_distance(own: int, others: set[int]) -> None:
    target = 2**POSITION_BITS // 3
    order: list[int] = []
    for bucket in walk(own ^ target):
        if bucket is None:
            order.append(own)
        else:
            here = (position for position in others - {own} if (position ^ own).bit_length() - 1 == bucket)
            order += sorted(here, key=lambda position: position ^ target)
    assert order == sorted({own, *others}, key=lambda position: position ^ target)


def test_a_bucket_that_no_lookup_found_thin_is_not_known_however_few_links_lead_there() -> None:
    own = 0
    home = Home(own)
    for number in range(1, HOME_SIZE + 5):
        home.add(str(number), number)
    far = 1 << 255
    home.add("far", far)
    assert home.exact(far, K, own_name="own") is None
    home.note_bucket(255, 1, now=0.0)
    assert home.exact(far, 1, own_name="own") == ["far"]


def test_a_thin_bucket_that_fills_is_not_known_completely_any_more() -> None:
    home = Home(0)
    for position in range(1, HOME_SIZE + 1):
        home.add(str(position), position)
    far = 1 << 255
    home.note_bucket(255, THIN - 1, now=0.0)
    for position in range(far, far + THIN - 1):
        home.add(str(position), position)
    assert home.thin_buckets() == [255]
    assert home.exact(far, K, own_name="own") is not None
    home.add("newcomer", far + THIN)
    assert home.thin_buckets() == []
    assert home.exact(far, K, own_name="own") is None


def test_ground_ids_do_not_shrink_a_home_below_a_dense_region() -> None:
    randomness = random.Random(3)
    own = randomness.getrandbits(POSITION_BITS)
    honest = some_positions(100, randomness, "random")
    home = knowing(own, [*honest, *(own ^ number for number in range(1, 100))])
    assert home.height < 8, "who of the part beyond estimates another size doesn't link to us"
    expected = POSITION_BITS - 2, POSITION_BITS - 3  # which 100 members let expect 25 or 12 in
    assert expected[1] <= home.density.height <= expected[0] + 1
    assert home.reach == home.density.height


def test_a_home_is_cut_where_it_would_hold_too_many() -> None:
    home = Home(0)
    for number in range(2, 8 * MOST_HOME):
        home.add(str(number), number)
    assert len(home.members()) <= MOST_HOME
    assert len(home.inside(home.own, home.reach)) <= MOST_HOME


def test_a_home_that_grew_because_members_left_has_to_be_confirmed_again() -> None:
    home = Home(0)
    for position in (*range(1, HOME_SIZE), 1 << 250):
        home.add(str(position), position)
    for position in (1, 2, 3):
        home.note_confirmed(str(position), 0.0, home.height)
    assert home.is_confirmed(1.0)
    home.remove(str(HOME_SIZE - 1), HOME_SIZE - 1)
    assert home.height == 251
    assert not home.is_confirmed(1.0)
    home.add(str(HOME_SIZE - 1), HOME_SIZE - 1)
    assert home.height < 251


def test_a_home_that_grew_still_claims_what_was_confirmed_before() -> None:
    home = Home(0)
    for number in range(1, 64):
        home.add(str(number), number << 250)
    for name in home.confirmers():
        home.note_confirmed(name, 0.0, home.height)
    assert home.confirmed_height(1.0) == home.height == 255
    for number in range(HOME_SIZE - 1, 32):
        home.remove(str(number), number << 250)
    assert home.height == POSITION_BITS
    assert home.confirmed_height(1.0) == 255
    first, second, _ = home.confirmers()
    home.note_confirmed(first, 1.0, home.height)
    assert home.confirmed_height(1.0) == 255, "one member's word isn't enough"
    home.note_confirmed(second, 1.0, home.height)
    assert home.confirmed_height(1.0) == POSITION_BITS
    assert home.confirmed_height(CONFIRMED_FOR + 1.1) == 0


def test_exactness_is_claimed_while_two_of_the_three_nearest_confirmed_the_home_lately() -> None:
    home = Home(0)
    assert home.is_confirmed(0.0), "alone, there is nobody who could"
    for number in (1, 2, 3, 4):
        home.add(str(number), number)
    home.note_confirmed("1", 0.0, POSITION_BITS)
    home.note_confirmed("4", 0.0, POSITION_BITS)
    assert not home.is_confirmed(0.0), "the fourth isn't asked"
    assert home.confirmed_height(0.0) == 0
    home.note_confirmed("3", 10.0, POSITION_BITS)
    assert home.is_confirmed(CONFIRMED_FOR)
    assert not home.is_confirmed(CONFIRMED_FOR + 1)
    home.remove("3", 3)
    assert home.is_confirmed(11.0), "the fourth is one of three now"
    home.remove("1", 1)
    assert not home.is_confirmed(11.0)


def test_who_does_not_answer_about_its_home_gives_its_place_among_the_confirmers_to_the_next() -> None:
    home = Home(0)
    for number in (1, 2, 3, 4, 5):
        home.add(str(number), number)
    for silent in ("1", "2"):
        home.note_asked(silent, has_answered=False)
    assert home.confirmers() == ["3", "4", "5"]
    for number in ("3", "4"):
        home.note_confirmed(number, 0.0, POSITION_BITS)
    assert home.is_confirmed(0.0)
    home.note_asked("1", has_answered=True)
    assert home.confirmers() == ["1", "3", "4"]
    home.note_asked("4", has_answered=False)
    home.note_asked("5", has_answered=False)
    assert home.confirmers() == ["1", "3", "2"], "where there aren't enough others, those who didn't answer count"
    home.remove("2", 2)
    home.add("2", 2)
    assert home.unanswered == ["4", "5"], "who came back wasn't asked yet"


def test_of_two_others_one_may_be_silent_but_not_both() -> None:
    home = Home(0)
    for number in (1, 2):
        home.add(str(number), number)
    home.note_asked("1", has_answered=False)
    assert not home.is_confirmed(0.0)
    home.note_confirmed("2", 0.0, POSITION_BITS)
    assert home.is_confirmed(0.0)
    home.note_asked("2", has_answered=False)
    home.remove("1", 1)
    assert home.is_confirmed(0.0), "it has confirmed lately"
    home.remove("2", 2)
    home.add("3", 3)
    home.note_asked("3", has_answered=False)
    assert not home.is_confirmed(0.0)


def test_where_members_crowd_those_who_do_not_answer_give_their_places_to_others_of_their_buckets() -> None:
    randomness = random.Random(3)
    own = randomness.getrandbits(POSITION_BITS)
    crowd = {str(own ^ number) for number in range(1, 100)}
    home = knowing(own, [*some_positions(100, randomness, "random"), *(own ^ number for number in range(1, 100))])
    first, *others = home.confirmers()
    assert first not in crowd
    home.note_asked(first, has_answered=False)
    *unchanged, instead = home.confirmers()
    assert unchanged == others
    assert instead not in crowd
    assert home.bucket_of(int(instead)) == home.bucket_of(int(first))


@pytest.mark.parametrize("kind", KINDS)
def test_links_that_happen_to_be_open_decide_no_responsibility(kind: str) -> None:
    randomness = random.Random(1)
    positions = some_positions(300, randomness, kind)
    for _ in range(30):
        target = randomness.choice(positions) ^ randomness.getrandbits(randomness.randrange(200, POSITION_BITS))
        expected = nearest_of(positions, target, K)
        for own in {*expected[:2], expected[-1], *randomness.sample(positions, 3)}:
            home = knowing(own, positions)
            assert home.is_among_nearest(target, K) == (own in expected)
            for other in randomness.sample(positions, 10):
                home.add(str(other), other)
            assert home.is_among_nearest(target, K) == (own in expected)


def test_what_lies_inside_of_a_subtree_and_how_high_another_home_is() -> None:
    home = Home(0)
    for position in (*range(1, 40), 1 << 200, 1 << 200 | 5):
        home.add(str(position), position)
    assert set(home.inside(1 << 200, 10)) == {str(1 << 200), str(1 << 200 | 5)}
    assert set(home.inside(2, 2)) == {"1", "2", "3"}
    assert len(home.inside(0, POSITION_BITS)) == 41
    assert home.height_around(1) == home.height == 5
    assert home.height_around(1 << 200) == 201
