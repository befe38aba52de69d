"""What names ask for, and peer ids as names."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.dns.peer_names import label_of_peer, peer_in_label
from aqua_compat.dns.zone import (
    Asked,
    Between,
    OfAddress,
    OfDomain,
    OfNode,
    OfServer,
    OfService,
    Zone,
    labels_of_address,
    labels_of_node,
)
from overlay.identity import Identity
from registry.model.signing import key_id_of

ME, ACME = (Identity.from_seed(bytes([number]) * 32).peer_id for number in range(2))
ZONE = Zone({"Acme": ACME, "eu.acme": ME}, ME)
PEER = label_of_peer(ACME)
SEEDS = st.binary(min_size=32, max_size=32)


def web(owner: str = ACME, tag: str = "", transport: str = "") -> OfService:
    return OfService(key_id_of("web", owner), tag, transport)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("", OfDomain()),
        ("ns", OfServer()),
        ("node", Between()),
        ("addr", Between()),
        ("acme", Between()),
        ("service.acme", Between()),
        ("_tcp.acme", Between()),
        ("web.acme", web()),
        ("web.me", web(ME)),
        (f"web.{PEER}", web()),
        ("web.eu.acme", web(ME)),
        ("web.service.acme", web()),
        ("_web._tcp.acme", web(transport="_tcp")),
        ("_web._udp.acme", web(transport="_udp")),
        ("_web._v2.acme", web(tag="v2")),
        ("_v2.acme", Between()),
        ("_v2.service.acme", OfService(key_id_of("_v2", ACME))),
        ("v2.web.acme", web(tag="v2")),
        ("v2.web.service.acme", web(tag="v2")),
        ("a.v2.web.acme", None),
        ("unknown", None),
        ("web.unknown", None),
        ("acme.node", OfNode(ACME)),
        ("me.node", OfNode(ME)),
        (f"{PEER}.node", OfNode(ACME)),
        ("eu.acme.node", OfNode(ME)),
        ("x.ns", None),
        ("unknown.node", None),
        ("c0000207.addr", OfAddress(ip_address("192.0.2.7"))),
        ("20010db8000000000000000000000001.addr", OfAddress(ip_address("2001:db8::1"))),
        ("c000020.addr", None),
        ("c000020g.addr", None),
    ],
)
def test_a_name_asks_for(name: str, asked: Asked | None) -> None:
    assert ZONE.asked(name.split(".") if name else []) == asked


def test_an_alias_with_dots_has_names_between_it_and_the_domain() -> None:
    assert Zone({"eu.acme": ACME}, ME).asked(["acme"]) == Between()


def test_an_alias_takes_no_name_from_peers() -> None:
    zone = Zone({"node": ACME, "ns": ACME}, ME)
    assert zone.asked(["me", "node"]) == OfNode(ME)
    assert zone.asked(["ns"]) == OfServer()
    assert zone.asked(["web", "node"]) == zone.asked(["web", "ns"]) == web()


@given(SEEDS)
def test_a_peer_id_comes_back_out_of_its_name(seed: bytes) -> None:
    peer_id = Identity.from_seed(seed).peer_id
    label = label_of_peer(peer_id)
    assert len(label) <= 63
    assert label == label.lower()
    assert peer_in_label(label) == peer_id
    assert ZONE.asked(labels_of_node(peer_id)) == OfNode(peer_id)


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz-", min_size=61, max_size=61))
def test_what_is_no_peer_id_is_none(text: str) -> None:
    found = peer_in_label(f"k{text}")
    assert found is None or label_of_peer(found) == f"k{text}"


@given(st.ip_addresses())
def test_an_address_comes_back_out_of_its_name(address: object) -> None:
    assert ZONE.asked(labels_of_address(address)) == OfAddress(address)  # type: ignore[arg-type]


@given(st.lists(st.text(max_size=63), max_size=8))
def test_any_labels_can_be_asked(labels: list[str]) -> None:
    ZONE.asked(labels)
