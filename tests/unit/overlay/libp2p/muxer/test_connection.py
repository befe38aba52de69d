"""Streams of two connections over a pipe in memory: how they wait, what they cost, and how they end."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest
import trio
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)
from trio.abc import Stream
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from overlay.identity import Identity
from overlay.libp2p.muxer.connection import MuxedConnection
from overlay.libp2p.muxer.session import MOST_UNANSWERED
from overlay.libp2p.muxer.session_end import EndCode
from overlay.libp2p.muxer.stream import MuxedStream
from overlay.libp2p.muxer.stream_state import WINDOW
from overlay.libp2p.muxer.turns import AT_ONCE
from overlay.limits.fair_quota import FairQuota
from tests.unit.overlay.libp2p.muxer.frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, data, frame
from tests.unit.overlay.libp2p.muxer.pipes import (
    WRITE_TIMEOUT,
    MemoryPipe,
    connected,
    connection_on,
    running,
    with_peer_by_hand,
)

KIB = 1024


async def read_exactly(stream: MuxedStream, count: int) -> bytes:
    received = b""
    while len(received) < count:
        received += await stream.read(count - len(received))
    return received


async def read_all(stream: MuxedStream) -> bytes:
    received = b""
    while True:
        try:
            received += await stream.read()
        except MuxedStreamEOF:
            return received


async def echo(stream: MuxedStream) -> None:
    try:
        while True:
            await stream.write(await stream.read(64 * KIB))
    except MuxedStreamEOF:
        await stream.close()


@pytest.mark.parametrize("immediate", [False, True])
async def test_many_streams_carry_many_windows_both_ways(immediate: bool) -> None:
    async with connected(immediate=immediate) as (here, there), trio.open_nursery() as nursery:

        async def serve() -> None:
            for _ in range(5):
                nursery.start_soon(echo, await there.accept_stream())

        async def ask(number: int) -> None:
            payload = bytes([number]) * (3 * WINDOW + number)
            stream = await here.open_stream()
            async with trio.open_nursery() as both:

                async def write() -> None:
                    await stream.write(payload)
                    await stream.close_write()

                both.start_soon(write)
                assert await read_all(stream) == payload

        nursery.start_soon(serve)
        for number in range(5):
            nursery.start_soon(ask, number)
    assert here.session.streams == there.session.streams == {}


async def test_small_messages_cost_one_write_each() -> None:
    ours, theirs = lockstep_stream_pair()
    pipes = MemoryPipe(ours), MemoryPipe(theirs)
    here, there = connection_on(pipes[0], initiator=True), connection_on(pipes[1], initiator=False)
    async with running(here, there), trio.open_nursery() as nursery:
        stream = await here.open_stream()
        nursery.start_soon(echo, await there.accept_stream())
        for _ in range(1000):
            await stream.write(b"x" * 500)
            await read_exactly(stream, 500)
        await stream.close()
    assert all(1000 <= pipe.sends < 1010 for pipe in pipes)


async def test_a_write_waits_for_its_reader_and_is_whole_when_another_writes_too() -> None:
    async with connected() as (here, there), trio.open_nursery() as nursery:
        stream = await here.open_stream()
        nursery.start_soon(stream.write, b"a" * 2 * WINDOW)
        await wait_all_tasks_blocked()
        nursery.start_soon(stream.write, b"b" * 10)
        reader = await there.accept_stream()
        await wait_all_tasks_blocked()
        assert there.session.unread == WINDOW
        assert await read_exactly(reader, 2 * WINDOW + 10) == b"a" * 2 * WINDOW + b"b" * 10


async def test_a_stalled_stream_fails_alone_after_the_write_timeout(autojump_clock: MockClock) -> None:
    async with connected() as (here, there):
        stalled, fine = await here.open_stream(), await here.open_stream()
        await there.accept_stream()
        before = trio.current_time()
        with pytest.raises(MuxedStreamError, match="read nothing for 5 s"):
            await stalled.write(bytes(2 * WINDOW))
        assert trio.current_time() - before == pytest.approx(WRITE_TIMEOUT)
        await fine.write(b"hello")
        assert await (await there.accept_stream()).read() == b"hello"


async def test_a_write_that_was_cancelled_leaves_the_other_streams_whole(autojump_clock: MockClock) -> None:
    async with connected() as (here, there):
        one, other = await here.open_stream(), await here.open_stream()
        with trio.move_on_after(1):
            await one.write(bytes(2 * WINDOW))
        await one.reset()
        await other.write(b"hello")
        with pytest.raises(MuxedStreamReset):
            await read_all(await there.accept_stream())
        assert await (await there.accept_stream()).read() == b"hello"


async def test_a_connection_whose_peer_reads_nothing_ends_and_wakes_all_who_wait(autojump_clock: MockClock) -> None:
    async with with_peer_by_hand() as (connection, _), trio.open_nursery() as nursery:
        ends: list[str] = []

        async def write(stream: MuxedStream) -> None:
            with pytest.raises(MuxedStreamReset) as caught:
                await stream.write(bytes(WINDOW))
            ends.append(str(caught.value))

        for _ in range(5):
            nursery.start_soon(write, await connection.open_stream())
        with trio.fail_after(31):
            await connection.event_closed.wait()
        assert connection.ended is not None
        assert connection.ended.code is EndCode.STALLED
        assert connection.session.waiting < 200 * KIB
    assert ends == ["the peer reads nothing for 15 s"] * 5


@pytest.mark.parametrize("begins", [1, 14, 16, 29])
async def test_whenever_a_peer_stops_reading_the_connection_ends_15_to_30_seconds_later(
    begins: float, autojump_clock: MockClock
) -> None:
    async with with_peer_by_hand() as (connection, _), trio.open_nursery() as nursery:

        async def write() -> None:
            with suppress(MuxedStreamError):
                await (await connection.open_stream()).write(bytes(WINDOW))

        await trio.sleep(begins)
        began = trio.current_time()
        nursery.start_soon(write)
        with trio.fail_after(31):
            await connection.event_closed.wait()
        assert 15 <= trio.current_time() - began <= 30.1
        assert connection.ended is not None
        assert connection.ended.code is EndCode.STALLED


async def test_who_waits_to_write_gets_a_turn_each() -> None:
    async with with_peer_by_hand() as (connection, peer), trio.open_nursery() as nursery:
        streams = [await connection.open_stream() for _ in range(5)]
        for stream in streams[:4]:
            nursery.start_soon(stream.write, bytes(WINDOW))
        await wait_all_tasks_blocked()
        nursery.start_soon(streams[4].write, b"a few bytes")
        await wait_all_tasks_blocked()
        turns: list[int] = []
        while streams[4].stream_id not in turns:
            turns.append((await peer.received(DATA)).stream)
        assert len(turns) < 15  # of 21
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("while_reading", [True, False])
async def test_a_reset_is_told_as_a_reset(while_reading: bool) -> None:
    async with connected() as (here, there):
        stream = await here.open_stream()
        await stream.write(b"first")
        other = await there.accept_stream()
        async with trio.open_nursery() as nursery:
            if while_reading:
                await other.read()
            nursery.start_soon(stream.reset)
            if not while_reading:
                await wait_all_tasks_blocked()
            with pytest.raises(MuxedStreamReset):
                await other.read()
        for one in (stream, other):
            with pytest.raises(MuxedStreamReset):
                await one.write(b"more")
            assert one.is_closed()


async def test_a_cut_connection_is_told_as_such_after_what_came() -> None:
    async with with_peer_by_hand() as (connection, peer):
        await peer.send(data(1, b"the last words", SYN))
        stream = await connection.accept_stream()
        await peer.stream.aclose()
        await connection.event_closed.wait()
        await stream.reset()  # as libp2p does with all streams of a connection that ended
        assert await stream.read() == b"the last words"
        with pytest.raises(MuxedStreamReset, match="closed the connection"):
            await stream.read()
        with pytest.raises(MuxedConnUnavailable):
            await connection.open_stream()
        with pytest.raises(MuxedConnUnavailable):
            await connection.accept_stream()


@pytest.mark.parametrize(("flags", "told"), [(RST, MuxedStreamReset), (FIN, MuxedStreamEOF)])
async def test_who_waits_on_a_stream_that_ends_right_before_the_connection_is_woken(
    flags: int, told: type[Exception]
) -> None:
    async with with_peer_by_hand() as (connection, peer), trio.open_nursery() as nursery:
        await peer.send(frame(WINDOW_UPDATE, SYN, 1))
        stream = await connection.accept_stream()
        await stream.close_write()

        async def read() -> None:
            with pytest.raises(told):
                await stream.read()

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            await peer.send(frame(WINDOW_UPDATE, flags, 1) + frame(GO_AWAY))
            await connection.event_closed.wait()


class _Rounds(trio.abc.Instrument):
    """Counts what happens in one round of the loop."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0

    def note(self) -> None:
        self._now += 1
        self.most = max(self.most, self._now)

    def before_io_wait(self, timeout: float) -> None:
        self._now = 0


