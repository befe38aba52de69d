"""One link, its other end played by hand."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from overlay.errors import (
    AnswerDropped,
    AnswerTooLarge,
    BodyTooLarge,
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    NoSuchMethod,
    Overloaded,
    ProtocolError,
    Refusal,
    StreamBroken,
)
from overlay.rpc.counters import Counters
from overlay.rpc.decoded_items import DecodedItems
from overlay.rpc.framing import FrameDecoder, encode_frame, encode_item
from overlay.rpc.link import Link, NotSent
from overlay.rpc.link_state import Cause
from overlay.rpc.protocol import (
    Bye,
    Cancel,
    Failed,
    Fault,
    Frame,
    Hello,
    Ping,
    Pong,
    Reason,
    Refused,
    Request,
    Response,
    Unknown,
    encode,
    parse,
)
from overlay.rpc.server import Handler
from overlay.settings import CallLimits
from tests.unit.overlay.memory_network import LARGER, SMALLER, MemoryStream, memory_streams

HELLO = Hello(1, True, b"session1")
KIB = 1024


class Remote:
    """The other end of a link, frame by frame."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.decoder = FrameDecoder(64 * KIB * KIB)
        self.received: list[Frame | Unknown] = []

    async def say(self, *frames: Frame) -> None:
        await self.stream.write(b"".join(map(encode, frames)))

    async def say_goodbye(self) -> None:
        """Read until the other side closes, then close, as a peer does."""
        await self.hear_last()
        await self.stream.close()

    async def hear_last(self) -> Frame | Unknown:
        """The last frame before the other side closes."""
        while chunk := await self.stream.read_some(64 * KIB):
            self.received += map(parse, self.decoder.feed(chunk))
        return self.received[-1]

    async def hear(self) -> Frame | Unknown:
        """The next frame that isn't a ping."""
        while True:
            while self.received:
                frame = self.received.pop(0)
                if not isinstance(frame, Ping):
                    return frame
            chunk = await self.stream.read_some(64 * KIB)
            assert chunk, "the link was closed"
            self.received += map(parse, self.decoder.feed(chunk))


class Linked:
    """A link that runs, and its other end."""

    def __init__(
        self, link: Link, stream: MemoryStream, remote: Remote, counters: Counters, nursery: trio.Nursery
    ) -> None:
        self.link = link
        self.stream = stream
        self.remote = remote
        self.counters = counters
        self.nursery = nursery
        self.link_scope = trio.CancelScope()
        self.ended = trio.Event()
        self.outcomes: list[object] = []

    async def run(self, up: trio.Event) -> None:
        with self.link_scope:
            await self.link.run(lambda _: up.set())
        self.ended.set()

    async def call(self, method: str = "echo", body: object = None, *, timeout: float = math.inf) -> None:
        """Call, and keep the answer or the error."""
        try:
            with trio.fail_after(timeout):
                self.outcomes.append(
                    await self.link.call(method, encode_item(body), trio.current_time() + min(timeout, 1000))
                )
        except (CallFailed, NotSent, trio.TooSlowError) as error:
            self.outcomes.append(error)


@asynccontextmanager
async def linked(
    limits: CallLimits | None = None,
    handlers: dict[str, Handler] | None = None,
    *,
    hello: bool = True,
    decoded_items: DecodedItems | None = None,
    peer_id: str = LARGER,
) -> AsyncIterator[Linked]:
    ours, theirs = memory_streams()
    counters, up = Counters(), trio.Event()
    link = Link(
        peer_id,
        ours,
        opened_by=SMALLER,
        hello=HELLO,
        handlers=handlers or {},
        limits=limits or CallLimits(),
        counters=counters,
        decoded_items=decoded_items,
    )
    async with trio.open_nursery() as nursery:
        remote = Remote(theirs)
        pair = Linked(link, ours, remote, counters, nursery)
        nursery.start_soon(pair.run, up)
        if hello:
            await remote.say(HELLO)
            await up.wait()
            assert await remote.hear() == HELLO
        yield pair
        nursery.cancel_scope.cancel()


async def echo(caller: str, body: object) -> object:
    await trio.lowlevel.checkpoint()
    return [caller, body]


def blocking(log: list[str]) -> Handler:
    """A handler that never answers, and notes when it starts and is cancelled."""

    async def block(caller: str, body: object) -> object:
        log.append(f"started {body}")
        try:
            await trio.sleep_forever()
        finally:
            log.append(f"ended {body}")

    return block


