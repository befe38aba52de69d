from __future__ import annotations

import pytest

from overlay.discovery.address_book import AddressBook, parse_dialable, parse_peer_address
from overlay.errors import AddressError
from overlay.identity import Identity

PEER, OTHER = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))


@pytest.mark.parametrize(
    "transport",
    [
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/0.0.0.0/tcp/0",
        "/ip6/::1/tcp/1/ws",
        "/dns4/node.example/tcp/443",
        "/dns/a/tcp/1/ws",
    ],
)
def test_tcp_and_websocket_addresses_can_be_dialled(transport: str) -> None:
    assert parse_dialable(transport) == (transport, None)
    assert parse_peer_address(f"{transport}/p2p/{PEER}") == (transport, PEER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/udp/1",
        "/ip4/127.0.0.1/udp/1/quic-v1",
        "/ip4/999.0.0.1/tcp/1",
        "/ip4/127.0.0.1/tcp/70000",
        "/ip4/127.0.0.1/tcp/1/wss",
        "/ip4/127.0.0.1/tcp/1/p2p/12D3KooW",
        f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{OTHER}",
        f"/p2p/{PEER}",
        "/ip4/127.0.0.1/tcp/1" * 200,
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_dialable(text)


def test_a_peer_address_must_name_its_peer() -> None:
    with pytest.raises(AddressError, match="can't be verified"):
        parse_peer_address("/ip4/127.0.0.1/tcp/4001")


def test_the_book_keeps_the_newest_and_the_one_that_worked_first() -> None:
    book = AddressBook(max_peers=10, max_addresses_per_peer=3)
    for port in range(1, 6):
        book.add(PEER, [f"/ip4/127.0.0.1/tcp/{port}"])
    assert book.of(PEER) == tuple(f"/ip4/127.0.0.1/tcp/{port}" for port in (5, 4, 3))
    book.used(PEER, "/ip4/127.0.0.1/tcp/3")
    assert book.of(PEER)[0] == "/ip4/127.0.0.1/tcp/3"


def test_the_book_drops_what_is_bad_or_of_another_peer() -> None:
    book = AddressBook(max_peers=10, max_addresses_per_peer=3)
    assert book.add(PEER, ["nonsense", f"/ip4/127.0.0.1/tcp/1/p2p/{OTHER}", "/ip4/127.0.0.1/tcp/0"]) == []
    assert book.of(PEER) == ()
    assert len(book) == 0


def test_the_book_is_bounded_and_spares_peers_in_use() -> None:
    book = AddressBook(max_peers=5, max_addresses_per_peer=3)
    book.add(PEER, ["/ip4/127.0.0.1/tcp/1"])
    for _ in range(20):
        book.add(Identity.generate().peer_id, ["/ip4/127.0.0.1/tcp/1"], in_use={PEER})
    assert len(book) == 5
    assert book.of(PEER)


def test_what_others_tell_pushes_nothing_out_that_is_surer_and_comes_after_it() -> None:
    book = AddressBook(max_peers=10, max_addresses_per_peer=4)
    book.add(PEER, ["/ip4/192.0.2.1/tcp/1"], teller=PEER)
    book.used(PEER, "/ip4/192.0.2.1/tcp/2")
    for port in range(10, 30):
        book.add(PEER, [f"/ip4/203.0.113.1/tcp/{port}"], teller=OTHER)
    assert book.of(PEER) == (
        "/ip4/192.0.2.1/tcp/2",
        "/ip4/192.0.2.1/tcp/1",
        "/ip4/203.0.113.1/tcp/29",
        "/ip4/203.0.113.1/tcp/28",
    )


def test_the_book_knows_who_told_an_address_that_nobody_reached() -> None:
    book = AddressBook(max_peers=10, max_addresses_per_peer=4)
    address = "/ip4/192.0.2.1/tcp/1"
    assert book.tellers(PEER, address) == (PEER,)
    book.add(PEER, [address], teller=OTHER)
    book.add(PEER, [address], teller=PEER)
    assert book.tellers(PEER, address) == (OTHER, PEER)
    for number in range(10):
        book.add(PEER, [address], teller=str(number))
    assert book.tellers(PEER, address) == (OTHER, PEER, "0", "1")
    book.used(PEER, address)
    assert book.tellers(PEER, address) is None
    book.add(PEER, [address], teller=OTHER)
    assert book.tellers(PEER, address) is None