@pytest.mark.parametrize("how", ["the peer leaves", "the peer resets all", "this side is cancelled"])
async def test_who_waits_on_hundreds_of_streams_is_woken_in_turns(how: str) -> None:
    count, connections, rounds = 200, 3, _Rounds()
    resets = b"".join(frame(WINDOW_UPDATE, RST, number) for number in range(1, 2 * count, 2))
    woken = trio.Semaphore(0)

    async def read(stream: MuxedStream) -> None:
        with pytest.raises(MuxedStreamReset):
            await stream.read()
        rounds.note()
        woken.release()

    async def all_woken() -> None:
        with trio.fail_after(5):
            for _ in range(count * connections):
                await woken.acquire()

    async with trio.open_nursery() as readers:
        async with trio.open_nursery() as nursery:
            peers: list[trio.abc.Stream] = []
            for _ in range(connections):
                ours, theirs = memory_stream_pair()
                connection = connection_on(MemoryPipe(ours), initiator=False)
                nursery.start_soon(connection.start)
                peers.append(theirs)
                await theirs.send_all(b"".join(frame(WINDOW_UPDATE, SYN, number) for number in range(1, 2 * count, 2)))
                for _ in range(count):
                    readers.start_soon(read, await connection.accept_stream())
            await wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(rounds)
            for peer in peers:
                if how == "the peer leaves":
                    await peer.aclose()
                elif how == "the peer resets all":
                    await peer.send_all(resets)
            if how != "this side is cancelled":
                await all_woken()
            nursery.cancel_scope.cancel()
        if how == "this side is cancelled":
            await all_woken()
        trio.lowlevel.remove_instrument(rounds)
        # What came in one piece is told in one turn; the first ones of each connection don't wait for one.
        assert rounds.most <= (count if how == "the peer resets all" else (connections + 1) * AT_ONCE)