def request(call_id: int, method: str = "echo", body: object = None, timeout: float = 100.0) -> Request:
    return Request(call_id, method, encode_item(body), round(timeout * 1000))


# Meeting


async def test_silent_newcomer_is_dropped(autojump_clock: MockClock) -> None:
    async with linked(hello=False) as pair:
        await pair.link.wait_ended()
        assert trio.current_time() == pytest.approx(5)
        assert "no hello" in pair.link.loss


@pytest.mark.parametrize("first", [request(1), Ping(), Response(0, b"")])
async def test_peer_that_does_not_begin_with_hello_is_dropped(first: Frame) -> None:
    async with linked(hello=False, handlers={"echo": echo}) as pair:
        await pair.remote.say(first)
        await pair.link.wait_ended()
        assert pair.link.cause is Cause.BROKE_PROTOCOL
        assert pair.counters.malformed == 1


async def test_no_call_is_made_before_the_hello() -> None:
    async with linked(hello=False) as pair:
        await pair.call()
        assert isinstance(pair.outcomes[0], NotSent)


# Calling


async def test_answers_find_their_calls_in_any_order() -> None:
    async with linked() as pair:
        for number in range(3):
            pair.nursery.start_soon(pair.call, "echo", number)
            await wait_all_tasks_blocked()
        requests = [await pair.remote.hear() for _ in range(3)]
        for asked in reversed(requests):
            assert isinstance(asked, Request)
            await pair.remote.say(Response(asked.id, asked.body))
            await wait_all_tasks_blocked()
        assert pair.outcomes == [2, 1, 0]


async def test_peer_is_told_how_long_the_caller_waits(autojump_clock: MockClock) -> None:
    async with linked() as pair:
        pair.nursery.start_soon(lambda: pair.call(timeout=2.5))
        asked = await pair.remote.hear()
        assert isinstance(asked, Request)
        assert asked.timeout == 2500


async def test_call_that_is_cancelled_here_is_cancelled_there(autojump_clock: MockClock) -> None:
    async with linked() as pair:
        await pair.call(timeout=1)
        asked = await pair.remote.hear()
        assert isinstance(asked, Request)
        assert await pair.remote.hear() == Cancel(asked.id)
        await pair.remote.say(Response(asked.id, encode_item("late")))
        pair.nursery.start_soon(pair.call)
        asked = await pair.remote.hear()
        assert isinstance(asked, Request)
        await pair.remote.say(Response(asked.id, encode_item("in time")))
        await wait_all_tasks_blocked()
        assert isinstance(pair.outcomes[0], trio.TooSlowError)
        assert pair.outcomes[1:] == ["in time"], "an answer to nobody is ignored"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda call_id: Refused(call_id, "full", "no more"), CallRefused),
        (lambda call_id: Failed(call_id, Fault.OVERLOADED), Overloaded),
        (lambda call_id: Failed(call_id, Fault.ANSWER_DROPPED, 100), AnswerDropped),
        (lambda call_id: Failed(call_id, Fault.NO_SUCH_METHOD), NoSuchMethod),
        (lambda call_id: Failed(call_id, Fault.TIMEOUT), CallTimeout),
        (lambda call_id: Failed(call_id, Fault.ANSWER_TOO_LARGE), AnswerTooLarge),
        (lambda call_id: Failed(call_id, Fault.BAD_BODY), ProtocolError),
        (lambda call_id: Response(call_id, b"\xff"), ProtocolError),
    ],
)
async def test_each_failure_has_its_own_error(answer: Callable[[int], Frame], expected: type[CallFailed]) -> None:
    async with linked() as pair:
        pair.nursery.start_soon(pair.call)
        asked = await pair.remote.hear()
        assert isinstance(asked, Request)
        await pair.remote.say(answer(asked.id))
        await wait_all_tasks_blocked()
        [error] = pair.outcomes
        assert isinstance(error, expected)
        assert error.peer_id == LARGER
        assert not pair.link.loss


async def test_lost_link_fails_all_calls_at_once() -> None:
    async with linked() as pair:
        for _ in range(3):
            pair.nursery.start_soon(pair.call)
        await wait_all_tasks_blocked()
        await pair.remote.stream.reset()
        await wait_all_tasks_blocked()
        assert [type(error) for error in pair.outcomes] == [ConnectionLost] * 3


