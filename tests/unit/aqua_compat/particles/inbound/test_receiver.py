"""Messages on streams, from clients that are hostile until verified."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.particles.inbound.dispatcher import Dispatcher
from aqua_compat.particles.inbound.receiver import Receiver
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.particle import MSGPACK, Particle, encode, framed
from aqua_compat.particles.settings import AquaSettings
from tests.unit.aqua_compat.particles.scripts import a_particle
from tests.unit.aqua_compat.particles.small_world import ScriptedSteps, a_server, clock, outcome
from tests.unit.overlay.memory_network import MemoryStream, memory_streams


def quiet() -> ScriptedSteps:
    return ScriptedSteps(lambda step: outcome())


async def test_message_in_pieces_is_a_particle(autojump_clock) -> None:
    steps = quiet()
    ours, theirs = memory_streams()
    async with a_server(steps) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.receiving.handle_stream, "a client", theirs)
        for byte in framed(encode(a_particle(data=b"x" * 300))):
            await ours.write(bytes([byte]))
        await trio.sleep(1)
        assert [step.incoming for step in steps.steps] == [b"x" * 300]
        assert theirs.was_closed
        assert not theirs.was_reset


async def received(message: bytes, *, ends: bool = True, **changes: object) -> tuple[MemoryStream, dict[str, float]]:
    ours, theirs = memory_streams()
    async with a_server(quiet(), **changes) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.receiving.handle_stream, "a client", theirs)
        await ours.write(message)
        if ends:
            await ours.close()
    return theirs, server.counts()


async def test_truncated_message_is_dropped(autojump_clock) -> None:
    stream, counts = await received(framed(encode(a_particle()))[:-1])
    assert stream.was_reset
    assert counts["dropped: malformed"] == 1


async def test_too_large_message_isnt_read(autojump_clock) -> None:
    stream, counts = await received(b"\xff\xff\xff\x7f", max_particle=10_000, ends=False)
    assert stream.was_reset
    assert counts["dropped: too large"] == 1


async def test_client_that_stalls_is_cut_off(autojump_clock) -> None:
    began = trio.current_time()
    stream, _ = await received(framed(encode(a_particle()))[:20], ends=False, receive_timeout=3.0)
    assert stream.was_reset
    assert trio.current_time() - began < 4


async def test_bytes_that_came_in_part_are_bounded(autojump_clock) -> None:
    message = framed(encode(a_particle(data=b"x" * 5000)))
    stream, counts = await received(message[:-1], ends=False, max_receiving_bytes_per_peer=4000)
    assert stream.was_reset
    assert counts["dropped: full"] == 1


async def test_whoever_has_most_messages_in_part_gives_way_to_others(autojump_clock) -> None:
    steps = quiet()
    bounds = {"max_receiving_bytes": 10_000, "max_receiving_bytes_per_peer": 6_000, "receive_timeout": 60.0}
    async with a_server(steps, **bounds) as server, trio.open_nursery() as nursery:

        async def bring(source: str, message: bytes) -> MemoryStream:
            ours, theirs = memory_streams()
            nursery.start_soon(server.receiving.handle_stream, source, theirs)
            await ours.write(message)
            await trio.sleep(0.1)
            return theirs

        slow = framed(encode(a_particle(data=b"x" * 5_000)))
        one, two = await bring("one", slow[:2_000]), await bring("one", slow[:3_500])
        other = await bring("other", slow[:4_000])
        assert [stream.was_reset for stream in (one, two, other)] == [False] * 3
        assert server.counts()["receiving bytes"] == 9_500
        await bring("a client", framed(encode(a_particle(data=b"y" * 1_000))))
        assert [step.incoming for step in steps.steps] == [b"y" * 1_000]
        resets = [stream.was_reset for stream in (one, two, other)]
        assert resets == [True, False, False], "the oldest of the one that had most"
        assert server.counts()["receiving bytes"] == 7_500
        greedy = await bring("a client", slow[:4_500])
        resets = [stream.was_reset for stream in (greedy, two, other)]
        assert resets == [True, False, False], "it would have most itself"
        assert server.counts()["dropped: full"] == 2
        nursery.cancel_scope.cancel()
    assert server.counts()["receiving bytes"] == 0


class Taker:
    """Takes particles in place of a dispatcher."""

    def __init__(self) -> None:
        self.particles: list[Particle] = []

    def receive(self, source: str, particle: Particle) -> None:
        self.particles.append(particle)


@pytest.mark.parametrize("by", ["stream", "link"])
async def test_others_run_while_data_as_numbers_is_decoded(by: str) -> None:
    data, rounds = bytes(range(256)) * 4096, 0
    particle = a_particle(at=clock())
    message = MSGPACK + msgspec.msgpack.encode(
        {"action": "Particle", **msgspec.structs.asdict(particle), "data": list(data)}
    )
    taker = Taker()
    receiver = Receiver(cast("Dispatcher", taker), AquaSettings(), Metrics(), lambda _: None)

    async def others() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        ours, theirs = memory_streams()
        await ours.write(framed(message))
        began = rounds
        nursery.start_soon(others)
        if by == "stream":
            await receiver.handle_stream("a client", theirs)
        else:
            await receiver.handle_call("a client", message)
        taken = rounds - began
        nursery.cancel_scope.cancel()
    assert [particle.data for particle in taker.particles] == [data]
    assert taken >= len(message) // (32 * 2048)


async def test_streams_of_one_peer_wait_for_each_other_and_dont_hold_others_up(autojump_clock) -> None:
    steps = quiet()
    async with a_server(steps, max_receiving_per_peer=2, receive_timeout=5.0) as server, trio.open_nursery() as nursery:
        stalled = [memory_streams() for _ in range(4)]
        for _, theirs in stalled:
            nursery.start_soon(server.receiving.handle_stream, "slow", theirs)
        ours, theirs = memory_streams()
        nursery.start_soon(server.receiving.handle_stream, "quick", theirs)
        await ours.write(framed(encode(a_particle())))
        await trio.sleep(1)
        assert len(steps.steps) == 1


@given(st.binary(max_size=100))
def test_any_bytes_on_a_stream_leave_the_server_working(message: bytes) -> None:
    async def bring() -> None:
        steps = quiet()
        async with a_server(steps) as server, trio.open_nursery() as nursery:
            for sent in (message, framed(encode(a_particle()))):
                ours, theirs = memory_streams()
                nursery.start_soon(server.receiving.handle_stream, "a client", theirs)
                await ours.write(sent)
                await ours.close()
            await trio.sleep(0.1)
            assert len(steps.steps) == 1

    trio.run(bring, clock=trio.testing.MockClock(autojump_threshold=0))