@pytest.mark.parametrize("how", ["it fails", "this side is cancelled"])
@pytest.mark.parametrize("rounds", [1, 2, 4])
async def test_who_waits_on_streams_that_were_reset_is_woken_though_the_connection_ends_before_its_turn(
    how: str, rounds: int
) -> None:
    """The session has forgotten those streams, and another connection's users have their turns meanwhile."""
    woken = trio.Semaphore(0)

    async def read(stream: MuxedStream, *, counts: bool) -> None:
        with suppress(MuxedStreamReset):
            await stream.read()
        if counts:
            woken.release()

    async with trio.open_nursery() as readers, trio.open_nursery() as nursery:

        async def opened(count: int, scope: trio.CancelScope, *, counts: bool) -> tuple[MuxedConnection, Stream]:
            ours, theirs = memory_stream_pair()
            connection = connection_on(MemoryPipe(ours), initiator=False)

            async def run() -> None:
                with scope:
                    await connection.start()

            nursery.start_soon(run)
            await theirs.send_all(b"".join(frame(WINDOW_UPDATE, SYN, number) for number in range(1, 2 * count, 2)))
            for _ in range(count):
                readers.start_soon(partial(read, counts=counts), await connection.accept_stream())
            return connection, theirs

        scope = trio.CancelScope()
        _, others = await opened(200, trio.CancelScope(), counts=False)
        _, peer = await opened(40, scope, counts=True)
        await wait_all_tasks_blocked()
        await others.aclose()
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        await peer.send_all(b"".join(frame(WINDOW_UPDATE, RST, number) for number in range(1, 80, 2)))
        if how == "it fails":
            await peer.aclose()
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()
        if how == "this side is cancelled":
            scope.cancel()
        with trio.fail_after(5):
            for _ in range(40):
                await woken.acquire()


