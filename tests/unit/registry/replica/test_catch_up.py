"""When a newcomer's answers count: by the words of two replicas, or by time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import trio
import trio.testing

from registry.protocol.address_groups import AddressGroups
from registry.replica.catch_up import CATCH_UP, CatchUp
from tests.simulation.simulated_network import SimulatedNetwork, SimulatedPeer

HERE = "here"


class Scene(NamedTuple):
    network: SimulatedNetwork
    here: SimulatedPeer
    catch_up: CatchUp

    def add(self, peer_id: str, group: str) -> None:
        self.network.addresses[peer_id] = [f"/ip4/{group}.7.7/tcp/1"]
        self.network.add(peer_id)
        self.network.membership_changed()


@pytest.fixture
async def scene(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Scene]:
    network = SimulatedNetwork()
    network.isolates = True
    here = network.add(HERE)
    catch_up = CatchUp(AddressGroups(here))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catch_up.run, here)
        yield Scene(network, here, catch_up)
        nursery.cancel_scope.cancel()


async def counts(scene: Scene) -> bool:
    await trio.sleep(CATCH_UP / 100)
    return scene.catch_up.is_caught_up


async def test_one_replica_s_word_suffices_where_there_is_no_other(scene: Scene) -> None:
    scene.add("a", "1.1")
    assert not await counts(scene)
    scene.catch_up.note_compared("a")
    assert await counts(scene)


async def test_two_have_to_say_so_where_there_are_two(scene: Scene) -> None:
    scene.add("a", "1.1")
    scene.add("b", "1.1")
    for _ in range(3):
        scene.catch_up.note_compared("a")
        assert not await counts(scene)
    scene.catch_up.note_compared("b")
    assert await counts(scene)


async def test_two_of_one_address_group_are_one_where_there_is_another(scene: Scene) -> None:
    for peer_id, group in {"a": "1.1", "b": "1.1", "c": "2.2"}.items():
        scene.add(peer_id, group)
    scene.catch_up.note_compared("a")
    scene.catch_up.note_compared("b")
    assert not await counts(scene)
    scene.catch_up.note_compared("c")
    assert await counts(scene)


async def test_without_words_enough_it_counts_after_a_while(scene: Scene) -> None:
    assert not await counts(scene)
    scene.add("a", "1.1")
    scene.add("b", "2.2")
    began = trio.current_time()
    scene.catch_up.note_compared("a")
    await trio.sleep(CATCH_UP / 2)
    scene.add("c", "3.3")
    assert await scene.catch_up.wait()
    assert trio.current_time() - began == pytest.approx(CATCH_UP, abs=0.1), "newcomers don't put it off"


async def test_words_of_before_it_was_alone_are_worth_nothing_afterwards(scene: Scene) -> None:
    scene.add("a", "1.1")
    scene.add("b", "1.1")
    scene.catch_up.note_compared("a")
    await trio.sleep(CATCH_UP * 2)
    assert scene.catch_up.is_caught_up
    for peer_id in ("a", "b"):
        scene.network.crash(peer_id)
    scene.network.membership_changed()
    assert not await counts(scene)
    scene.add("a", "1.1")
    scene.add("b", "1.1")
    scene.catch_up.note_compared("b")
    assert not await counts(scene)
