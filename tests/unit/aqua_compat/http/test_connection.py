"""One connection: what is answered, what is refused, and that slow, greedy and vanished clients cost nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from aqua_compat.http.client_waits import FINISH, LINGER
from aqua_compat.http.connection import READ, Connection, Handle
from aqua_compat.http.message import HttpReply, HttpRequest
from aqua_compat.http.ready import KnownRequests, ReadyReply, known_requests
from aqua_compat.settings import HttpSettings

LIMITS = HttpSettings()
JSON = [("Content-Type", "application/json")]


class Served:
    """A connection that is served, as its client sees it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def all(self) -> bytes:
        """Everything until the server closes."""
        received = b""
        while piece := await self.stream.receive_some(65536):
            received += piece
        return received

    async def until(self, end: bytes) -> bytes:
        received = b""
        while end not in received:
            piece = await self.stream.receive_some(65536)
            assert piece, received
            received += piece
        return received


async def echo(request: HttpRequest) -> HttpReply:
    return HttpReply(200, JSON, repr((request.method, request.path, request.body)).encode())


def is_blocked_query(request: HttpRequest) -> bool:
    return request.path == ("blocked",)


@asynccontextmanager
async def served(handle: Handle = echo, limits: HttpSettings = LIMITS) -> AsyncIterator[Served]:
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(server, handle, limits, waits=is_blocked_query).serve)
        yield Served(client)
        await client.aclose()


async def answer_to(sent: bytes, limits: HttpSettings = LIMITS) -> bytes:
    async with served(limits=limits) as client:
        await client.stream.send_all(sent)
        await client.stream.send_eof()
        return await client.all()


async def test_requests_follow_each_other_on_one_connection_and_may_be_sent_at_once(autojump_clock) -> None:
    one = b"GET /a/b HTTP/1.1\r\nHost: x\r\n\r\n"
    two = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    answer = await answer_to(one + two + one)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answer.count(b"('GET', ('a', 'b'), b'')") == 2
    assert b"('POST', ('c',), b'hi')" in answer