@pytest.mark.parametrize("last", [frame(GO_AWAY), frame(9)])
async def test_a_connection_that_ends_with_what_reset_its_streams_wakes_their_users_in_turns(last: bytes) -> None:
    count, connections, rounds, woken = 200, 8, _Rounds(), trio.Semaphore(0)

    async def read(stream: MuxedStream) -> None:
        with pytest.raises(MuxedStreamReset):
            await stream.read()
        rounds.note()
        woken.release()

    async with trio.open_nursery() as nursery:
        peers = []
        for _ in range(connections):
            ours, theirs = memory_stream_pair()
            connection = connection_on(MemoryPipe(ours), initiator=False)
            nursery.start_soon(connection.start)
            await theirs.send_all(b"".join(frame(WINDOW_UPDATE, SYN, number) for number in range(1, 2 * count, 2)))
            for _ in range(count):
                nursery.start_soon(read, await connection.accept_stream())
            peers.append(theirs)
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(rounds)
        resets = b"".join(frame(WINDOW_UPDATE, RST, number) for number in range(1, 2 * count, 2))
        for peer in peers:
            nursery.start_soon(peer.send_all, resets + last)
        with trio.fail_after(5):
            for _ in range(count * connections):
                await woken.acquire()
        trio.lowlevel.remove_instrument(rounds)
        assert rounds.most <= count
        nursery.cancel_scope.cancel()


async def test_many_frames_of_one_stream_take_no_turn() -> None:
    """Twenty connections that each bring some are read as soon as one."""
    rounds, done = 0, trio.Semaphore(0)

    class Counting(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal rounds
            rounds += 1

    async with trio.open_nursery() as nursery:

        async def read(stream: MuxedStream) -> None:
            await read_exactly(stream, AT_ONCE + 1)
            done.release()

        peers = []
        for _ in range(20):
            ours, theirs = memory_stream_pair()
            connection = connection_on(MemoryPipe(ours), initiator=False)
            nursery.start_soon(connection.start)
            await theirs.send_all(frame(WINDOW_UPDATE, SYN, 1))
            nursery.start_soon(read, await connection.accept_stream())
            peers.append(theirs)
        await wait_all_tasks_blocked()
        counting = Counting()
        trio.lowlevel.add_instrument(counting)
        for peer in peers:
            nursery.start_soon(peer.send_all, b"".join(data(1, b"x") for _ in range(AT_ONCE + 1)))
        for _ in peers:
            await done.acquire()
        trio.lowlevel.remove_instrument(counting)
        assert rounds < 2 * len(peers), "each turn takes two"
        nursery.cancel_scope.cancel()


async def test_an_end_in_order_is_told_as_an_end() -> None:
    async with connected() as (here, there):
        stream = await here.open_stream()
        await stream.write(b"question")
        await stream.close_write()
        with pytest.raises(MuxedStreamClosed):
            await stream.write(b"more")
        other = await there.accept_stream()
        assert await read_all(other) == b"question"
        await other.write(b"answer")
        await other.close()
        assert await read_all(stream) == b"answer"
        assert stream.is_closed()
        assert other.is_closed()


async def test_who_closes_says_goodbye_after_all_that_was_written() -> None:
    async with with_peer_by_hand() as (connection, peer), trio.open_nursery() as nursery:
        stream = await connection.open_stream()
        await stream.write(b"farewell")
        nursery.start_soon(connection.close)
        received = b""
        while piece := await peer.stream.receive_some(64 * KIB):
            received += bytes(piece)
    assert received == frame(WINDOW_UPDATE, SYN, 2) + data(2, b"farewell") + frame(GO_AWAY)
    assert connection.is_closed


async def test_of_a_connection_that_we_closed_nothing_more_is_read() -> None:
    async with with_peer_by_hand() as (connection, peer), trio.open_nursery() as nursery:
        await peer.send(data(1, b"more of the same", SYN))
        stream = await connection.accept_stream()
        nursery.start_soon(connection.close)
        await wait_all_tasks_blocked()
        with pytest.raises(MuxedStreamReset):
            await stream.read()
        assert connection.session.unread == 0


@pytest.mark.parametrize("started", [True, False])
async def test_closing_is_not_cut_short_by_being_cancelled(started: bool) -> None:
    ours, _ = lockstep_stream_pair()
    pipe = MemoryPipe(ours)
    connection = connection_on(pipe, initiator=True)
    async with running(*[connection] if started else []):
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await connection.close()
        assert pipe.is_closed
        assert connection.is_closed
    await connection.start()  # as libp2p may, however late
    assert connection.event_started.is_set()


async def test_who_closes_from_what_is_called_at_the_end_does_not_wait_for_itself() -> None:
    async with with_peer_by_hand() as (connection, peer):
        connection.on_close = connection.close
        with trio.fail_after(1):
            await peer.stream.aclose()
            await connection.event_closed.wait()


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (frame(DATA, version=9), EndCode.BAD_FRAME),
        (frame(WINDOW_UPDATE, SYN, 2), EndCode.BAD_STREAM),
        (data(1, bytes(WINDOW), SYN) + data(1, b"x"), EndCode.WINDOW_EXCEEDED),
        (frame(PING, SYN) * 20_000, EndCode.UNREAD_ANSWERS),
    ],
)
async def test_who_breaks_the_protocol_is_told_and_left(received: bytes, code: EndCode) -> None:
    async with with_peer_by_hand() as (connection, peer), trio.open_nursery() as nursery:

        async def break_it() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await peer.stream.send_all(received)

        nursery.start_soon(break_it)
        if code is not EndCode.UNREAD_ANSWERS:
            assert (await peer.received(GO_AWAY)).value == 1
        await connection.event_closed.wait()
        assert connection.ended is not None
        assert connection.ended.code is code


