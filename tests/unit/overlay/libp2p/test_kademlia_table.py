"""libp2p's routing table, made Kademlia's."""

from __future__ import annotations

import random

import pytest
from libp2p.kad_dht.routing_table import peer_id_to_key
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from overlay.discovery.keyspace import nearest, peer_position
from overlay.libp2p.workarounds.kademlia_table import KademliaTable

BUCKET = 20
CHANCE = random.Random(7)


def peer() -> ID:
    """An id as of an Ed25519 key."""
    return ID(b"\x00\x24\x08\x01\x12\x20" + CHANCE.randbytes(32))


def table_of(own: ID) -> KademliaTable:
    return KademliaTable(own)


def contact(peer_id: ID) -> PeerInfo:
    return PeerInfo(peer_id, [])


def test_positions_are_those_of_our_keyspace() -> None:
    one = peer()
    assert int.from_bytes(peer_id_to_key(one), "big") == peer_position(str(one))


def test_of_ten_thousand_contacts_the_nearest_are_kept_and_some_of_each_distance() -> None:
    own = peer()
    table = table_of(own)
    contacts = [peer() for _ in range(10_000)]
    for one in contacts:
        table.enter(contact(one))
    names = [str(one) for one in contacts]
    kept = [str(one) for one in table.get_peer_ids()]
    position = peer_position(str(own))
    # Of the bucket beside our own a few are left out, when it's full: knowing all who are near is the home's work.
    assert len({*nearest(position, kept, 20)} & {*nearest(position, names, 20)}) >= 15
    assert nearest(position, kept, 3) == nearest(position, names, 3)
    assert len(kept) <= BUCKET * 20, "a few for each bit of distance, not all"
    assert len(table.buckets) <= 20
    for bit in range(247, 256):
        at_distance = sum((peer_position(name) ^ position).bit_length() - 1 == bit for name in names)
        known = sum((peer_position(name) ^ position).bit_length() - 1 == bit for name in kept)
        assert known >= min(BUCKET, at_distance), f"too few at a distance of 2**{bit}"


def test_only_the_bucket_of_our_own_position_splits() -> None:
    own = peer()
    table = table_of(own)
    for _ in range(3000):
        table.enter(contact(peer()))
    widths = [bucket.max_range - bucket.min_range for bucket in table.buckets]
    mine = peer_id_to_key(own)
    for bucket, width in zip(table.buckets, widths, strict=True):
        assert bucket.key_in_range(mine) or widths.count(width) <= 2, "each distance has one bucket"
    assert sum(widths) == 2**256


def full_bucket(table: KademliaTable) -> list[ID]:
    """Contacts of a full bucket that doesn't split, the one that was entered first at the beginning."""
    for _ in range(500):
        table.enter(contact(peer()))
    [bucket, *_] = sorted(table.buckets, key=lambda bucket: bucket.min_range - bucket.max_range)
    return bucket.peer_ids()


def newcomer_for(table: KademliaTable, contacts: list[ID]) -> ID:
    bucket = table.find_bucket(contacts[0])
    return next(one for one in iter(peer, None) if bucket.peer_id_in_range(one))


def test_full_bucket_keeps_whoever_lives() -> None:
    table = table_of(peer())
    contacts = full_bucket(table)
    assert table.enter(contact(newcomer_for(table, contacts))) is False
    assert table.find_bucket(contacts[0]).peer_ids() == contacts


def test_full_bucket_takes_a_newcomer_for_a_contact_that_failed() -> None:
    table = table_of(peer())
    contacts = full_bucket(table)
    failed, newcomer, another = contacts[3], newcomer_for(table, contacts), newcomer_for(table, contacts)
    table.note_failure(failed)
    assert table.has_failed(failed)
    assert table.peer_in_table(failed), "it may have been a moment's trouble"
    assert table.enter(contact(newcomer)) is True
    assert not table.peer_in_table(failed)
    assert table.peer_in_table(newcomer)
    assert table.enter(contact(another)) is False, "one place for one failure"


def test_contact_that_came_back_has_not_failed_any_more() -> None:
    table = table_of(peer())
    contacts = full_bucket(table)
    table.note_failure(contacts[0])
    assert table.enter(contact(contacts[0])) is True
    assert not table.has_failed(contacts[0])
    assert table.enter(contact(newcomer_for(table, contacts))) is False


def test_failures_of_strangers_are_not_remembered() -> None:
    table, stranger = table_of(peer()), peer()
    table.note_failure(stranger)
    assert not table.has_failed(stranger)


@pytest.mark.parametrize("verified", [True, False])
async def test_nobody_enters_by_libp2ps_own_way(verified: bool) -> None:
    table = table_of(peer())
    assert await table.add_peer(contact(peer()), skip_server_mode_check=verified) is False
    assert table.size() == 0


def test_we_are_in_no_bucket_of_ours() -> None:
    own = peer()
    table = table_of(own)
    assert table.enter(contact(own)) is False