async def test_too_large_a_request_is_refused_before_anything_is_sent() -> None:
    async with linked(CallLimits(max_frame=KIB)) as pair:
        sent = len(pair.stream.writes)
        await pair.call(body=b"x" * KIB)
        assert isinstance(pair.outcomes[0], BodyTooLarge)
        assert len(pair.stream.writes) == sent


async def test_own_pending_calls_are_bounded() -> None:
    async with linked(CallLimits(max_pending=2)) as pair:
        for _ in range(2):
            pair.nursery.start_soon(pair.call)
        await wait_all_tasks_blocked()
        await pair.call()
        assert [type(error) for error in pair.outcomes] == [Overloaded]


async def test_frames_that_wait_are_written_together() -> None:
    async with linked() as pair:
        written = len(pair.stream.writes)
        for _ in range(50):
            pair.nursery.start_soon(pair.call)
        await wait_all_tasks_blocked()
        assert len(pair.stream.writes) - written <= 2


# Serving


async def test_handler_gets_caller_and_body() -> None:
    async with linked(handlers={"echo": echo}) as pair:
        await pair.remote.say(request(7, "echo", {"a": [1, b"2"]}))
        assert await pair.remote.hear() == Response(7, encode_item([LARGER, {"a": [1, b"2"]}]))


async def test_unknown_method_is_answered_as_such() -> None:
    async with linked() as pair:
        await pair.remote.say(request(1, "nothing"))
        assert await pair.remote.hear() == Failed(1, Fault.NO_SUCH_METHOD)


async def test_refusal_of_a_handler_reaches_the_caller() -> None:
    async def refuse(caller: str, body: object) -> object:
        raise Refusal("full", "x" * 5000)

    async with linked(handlers={"echo": refuse}) as pair:
        await pair.remote.say(request(1))
        assert await pair.remote.hear() == Refused(1, "full", "x" * 1024)
        assert pair.counters.refused == 1


async def test_broken_handler_tells_the_log_all_and_the_caller_nothing() -> None:
    async def break_down(caller: str, body: object) -> object:
        raise RuntimeError("secret")

    async with linked(handlers={"echo": break_down}) as pair:
        with capture_logs() as logs:
            await pair.remote.say(request(1))
            assert await pair.remote.hear() == Refused(1, "internal", "internal error")
        assert [entry["event"] for entry in logs] == ["serving a call failed"]
        assert logs[0]["exc_info"]


@pytest.mark.parametrize("bad", [object(), float])
async def test_answer_that_is_not_cbor_is_an_internal_error(bad: object) -> None:
    async def answer(caller: str, body: object) -> object:
        return bad

    async with linked(handlers={"echo": answer}) as pair:
        with capture_logs():
            await pair.remote.say(request(1))
            assert await pair.remote.hear() == Refused(1, "internal", "internal error")


async def test_too_large_an_answer_becomes_an_error() -> None:
    async def answer(caller: str, body: object) -> object:
        return b"x" * KIB

    async with linked(CallLimits(max_frame=KIB), {"echo": answer}) as pair:
        with capture_logs():
            await pair.remote.say(request(1))
            assert await pair.remote.hear() == Failed(1, Fault.ANSWER_TOO_LARGE)


async def test_handler_is_cancelled_at_the_deadline(autojump_clock: MockClock) -> None:
    log: list[str] = []
    async with linked(handlers={"echo": blocking(log)}) as pair:
        await pair.remote.say(request(1, timeout=2))
        assert await pair.remote.hear() == Failed(1, Fault.TIMEOUT)
        assert trio.current_time() == pytest.approx(2)
        assert log == ["started None", "ended None"]


async def test_cancelled_request_gets_no_answer() -> None:
    log: list[str] = []
    async with linked(handlers={"block": blocking(log), "echo": echo}) as pair:
        await pair.remote.say(request(1, "block"))
        await wait_all_tasks_blocked()
        await pair.remote.say(Cancel(1), Cancel(99), request(2))
        assert await pair.remote.hear() == Response(2, encode_item([LARGER, None]))
        assert log == ["started None", "ended None"]


async def test_lost_link_cancels_its_handlers() -> None:
    log: list[str] = []
    async with linked(handlers={"echo": blocking(log)}) as pair:
        await pair.remote.say(request(1))
        await wait_all_tasks_blocked()
        await pair.remote.stream.close()
        await pair.link.wait_ended()
        assert log == ["started None", "ended None"]


