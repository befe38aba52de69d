"""Who can't be dialled is found through what it said of itself, by anyone, while it is true."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.lookup import Lookup
from overlay.discovery.peer_record import (
    MAX_BYTES,
    MAX_RELAYS,
    BadPeerRecord,
    PeerRecord,
    open_peer_record,
    sign_peer_record,
)
from overlay.discovery.peer_records import GET_METHOD, PUT_METHOD, PeerRecords
from overlay.errors import CallRefused
from overlay.identity import Identity
from overlay.libp2p.host import Host
from overlay.rpc.links import Links
from overlay.settings import OverlaySettings, PeerRecordSettings
from tests.unit.overlay.discovery.test_lookup import AddressedDialler
from tests.unit.overlay.memory_network import MemoryDialler, MemoryNetwork

ADDRESS = "/ip4/192.0.2.1/tcp/4001"
NOW = 1_700_000_000.0
RELAY, OTHER_RELAY = Identity.generate().peer_id, Identity.generate().peer_id


def test_a_contact_names_addresses_and_relays_with_theirs() -> None:
    identity = Identity.generate()
    peer_record = sign_peer_record(identity, [ADDRESS], [(RELAY, [f"{ADDRESS}/ws"]), (OTHER_RELAY, [])], NOW)
    assert open_peer_record(peer_record.sealed) == peer_record
    assert peer_record.peer_id == identity.peer_id
    assert peer_record.addresses == (ADDRESS,)
    assert peer_record.relays == (RELAY, OTHER_RELAY)
    assert peer_record.relay_addresses == ((RELAY, f"{ADDRESS}/ws"),)
    assert peer_record.sequence == NOW * 1_000_000


def test_a_contact_names_few_relays_however_many_there_are() -> None:
    relays = [(Identity.generate().peer_id, [ADDRESS]) for _ in range(30)]
    peer_record = sign_peer_record(Identity.generate(), [], relays, NOW)
    assert peer_record.relays == tuple(relay for relay, _ in relays[:MAX_RELAYS])


def test_no_addresses_of_others_make_a_contact_too_large() -> None:
    """What members tell of their addresses is in the own contact: a host died of names in four-byte letters."""
    name = "/dns4/" + ".".join(["\U00020000" * 55] * 4) + "/tcp/1/ws"
    relays = [(Identity.generate().peer_id, [name, name]) for _ in range(4)]
    peer_record = sign_peer_record(Identity.generate(), [name] * 16, [*relays, (RELAY, [])], NOW)
    assert len(peer_record.sealed) <= MAX_BYTES
    long_names = [f"/dns4/{'x' * 60}.{'y' * 60}.{'z' * 60}.{number}/tcp/1/ws" for number in range(16)]
    assert len(sign_peer_record(Identity.generate(), long_names, [(RELAY, [])], NOW).sealed) <= MAX_BYTES


@given(st.data())
def test_no_altered_contact_is_opened(data: st.DataObject) -> None:
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
def test_garbage_is_no_contact(garbage: bytes) -> None:
    with pytest.raises(BadPeerRecord):
        open_peer_record(garbage)


class Peer:
    def __init__(self, network: MemoryNetwork, settings: OverlaySettings) -> None:
        self.identity = Identity.generate()
        dialler = AddressedDialler(network, self.identity.peer_id)
        network.diallers[self.peer_id] = cast("MemoryDialler", dialler)
        self.links = Links(dialler, settings, member=settings.member)
        self.lookup = Lookup(cast("Host", dialler), self.links, settings)
        self.peer_records = PeerRecords(
            self.links,
            self.lookup,
            settings.peer_records,
            member=settings.member,
            own=self.peer_record,
            clock=lambda: NOW + trio.current_time(),
        )
        self.links.on_up(lambda *_: self.peer_records.note_change())
        self.links.on_down(lambda _: self.peer_records.note_change())

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    def peer_record(self, now: float) -> PeerRecord:
        return sign_peer_record(self.identity, [], [(member, []) for member in self.lookup.members()], now)


class World:
    """Members that know each other, and light clients."""

    def __init__(self, nursery: trio.Nursery, settings: PeerRecordSettings) -> None:
        self.network = MemoryNetwork(nursery)
        self.nursery = nursery
        self.settings = settings
        self.members: list[Peer] = []

    async def member(self) -> Peer:
        peer = await self._start(OverlaySettings(peer_records=self.settings))
        for other in self.members:
            await peer.links.ensure_link(other.peer_id, timeout=1)
        self.members.append(peer)
        return peer

    async def light(self, node: Peer) -> Peer:
        peer = await self._start(OverlaySettings(peer_records=self.settings, member=False))
        await peer.links.ensure_link(node.peer_id, timeout=1)
        return peer

    async def _start(self, settings: OverlaySettings) -> Peer:
        peer = Peer(self.network, settings)
        await self.nursery.start(peer.links.run)
        await self.nursery.start(peer.peer_records.run)
        return peer


@asynccontextmanager
async def world(members: int = 4, settings: PeerRecordSettings | None = None) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        made = World(nursery, settings or PeerRecordSettings())
        for _ in range(members):
            await made.member()
        yield made
        nursery.cancel_scope.cancel()


async def test_a_light_client_is_found_by_another_ones_node(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        client, seeker = await four.light(four.members[0]), await four.light(four.members[3])
        await trio.sleep(2)
        assert await seeker.peer_records.find(client.peer_id, timeout=2) is None  # it doesn't want to be found
        client.peer_records.advertise()
        await trio.sleep(2)
        found = await seeker.peer_records.find(client.peer_id, timeout=2)
        assert found is not None
        assert found.relays == (four.members[0].peer_id,)


async def test_a_new_relay_is_told_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        client = await four.light(four.members[0])
        client.peer_records.advertise()
        await trio.sleep(2)
        await client.links.ensure_link(four.members[2].peer_id, timeout=1)
        await trio.sleep(2)
        found = await four.members[1].peer_records.find(client.peer_id, timeout=2)
        assert found is not None
        assert set(found.relays) == {four.members[0].peer_id, four.members[2].peer_id}


async def test_members_are_found_too_and_told_again_before_they_are_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(settings=PeerRecordSettings(interval=10, lifetime=30)) as four:
        await trio.sleep(120)
        for peer in four.members:
            found = await four.members[0].peer_records.find(peer.peer_id, timeout=2)
            assert found is not None
            assert set(found.relays) == {other.peer_id for other in four.members if other is not peer}


async def test_who_went_silent_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    async with world(settings=PeerRecordSettings(lifetime=30)) as four:
        sealed = sign_peer_record(Identity.generate(), [], [(RELAY, [])], NOW + trio.current_time())
        await four.members[0].links.call(four.members[1].peer_id, PUT_METHOD, [sealed.sealed, False], timeout=1)
        assert await four.members[1].peer_records.find(sealed.peer_id, timeout=2) == sealed
        await trio.sleep(31)
        assert await four.members[1].peer_records.find(sealed.peer_id, timeout=2) is None


async def test_an_older_contact_never_replaces_a_newer_one(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        identity, put = Identity.generate(), partial(four.members[0].links.call, timeout=1)
        newer = sign_peer_record(identity, [], [(RELAY, [])], NOW)
        older = sign_peer_record(identity, [], [(OTHER_RELAY, [])], NOW - 10)
        for peer_record in (newer, older):
            await put(four.members[1].peer_id, PUT_METHOD, [peer_record.sealed, False])
        assert await four.members[1].peer_records.find(identity.peer_id, timeout=2) == newer


async def test_a_full_member_refuses_newcomers_until_something_expires(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = PeerRecordSettings(max_kept=5, lifetime=100, interval=1000)
    async with world(1, settings) as one:
        node, client = one.members[0], await one.light(one.members[0])

        async def put() -> None:
            peer_record = sign_peer_record(Identity.generate(), [], [], NOW + trio.current_time())
            await client.links.call(node.peer_id, PUT_METHOD, [peer_record.sealed, False], timeout=1)

        for _ in range(4):
            await put()
        with pytest.raises(CallRefused, match="overloaded"):  # the node keeps its own too
            await put()
        await trio.sleep(101)
        await put()


async def test_a_full_member_sends_a_contact_on_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    async with world(4, PeerRecordSettings(max_kept=4, lifetime=10_000, interval=10_000)) as four:
        await trio.sleep(5)  # each knows all four
        full, client = four.members[0], await four.light(four.members[0])
        for member in four.members[1:]:
            member.peer_records._settings = PeerRecordSettings()
        client.peer_records.advertise()
        await trio.sleep(5)
        found = await four.members[2].peer_records.find(client.peer_id, timeout=2)
        assert found is not None
        assert found.relays == (full.peer_id,)


async def test_a_client_whose_clock_was_put_right_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        client = await four.light(four.members[0])
        right = client.peer_records._clock
        client.peer_records._clock = lambda: right() + 60
        client.peer_records.advertise()
        await trio.sleep(600)
        assert await four.members[1].peer_records.find(client.peer_id, timeout=2) is None
        client.peer_records._clock = right
        await trio.sleep(120)
        assert await four.members[1].peer_records.find(client.peer_id, timeout=2) is not None


async def test_lookups_for_one_peer_are_rationed(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        client = await four.light(four.members[0])
        ask = partial(client.links.call, four.members[0].peer_id, GET_METHOD, timeout=3)
        wanted = Identity.generate().peer_id

        async def ask_often() -> None:
            for _ in range(200):
                await ask([wanted, True])

        with pytest.raises(CallRefused, match="too many lookups"):
            await ask_often()
        await ask([wanted, False])


async def test_members_that_lie_invent_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        forged = sign_peer_record(Identity.generate(), [], [(RELAY, [])], NOW).sealed
        wanted = Identity.generate().peer_id

        async def lie(caller: str, body: object) -> object:
            return forged

        for liar in four.members[1:]:
            liar.links._handlers[GET_METHOD] = lie
        assert await four.members[0].peer_records.find(wanted, timeout=2) is None
