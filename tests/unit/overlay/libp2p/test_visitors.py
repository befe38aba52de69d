"""Connections without a link: who has to go, against brute force, and how many one address gets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import AddressError
from overlay.libp2p.visitors import Visitors
from overlay.settings import LinkLimits

LIMITS = LinkLimits(max_unlinked=8, max_per_address=4, min_lifetime=3.0)
NOBODY = "203.0.113.1"


def nobody(_peer_id: str) -> bool:
    return False


def test_idle_visitors_go_and_newcomers_stay() -> None:
    visitors = Visitors(LIMITS)
    for number in range(30):
        visitors.came(f"idle {number}", NOBODY, number * 0.01)
    visitors.came("newcomer", NOBODY, 9.0)
    assert visitors.to_close(nobody, 10.0) == [f"idle {number}" for number in range(23)]


def test_who_opened_streams_stays_before_who_did_not_and_who_has_one_open_stays_at_all() -> None:
    visitors = Visitors(LIMITS)
    for number in range(12):
        visitors.came(str(number), NOBODY, 0.0)
    for number in range(6):
        visitors.used(str(number), 10.0 + number)
    visitors.began("11", 1.0)
    assert visitors.to_close(nobody, 60.0) == ["10", "6", "7", "8"]
    for number in range(6, 11):
        visitors.left(str(number), NOBODY)
    for number in range(20, 22):
        visitors.came(str(number), NOBODY, 59.0)
    assert visitors.to_close(nobody, 60.0) == ["0"]


def test_linked_peers_are_not_counted() -> None:
    visitors = Visitors(LIMITS)
    for number in range(20):
        visitors.came(str(number), NOBODY, 0.0)
    assert visitors.to_close(lambda peer_id: int(peer_id) >= 8, 60.0) == []


@given(connections=st.integers(0, 20))
def test_nobody_need_look_while_nobody_could_have_to_go(connections: int) -> None:
    visitors = Visitors(LIMITS)
    for number in range(connections):
        visitors.came(str(number), NOBODY, 0.0)
    assert visitors.may_be_too_many == bool(visitors.to_close(nobody, 60.0))
    assert not visitors.to_close(lambda _: True, 60.0)


@given(seed=st.integers(0, 2**32))
def test_in_a_long_history_counts_are_right(seed: int) -> None:
    chance, visitors = random.Random(seed), Visitors(LIMITS)
    open_connections: list[tuple[str, str]] = []
    for step in range(200):
        if chance.random() < 0.6 or not open_connections:
            peer_id, address = f"peer {chance.randrange(12)}", f"203.0.113.{chance.randrange(6)}"
            if visitors.admits(address, 0.0):
                visitors.came(peer_id, address, float(step))
                open_connections.append((peer_id, address))
        elif chance.random() < 0.8:
            visitors.left(*open_connections.pop(chance.randrange(len(open_connections))))
        else:
            peer_id = chance.choice(open_connections)[0]
            visitors.forget(peer_id)
            open_connections = [(other, address) for other, address in open_connections if other != peer_id]
        for number in range(6):
            taken = sum(address == f"203.0.113.{number}" for _, address in open_connections)
            assert taken <= LIMITS.max_per_address
            assert visitors.admits(f"203.0.113.{number}", 0.0) is (taken < LIMITS.max_per_address)
        closed = set(visitors.to_close(nobody, step + 100.0))
        left = sum(peer_id not in closed for peer_id, _ in open_connections)
        assert left <= LIMITS.max_unlinked
        assert not closed or left + 12 > LIMITS.max_unlinked, "no more are closed than have to be"


@pytest.mark.parametrize(
    ("addresses", "limited"),
    [
        (["203.0.113.1"] * 4, True),
        (["::ffff:203.0.113.1", "203.0.113.1"] * 2, True),
        ([f"2001:db8::{number}" for number in range(1, 5)], True),
        ([f"2001:db8:0:{number}::1" for number in range(1, 5)], False),
        ([f"203.0.113.{number}" for number in range(1, 5)], False),
        (["127.0.0.1"] * 100, False),
        (["::1"] * 100, False),
        ([""] * 100, False),
        (["not an address"] * 100, False),
    ],
)
def test_places_of_one_address(addresses: list[str], limited: bool) -> None:
    visitors = Visitors(LIMITS)
    for address in addresses:
        visitors.count(address, 1)
    assert visitors.admits(addresses[0], 0.0) is not limited
    visitors.count(addresses[0], -1)
    assert visitors.admits(addresses[0], 0.0)


def test_configured_networks_are_not_limited() -> None:
    visitors = Visitors(LinkLimits(max_per_address=1, unlimited_networks=("10.0.0.0/8",)))
    for address in ("10.1.2.3", "127.0.0.1"):
        visitors.count(address, 1)
    assert visitors.admits("10.1.2.3", 0.0)
    assert not visitors.admits("127.0.0.1", 0.0)
    with pytest.raises(AddressError, match="no network"):
        Visitors(LinkLimits(unlimited_networks=("no network",)))


def test_where_strangers_were_turned_away_few_connections_are_taken_and_elsewhere_all() -> None:
    visitors = Visitors(LIMITS)
    taken = sum(_try(visitors, NOBODY, second / 10) for second in range(600))
    assert taken == pytest.approx(8 + 60 * 0.2, abs=2)
    while _try(visitors, NOBODY, 60.0):
        pass
    assert visitors.admits("198.51.100.1", 60.0)
    assert visitors.admits(NOBODY, 65.5)


def test_many_addresses_of_strangers_have_few_connections_together_and_newcomers_come_in() -> None:
    visitors = Visitors(LIMITS)
    strangers = [f"10.0.{number // 250}.{number % 250}" for number in range(1000)]
    assert all(_try(visitors, address, 0.0) for address in strangers), "nobody knows yet that they are strangers"
    taken = sum(_try(visitors, address, float(second)) for second in range(1, 121) for address in strangers)
    assert taken <= 32 + 120 * 1.5
    assert visitors.admits("198.51.100.1", 120.0)
    assert visitors.admits(strangers[-1], 121.0)


def _try(visitors: Visitors, address: str, now: float) -> bool:
    if not visitors.admits(address, now):
        return False
    visitors.came("stranger", address, now)
    visitors.left("stranger", address)
    visitors.turned_away(address, now)
    return True
