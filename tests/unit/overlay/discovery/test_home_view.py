"""Views of a part of the keyspace: told apart by digest, and which part of a home several of them cover."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.home import HOME_SIZE
from overlay.discovery.home_view import digest_of, uncovered
from tests.simulation.overlay.positions import some_positions, within

NAMES = st.sets(st.text(alphabet="abc", min_size=1, max_size=3), max_size=8)


@given(NAMES, NAMES)
def test_equal_views_have_equal_digests_and_others_do_not(one: set[str], other: set[str]) -> None:
    assert (digest_of(sorted(one)) == digest_of(sorted(other, reverse=True))) == (one == other)


def test_asking_whoever_is_uncovered_tells_all_of_a_home_in_the_end() -> None:
    randomness = random.Random(1)
    positions = some_positions(400, randomness)
    for own in randomness.sample(positions, 20):
        height = 256
        while len(within(positions, own, height - 1)) >= HOME_SIZE:
            height -= 1
        home = {str(position): position for position in within(positions, own, height)}
        covered: list[tuple[int, int]] = []
        told: set[int] = set()
        while rest := uncovered(home, covered):
            asked = home[randomness.choice(rest)]
            their_height = 256
            while len(within(positions, asked, their_height - 1)) >= HOME_SIZE:
                their_height -= 1
            covered.append((asked, min(height, their_height)))
            told.update(within(positions, asked, min(height, their_height)))
        assert told == set(home.values())