async def test_nothing_is_read_of_a_peer_that_has_to_pause(autojump_clock: MockClock) -> None:
    debt = [3.0]

    def pause(_peer: str) -> float:
        return debt.pop() if debt else 0.0

    async with with_peer_by_hand(pause=pause) as (_, peer):
        before = trio.current_time()
        await peer.send(frame(PING, SYN, 0, 7))
        await peer.received(PING, ACK)
        assert trio.current_time() - before == pytest.approx(3.0)


async def test_an_idle_connection_is_kept_in_use_and_streams_that_were_left_are_dropped(
    autojump_clock: MockClock,
) -> None:
    async with with_peer_by_hand() as (connection, peer):
        await peer.send(frame(WINDOW_UPDATE, SYN, 1))
        stream = await connection.accept_stream()
        await stream.close()
        await peer.received(WINDOW_UPDATE, FIN)
        before = trio.current_time()
        await peer.received(PING, SYN)
        assert trio.current_time() - before == pytest.approx(30, abs=1)
        await peer.received(WINDOW_UPDATE, RST)
        assert trio.current_time() - before == pytest.approx(60, abs=1)
        with pytest.raises(MuxedStreamReset):
            await stream.read()


async def test_streams_wait_while_too_many_have_no_answer(autojump_clock: MockClock) -> None:
    async with with_peer_by_hand() as (connection, peer), trio.open_nursery() as nursery:

        async def read() -> None:
            with suppress(trio.ClosedResourceError):
                while True:
                    await peer.stream.receive_some(64 * KIB)

        nursery.start_soon(read)
        for _ in range(MOST_UNANSWERED):
            await connection.open_stream()
        with pytest.raises(MuxedConnUnavailable, match="answers no streams"):
            await connection.open_stream()
        opened = trio.Event()

        async def open_another() -> None:
            await connection.open_stream()
            opened.set()

        nursery.start_soon(open_another)
        await wait_all_tasks_blocked()
        assert not opened.is_set()
        await peer.send(frame(WINDOW_UPDATE, ACK, 2))
        await opened.wait()
        await peer.stream.aclose()


async def test_a_stream_that_was_reset_before_it_was_accepted_is_nobodys() -> None:
    async with with_peer_by_hand() as (connection, peer):
        await peer.send(frame(WINDOW_UPDATE, SYN, 1) + frame(WINDOW_UPDATE, RST, 1) + data(3, b"hello", SYN))
        stream = await connection.accept_stream()
        assert (stream.stream_id, await stream.read()) == (3, b"hello")


