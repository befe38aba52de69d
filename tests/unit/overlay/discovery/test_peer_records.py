"""A peer that can't be dialled is found through what it said of itself, by any other, while it is true."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from overlay.discovery.lookup import Lookup
from overlay.discovery.peer_record import PeerRecord
from overlay.discovery.peer_records import GET_METHOD, PUT_METHOD, PeerRecords
from overlay.errors import CallRefused
from overlay.identity import Identity
from overlay.libp2p.signed_peer_record import open_peer_record, sign_peer_record
from overlay.settings import OverlaySettings, PeerRecordSettings
from tests.unit.overlay.discovery.lying_links import LyingLinks
from tests.unit.overlay.discovery.test_lookup import AddressedDialler
from tests.unit.overlay.memory_network import MemoryNetwork

NOW = 1_700_000_000.0
RELAY, OTHER_RELAY = Identity.generate().peer_id, Identity.generate().peer_id


class Peer:
    def __init__(self, network: MemoryNetwork, settings: OverlaySettings) -> None:
        self.identity = Identity.generate()
        dialler = AddressedDialler(network, self.identity.peer_id)
        network.diallers[self.peer_id] = dialler
        self.clock_error = 0.0
        self.signed = 0
        self.links = LyingLinks(dialler, settings, member=settings.member)
        self.links.lies = {}
        self.lookup = Lookup(self.identity, dialler, self.links, settings)
        self.peer_records = PeerRecords(
            self.links,
            self.lookup,
            settings.peer_records,
            member=settings.member,
            says=lambda: sorted(self.lookup.members()),
            own=self.peer_record,
            open_sealed=open_peer_record,
            clock=lambda: NOW + trio.current_time() + self.clock_error,
        )
        self.links.on_up(lambda *_: self.peer_records.note_change())
        self.links.on_down(lambda _: self.peer_records.note_change())

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    def peer_record(self, now: float) -> PeerRecord:
        self.signed += 1
        return sign_peer_record(self.identity, [], [(member, []) for member in self.lookup.members()], now)


class World:
    """Members that know each other, and light clients."""

    def __init__(self, nursery: trio.Nursery, settings: PeerRecordSettings) -> None:
        self.network = MemoryNetwork(nursery)
        self.nursery = nursery
        self.settings = settings
        self.members: list[Peer] = []

    async def member(self, settings: PeerRecordSettings | None = None) -> Peer:
        peer = await self._start(OverlaySettings(peer_records=settings or self.settings))
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
        assert await seeker.peer_records.find(client.peer_id, timeout=2) is None  # it isn't advertised
        client.peer_records.advertise()
        await trio.sleep(2)
        found = await seeker.peer_records.find(client.peer_id, timeout=2)
        assert found is not None
        assert found.relays == (four.members[0].peer_id,)


async def test_a_new_relay_is_published_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        client = await four.light(four.members[0])
        client.peer_records.advertise()
        await trio.sleep(2)
        await client.links.ensure_link(four.members[2].peer_id, timeout=1)
        await trio.sleep(2)
        found = await four.members[1].peer_records.find(client.peer_id, timeout=2)
        assert found is not None
        assert set(found.relays) == {four.members[0].peer_id, four.members[2].peer_id}


async def test_nothing_is_signed_while_there_is_nothing_new_to_say(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        await trio.sleep(5)
        before = four.members[0].signed
        for _ in range(10):
            four.members[0].peer_records.note_change()
            await trio.sleep(1)
        assert four.members[0].signed == before
        await four.light(four.members[0])  # no member, so nothing new either
        await trio.sleep(1)
        assert four.members[0].signed == before
        await four.member()
        await trio.sleep(1)
        assert four.members[0].signed > before


async def test_members_are_found_too_and_published_again_before_they_are_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(settings=PeerRecordSettings(interval=10, lifetime=30)) as four:
        await trio.sleep(120)
        for peer in four.members:
            found = await four.members[0].peer_records.find(peer.peer_id, timeout=2)
            assert found is not None
            assert set(found.relays) == {other.peer_id for other in four.members if other is not peer}


async def test_a_peer_that_fell_silent_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    async with world(settings=PeerRecordSettings(lifetime=30)) as four:
        sealed = sign_peer_record(Identity.generate(), [], [(RELAY, [])], NOW + trio.current_time())
        await four.members[0].links.call(four.members[1].peer_id, PUT_METHOD, [sealed.sealed, False], timeout=1)
        assert await four.members[1].peer_records.find(sealed.peer_id, timeout=2) == sealed
        await trio.sleep(31)
        assert await four.members[1].peer_records.find(sealed.peer_id, timeout=2) is None


async def test_an_older_record_never_replaces_a_newer_one(autojump_clock: trio.testing.MockClock) -> None:
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


async def test_a_full_member_sends_a_record_on_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    async with world(0) as four:
        full = await four.member(PeerRecordSettings(max_kept=4, lifetime=10_000, interval=10_000))
        for _ in range(3):
            await four.member()
        await trio.sleep(5)  # each knows all four
        client = await four.light(full)
        client.peer_records.advertise()
        await trio.sleep(5)
        found = await four.members[2].peer_records.find(client.peer_id, timeout=2)
        assert found is not None
        assert found.relays == (full.peer_id,)


async def test_a_client_whose_clock_was_put_right_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as four:
        client = await four.light(four.members[0])
        client.clock_error = 60.0
        client.peer_records.advertise()
        await trio.sleep(600)
        assert await four.members[1].peer_records.find(client.peer_id, timeout=2) is None
        client.clock_error = 0.0
        await trio.sleep(120)
        assert await four.members[1].peer_records.find(client.peer_id, timeout=2) is not None


async def test_lookups_for_one_peer_are_limited(autojump_clock: trio.testing.MockClock) -> None:
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
            liar.links.lies[GET_METHOD] = lie
        assert await four.members[0].peer_records.find(wanted, timeout=2) is None


async def test_what_later_versions_say_more_is_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    async with world(members=2) as two:
        await trio.sleep(2)
        one, other = two.members
        sealed = one.peer_record(NOW + trio.current_time()).sealed
        await one.links.call(other.peer_id, PUT_METHOD, [sealed, False, "more"], timeout=1)
        assert await one.links.call(other.peer_id, GET_METHOD, [one.peer_id, False, "more"], timeout=1) == sealed
