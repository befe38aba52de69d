"""How a home is kept, with a network that answers at once."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from overlay.discovery.home import HOME_SIZE, Home
from overlay.discovery.home_upkeep import INTERVAL, HomeUpkeep
from overlay.discovery.home_view import METHOD as HOME_METHOD
from overlay.discovery.home_view import HomeView
from overlay.discovery.keyspace import POSITION_BITS, nearest, peer_position
from overlay.discovery.size_estimate import SizeEstimate
from overlay.errors import CallFailed
from overlay.identity import Identity
from tests.unit.overlay.discovery.home_world import HomeWorld

IDS = [Identity.from_seed(number.to_bytes(32, "big")).peer_id for number in range(1, 161)]
OWN, *OTHERS = IDS
FARTHEST = POSITION_BITS - 1
FAR = [peer for peer in OTHERS if (peer_position(peer) ^ peer_position(OWN)) >> FARTHEST]
NEAR = [peer for peer in OTHERS if peer not in FAR]


class AnsweringNetwork:
    """Satisfies `overlay.discovery.home_upkeep.Searching`: everybody answers, and whoever is looked up is found."""

    def __init__(self, home: Home, alive: list[str]) -> None:
        self.alive = alive
        self.unreachable: set[str] = set()
        self.tried: list[str] = []
        """Who was dialled, in order."""
        self.noted = 0
        """How often links were told to look at what is kept."""
        self._home = home
        self._linked: dict[str, None] = {}

    def members(self) -> list[str]:
        return list(self._linked)

    def is_dialable(self, peer_id: str) -> bool:
        return peer_id in self.alive

    async def ask_home(self, peer_id: str, around: int, height: int) -> HomeView:
        await trio.lowlevel.checkpoint()
        return HomeView(POSITION_BITS, False, tuple(self.alive))

    async def look_up(self, position: int, count: int) -> tuple[list[str], bool]:
        await trio.lowlevel.checkpoint()
        return nearest(position, self.alive, count), True

    async def link(self, peer_id: str) -> bool:
        self.tried.append(peer_id)
        await trio.lowlevel.checkpoint()
        if peer_id in self.unreachable:
            return False
        self._linked[peer_id] = None
        self._home.add(peer_id, peer_position(peer_id))
        return True

    def note_keeping(self) -> None:
        self.noted += 1


async def test_a_thin_bucket_that_has_filled_is_not_kept_for_an_hour(autojump_clock: trio.testing.MockClock) -> None:
    home = Home(peer_position(OWN))
    network = AnsweringNetwork(home, NEAR + FAR[:10])
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(1))
    await network.link(NEAR[0])
    await upkeep.run_once()
    assert home.thin_buckets() == [FARTHEST]
    assert {*FAR[:10]} <= {*network.members()}
    network.alive = IDS
    for newcomer in FAR[10:]:
        await network.link(newcomer)
    assert len(FAR) >= HOME_SIZE
    assert home.keeps_bucket(FARTHEST)
    await trio.sleep(INTERVAL)
    await upkeep.run_once()
    assert not home.keeps_bucket(FARTHEST)
    assert sum(map(upkeep.is_far_link, FAR)) == 2


async def test_links_are_told_when_others_are_needed_than_before_though_nobody_came_or_went(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """They kept what had been needed for as long as nothing else happened: one peer of 60 was linked with all."""
    home = Home(peer_position(OWN))
    network = AnsweringNetwork(home, NEAR + FAR[:10])
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(1))
    for peer in network.alive:
        await network.link(peer)
    await upkeep.run_once()
    assert home.keeps_bucket(FARTHEST)
    before = network.noted
    assert before
    network.alive = IDS
    for newcomer in FAR[10:]:
        await network.link(newcomer)
    await trio.sleep(INTERVAL)
    await upkeep.run_once()
    assert sum(map(upkeep.is_far_link, FAR)) == 2, "all others of the bucket are needed no more"
    assert network.noted > before


async def test_it_is_told_when_others_have_to_be_linked_though_nobody_came_or_went(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Replicas compare with those. Who was linked when its bucket was found thin was told to nobody: it was compared
    with an hour later, unless others came or went."""
    home = Home(peer_position(OWN))
    network = AnsweringNetwork(home, NEAR + FAR[:10])
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(1))
    told: list[set[str]] = []
    upkeep.on_kept_change(lambda: told.append({*home.kept_members()}))
    for peer in network.alive:
        await network.link(peer)
    assert not {*FAR[:10]} & {*home.kept_members()}
    await upkeep.run_once()
    assert told
    assert {*FAR[:10]} <= told[-1]
    count = len(told)
    await upkeep.run_once()
    assert len(told) == count
    network.alive = IDS
    for newcomer in FAR[10:]:
        await network.link(newcomer)
    await trio.sleep(INTERVAL)
    await upkeep.run_once()
    assert len(told) == count + 1
    assert not {*FAR} & told[-1]


