"""Bootstrap against a played network: each test says which peers can be reached."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from overlay.discovery.bootstrap import Bootstrap, delay_before
from overlay.discovery.bootstrap_source import BootstrapSource, SourceKind
from overlay.errors import BootstrapFailed, Unreachable
from overlay.identity import Identity
from overlay.settings import OverlaySettings

OWN, BOOT, OTHER = (Identity.generate().peer_id for _ in range(3))
ADDRESS = f"/ip4/192.0.2.1/tcp/4001/p2p/{BOOT}"


class PlayedNetwork:
    """Satisfies `BootstrapPeer`."""

    peer_id = OWN

    def __init__(self) -> None:
        self.reachable: set[str] = set()
        self.linked: set[str] = set()
        self.remembered: list[str] = []
        self.dials: list[tuple[float, str]] = []
        self.met: list[tuple[float, str]] = []
        self.named: list[str] = []  # by the bootstrap peer, which has no place itself
        self.neighbours = {BOOT}
        self.bootstrap: Bootstrap | None = None
        self.found: list[str] = []  # by names and the like
        self.resolved = 0
        self.is_first = False

    def members(self) -> list[str]:
        return sorted(self.linked)

    def is_linked(self, peer_id: str) -> bool:
        return peer_id in self.linked

    def remembered_members(self) -> list[str]:
        return self.remembered

    async def link_through(self, multiaddr: str) -> str:
        peer_id = multiaddr.rpartition("/")[2]
        await self.link(peer_id)
        for named in self.named[:1]:
            self.linked = self.linked - {peer_id} | {named}
            return named
        return peer_id

    async def link(self, peer_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.dials.append((trio.current_time(), peer_id))
        if peer_id not in self.reachable:
            raise Unreachable(peer_id, "connect")
        self.linked.add(peer_id)
        self.change()

    def is_neighbour(self, peer_id: str) -> bool:
        return peer_id in self.neighbours

    def note_first(self) -> None:
        self.is_first = True

    async def addresses(self, source: BootstrapSource) -> list[str]:
        await trio.lowlevel.checkpoint()
        if source.kind is SourceKind.PEER:
            return [source.text]
        self.resolved += 1
        if not self.found:
            raise BootstrapFailed("nobody answers")
        return [f"/ip4/192.0.2.1/tcp/1/p2p/{peer_id}" for peer_id in self.found]

    async def meet_through(self, peer_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.met.append((trio.current_time(), peer_id))

    def lose(self, peer_id: str) -> None:
        self.linked.discard(peer_id)
        self.change()

    def change(self) -> None:
        assert self.bootstrap is not None
        self.bootstrap.note_change()


@pytest.fixture
async def network(nursery: trio.Nursery) -> PlayedNetwork:
    played = PlayedNetwork()
    played.bootstrap = Bootstrap(played, OverlaySettings(bootstrap=(ADDRESS,)), played, random.Random(1))
    await nursery.start(played.bootstrap.run)
    return played


async def test_an_unreachable_bootstrap_peer_is_tried_for_ever_ever_less_often(
    network: PlayedNetwork, autojump_clock: MockClock
) -> None:
    await trio.sleep(3600)
    times = [time for time, _ in network.dials]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] <= 0.25
    assert max(gaps) <= 15
    assert min(gaps[-50:]) >= 7.5
    network.reachable.add(BOOT)
    await trio.sleep(15)
    assert network.linked == {BOOT}


async def test_a_linked_bootstrap_peer_is_left_alone_until_it_is_lost(
    network: PlayedNetwork, autojump_clock: MockClock
) -> None:
    network.reachable.add(BOOT)
    await trio.sleep(3600)
    dials = len(network.dials)
    assert network.linked == {BOOT}
    await trio.sleep(3600)
    assert len(network.dials) == dials
    network.lose(BOOT)
    await trio.sleep(1)
    assert network.linked == {BOOT}


async def test_a_bootstrap_peer_that_drops_every_link_is_not_dialled_in_a_tight_loop(
    network: PlayedNetwork, autojump_clock: MockClock
) -> None:
    network.reachable.add(BOOT)
    for _ in range(1000):
        await trio.sleep(0.1)
        network.lose(BOOT)
    assert len(network.dials) < 50


async def test_a_bootstrap_peer_that_names_others_is_left_alone_while_any_of_them_lives(
    network: PlayedNetwork, autojump_clock: MockClock
) -> None:
    network.reachable, network.named = {BOOT}, [OTHER]
    await trio.sleep(600)
    assert network.linked == {OTHER}
    assert {peer_id for _, peer_id in network.met} == {OTHER}
    dials = len(network.dials)
    assert dials < 10
    network.lose(OTHER)
    await trio.sleep(15)
    assert network.linked == {OTHER}
    assert len(network.dials) == dials + 1


async def test_an_isolated_peer_tries_the_members_that_it_remembers(
    network: PlayedNetwork, autojump_clock: MockClock
) -> None:
    network.remembered = [OTHER]
    network.reachable = {OTHER}
    network.linked = {OTHER}
    network.change()
    await trio.sleep(100)
    assert OTHER not in [peer_id for _, peer_id in network.dials]
    network.lose(OTHER)
    await trio.sleep(1)
    assert network.linked == {OTHER}


async def test_a_peer_asks_for_its_place_through_a_bootstrap_peer_and_again_every_quarter_of_an_hour(
    network: PlayedNetwork, autojump_clock: MockClock
) -> None:
    await trio.sleep(3600)
    assert network.met == []
    network.reachable.add(BOOT)
    await trio.sleep(20)
    assert [peer_id for _, peer_id in network.met] == [BOOT]
    for _ in range(1000):
        network.change()
    await trio.sleep(60)
    assert len(network.met) <= 2, "links that come and go ask nobody"
    met = len(network.met)
    await trio.sleep(4 * 3600)
    assert 12 <= len(network.met) - met <= 22


async def test_a_bootstrap_peer_that_is_no_neighbour_may_let_us_go(
    network: PlayedNetwork, autojump_clock: MockClock
) -> None:
    network.reachable.add(BOOT)
    await trio.sleep(20)
    network.neighbours.clear()
    network.lose(BOOT)
    dials = len(network.dials)
    await trio.sleep(600)
    assert len(network.dials) == dials
    await trio.sleep(600)
    assert len(network.dials) == dials + 1


@pytest.fixture
async def named(nursery: trio.Nursery) -> PlayedNetwork:
    """Joins through whoever is at a name."""
    played = PlayedNetwork()
    settings = OverlaySettings(bootstrap=("seed.example:7000",))
    played.bootstrap = Bootstrap(played, settings, played, random.Random(1))
    await nursery.start(played.bootstrap.run)
    return played


async def test_a_name_is_asked_until_one_of_those_found_lets_us_in_and_again_when_all_are_lost(
    named: PlayedNetwork, autojump_clock: MockClock
) -> None:
    await trio.sleep(60)
    assert 4 < named.resolved < 15
    assert not named.is_first
    named.found, named.reachable = [OWN, BOOT, OTHER], {OTHER}
    await trio.sleep(20)
    assert named.linked == {OTHER}
    resolved = named.resolved
    await trio.sleep(600)
    assert named.resolved == resolved
    named.found, named.reachable = [BOOT], {BOOT}
    named.lose(OTHER)
    await trio.sleep(2)
    assert named.linked == {BOOT}
    assert not named.is_first


async def test_who_finds_itself_alone_by_its_name_begins_the_network_and_finds_others_later(
    named: PlayedNetwork, autojump_clock: MockClock
) -> None:
    named.found = [OWN]
    await trio.sleep(1)
    assert named.is_first
    named.found, named.reachable = [OWN, OTHER], {OTHER}
    await trio.sleep(20)
    assert named.linked == {OTHER}


def test_delays_grow_to_a_limit_with_jitter() -> None:
    settings = OverlaySettings(retry_delay=1.0, retry_delay_limit=8.0)
    randomness = random.Random(1)
    for attempts, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (100, 8.0), (10**6, 8.0)):
        delays = [delay_before(attempts, settings, randomness) for _ in range(100)]
        assert longest / 2 <= min(delays) < max(delays) <= longest
