"""How served functions run: whose caller they see, what counts against a service, and what is left behind."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest
import trio
import trio.testing

from aqua_compat.rpc.proxy import typed
from aqua_compat.rpc.server import ServiceLimits, ServiceServer, caller
from aqua_compat.rpc.streams import MOST_OF_RESULT, Arrivals, Departing, TooManyStreams
from overlay.errors import Refusal
from overlay.rpc.bodies import encoded
from overlay.rpc.framing import FrameError, decode_item, encode_item
from overlay.rpc.protocol import shortened


class Peer:
    """A peer that nobody is connected to."""

    peer_id = "me"

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[str, object], Awaitable[object]]] = {}

    def serve(self, method: str, handler: Callable[[str, object], Awaitable[object]], *, relayed: bool = False) -> None:
        self.handlers[method] = handler

    def is_linked(self, peer_id: str) -> bool:
        return False


def serving(service: dict[str, Callable[..., Any]], limits: ServiceLimits | None = None) -> ServiceServer:
    made = ServiceServer(cast("Any", Peer()))
    made.add("s", service, limits)
    return made


async def call(serving: ServiceServer, function: str, *arguments: object, caller: str = "stranger") -> object:
    return decode_item(await encoded(await serving.handle(caller, ["s", function, list(arguments)])))


async def test_a_function_that_calls_its_own_peer_still_knows_who_called_it() -> None:
    seen: list[str] = []

    async def inner() -> None:
        seen.append(caller())

    async def outer() -> None:
        seen.append(caller())
        await call(service, "inner", caller="me")
        seen.append(caller())

    service = serving({"inner": inner, "outer": outer})
    await call(service, "outer")
    assert seen == ["stranger", "me", "stranger"]
    with pytest.raises(LookupError):
        caller()


async def test_a_function_may_call_another_of_its_service() -> None:
    async def inner() -> str:
        return "inner"

    async def outer() -> object:
        return await call(service, "inner")

    service = serving({"inner": inner, "outer": outer}, ServiceLimits(concurrency=2))
    assert await call(service, "outer") == "inner"


async def test_a_lambda_that_calls_an_async_function_is_awaited_within_the_services_limits() -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(0.01)
        running -= 1
        return number

    async def check(number: int) -> None:
        assert await call(service, "work", number) == number

    service = serving({"work": lambda number: work(number)}, ServiceLimits(concurrency=2))  # noqa: PLW0108
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(check, number)
    assert most == 2


async def test_generators_left_behind_in_threads_stop_nobody_else() -> None:
    release = threading.Event()

    def stuck() -> Iterator[int]:
        release.wait(20)
        yield 1

    service = serving({"stuck": stuck, "list": lambda: 1}, ServiceLimits(concurrency=4, timeout=0.05))
    try:
        for _ in range(60):  # more than Trio's own threads
            with pytest.raises(Refusal, match="too-slow"):
                await call(service, "stuck")
        with trio.fail_after(5):
            assert await trio.to_thread.run_sync(lambda: "others run") == "others run"
            assert await call(service, "list") == 1
    finally:
        release.set()


async def test_text_that_utf8_cannot_express_is_told_all_the_same() -> None:
    async def fail() -> None:
        raise ValueError("\ud800")

    with pytest.raises(Refusal) as refused:
        await call(serving({"fail": fail}), "fail")
    assert encode_item(refused.value.message)
    assert encode_item(shortened("\ud800" * 2000))


async def test_a_result_too_large_for_relays_is_told_to_who_streams_it() -> None:
    async def deliver(results: list[Any]) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(FrameError, match="a result of a stream has at most"):
        await Departing(deliver).put(bytes(MOST_OF_RESULT + 1))


async def test_streams_of_one_peer_are_bounded_and_closed_ones_count_no_more() -> None:
    arrivals = Arrivals(cast("Any", Peer()))
    streams = [arrivals.open("other") for _ in range(32)]
    with pytest.raises(TooManyStreams):
        arrivals.open("other")
    arrivals.close(streams[0])
    arrivals.close(arrivals.open("other"))
    for stream in streams[1:]:
        arrivals.close(stream)
    assert [arrivals.open("other") for _ in range(32)]


class Three:
    async def three(self, first: int, second: int = 2, third: int = 3) -> list[int]: ...


class Named:
    async def named(self, *, only: int) -> int: ...


class Sync:
    def sync(self) -> int: ...


class Untyped:
    async def untyped(self): ...  # type: ignore[no-untyped-def]


async def test_arguments_of_typed_proxies_travel_by_position() -> None:
    sent: list[tuple[object, ...]] = []

    async def send(service_id: str, function: str, *arguments: object, returns: object) -> object:
        await trio.lowlevel.checkpoint()
        sent.append(arguments)
        return [0]

    proxy = typed(send, "s", Three)
    await proxy.three(1)
    await proxy.three(1, third=9)
    assert sent == [(1,), (1, 2, 9)]
    with pytest.raises(TypeError, match="given by position"):
        await typed(send, "s", Named).named(only=1)
    for bad in (Sync, Untyped, int):
        with pytest.raises(TypeError):
            typed(send, "s", bad)


def nothing() -> Iterator[int]:
    yield from ()


async def test_what_later_versions_say_more_in_a_call_is_passed_over() -> None:
    server = serving({"hello": lambda: "hello", "none": nothing})
    assert await server.handle("stranger", ["s", "hello", [], "more"]) is not None
    assert await server.handle_stream("stranger", ["s", "none", [], bytes(16), "", "more"]) == 0


async def test_what_later_versions_say_more_with_results_is_passed_over() -> None:
    arrivals = Arrivals(cast("Any", Peer()))
    stream = arrivals.open("host")
    assert await arrivals.take("host", [stream.token, [1], "more"]) is None
    assert await stream.get() == 1