async def test_requests_beyond_the_limit_queue_and_beyond_the_queue_are_turned_away() -> None:
    log: list[str] = []
    async with linked(CallLimits(max_in_flight=2, max_queued=2), {"echo": blocking(log)}) as pair:
        await pair.remote.say(*(request(number, body=number) for number in range(5)))
        assert await pair.remote.hear() == Failed(4, Fault.OVERLOADED, 100)
        assert sorted(log) == ["started 0", "started 1"]
        await pair.remote.say(Cancel(2), Cancel(0))
        await wait_all_tasks_blocked()
        assert sorted(log) == ["ended 0", "started 0", "started 1", "started 3"], "2 was cancelled in the queue"
        assert pair.counters.overloaded == 1


async def test_who_is_turned_away_is_told_to_come_back_when_those_that_wait_were_served(
    autojump_clock: MockClock,
) -> None:
    async def slow(caller: str, body: object) -> object:
        await trio.sleep(2)
        return None

    async with linked(CallLimits(max_in_flight=1, max_queued=1), {"echo": slow}) as pair:
        await pair.remote.say(request(0), request(1))
        assert isinstance(await pair.remote.hear(), Response)
        await pair.remote.say(request(2), request(3))
        assert await pair.remote.hear() == Failed(3, Fault.OVERLOADED, 2000), "the one before waited two seconds"


async def test_a_caller_learns_when_to_come_back() -> None:
    raised: list[CallFailed] = []

    async def call() -> None:
        try:
            await pair.link.call("echo", encode_item(None), trio.current_time() + 5)
        except CallFailed as error:
            raised.append(error)
        told.set()

    async with linked() as pair:
        for answer in (Failed(0, Fault.OVERLOADED, 2500), Refused(0, "overloaded", "busy", 700)):
            told = trio.Event()
            pair.nursery.start_soon(call)
            asked = await pair.remote.hear()
            assert isinstance(asked, Request)
            await pair.remote.say(msgspec.structs.replace(answer, id=asked.id))
            await told.wait()
    failed, refused = raised
    assert isinstance(failed, Overloaded)
    assert (failed.retry_after, failed.reason) == (2.5, "overloaded; come back in 2.5 s")
    assert isinstance(refused, CallRefused)
    assert refused.retry_after == 0.7


async def test_queued_requests_are_served_in_turn() -> None:
    async with linked(CallLimits(max_in_flight=1), {"echo": echo}) as pair:
        await pair.remote.say(*(request(number) for number in range(20)))
        answers = [await pair.remote.hear() for _ in range(20)]
        assert [answer.id for answer in answers if isinstance(answer, Response)] == list(range(20))


async def test_request_whose_deadline_passed_in_the_queue_is_not_served(autojump_clock: MockClock) -> None:
    log: list[str] = []
    async with linked(CallLimits(max_in_flight=1), {"echo": blocking(log)}) as pair:
        await pair.remote.say(request(1, body=1, timeout=3), request(2, body=2, timeout=2))
        assert [await pair.remote.hear(), await pair.remote.hear()] == [
            Failed(1, Fault.TIMEOUT),
            Failed(2, Fault.TIMEOUT),
        ]
        assert log == ["started 1", "ended 1"]


async def test_bytes_of_requests_are_bounded_and_one_is_always_served() -> None:
    log: list[str] = []
    limits = CallLimits(max_served_bytes=KIB, max_queued_bytes=3 * KIB)
    async with linked(limits, {"echo": blocking(log), "other": echo}) as pair:
        await pair.remote.say(*(Request(number, "echo", encode_item("x" * 1500), 100_000) for number in range(4)))
        assert await pair.remote.hear() == Failed(3, Fault.OVERLOADED, 100)
        await wait_all_tasks_blocked()
        assert len(log) == 1
        await pair.remote.say(request(9, "other"), Cancel(0), Cancel(1), Cancel(2))
        assert isinstance(await pair.remote.hear(), Response), "small ones start beside each other once there is room"


async def test_body_that_is_not_cbor_fails_its_own_call_only() -> None:
    async with linked(handlers={"echo": echo}) as pair:
        await pair.remote.say(Request(1, "echo", b"\x81" * 1000, 1000), request(2))
        answers = {await pair.remote.hear(), await pair.remote.hear()}
        assert answers == {Failed(1, Fault.BAD_BODY), Response(2, encode_item([LARGER, None]))}
        assert pair.counters.malformed == 1


