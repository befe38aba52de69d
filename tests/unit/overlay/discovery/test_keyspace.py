"""Positions and distances."""

from __future__ import annotations

import json
from hashlib import sha256

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.keyspace import nearest, peer_position, resource_position
from overlay.errors import PeerIdError
from tests.paths import DATA

VECTORS = json.loads((DATA / "particle-vectors.json").read_text())["kad"]
PEER_IDS = [base58.b58encode(b"\x00\x24" + bytes([n])).decode() for n in range(40)]
POSITIONS = st.integers(min_value=0, max_value=2**256 - 1)


def test_resource_is_where_the_original_puts_it() -> None:
    assert resource_position(VECTORS["resource_id"]) == int(VECTORS["kad_key_sha256_hex"], 16)


def test_peers_are_where_the_original_puts_them() -> None:
    for peer_id, expected in VECTORS["peer_key_sha256_hex"].items():
        assert peer_position(peer_id) == int(expected, 16)


@pytest.mark.parametrize(("length", "varint"), [(127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_length_of_a_resource_id_is_a_varint(length: int, varint: bytes) -> None:
    expected = sha256(b"\x12" + varint + b"x" * length).digest()
    assert resource_position("x" * length) == int.from_bytes(expected, "big")


@pytest.mark.parametrize("bad", ["", "0OIl", "x" * 129, "ä", "12D3 KooW"])
def test_what_is_not_base58_is_no_peer_id(bad: str) -> None:
    with pytest.raises(PeerIdError):
        peer_position(bad)


@given(target=POSITIONS, count=st.integers(min_value=0, max_value=50), peer_ids=st.sets(st.sampled_from(PEER_IDS)))
def test_nearest_ranks_as_brute_force_does(target: int, count: int, peer_ids: set[str]) -> None:
    found = nearest(target, peer_ids, count)
    left_out = peer_ids - set(found)
    assert len(found) == min(count, len(peer_ids))
    distances = [peer_position(peer_id) ^ target for peer_id in found]
    assert distances == sorted(distances)
    assert all(peer_position(peer_id) ^ target > max(distances, default=-1) for peer_id in left_out if found)


def test_peer_given_twice_is_found_once() -> None:
    assert nearest(0, [PEER_IDS[0], PEER_IDS[0]], 2) == [PEER_IDS[0]]
