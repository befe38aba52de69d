"""To whom and how particles are sent on. In virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.outbound.forwarding import Forwarding
from aqua_compat.particles.outbound.outgoing import OVERHEAD
from aqua_compat.particles.settings import AquaSettings
from overlay.errors import Unreachable
from overlay.identity import peer_id_of
from tests.unit.aqua_compat.particles.scripts import HOST, OTHER, a_particle
from tests.unit.aqua_compat.particles.small_world import MemoryReach, ScriptedSteps, a_server, outcome

PEER = OTHER.peer_id
CLIENT, GREEDY = "a client", "a greedy client"
LATER = 1000.0


def peers(count: int) -> list[str]:
    return [peer_id_of(number.to_bytes(32, "big")) for number in range(count)]


class SlowReach(MemoryReach):
    """Looking up a peer takes `duration`."""

    duration = 4.0

    async def find(self, peer_id: str, timeout: float) -> bool:
        with trio.move_on_after(timeout):
            await trio.sleep(self.duration)
            return await super().find(peer_id, timeout)
        return False


@asynccontextmanager
async def forwarding(reach: MemoryReach, **changes: object) -> AsyncIterator[tuple[Forwarding, Metrics]]:
    metrics = Metrics()
    settings = AquaSettings(**changes)  # type: ignore[arg-type]
    sending = Forwarding(reach, settings, metrics, FairSemaphore(settings.max_lookups, settings.max_lookups_per_peer))
    async with trio.open_nursery() as nursery:
        await nursery.start(sending.run)
        yield sending, metrics
        nursery.cancel_scope.cancel()


async def test_link_is_used_where_there_is_one(autojump_clock) -> None:
    reach = MemoryReach()
    reach.linked.add(PEER)
    async with forwarding(reach) as (sending, metrics):
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(1)
    assert [way for way, _, _ in reach.sent] == ["link"]
    assert metrics.snapshot()["sent"] == 1


async def test_linked_peer_that_takes_no_particles_there_gets_streams_from_then_on(autojump_clock) -> None:
    reach = MemoryReach()
    reach.linked.add(PEER)
    reach.without_method.add(PEER)
    async with forwarding(reach) as (sending, _):
        for _ in range(2):
            sending.send_on(CLIENT, a_particle(), PEER, LATER)
            await trio.sleep(1)
    assert [way for way, _, _ in reach.sent] == ["stream", "stream"]


async def test_large_particle_goes_by_a_stream(autojump_clock) -> None:
    reach = MemoryReach()
    reach.linked.add(PEER)
    async with forwarding(reach) as (sending, _):
        sending.send_on(CLIENT, a_particle(data=b"x" * 600_000), PEER, LATER)
        await trio.sleep(1)
    assert [way for way, _, _ in reach.sent] == ["stream"]


async def test_peer_that_is_nowhere_known_is_looked_up(autojump_clock) -> None:
    reach = MemoryReach()
    reach.findable.add(PEER)
    async with forwarding(reach) as (sending, _):
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(1)
    assert reach.asked == [PEER]
    assert [to for _, to, _ in reach.sent] == [PEER]


async def test_unreachable_peer_is_left_alone_for_a_while(autojump_clock) -> None:
    reach = MemoryReach()
    async with forwarding(reach) as (sending, metrics):
        for _ in range(5):
            sending.send_on(CLIENT, a_particle(), PEER, LATER)
            await trio.sleep(0.1)
        assert reach.asked == [PEER]
        assert metrics.snapshot()["dropped: unreachable peer"] == 5
        await trio.sleep(5)
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(0.1)
        assert reach.asked == [PEER, PEER]
        reach.connected.add(PEER)  # it came by itself
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(0.1)
        assert len(reach.sent) == 1


async def test_what_waits_for_one_peer_is_bounded(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    reach.stalls = True
    async with forwarding(reach, max_sending_per_peer=5, send_timeout=2.0) as (sending, metrics):
        for _ in range(8):
            sending.send_on(CLIENT, a_particle(), PEER, LATER)
        assert metrics.snapshot()["dropped: too many to send"] == 3
        await trio.sleep(2.5)
        assert metrics.snapshot()["sending"] == 0
        assert metrics.snapshot()["dropped: unreachable peer"] == 5


async def test_bytes_that_wait_are_bounded(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    reach.stalls = True
    async with forwarding(reach, max_sending_bytes=2 * OVERHEAD + 1000) as (sending, metrics):
        for _ in range(3):
            sending.send_on(CLIENT, a_particle(data=b"x" * 400), PEER, LATER)
        assert metrics.snapshot()["dropped: too many to send"] == 1


async def test_what_is_too_large_for_clients_is_dropped(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    async with forwarding(reach, max_particle=1000) as (sending, metrics):
        sending.send_on(CLIENT, a_particle(data=b"x" * 1000), PEER, LATER)
        await trio.sleep(1)
    assert reach.sent == []
    assert metrics.snapshot()["dropped: unreachable peer"] == 1


async def test_stream_that_the_other_side_never_closes_is_reset_in_the_end(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    async with forwarding(reach) as (sending, _):
        for _ in range(3):
            sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(0.2)
        assert [(stream.was_closed, stream.was_reset) for stream in reach.streams] == [(True, False)] * 3
        await trio.sleep(1)
        assert all(stream.was_reset for stream in reach.streams)
    assert len(reach.sent) == 3


async def test_streams_that_linger_at_one_peer_are_bounded(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    async with forwarding(reach) as (sending, _):
        for _ in range(100):
            sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(0.2)
        assert sum(not stream.was_reset for stream in reach.streams) <= 64
    assert len(reach.sent) == 100


async def test_connected_client_that_refuses_a_stream_is_tried_once_more(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    reach.refusals = 1
    async with forwarding(reach) as (sending, metrics):
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(1)
        assert len(reach.sent) == 1
        reach.refusals = 2
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(1)
        assert metrics.snapshot()["dropped: unreachable peer"] == 1


async def test_peer_that_sent_particles_gets_message_and_negotiation_at_once(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    async with forwarding(reach) as (sending, _):
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(1)
        sending.note_protocol_peer(PEER)
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(1)
        assert [way for way, _, _ in reach.sent] == ["stream", "at once"]
        assert not reach.streams[1].was_reset, "the answers to the negotiation have time"
        await trio.sleep(6)
        assert reach.streams[1].was_reset


# Bounds and turns by who brought the particles


@pytest.mark.parametrize("size", [0, 100_000])
async def test_what_one_peer_brought_leaves_room_for_what_others_brought(autojump_clock, size: int) -> None:
    reach = MemoryReach()
    reach.connected.update(peers(200))
    reach.stalls = True
    bounds = {"max_sending_bytes": 40 * (OVERHEAD + size), "max_sending_bytes_per_peer": 10 * (OVERHEAD + size)}
    async with forwarding(reach, **bounds) as (sending, metrics):
        for peer_id in peers(200):
            sending.send_on(GREEDY, a_particle("", data=b"x" * size), peer_id, LATER)
        assert metrics.snapshot()["sending"] == 10
        assert metrics.snapshot()["dropped: too many to send"] == 190
        sending.send_on(CLIENT, a_particle("", data=b"x" * size), PEER, LATER)
        assert metrics.snapshot()["sending"] == 11


async def test_who_has_most_on_its_way_out_loses_its_oldest_when_too_much_is(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.update(peers(9))
    reach.stalls = True
    bounds = {"max_sending_bytes": 8 * OVERHEAD, "max_sending_bytes_per_peer": 6 * OVERHEAD}
    async with forwarding(reach, **bounds) as (sending, metrics):
        for number, peer_id in enumerate(peers(8)):
            sending.send_on(GREEDY if number < 5 else "another", a_particle(""), peer_id, LATER)
            await trio.testing.wait_all_tasks_blocked()
        assert metrics.snapshot()["sending"] == 8
        reach.stalls = False
        reach.connected.add(PEER)
        sending.send_on(CLIENT, a_particle(""), PEER, LATER)
        await trio.sleep(0.1)
        assert [to for _, to, _ in reach.sent] == [PEER]
        assert [stream.was_reset for stream in reach.streams[:8]] == [True] + [False] * 7
        assert metrics.snapshot()["dropped: too many to send"] == 1
        assert metrics.snapshot()["sending"] == 7
        await trio.sleep(20)
        assert metrics.snapshot()["sending"] == 0
        assert metrics.snapshot()["dropped: unreachable peer"] == 7


async def test_lookups_for_one_peers_particles_leave_places_to_those_of_others(autojump_clock) -> None:
    reach = SlowReach()
    reach.findable.add(PEER)
    async with forwarding(reach, max_lookups=8, max_lookups_per_peer=2) as (sending, _):
        for peer_id in peers(1000):
            sending.send_on(GREEDY, a_particle(""), peer_id, LATER)
        await trio.sleep(0.1)
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(reach.duration + 0.1)
        assert [to for _, to, _ in reach.sent] == [PEER]


async def test_lookup_finds_a_place_in_time_though_others_took_all_with_endless_ones(autojump_clock) -> None:
    reach = SlowReach()
    reach.findable.add(PEER)
    async with forwarding(reach, max_lookups=8, max_lookups_per_peer=2) as (sending, _):
        reach.duration = 1e9
        for number, peer_id in enumerate(peers(1000)):
            sending.send_on(f"greedy {number % 4}", a_particle(""), peer_id, LATER)
        await trio.sleep(0.1)
        reach.duration = 1.0
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(9.0)
        assert [to for _, to, _ in reach.sent] == [PEER]


async def test_many_particles_to_one_peer_let_those_of_others_pass(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    reach.stalls = True
    async with forwarding(reach) as (sending, metrics):
        for _ in range(1000):
            sending.send_on(GREEDY, a_particle("greedy"), PEER, LATER)
        await trio.testing.wait_all_tasks_blocked()
        assert metrics.snapshot()["sending"] == 256
        reach.stalls = False
        sending.send_on(CLIENT, a_particle("modest"), PEER, LATER)
        await trio.sleep(0.1)
        assert [particle.script for _, _, particle in reach.sent] == ["modest"]


async def test_peer_that_many_wait_to_have_looked_up_is_looked_up_once(autojump_clock) -> None:
    reach = SlowReach()
    reach.duration = 0.1
    async with forwarding(reach, max_lookups=1, max_lookups_per_peer=1) as (sending, metrics):
        for _ in range(50):
            sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(1)
        assert reach.asked == [PEER]
        assert metrics.snapshot()["dropped: unreachable peer"] == 50


async def test_peer_isnt_left_alone_because_particles_waited_too_long_for_a_place(autojump_clock) -> None:
    reach = SlowReach()
    reach.findable.add(PEER)
    async with forwarding(reach, max_lookups=8, max_lookups_per_peer=2) as (sending, metrics):
        for peer_id in peers(100):
            sending.send_on(GREEDY, a_particle(), peer_id, LATER)
        await trio.testing.wait_all_tasks_blocked()  # Trio begins tasks in any order: this one has to wait
        sending.send_on(GREEDY, a_particle(), PEER, LATER)
        await trio.sleep(10.5)
        assert metrics.snapshot()["sending"] == 0
        sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(5)
        assert [to for _, to, _ in reach.sent] == [PEER]


async def test_peer_that_couldnt_be_dialled_isnt_dialled_for_what_waited_meanwhile(autojump_clock) -> None:
    reach = MemoryReach()
    reach.known.add(PEER)
    dialled = 0

    async def fail(peer_id: str, protocol_id: str) -> None:
        nonlocal dialled
        dialled += 1
        await trio.sleep(1)
        raise Unreachable(peer_id, protocol_id)

    reach.open_stream = fail  # type: ignore[assignment]
    async with forwarding(reach) as (sending, metrics):
        for _ in range(100):
            sending.send_on(CLIENT, a_particle(), PEER, LATER)
        await trio.sleep(2)
        assert dialled <= 16
        assert metrics.snapshot()["dropped: unreachable peer"] == 100


async def test_who_brought_a_particle_answers_for_its_sending(autojump_clock) -> None:
    greedy_peers = peers(40)
    reach = MemoryReach()
    reach.connected.update(greedy_peers, [PEER])
    reach.stalls = True
    steps = ScriptedSteps(lambda step: outcome(to=greedy_peers if step.particle_id == "greedy" else [PEER]))
    bounds = {"max_sending_bytes": 12 * (OVERHEAD + 100), "max_sending_bytes_per_peer": 5 * (OVERHEAD + 100)}
    async with a_server(steps, host=HOST, reach=reach, **bounds) as server:
        await server.bring(a_particle(particle_id="greedy"), "a greedy client")
        await trio.sleep(1)
        assert server.counts()["sending"] == 5
        reach.stalls = False
        await server.bring(a_particle(particle_id="modest"), "a client")
        await trio.sleep(1)
        assert [to for _, to, _ in reach.sent] == [PEER]