# Breaking the rules


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        encode_frame([-1]),
        encode_frame([True]),
        encode_frame({}),
        encode_frame([1, "id", "echo", b"", 5]),
        encode_frame([1, -1, "echo", b"", 5]),
        encode_frame([1, 1, "echo", "text", 5]),
        encode_frame([1, 1, "e" * 200, b"", 5]),
        encode(HELLO),
        encode(request(1)) + encode(request(1)),
        encode(Bye()) + encode(request(1)),
        (5).to_bytes(4, "big") + b"\x81" * 5,
    ],
)
async def test_breaking_the_protocol_ends_the_link(garbage: bytes) -> None:
    async with linked(handlers={"echo": blocking([])}) as pair:
        pair.nursery.start_soon(pair.call)
        await wait_all_tasks_blocked()
        await pair.remote.stream.write(garbage)
        await wait_all_tasks_blocked()
        assert pair.link.cause is Cause.BROKE_PROTOCOL
        assert pair.counters.malformed == 1
        assert [type(error) for error in pair.outcomes] == [ConnectionLost]
        assert await pair.remote.hear_last() == Bye(Reason.BROKE_PROTOCOL), "it is told why"
        await pair.remote.stream.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.lists(st.binary(max_size=60), max_size=4), cbor=st.booleans())
def test_no_garbage_raises_past_the_link(garbage: list[bytes], cbor: bool) -> None:
    async def scenario() -> None:
        async with linked(handlers={"echo": echo}) as pair:
            with suppress(StreamBroken):  # as soon as the link was reset
                for chunk in garbage:
                    await pair.remote.stream.write(len(chunk).to_bytes(4, "big") + chunk if cbor else chunk)
            await pair.remote.stream.close()
            await pair.link.wait_ended()

    trio.run(scenario)


# Signs of life


async def test_silent_peer_is_asked_and_then_given_up(autojump_clock: MockClock) -> None:
    async with linked() as pair:
        await pair.link.wait_ended()
        assert trio.current_time() == pytest.approx(13)
        assert pair.counters.stalled == 1
        assert [parse(item) for item in FrameDecoder(KIB).feed(pair.stream.writes[-1])] == [Ping()]


async def test_peer_that_answers_pings_stays(autojump_clock: MockClock) -> None:
    async with linked() as pair:

        async def answer_pings() -> None:
            while True:
                chunk = await pair.remote.stream.read_some(KIB)
                for _ in pair.remote.decoder.feed(chunk):
                    await pair.remote.say(Pong())

        pair.nursery.start_soon(answer_pings)
        await trio.sleep(1000)
        assert not pair.link.loss


async def test_ping_is_answered() -> None:
    async with linked() as pair:
        await pair.remote.say(Ping())
        assert await pair.remote.hear() == Pong(8)


async def test_peer_that_does_not_read_holds_callers_back_and_is_given_up(autojump_clock: MockClock) -> None:
    async with linked(CallLimits(max_frame=KIB, max_write_buffer=4 * KIB, ping_interval=60)) as pair:
        pair.stream.stall()
        for _ in range(20):
            pair.nursery.start_soon(pair.call, "echo", b"x" * 900)
        await wait_all_tasks_blocked(0.01)
        assert not pair.outcomes, "callers wait"
        await pair.link.wait_ended()
        await wait_all_tasks_blocked(0.01)
        assert trio.current_time() == pytest.approx(5, abs=0.1)
        kinds = [type(error) for error in pair.outcomes]
        assert sorted(kinds, key=lambda kind: kind.__name__) == [ConnectionLost] * 5 + [NotSent] * 15, (
            "what never left may take another link"
        )


async def test_held_back_callers_go_on_when_the_peer_reads_again() -> None:
    async with linked(CallLimits(max_frame=KIB, max_write_buffer=4 * KIB)) as pair:
        pair.stream.stall()
        for _ in range(20):
            pair.nursery.start_soon(pair.call, "echo", b"x" * 900)
        await wait_all_tasks_blocked()
        pair.stream.may_write.set()
        asked = [await pair.remote.hear() for _ in range(20)]
        assert all(isinstance(frame, Request) for frame in asked)


async def test_peer_that_makes_us_talk_and_does_not_read_is_given_up() -> None:
    async with linked(CallLimits(max_frame=KIB, max_write_buffer=4 * KIB)) as pair:
        pair.stream.stall()
        await pair.remote.stream.write(encode(Ping()) * 4000)
        await wait_all_tasks_blocked()
        assert pair.link.loss == "the peer doesn't read"


# Memory