async def test_what_follows_a_body_that_could_end_in_two_places_is_not_read(autojump_clock) -> None:
    both = b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    answer = await answer_to(both + b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_client_of_the_old_protocol_gets_its_answer_and_the_end(autojump_clock) -> None:
    async with served() as client:
        await client.stream.send_all(b"GET /a HTTP/1.0\r\n\r\n")
        assert (await client.all()).endswith(b"('GET', ('a',), b'')")


async def test_head_has_no_body(autojump_clock) -> None:
    head, _, body = (await answer_to(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert b"Content-Length: 21" in head
    assert body == b""


async def test_who_waits_for_leave_to_send_a_body_gets_it(autojump_clock) -> None:
    async with served() as client:
        await client.stream.send_all(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert b"100" in await client.until(b"\r\n\r\n")
        await client.stream.send_all(b"hi")
        assert b"b'hi'" in await client.until(b"b'hi'")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"rubbish\r\n\r\n", 400, id="no HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000, 431, id="a huge header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 16_384 + b"\r\n\r\n", 431, id="a whole one"),
        pytest.param(b"GET /" + b"a" * 40_000, 431, id="a huge target"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 1_000 + b"\r\n", 431, id="many headers"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, id="two hosts"),
        pytest.param(b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="a proxy's target"),
        pytest.param(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="a tunnel"),
        pytest.param(b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="a broken escape"),
        pytest.param(b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="no UTF-8"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413, id="a huge body"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 500 + b"\r\n\r\n", 400, id="longer"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, id="less than nothing"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            200,  # RFC 9112, 6.3: the length doesn't count then
            id="two lengths",
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, id="another encoding"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhi", 400, id="half a body"),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_told_so(sent: bytes, status: int, autojump_clock) -> None:
    answer = await answer_to(sent)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert status == 200 or b"application/problem+json" in answer


async def test_a_body_that_grows_beyond_its_limit_is_cut_off(autojump_clock) -> None:
    chunk = b"2000\r\n" + b"a" * 0x2000 + b"\r\n"
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await answer_to(head + chunk * 3, HttpSettings(max_body=20_000))
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("begun", "every", "limit"),
    [
        pytest.param(b"", 1000.0, LIMITS.idle_timeout, id="says nothing"),
        pytest.param(b"GET / HTTP/1.1\r\n", 0.9, LIMITS.head_timeout, id="a byte of the head a second"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", 0.9, LIMITS.body_timeout, id="of the body"
        ),
    ],
)
async def test_a_slow_client_is_let_go(begun: bytes, every: float, limit: float, autojump_clock) -> None:
    began = trio.current_time()
    async with served() as client:

        async def drip() -> None:
            try:
                if begun:
                    await client.stream.send_all(begun)
                while True:
                    await trio.sleep(every)
                    await client.stream.send_all(b"a")
            except trio.BrokenResourceError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert await client.all() == b""
            nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(limit, abs=1)


async def test_who_doesnt_take_an_answer_is_let_go(autojump_clock) -> None:
    async def much(_: HttpRequest) -> HttpReply:
        return HttpReply(200, JSON, b"a" * 200_000)

    client, server = trio.testing.lockstep_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await Connection(server, much, LIMITS).serve()
    assert trio.current_time() - began == pytest.approx(LIMITS.write_timeout)


class Slow:
    """Answers after a while, and knows whether it did."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ended = False

    async def __call__(self, _: HttpRequest) -> HttpReply:
        await trio.sleep(self.seconds)
        self.ended = True
        return HttpReply(200, JSON, b"at last")


class BrokenAfter(trio.abc.ReceiveStream):
    """Its client says this much, and is gone for certain once `breaks` is set."""

    def __init__(self, said: bytes) -> None:
        self._said = said
        self.breaks = trio.Event()

    async def receive_some(self, _: int | None = None) -> bytes:
        if not self._said:
            await self.breaks.wait()
            raise trio.BrokenResourceError
        said, self._said = self._said, b""
        return said

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("method", "ends"), [("GET", False), ("POST", True)])
async def test_what_only_reads_is_abandoned_with_its_client(method: str, ends: bool, autojump_clock) -> None:
    slow, sending = Slow(5), trio.testing.MemorySendStream()
    receiving = BrokenAfter(f"{method} /a HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(trio.StapledStream(sending, receiving), slow, LIMITS).serve)
        await trio.testing.wait_all_tasks_blocked()
        receiving.breaks.set()
    assert slow.ended is ends
    assert trio.current_time() == (5 if ends else 0)


async def test_who_only_stops_sending_gets_its_answers(autojump_clock) -> None:
    """As `nc -N` does."""
    async with served(Slow(5)) as client:
        await client.stream.send_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.send_eof()
        answer = await client.all()
    assert answer.count(b"at last") == 2
    assert trio.current_time() == 10


async def test_what_takes_long_does_not_take_a_place_for_who_may_have_left(autojump_clock) -> None:
    async with served(Slow(10 * FINISH)) as client:
        await client.stream.send_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.send_eof()
        assert await client.all() == b""
    assert trio.current_time() == FINISH


@pytest.mark.parametrize(("takes", "is_answered"), [(0.5, True), (5.0, False)])
async def test_a_blocked_query_of_who_stops_sending_gets_only_what_is_at_hand(
    takes: float, is_answered: bool, autojump_clock
) -> None:
    slow = Slow(takes)
    async with served(slow) as client:
        await client.stream.send_all(b"GET /blocked HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.send_eof()
        assert (b"at last" in await client.all()) is is_answered
    assert slow.ended is is_answered
    assert trio.current_time() == min(takes, LINGER)


async def test_a_stream_of_events_of_who_stops_sending_has_what_is_at_hand(autojump_clock) -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        await trio.sleep(LINGER / 2)  # until it is known what there is
        yield b"one"
        yield b"two"
        await trio.sleep(60)
        yield b"three"

    async def handle(_: HttpRequest) -> HttpReply:
        return HttpReply(200, JSON, events(), is_endless=True)

    async with served(handle) as client:
        await client.stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.stream.send_eof()
        answer = await client.all()
    assert b"one" in answer
    assert b"two" in answer
    assert answer.endswith(b"0\r\n\r\n")
    assert trio.current_time() == LINGER / 2


@pytest.mark.parametrize(("more", "leaves"), [((b"G", b"ET"), True), ((b"x" * READ, b"x"), False)])
async def test_who_sends_more_before_the_answer_is_known_to_leave_all_the_same(
    more: tuple[bytes, ...], leaves: bool, autojump_clock
) -> None:
    async def slow(_: HttpRequest) -> HttpReply:
        await trio.sleep(600)
        return HttpReply(200, JSON, b"")

    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(server, slow, LIMITS, waits=is_blocked_query).serve)
        for piece in (b"GET /blocked HTTP/1.1\r\nHost: x\r\n\r\n", *more):
            await client.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        if leaves:
            await client.aclose()
    assert trio.current_time() == (LINGER if leaves else 0)


async def test_an_endless_answer_ends_with_its_client_though_nothing_is_sent(autojump_clock) -> None:
    ended = trio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            await trio.sleep_forever()
        finally:
            ended.set()

    async def handle(_: HttpRequest) -> HttpReply:
        return HttpReply(200, JSON, endless(), is_endless=True)

    async with served(handle) as client:
        await client.stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"first" in await client.until(b"first\r\n")
    assert ended.is_set()


async def test_stopping_lets_an_answer_end_and_no_other_begin(autojump_clock) -> None:
    began = trio.Event()

    async def slow(_: HttpRequest) -> HttpReply:
        began.set()
        await trio.sleep(1)
        return HttpReply(200, JSON, b"done")

    client, server = trio.testing.memory_stream_pair()
    connection = Connection(server, slow, LIMITS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        await began.wait()
        connection.stop()
        answer = await Served(client).all()
    assert answer.count(b"done") == 1
    assert b"Connection: close" in answer


class AtHand:
    """Has the answer to all that is asked of `/ready`, and counts what h11 is spared."""

    def __init__(self) -> None:
        self.known: KnownRequests = known_requests()
        self.asked: list[HttpRequest] = []
        self.may = True
        self.reply = ReadyReply(HttpReply(200, JSON, b"ready"))

    def __call__(self, request: HttpRequest) -> ReadyReply | None:
        self.asked.append(request)
        return self.reply if self.may and request.path == ("ready",) else None


@asynccontextmanager
async def served_from(at_hand: AtHand, limits: HttpSettings = LIMITS) -> AsyncIterator[Served]:
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(server, echo, limits, at_hand, at_hand.known).serve)
        yield Served(client)
        await client.aclose()


READY = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_request_in_words_that_came_before_gets_the_same_answer_as_the_first(autojump_clock) -> None:
    at_hand = AtHand()
    async with served_from(at_hand) as client:
        answers = []
        for _ in range(3):
            await client.stream.send_all(READY)
            answers.append(await client.until(b"ready"))
        await client.stream.send_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")  # h11 goes on where it was
        assert b"('GET', ('a',), b'')" in await client.until(b"b'')")
        await client.stream.send_all(READY)
        assert b"200 OK" in await client.until(b"ready")
    assert list(at_hand.known) == [READY]
    assert len(set(map(undated, answers))) == 1
    assert at_hand.asked[0] is at_hand.asked[1]  # it wasn't read anew


def undated(answer: bytes) -> bytes:
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:"))


async def test_who_asked_before_is_judged_again_each_time(autojump_clock) -> None:
    at_hand = AtHand()
    async with served_from(at_hand) as client:
        for _ in range(2):
            await client.stream.send_all(READY)
            await client.until(b"ready")
        at_hand.may = False
        await client.stream.send_all(READY)
        assert b"('GET', ('ready',), b'')" in await client.until(b"b'')")


@pytest.mark.parametrize(
    "sent",
    [
        READY + READY,
        READY + b"G",
        b"GET /ready HTTP/1.0\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
        b"HEAD /ready HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2048 + b"\r\n\r\n",
    ],
)  # fmt: skip
async def test_only_whole_requests_without_a_body_that_end_nothing_are_remembered(autojump_clock, sent: bytes) -> None:
    at_hand = AtHand()
    async with served_from(at_hand) as client:
        await client.stream.send_all(sent)
        await client.until(b"\r\n\r\n")
    assert not at_hand.known


async def test_a_request_in_two_pieces_is_not_remembered_by_the_second(autojump_clock) -> None:
    at_hand = AtHand()
    async with served_from(at_hand) as client:
        await client.stream.send_all(READY[:9])
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.send_all(READY[9:])
        await client.until(b"ready")
    assert not at_hand.known


async def test_who_says_nothing_after_a_known_request_is_let_go(autojump_clock) -> None:
    async with served_from(AtHand(), HttpSettings(idle_timeout=7.0)) as client:
        for _ in range(2):
            await client.stream.send_all(READY)
            await client.until(b"ready")
        began = trio.current_time()
        assert await client.all() == b""
        assert trio.current_time() - began == pytest.approx(7.0)
