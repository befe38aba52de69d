"""Lookups among many peers in one process, against the answer that one who knows everyone would give."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, islice

import pytest
import trio
import trio.testing

from overlay.discovery.density import MOST_OTHERS
from overlay.discovery.home import HOME_SIZE
from overlay.discovery.keyspace import POSITION_BITS, nearest, peer_position
from overlay.discovery.lookup import Lookup
from overlay.errors import Unreachable
from overlay.identity import Identity
from overlay.settings import CallLimits, OverlaySettings
from overlay.tasks import TaskStatus
from tests.unit.overlay.discovery.lying_links import LyingLinks
from tests.unit.overlay.memory_network import MemoryDialler, MemoryNetwork

IDENTITIES = [Identity.from_seed(hashlib.sha256(b"lookup %d" % number).digest()) for number in range(60)]
WANTED = 5
SOME = 22  # peers: more than keep a resource; what a network costs grows with the square
SETTLING = 10.0  # seconds
MEMBER = OverlaySettings(neighbourhood_size=8)
LARGE = OverlaySettings(calls=CallLimits(ping_interval=3600))
MOST_CALLS = 8
"""Per lookup, forwarded ones counted, as often as not answered without any."""
LIGHT = OverlaySettings(neighbourhood_size=8, member=False)


class AddressedDialler(MemoryDialler):
    def listen_addresses(self) -> list[str]:
        return [f"/ip4/192.0.2.1/tcp/4001/p2p/{self.peer_id}"]


@dataclass
class Peer:
    dialler: AddressedDialler
    links: LyingLinks
    lookup: Lookup
    stop: trio.CancelScope

    @property
    def peer_id(self) -> str:
        return self.dialler.peer_id


class Crowd:
    """Peers on one memory network, which join by the first of them."""

    def __init__(self, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self.network = network
        self.nursery = nursery
        self.peers: dict[str, Peer] = {}

    async def join(self, identity: Identity, settings: OverlaySettings = MEMBER) -> Peer:
        dialler = AddressedDialler(self.network, identity.peer_id)
        self.network.diallers[identity.peer_id] = dialler
        links = LyingLinks(dialler, settings, member=settings.member)
        links.lies = {}
        peer = Peer(dialler, links, Lookup(identity, dialler, links, settings), trio.CancelScope())

        async def run(*, task_status: TaskStatus[None]) -> None:
            with peer.stop:
                async with trio.open_nursery() as nursery:
                    await nursery.start(links.run)
                    nursery.start_soon(peer.lookup.run)
                    task_status.started()

        await self.nursery.start(run)
        first = next(iter(self.peers.values()), None)
        if settings.member:
            self.peers[identity.peer_id] = peer
        if first is not None:
            await links.ensure_link(first.peer_id, timeout=1)
            if settings.member:
                await peer.lookup.self_lookup()
        return peer

    async def kill(self, peer: Peer) -> None:
        del self.peers[peer.peer_id], self.network.diallers[peer.peer_id]
        peer.stop.cancel()
        for stream in peer.dialler.streams:
            await stream.reset()
        await trio.testing.wait_all_tasks_blocked()

    def truly_nearest(self, position: int) -> list[str]:
        return nearest(position, self.peers, WANTED)


@asynccontextmanager
async def crowd(count: int) -> AsyncIterator[Crowd]:
    """Peers that joined one after the other, a few seconds ago."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(MemoryNetwork(nursery), nursery)
        for identity in IDENTITIES[:count]:
            await crowd.join(identity)
        await trio.sleep(SETTLING)
        yield crowd
        nursery.cancel_scope.cancel()


def positions(count: int) -> list[int]:
    draw = random.Random(7)
    return [draw.getrandbits(POSITION_BITS) for _ in range(count)]