async def test_when_memory_is_short_the_peer_with_most_unread_bytes_loses_its_connection() -> None:
    budget = FairQuota(1000 * KIB, 800 * KIB)
    async with AsyncExitStack() as stack:
        peers = [Identity.generate().peer_id for _ in range(3)]
        greedy, modest, honest = [
            await stack.enter_async_context(with_peer_by_hand(budget=budget, peer=peer)) for peer in peers
        ]
        for stream in (1, 3):
            await greedy[1].send(data(stream, bytes(250 * KIB), SYN))
        for connection, peer in (modest, honest):
            await peer.send(data(1, bytes(200 * KIB), SYN))
            assert len(await read_exactly(await connection.accept_stream(), 200 * KIB)) == 200 * KIB
        assert budget.of(peers[2]) == 0
        await modest[1].send(data(3, bytes(250 * KIB), SYN))
        assert budget.total <= 1000 * KIB
        await honest[1].send(data(3, bytes(250 * KIB), SYN))
        await wait_all_tasks_blocked()
        assert greedy[0].ended is not None
        assert greedy[0].ended.code is EndCode.MEMORY
        assert greedy[0].session.unread == 0
        assert modest[0].ended is honest[0].ended is None
        assert budget.of(peers[0]) == 0


async def test_many_streams_of_a_peer_count_until_they_end() -> None:
    budget = FairQuota(1 << 30, 1000 * KIB)
    name = Identity.generate().peer_id
    async with with_peer_by_hand(budget=budget, peer=name) as (connection, peer):
        for number in range(8):
            await peer.send(frame(WINDOW_UPDATE, SYN, 2 * number + 1))
        await wait_all_tasks_blocked()
        assert budget.of(name) == 0
        for number in range(8, 100):
            await peer.send(frame(WINDOW_UPDATE, SYN, 2 * number + 1))
        await wait_all_tasks_blocked()
        assert 92 * 8 * KIB <= budget.of(name) <= 92 * 8 * KIB + 64 * KIB
        for number in range(100):
            await peer.send(frame(WINDOW_UPDATE, RST, 2 * number + 1))
        await wait_all_tasks_blocked()
        assert budget.of(name) == 0
        assert connection.ended is None
        with suppress(trio.BrokenResourceError):
            for number in range(100, 250):
                await peer.send(frame(WINDOW_UPDATE, SYN, 2 * number + 1))
        await wait_all_tasks_blocked()
        assert connection.ended is not None
        assert connection.ended.code is EndCode.MEMORY
        assert budget.total == 0


async def test_what_users_of_streams_hold_counts_as_what_is_unread() -> None:
    budget = FairQuota(1000 * KIB, 800 * KIB)
    name = Identity.generate().peer_id
    async with with_peer_by_hand(budget=budget, peer=name) as (connection, peer):
        await peer.send(data(1, bytes(200 * KIB), SYN) + frame(WINDOW_UPDATE, SYN, 3))
        stream, other = await connection.accept_stream(), await connection.accept_stream()
        assert budget.of(name) == 256 * KIB
        assert len(await read_exactly(stream, 200 * KIB)) == 200 * KIB
        assert budget.of(name) == 0
        assert stream.hold(200 * KIB)
        assert other.hold(300 * KIB)
        assert budget.of(name) == 512 * KIB
        assert not other.hold(700 * KIB)
        assert connection.ended is None
        assert budget.of(name) == 512 * KIB
        assert stream.hold(0)
        assert other.hold(700 * KIB)
        assert budget.of(name) == 704 * KIB
        await connection.close()
        assert budget.total == 0
        assert stream.hold(0)
        assert budget.total == 0


async def test_many_greedy_peers_take_no_more_than_the_budget_and_a_modest_one_is_served() -> None:
    budget = FairQuota(4096 * KIB, 1024 * KIB)
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        modest, peer = await stack.enter_async_context(
            with_peer_by_hand(budget=budget, peer=Identity.generate().peer_id)
        )
        await peer.send(frame(WINDOW_UPDATE, SYN, 1))
        stream = await modest.accept_stream()
        nursery.start_soon(read_exactly, stream, 200 * KIB)
        greedy: list[MuxedConnection] = []
        for _ in range(40):
            connection, attacker = await stack.enter_async_context(
                with_peer_by_hand(budget=budget, peer=Identity.generate().peer_id)
            )
            greedy.append(connection)
            with suppress(trio.BrokenResourceError):
                for number in (1, 3, 5, 7):
                    await attacker.send(data(number, bytes(250 * KIB), SYN))
            await peer.send(data(1, bytes(5 * KIB)))
            held = sum(connection.session.unread for connection in greedy)
            assert budget.total <= 4096 * KIB
            assert held <= 4096 * KIB + len(greedy) * 16 * KIB
        assert modest.ended is None
        ended = [connection.ended.code for connection in greedy if connection.ended is not None]
    assert set(ended) == {EndCode.MEMORY}
    assert len(ended) >= 24
