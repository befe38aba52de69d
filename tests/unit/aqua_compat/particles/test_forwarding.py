"""To whom and how particles are sent on. In virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from aqua_compat.particles.forwarding import Forwarding
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.settings import AquaSettings
from tests.unit.aqua_compat.particles.scripts import OTHER, a_particle
from tests.unit.aqua_compat.particles.small_world import MemoryReach

PEER = OTHER.peer_id
LATER = 1000.0


@asynccontextmanager
async def forwarding(reach: MemoryReach, **changes: object) -> AsyncIterator[tuple[Forwarding, Metrics]]:
    metrics = Metrics()
    sending = Forwarding(reach, AquaSettings(**changes), metrics)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(sending.run)
        yield sending, metrics
        nursery.cancel_scope.cancel()


async def test_link_is_used_where_there_is_one(autojump_clock) -> None:
    reach = MemoryReach()
    reach.linked.add(PEER)
    async with forwarding(reach) as (sending, metrics):
        sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(1)
    assert [way for way, _, _ in reach.sent] == ["link"]
    assert metrics.snapshot()["sent"] == 1


async def test_linked_peer_that_takes_no_particles_there_gets_streams_from_then_on(autojump_clock) -> None:
    reach = MemoryReach()
    reach.linked.add(PEER)
    reach.without_method.add(PEER)
    async with forwarding(reach) as (sending, _):
        for _ in range(2):
            sending.send_on(a_particle(), PEER, LATER)
            await trio.sleep(1)
    assert [way for way, _, _ in reach.sent] == ["stream", "stream"]


async def test_large_particle_goes_by_a_stream(autojump_clock) -> None:
    reach = MemoryReach()
    reach.linked.add(PEER)
    async with forwarding(reach) as (sending, _):
        sending.send_on(a_particle(data=b"x" * 600_000), PEER, LATER)
        await trio.sleep(1)
    assert [way for way, _, _ in reach.sent] == ["stream"]


async def test_peer_that_is_nowhere_known_is_looked_up(autojump_clock) -> None:
    reach = MemoryReach()
    reach.findable.add(PEER)
    async with forwarding(reach) as (sending, _):
        sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(1)
    assert reach.asked == [PEER]
    assert [to for _, to, _ in reach.sent] == [PEER]


async def test_unreachable_peer_is_left_alone_for_a_while(autojump_clock) -> None:
    reach = MemoryReach()
    async with forwarding(reach) as (sending, metrics):
        for _ in range(5):
            sending.send_on(a_particle(), PEER, LATER)
            await trio.sleep(0.1)
        assert reach.asked == [PEER]
        assert metrics.snapshot()["dropped: unreachable peer"] == 5
        await trio.sleep(5)
        sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(0.1)
        assert reach.asked == [PEER, PEER]
        reach.connected.add(PEER)  # it came by itself
        sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(0.1)
        assert len(reach.sent) == 1


async def test_what_waits_for_one_peer_is_bounded(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    reach.stalls = True
    async with forwarding(reach, max_sending_per_peer=5, send_timeout=2.0) as (sending, metrics):
        for _ in range(8):
            sending.send_on(a_particle(), PEER, LATER)
        assert metrics.snapshot()["dropped: too many to send"] == 3
        await trio.sleep(2.5)
        assert metrics.snapshot()["sending"] == 0
        assert metrics.snapshot()["dropped: unreachable peer"] == 5


async def test_bytes_that_wait_are_bounded(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    reach.stalls = True
    async with forwarding(reach, max_sending_bytes=1000) as (sending, metrics):
        for _ in range(3):
            sending.send_on(a_particle(data=b"x" * 400), PEER, LATER)
        assert metrics.snapshot()["dropped: too many to send"] == 1


async def test_what_is_too_large_for_clients_is_dropped(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    async with forwarding(reach, max_particle=1000) as (sending, metrics):
        sending.send_on(a_particle(data=b"x" * 1000), PEER, LATER)
        await trio.sleep(1)
    assert reach.sent == []
    assert metrics.snapshot()["dropped: unreachable peer"] == 1


async def test_stream_that_the_other_side_never_closes_is_reset_in_the_end(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    async with forwarding(reach) as (sending, _):
        for _ in range(3):
            sending.send_on(a_particle(), PEER, LATER)
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
            sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(0.2)
        assert sum(not stream.was_reset for stream in reach.streams) <= 64
    assert len(reach.sent) == 100


async def test_connected_client_that_refuses_a_stream_is_tried_once_more(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    reach.refusals = 1
    async with forwarding(reach) as (sending, metrics):
        sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(1)
        assert len(reach.sent) == 1
        reach.refusals = 2
        sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(1)
        assert metrics.snapshot()["dropped: unreachable peer"] == 1


async def test_peer_that_sent_particles_gets_message_and_negotiation_at_once(autojump_clock) -> None:
    reach = MemoryReach()
    reach.connected.add(PEER)
    async with forwarding(reach) as (sending, _):
        sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(1)
        sending.note_speaker(PEER)
        sending.send_on(a_particle(), PEER, LATER)
        await trio.sleep(1)
        assert [way for way, _, _ in reach.sent] == ["stream", "at once"]
        assert not reach.streams[1].was_reset, "the answers to the negotiation have time"
        await trio.sleep(6)
        assert reach.streams[1].was_reset