class HalvedNetwork(AnsweringNetwork):
    """Each knows its own half alone: its home reaches no farther."""

    async def ask_home(self, peer_id: str, around: int, height: int) -> HomeView:
        view = await super().ask_home(peer_id, around, height)
        half = FAR if peer_id in FAR else NEAR
        return HomeView(view.height, view.is_equal, tuple(name for name in view.names if name in half))


async def test_what_a_home_leaves_as_it_narrows_is_looked_up_soon(autojump_clock: trio.testing.MockClock) -> None:
    home = Home(peer_position(OWN))
    near = nearest(peer_position(OWN), NEAR, len(NEAR))
    *before, one, other, another = near[5::3]
    network = AnsweringNetwork(home, [OWN, *near[:5], *before, *FAR[:8]])
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(1))
    await network.link(near[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.run)
        upkeep.note_up(near[0])
        await trio.sleep(20)
        assert home.height == POSITION_BITS
        network.alive += one, other, another
        for newcomer in one, other, another:
            await network.link(newcomer)
            upkeep.note_up(newcomer)
            assert home.is_confirmed(trio.current_time()), "another is among the three nearest"
        assert home.height < POSITION_BITS
        await trio.sleep(5)
        assert home.thin_buckets() == [FARTHEST]
        nursery.cancel_scope.cancel()


class VagueNetwork(HalvedNetwork):
    """Whose next few lookups aren't exact."""

    vague = 0
    lookups = 0

    async def look_up(self, position: int, count: int) -> tuple[list[str], bool]:
        self.lookups += 1
        self.vague -= 1
        found, _ = await super().look_up(position, count)
        return found, self.vague < 0


@pytest.mark.parametrize("vague", [12, 10**6])
async def test_a_lookup_that_was_not_exact_is_repeated_soon_and_then_ever_later(
    vague: int, autojump_clock: trio.testing.MockClock
) -> None:
    home = Home(peer_position(OWN))
    near = nearest(peer_position(OWN), NEAR, len(NEAR))
    *before, one, other, another = near[5::3]
    network = VagueNetwork(home, [OWN, *near[:5], *before, *FAR[:8]])
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(1))
    await network.link(near[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.run)
        upkeep.note_up(near[0])
        await trio.sleep(600)
        network.alive += one, other, another
        network.vague = vague
        for newcomer in one, other, another:
            await network.link(newcomer)
            upkeep.note_up(newcomer)
        earlier = network.lookups
        await trio.sleep(30)
        assert (home.thin_buckets() == [FARTHEST]) == (vague == 12)
        assert network.lookups - earlier > 12
        earlier = network.lookups
        await trio.sleep(3600)
        assert network.lookups - earlier < 2 * 3600 / INTERVAL
        nursery.cancel_scope.cancel()


async def test_who_was_parted_when_its_bucket_was_found_thin_is_linked_soon_after_the_healing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It has no need of us, and doesn't link to us."""
    home = Home(peer_position(OWN))
    network = HalvedNetwork(home, NEAR + FAR[:12])
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(1))
    await network.link(NEAR[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.run)
        upkeep.note_up(NEAR[0])
        await trio.sleep(10)
        assert home.thin_buckets() == [FARTHEST]
        network.alive = NEAR + FAR[:20]
        await trio.sleep(INTERVAL / 3)
        assert {*FAR[:20]} <= {*network.members()}
        nursery.cancel_scope.cancel()


class PartlySilentNetwork(AnsweringNetwork):
    """Some never answer what their homes are."""

    def __init__(self, home: Home, alive: list[str], silent: set[str]) -> None:
        super().__init__(home, alive)
        self.silent = silent

    async def ask_home(self, peer_id: str, around: int, height: int) -> HomeView:
        if peer_id in self.silent:
            await trio.sleep(2)
            raise CallFailed(peer_id, HOME_METHOD, "no answer")
        return await super().ask_home(peer_id, around, height)


async def test_silent_ids_close_to_a_member_do_not_keep_it_from_knowing_its_home(
    autojump_clock: trio.testing.MockClock,
) -> None:
    home = Home(peer_position(OWN))
    nearest_ids = nearest(peer_position(OWN), OTHERS[:20], 5)
    network = PartlySilentNetwork(home, IDS[:21], set(nearest_ids))
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(1))
    await network.link(OTHERS[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.run)
        upkeep.note_up(OTHERS[0])
        await trio.sleep(30)
        assert home.is_confirmed(trio.current_time())
        assert not {*home.confirmers()} & {*nearest_ids}
        network.silent.clear()
        await trio.sleep(12 * INTERVAL)
        assert home.unanswered == []
        assert {*home.confirmers()} <= {*nearest_ids}
        assert home.is_confirmed(trio.current_time())
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(5))
async def test_who_couldnt_be_linked_is_when_its_time_comes_and_not_with_some_later_pass(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    home = Home(peer_position(OWN))
    network = AnsweringNetwork(home, IDS[:20])
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(seed))
    network.unreachable = {OTHERS[5]}
    await network.link(OTHERS[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.run)
        upkeep.note_up(OTHERS[0])
        await trio.sleep(20)
        assert {*OTHERS[:19]} - {*network.members()} == {OTHERS[5]}
        network.unreachable.clear()
        await trio.sleep(10)  # it is tried after 4, 12 and 28 seconds
        assert OTHERS[5] in network.members()
        nursery.cancel_scope.cancel()


async def test_several_who_couldnt_be_linked_are_tried_again_in_the_order_of_their_names(
    autojump_clock: trio.testing.MockClock,
) -> None:
    home = Home(peer_position(OWN))
    network = AnsweringNetwork(home, IDS[:20])
    upkeep = HomeUpkeep(home, SizeEstimate(), network, random.Random(1))
    network.unreachable = {*OTHERS[5:19]}
    await network.link(OTHERS[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.run)
        upkeep.note_up(OTHERS[0])
        await trio.sleep(20)
        network.tried.clear()
        network.unreachable.clear()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    again = [peer for peer in network.tried if peer in OTHERS[5:19]]
    assert set(again) == {*OTHERS[5:19]}
    # Of two who failed together, one waits for the other, as at first; else which comes first would be chance.
    assert again == sorted(sorted(again), key=_waits_for_us)


def _waits_for_us(peer: str) -> bool:
    own, position = peer_position(OWN), peer_position(peer)
    return (own < position) is bool((own ^ position) & 1)


async def homes_lack_after_deaths(members: int, deaths: int, seed: int) -> dict[str, set[str]]:
    """Per survivor whom it misses ten seconds after so many of the members died at once."""
    randomness = random.Random(seed)
    async with trio.open_nursery() as nursery:
        world = HomeWorld(nursery, randomness)
        world.settle(randomness.sample(IDS, members))
        await trio.sleep(10)
        assert world.lacking() == {}
        world.kill(randomness.sample(sorted(world.residents), deaths))
        await trio.sleep(10)
        lacking = world.lacking()
        nursery.cancel_scope.cancel()
    return lacking


@pytest.mark.parametrize(("members", "deaths"), [(64, 12), pytest.param(100, 60, marks=pytest.mark.slow)])
async def test_homes_that_widen_together_miss_nobody(
    members: int, deaths: int, autojump_clock: trio.testing.MockClock
) -> None:
    assert await homes_lack_after_deaths(members, deaths, seed=1) == {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(300))
async def test_homes_that_widen_together_hundreds_of_times_miss_nobody(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    assert await homes_lack_after_deaths(64, 12, seed) == {}


async def test_a_home_that_has_just_widened_covers_no_more_than_it_was_confirmed_to_know(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        world = HomeWorld(nursery, random.Random(1))
        world.settle([OWN, *NEAR[:30], *FAR[:30]])
        await trio.sleep(10)
        asker, fellow = world.residents[OWN], world.residents[NEAR[0]]
        before = await asker.views.ask(NEAR[0], fellow.home.own, POSITION_BITS)
        assert before.height == fellow.home.height < POSITION_BITS
        world.kill(NEAR[10:30])
        with trio.fail_after(1):
            while fellow.home.height < POSITION_BITS:
                await world.pass_time()
        fellow.stop.cancel()  # it widened, and doesn't get to ask those who live there
        after = await asker.views.ask(NEAR[0], fellow.home.own, POSITION_BITS)
        assert after.height <= before.height
        nursery.cancel_scope.cancel()