async def test_everyone_finds_the_peers_that_are_truly_nearest(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(30) as all_of_them:
        for position, asker in zip(positions(30), all_of_them.peers.values(), strict=True):
            assert await asker.lookup.nearest(position, WANTED) == all_of_them.truly_nearest(position)


class FixedTable:
    """A routing table that holds these peers."""

    def __init__(self, peer_ids: Collection[str]) -> None:
        self.peer_ids = peer_ids

    def __len__(self) -> int:
        return len(self.peer_ids)

    def known_near(self, position: int, count: int) -> list[str]:
        return nearest(position, self.peer_ids, count)

    async def add(self, peer_id: str) -> None:
        raise NotImplementedError

    def remove(self, peer_id: str) -> None:
        raise NotImplementedError

    async def find_members_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        raise NotImplementedError

    def note_failure(self, peer_id: str) -> None:
        raise NotImplementedError


async def test_who_has_no_link_left_finds_the_nearest_from_its_routing_table(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with crowd(SOME) as all_of_them:
        identity = Identity.from_seed(bytes(32))
        dialler = AddressedDialler(all_of_them.network, identity.peer_id)
        all_of_them.network.diallers[identity.peer_id] = dialler
        links = LyingLinks(dialler, MEMBER, member=True)
        links.lies = {}
        await all_of_them.nursery.start(links.run)
        position = positions(1)[0]
        farthest = nearest(position, all_of_them.peers, SOME)[-3:]
        lookup = Lookup(identity, dialler, links, MEMBER, table=FixedTable(farthest))
        assert lookup.members() == []
        found, _ = await lookup.look_up(position, WANTED)
        assert [name for name in found if name != identity.peer_id][:WANTED] == all_of_them.truly_nearest(position)


@asynccontextmanager
async def newcomer(crowd: Crowd, contacts: Collection[str]) -> AsyncIterator[tuple[LyingLinks, Lookup]]:
    """A peer that is linked to these only, and doesn't look who is near it."""
    identity = Identity.from_seed(bytes(32))
    dialler = AddressedDialler(crowd.network, identity.peer_id)
    crowd.network.diallers[identity.peer_id] = dialler
    links = LyingLinks(dialler, MEMBER, member=True)
    links.lies = {}
    lookup = Lookup(identity, dialler, links, MEMBER)
    await crowd.nursery.start(links.run)
    for contact in contacts:
        await links.ensure_link(contact, timeout=1)
    yield links, lookup


async def test_lookups_that_a_deadline_ends_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    async def never(caller: str, body: object) -> object:
        await trio.sleep_forever()

    async with crowd(SOME) as all_of_them:
        position, *contacts = positions(1)[0], *list(all_of_them.peers)[:3]
        async with newcomer(all_of_them, contacts) as (_, lookup):

            def counts() -> tuple[int, int]:
                counted = lookup.statistics()
                return counted.lookups, counted.lookups_cut_short

            await lookup.look_up(position, WANTED)
            assert counts() == (1, 0)
            for peer in all_of_them.peers.values():
                peer.links.lies = dict.fromkeys(("overlay/route", "overlay/nearest"), never)
            await lookup.look_up(position, WANTED)
            assert counts() == (2, 1), "nobody answered in time"
            with trio.move_on_after(0.1):
                await lookup.look_up(position, WANTED)
            assert counts() == (3, 2), "a deadline of whoever asked"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lookup.look_up, position, WANTED)
                await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
            assert counts() == (4, 2), "whoever asked left"


async def test_who_lives_is_found_again_soon_after_one_dial_failed_and_who_fails_again_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with crowd(30) as all_of_them:
        position = positions(1)[0]
        victim, *others = nearest(position, all_of_them.peers, 30)

        async def fail_to_dial() -> None:
            dialler = all_of_them.network.diallers.pop(victim)
            with pytest.raises(Unreachable):
                await links.ensure_link(victim, timeout=1)
            all_of_them.network.diallers[victim] = dialler

        async def is_found() -> bool:
            found, is_exact = await lookup.look_up(position, WANTED)
            assert is_exact
            return victim in found

        async with newcomer(all_of_them, others[-3:]) as (links, lookup):
            assert await is_found()
            await fail_to_dial()
            assert not await is_found(), "others still name who died"
            await trio.sleep(6)
            assert await is_found()
            await fail_to_dial()
            await trio.sleep(6)
            assert not await is_found(), "who fails again and again is gone"
            await trio.sleep(6)
            assert await is_found()


async def join_together(crowd: Crowd, identities: list[Identity]) -> None:
    async with trio.open_nursery() as nursery:
        for identity in identities:
            nursery.start_soon(crowd.join, identity, LARGE)
    await trio.sleep(SETTLING)


def homes_lack(crowd: Crowd) -> dict[str, set[str]]:
    """Per peer who belongs into its home and isn't linked there."""
    everybody = {peer_id: peer_position(peer_id) for peer_id in crowd.peers}
    lacking: dict[str, set[str]] = {}
    for peer_id, peer in crowd.peers.items():
        distances = {other: everybody[other] ^ everybody[peer_id] for other in everybody if other != peer_id}
        if len(distances) >= HOME_SIZE:
            height = sorted(distances.values())[HOME_SIZE - 2].bit_length()
            distances = {other: distance for other, distance in distances.items() if distance.bit_length() <= height}
        lacking[peer_id] = distances.keys() - set(peer.lookup.neighbours())
    return {peer_id: others for peer_id, others in lacking.items() if others}


async def assert_all_is_found(crowd: Crowd, draw: random.Random) -> None:
    """By what all know around themselves, by lookups of whoever, and by what each says that it is responsible for."""
    everybody = {peer_id: peer_position(peer_id) for peer_id in crowd.peers}
    assert homes_lack(crowd) == {}, "whoever belongs into a home is linked"
    for peer in crowd.peers.values():
        assert all(peer.lookup.keeps(neighbour) for neighbour in peer.lookup.neighbours())
    for _ in range(40):
        position = draw.getrandbits(POSITION_BITS)
        truly_nearest = nearest(position, everybody, LARGE.neighbourhood_size)
        asker = draw.choice(list(crowd.peers.values()))
        assert await asker.lookup.nearest(position, LARGE.neighbourhood_size) == truly_nearest
        for peer in crowd.peers.values():
            is_responsible = peer.lookup.is_responsible(position, LARGE.neighbourhood_size)
            assert is_responsible == (peer.peer_id in truly_nearest)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [40, pytest.param(64, marks=pytest.mark.slow)])
