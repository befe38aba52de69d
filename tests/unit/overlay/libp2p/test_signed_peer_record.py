"""What a peer says of where it can be reached, signed; and that nothing else passes for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.peer_record import MAX_BYTES, BadPeerRecord
from overlay.identity import Identity
from overlay.libp2p.signed_peer_record import MAX_RELAYS, open_peer_record, sign_peer_record

ADDRESS = "/ip4/192.0.2.1/tcp/4001"
NOW = 1_700_000_000.0
RELAY, OTHER_RELAY = Identity.generate().peer_id, Identity.generate().peer_id


def test_a_record_names_addresses_and_relays_with_theirs() -> None:
    identity = Identity.generate()
    peer_record = sign_peer_record(identity, [ADDRESS], [(RELAY, [f"{ADDRESS}/ws"]), (OTHER_RELAY, [])], NOW)
    assert open_peer_record(peer_record.sealed) == peer_record
    assert peer_record.peer_id == identity.peer_id
    assert peer_record.addresses == (ADDRESS,)
    assert peer_record.relays == (RELAY, OTHER_RELAY)
    assert peer_record.relay_addresses == ((RELAY, f"{ADDRESS}/ws"),)
    assert peer_record.sequence == NOW * 1_000_000


def test_a_record_names_few_relays_however_many_there_are() -> None:
    relays = [(Identity.generate().peer_id, [ADDRESS]) for _ in range(30)]
    peer_record = sign_peer_record(Identity.generate(), [], relays, NOW)
    assert peer_record.relays == tuple(relay for relay, _ in relays[:MAX_RELAYS])


def test_no_addresses_of_others_make_a_record_too_large() -> None:
    """What members tell of their addresses is in this peer's own record: a host died of names in four-byte letters."""
    name = "/dns4/" + ".".join(["\U00020000" * 55] * 4) + "/tcp/1/ws"
    relays = [(Identity.generate().peer_id, [name, name]) for _ in range(4)]
    peer_record = sign_peer_record(Identity.generate(), [name] * 16, [*relays, (RELAY, [])], NOW)
    assert len(peer_record.sealed) <= MAX_BYTES
    long_names = [f"/dns4/{'x' * 60}.{'y' * 60}.{'z' * 60}.{number}/tcp/1/ws" for number in range(16)]
    assert len(sign_peer_record(Identity.generate(), long_names, [(RELAY, [])], NOW).sealed) <= MAX_BYTES


@given(st.data())
def test_no_altered_record_is_opened(data: st.DataObject) -> None:
    sealed = sign_peer_record(Identity.from_seed(bytes(32)), [ADDRESS], [(RELAY, [])], NOW).sealed
    place = data.draw(st.integers(0, len(sealed) - 1))
    altered = bytearray(sealed)
    altered[place] ^= data.draw(st.integers(1, 255))
    try:
        opened = open_peer_record(bytes(altered))
    except BadPeerRecord:
        return
    # Protobuf lets some bytes be written in several ways; what they say must be what was signed.
    assert opened.peer_id == Identity.from_seed(bytes(32)).peer_id
    assert (opened.addresses, opened.relays) == ((ADDRESS,), (RELAY,))


@given(st.binary(max_size=6000))
def test_garbage_is_no_record(garbage: bytes) -> None:
    with pytest.raises(BadPeerRecord):
        open_peer_record(garbage)
