"""Places are given until there are no more, and never all of them to one client on another machine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, cast

import pytest

from aqua_compat.http.places import ConnectionPlaces, WatchPlaces, client_of
from aqua_compat.http.problems import Problem

FAR, OTHER = "192.0.2.1", "2001:db8::1"


class FakeConnection:
    """Answers all the time, unless it `gives_way`."""

    def __init__(self, *, gives_way: bool = False) -> None:
        self.gives_way = gives_way
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def taken(places: ConnectionPlaces, client: str, connection: FakeConnection | None = None) -> bool:
    return places.take(cast("Any", connection or FakeConnection()), client)


def status(places: WatchPlaces, client: str, opened: ExitStack) -> int:
    """Of who wants to watch, from now on."""
    try:
        opened.enter_context(places.taken(client))
    except Problem as problem:
        return problem.status if problem.retry_after > 0 else 0
    return 200


def test_one_client_elsewhere_has_half_of_the_connections_and_those_here_all() -> None:
    places = ConnectionPlaces(4)
    assert [taken(places, FAR) for _ in range(3)] == [True, True, False]
    assert [taken(places, client) for client in (OTHER, "127.0.0.1", "::1")] == [True, True, False]
    assert len(places) == 4
    near = ConnectionPlaces(4)
    assert [taken(near, client) for client in ("", "::1", "127.0.0.1", "127.0.0.2", "")] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_all_addresses_of_one_machine_are_one_client(address: str, client: str) -> None:
    assert client_of(address) == client


def test_who_has_many_addresses_of_ipv6_has_half_all_the_same() -> None:
    places = ConnectionPlaces(4)
    assert [taken(places, client_of(f"2001:db8::{number}")) for number in range(3)] == [True, True, False]


def test_of_who_has_its_part_its_own_idle_connection_gives_way() -> None:
    places, idle, own = ConnectionPlaces(4), FakeConnection(gives_way=True), FakeConnection(gives_way=True)
    assert taken(places, OTHER, idle)
    assert all([taken(places, FAR, own), taken(places, FAR), taken(places, FAR)])
    assert (own.is_closed, idle.is_closed, len(places)) == (True, False, 3)
    assert all([taken(places, ""), taken(places, "")])
    assert (idle.is_closed, len(places)) == (True, 4)


@pytest.mark.parametrize(
    ("clients", "statuses"),
    [
        ([FAR] * 3 + [OTHER] * 3, [200, 200, 429, 200, 200, 503]),
        (["", "::1", "127.0.0.1", FAR, FAR], [200, 200, 200, 200, 503]),
        (["no address"] * 2, [200, 200]),
    ],
)
def test_one_client_elsewhere_has_half_of_the_watches(clients: list[str], statuses: list[int]) -> None:
    places = WatchPlaces(4)
    with ExitStack() as opened:
        assert [status(places, client, opened) for client in clients] == statuses
    assert len(places) == 0
    with ExitStack() as opened:
        assert status(WatchPlaces(1), FAR, opened) == 200, "one has a place, however few there are"