async def test_all_is_found_in_larger_networks_also_after_joins_and_departures(
    size: int, autojump_clock: trio.testing.MockClock
) -> None:
    draw = random.Random(size)
    identities = [Identity.from_seed(hashlib.sha256(b"large %d" % number).digest()) for number in range(size)]
    async with crowd(0) as many:
        for identity in identities[: size // 2]:
            await many.join(identity, LARGE)
        await join_together(many, identities[size // 2 : size - 12])
        await assert_all_is_found(many, draw)
        await join_together(many, identities[size - 12 :])
        await assert_all_is_found(many, draw)
        for victim in draw.sample(list(many.peers.values())[1:], 12):
            await many.kill(victim)
        await trio.sleep(SETTLING)
        await assert_all_is_found(many, draw)
        dials = sum(len(peer.dialler.dialled) for peer in many.peers.values())
        calls = sum(peer.links.statistics().calls_made for peer in many.peers.values())
        await assert_all_is_found(many, draw)
        assert sum(len(peer.dialler.dialled) for peer in many.peers.values()) == dials, "lookups open no links"
        calls = sum(peer.links.statistics().calls_made for peer in many.peers.values()) - calls
        assert calls <= 40 * MOST_CALLS


def ground(position: int, members: Collection[str], wanted: int) -> list[Identity]:
    """Identities nearer to a position than all these members."""
    free = min(peer_position(member) ^ position for member in members)
    candidates = (Identity.from_seed(hashlib.sha256(b"ground %d" % number).digest()) for number in count())
    return list(islice((one for one in candidates if peer_position(one.peer_id) ^ position < free), wanted))


@pytest.mark.timeout(300)
async def test_around_a_resource_to_which_silent_ids_were_ground_others_of_its_region_are_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def never(caller: str, body: object) -> object:
        await trio.sleep_forever()
        return None

    async with crowd(0) as many:
        for identity in IDENTITIES[:24]:
            await many.join(identity, LARGE)
        await trio.sleep(SETTLING)
        honest, position = set(many.peers), positions(1)[0]
        for identity in ground(position, honest, 24):
            peer = await many.join(identity, LARGE)
            peer.links.lies = dict.fromkeys(("overlay/home", "overlay/route", "overlay/nearest"), never)
        await trio.sleep(60)
        found: Counter[str] = Counter()
        for asker in sorted(honest):
            neighbourhood = await many.peers[asker].lookup.neighbourhood(position, 20)
            assert neighbourhood[:20] == nearest(position, many.peers, 20)
            assert len({*neighbourhood}) == len(neighbourhood) <= 20 + MOST_OTHERS
            found.update(honest.intersection(neighbourhood))
            assert len(honest.intersection(neighbourhood)) >= 8
        responsible = {name for name in found if many.peers[name].lookup.is_responsible(position, 20, 8)}
        assert len(responsible) >= 0.95 * len(found), "who is written to takes it"
        assert all(many.peers[asker].lookup.density.size < 70 for asker in honest), "none counts the ground ids"
        far = position ^ 1 << POSITION_BITS - 1
        everywhere = [await many.peers[asker].lookup.neighbourhood(far, 20) for asker in sorted(honest)[:5]]
        assert all(len(neighbourhood) == 20 for neighbourhood in everywhere), "only there it is dense"


async def test_who_is_named_but_is_nobody_keeps_no_newcomer_from_its_neighbours(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with crowd(SOME) as many:
        nobodies = [[Identity.generate().peer_id, ["/ip4/192.0.2.9/tcp/1"]] for _ in range(30)]
        newcomer = IDENTITIES[50]

        async def lie(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            return [POSITION_BITS, False, nobodies] if caller == newcomer.peer_id else [0, True, []]

        for liar in nearest(peer_position(newcomer.peer_id), many.peers, 2):
            many.peers[liar].links.lies["overlay/home"] = lie
        joined = await many.join(newcomer)
        await trio.sleep(SETTLING)
        assert set(joined.lookup.neighbours()) == many.peers.keys() - {newcomer.peer_id}
        before = len(joined.dialler.dialled)
        await trio.sleep(120)
        assert len(joined.dialler.dialled) - before < 10 * len(nobodies), "they are tried ever less often"


async def test_a_network_smaller_than_the_neighbourhood_is_known_whole_and_asked_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with crowd(6) as six:
        asker = next(iter(six.peers.values()))
        await asker.lookup.nearest(0, WANTED)
        calls = asker.links.statistics().calls_made
        for position in positions(5):
            assert await asker.lookup.nearest(position, WANTED) == six.truly_nearest(position)
        assert asker.links.statistics().calls_made == calls


async def test_who_joins_is_found_at_once_by_all(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(20) as twenty:
        for identity in IDENTITIES[20:25]:
            await trio.sleep(10)  # longer than foreign regions are believed
            newcomer = await twenty.join(identity)
            for position in positions(3):
                for asker in (newcomer, *list(twenty.peers.values())[:5]):
                    assert await asker.lookup.nearest(position, WANTED) == twenty.truly_nearest(position)


async def test_who_died_is_left_out_and_the_next_nearest_takes_the_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with crowd(SOME) as many:
        asker, *others = many.peers.values()
        position = positions(1)[0]
        for _ in range(4):
            victim = next(peer for peer in others if peer.peer_id in many.truly_nearest(position))
            others.remove(victim)
            await many.kill(victim)
            assert await asker.lookup.nearest(position, WANTED) == many.truly_nearest(position)


async def test_a_peer_that_names_nobodies_changes_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(SOME) as many:
        position = positions(1)[0]
        liar = many.peers[many.truly_nearest(position)[0]]
        nobodies = [Identity.generate().peer_id for _ in range(300)]

        async def lie(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            return [[peer_id, ["/ip4/192.0.2.9/tcp/1"]] for peer_id in nobodies]

        liar.links.lies["overlay/nearest"] = lie
        asker = await many.join(IDENTITIES[50])
        assert await asker.lookup.nearest(position, WANTED) == many.truly_nearest(position)
        assert len(set(asker.dialler.dialled) & set(nobodies)) < 100


async def test_answers_of_bad_form_are_taken_as_none(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(12) as twelve:
        position = positions(1)[0]
        for peer, answer in zip(list(twelve.peers.values())[4:8], (None, 7, [["x", []]], [[1, 2]]), strict=True):

            async def answer_badly(caller: str, body: object, answer: object = answer) -> object:
                await trio.lowlevel.checkpoint()
                return answer

            peer.links.lies["overlay/nearest"] = answer_badly
        asker = await twelve.join(IDENTITIES[50])
        assert await asker.lookup.nearest(position, WANTED) == twelve.truly_nearest(position)


async def test_a_light_client_asks_one_node_and_the_next_when_that_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with crowd(20) as twenty:
        first, second, *_ = twenty.peers.values()
        client = await twenty.join(IDENTITIES[50], LIGHT)
        await client.links.ensure_link(second.peer_id, timeout=1)
        position = positions(1)[0]
        assert await client.lookup.nearest(position, WANTED) == twenty.truly_nearest(position)
        assert set(client.dialler.dialled) == {first.peer_id, second.peer_id}
        await twenty.kill(first)
        assert await client.lookup.nearest(position, WANTED) == twenty.truly_nearest(position)
        assert client.peer_id not in await second.lookup.nearest(position, 20)