async def test_what_is_held_for_the_peer_is_told_and_given_back() -> None:
    log: list[str] = []
    async with linked(CallLimits(), {"echo": blocking(log)}) as pair:
        frame = encode(Request(1, "echo", encode_item("x" * 10_000), 100_000))
        await pair.remote.stream.write(frame[:6000])
        await wait_all_tasks_blocked()
        assert pair.stream.held == 6000
        await pair.remote.stream.write(frame[6000:])
        await wait_all_tasks_blocked()
        assert 10_000 <= pair.stream.held <= 10_010
        await pair.remote.say(Cancel(1))
        await wait_all_tasks_blocked()
        await pair.remote.say(Ping())
        assert await pair.remote.hear() == Pong(8)
        await wait_all_tasks_blocked()
        assert pair.stream.held == 0
        await pair.remote.stream.write(frame[:6000])
        await wait_all_tasks_blocked()
        pair.link.end("for the test")
        await pair.ended.wait()
        assert pair.stream.held == 0


async def test_what_memory_has_no_room_for_is_turned_away_and_an_answer_is_told_as_dropped() -> None:
    """Who is told that a call was turned away may make it elsewhere: it would be done twice."""
    served: list[object] = []

    async def lengthen(caller: str, body: object) -> object:
        served.append(body)
        return "x" * 2000

    async with linked(CallLimits(), {"echo": echo, "lengthen": lengthen}) as pair:
        pair.stream.may_hold = 1000
        await pair.remote.say(request(1, "lengthen", "x" * 900), request(2, "lengthen", 2), request(3, "echo", 5))
        answers = [await pair.remote.hear() for _ in range(3)]
        assert Failed(1, Fault.ANSWER_DROPPED, 100) in answers
        assert Failed(2, Fault.ANSWER_DROPPED, 100) in answers
        assert Response(3, encode_item([LARGER, 5])) in answers
        assert len(served) == 2
        pair.stream.may_hold = 100
        await pair.remote.say(request(4, "lengthen", "x" * 200))
        assert await pair.remote.hear() == Failed(4, Fault.OVERLOADED, 100)
        assert len(served) == 2
        assert pair.counters.overloaded == 3


async def test_a_frame_that_memory_has_no_room_for_ends_the_link() -> None:
    async with linked() as pair:
        pair.stream.may_hold = 1000
        await pair.remote.stream.write(encode(request(1, "echo", "x" * 5000))[:2000])
        await pair.ended.wait()
        assert pair.link.cause is Cause.STALLED
        assert pair.stream.held == 0


async def test_a_frame_that_does_not_come_to_its_end_ends_the_link(autojump_clock: MockClock) -> None:
    async with linked(CallLimits(frame_timeout=10)) as pair:
        frame = encode(request(1, "echo", "x" * 5000))
        await trio.sleep(5)
        with suppress(StreamBroken):
            for position in range(100):
                await pair.remote.stream.write(frame[position : position + 1])
                await trio.sleep(1)
        await pair.ended.wait()
        assert trio.current_time() == pytest.approx(15, abs=1.1)
        assert pair.link.cause is Cause.STALLED


async def test_each_frame_has_its_own_time(autojump_clock: MockClock) -> None:
    async with linked(CallLimits(frame_timeout=10), {"echo": echo}) as pair:
        rest = b""
        for number in range(10):
            frame = rest + encode(request(number, "echo", "x" * 100))
            await pair.remote.stream.write(frame[:-20])
            await trio.sleep(6)
            rest = frame[-20:]
        assert not pair.ended.is_set()


# Retiring


async def test_retired_link_ends_when_all_is_done_both_ways() -> None:
    release = trio.Event()

    async def wait(caller: str, body: object) -> object:
        await release.wait()
        return "served"

    async with linked(handlers={"echo": wait}) as pair:
        pair.nursery.start_soon(pair.call)
        await pair.remote.say(request(1))
        asked = await pair.remote.hear()
        assert isinstance(asked, Request)
        pair.link.retire()
        assert await pair.remote.hear() == Bye(Reason.REPLACED)
        await pair.call()
        assert isinstance(pair.outcomes.pop(), NotSent)
        await pair.remote.say(Bye())
        await pair.remote.say(Response(asked.id, encode_item("answered")))
        await wait_all_tasks_blocked()
        assert pair.outcomes == ["answered"]
        assert not pair.link.loss, "a request is still being served"
        release.set()
        assert await pair.remote.hear() == Response(1, encode_item("served"))
        await pair.link.wait_ended()
        assert not pair.stream.was_reset
