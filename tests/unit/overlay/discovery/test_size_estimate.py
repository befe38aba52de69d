"""How large the network is, from how near together members are."""

from __future__ import annotations

import random

import pytest

from overlay.discovery.keyspace import POSITION_BITS
from overlay.discovery.size_estimate import REGIONS, SizeEstimate
from tests.simulation.overlay.positions import nearest_of, some_positions


def test_nothing_is_said_before_enough_regions_were_seen() -> None:
    estimate = SizeEstimate()
    for _ in range(REGIONS - 1):
        estimate.note(20, 2**250)
    assert estimate.size is None


@pytest.mark.parametrize("size", [100, 1000, 10_000])
def test_the_estimate_is_near_the_truth(size: int) -> None:
    randomness = random.Random(size)
    positions = some_positions(size, randomness)
    estimate = SizeEstimate()
    for _ in range(3 * REGIONS):
        target = randomness.getrandbits(POSITION_BITS)
        estimate.note(20, nearest_of(positions, target, 20)[-1] ^ target)
    assert estimate.size == pytest.approx(size, rel=0.3)


def test_a_region_full_of_ground_ids_decides_nothing() -> None:
    estimate = SizeEstimate()
    for region in range(REGIONS):
        estimate.note(20, 2**200 if region < 4 else 19 * 2**POSITION_BITS // 1000)
    assert estimate.size == pytest.approx(1000)


def test_who_knows_everybody_knows_the_size() -> None:
    estimate = SizeEstimate()
    estimate.note_all(7)
    assert estimate.size == 7
