"""Streams of results from services behind real node processes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from aqua_compat import AquaClient, ServiceLimits, caller, connect
from aqua_compat.rpc.errors import BadAnswer, CallInterrupted, NoSuchFunction, RaisedByService, TooSlow
from aqua_compat.rpc.server import STREAM_METHOD, StreamCall
from aqua_compat.rpc.streams import RESULTS_METHOD
from overlay.errors import CallRefused
from overlay.identity import Identity
from registry.client.light import LightClient, open_light_client
from tests.end_to_end.network import Network, eventually, first_line, launched

PROVIDER = """
import sys, trio
from aqua_compat import connect
async def forever():
    number = 0
    while True:
        yield number
        number += 1
        await trio.sleep(0.01)
async def main():
    async with connect(sys.argv[1]) as aqua:
        aqua.serve("numbers", {"forever": forever})
        print(aqua.peer_id, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


class Numbers:
    def __init__(self) -> None:
        self.produced = 0
        self.closed = trio.Event()

    async def count(self, until: int) -> AsyncIterator[int]:
        try:
            for number in range(until):
                self.produced += 1
                yield number
                await trio.lowlevel.checkpoint()
        finally:
            self.closed.set()

    def count_in_a_thread(self, until: int) -> Iterator[str]:
        for number in range(until):
            time.sleep(0.001)
            yield f"{number} for {caller()}"

    async def one(self) -> str:
        return "the only one"

    async def break_off(self) -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ValueError("no third")

    async def stall(self) -> AsyncIterator[int]:
        yield 1
        await trio.sleep_forever()

    async def large(self, pieces: int) -> AsyncIterator[bytes]:
        for number in range(pieces):
            yield bytes([number % 256]) * 100_000


@asynccontextmanager
async def numbers(network: Network) -> AsyncIterator[tuple[AquaClient, Numbers, AquaClient]]:
    """A provider behind the first node, what it serves, and a user behind the second."""
    async with connect(network.nodes[0].address) as provider, connect(network.nodes[1].address) as user:
        service = Numbers()
        provider.serve("numbers", service, limits=ServiceLimits(timeout=2.0))
        yield provider, service, user


async def read(stream: AbstractAsyncContextManager[AsyncIterator[object]], with_each: Callable[[object], None]) -> None:
    async with stream as results:
        async for result in results:
            with_each(result)


async def test_results_come_in_order_through_a_relay_and_at_home(network: Network) -> None:
    async with numbers(network) as (provider, _, user):
        for here in (user.on(provider.peer_id, via=network.nodes[0].peer_id), provider.on(provider.peer_id)):
            async with here.stream("numbers", "count", 1000, returns=int) as results:
                assert [number async for number in results] == list(range(1000))
            async with here.stream("numbers", "one") as results:
                assert [text async for text in results] == ["the only one"]
            async with here.stream("numbers", "large", 20) as results:
                assert [(piece[0], len(piece)) async for piece in results] == [(n, 100_000) for n in range(20)]
        there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
        async with there.stream("numbers", "count_in_a_thread", 20) as results:
            assert [text async for text in results] == [f"{number} for {user.peer_id}" for number in range(20)]
        assert await there.call("numbers", "count", 5) == [0, 1, 2, 3, 4]


async def test_failures_come_after_the_results_before_them(network: Network) -> None:
    async with numbers(network) as (provider, _, user):
        there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
        came: list[object] = []
        with pytest.raises(RaisedByService, match="no third"):
            await read(there.stream("numbers", "break_off"), came.append)
        with pytest.raises(TooSlow):
            await read(there.stream("numbers", "stall"), came.append)
        with pytest.raises(NoSuchFunction):
            await read(there.stream("numbers", "nothing"), came.append)
        with pytest.raises(BadAnswer):
            await read(there.stream("numbers", "one", returns=int), came.append)
        assert came == [1, 2, 1]


async def test_a_slow_reader_slows_the_function_and_leaving_ends_it(network: Network) -> None:
    async with numbers(network) as (provider, service, user):
        there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
        async with there.stream("numbers", "count", 10**9) as results:
            assert await anext(results) == 0
            before = -1
            while service.produced != before:  # until it stands still
                before = service.produced
                await trio.sleep(0.2)
            assert before < 2000
        with trio.fail_after(5):
            await service.closed.wait()


async def test_a_stream_whose_provider_is_killed_ends_with_an_error(network: Network, tmp_path: Path) -> None:
    script = tmp_path / "provider.py"
    script.write_text(PROVIDER)
    address = network.nodes[0].address
    async with launched(sys.executable, str(script), address, home=tmp_path, log=tmp_path / "log") as provider:
        peer_id = await first_line(provider)
        async with connect(network.nodes[1].address) as user:
            there = user.on(peer_id, via=network.nodes[0].peer_id)
            with trio.fail_after(20), pytest.raises(CallInterrupted):
                await read(
                    there.stream("numbers", "forever"),
                    lambda number: provider.send_signal(signal.SIGKILL) if number == 3 else None,
                )


async def test_nobody_can_put_results_into_a_stream_of_others(network: Network) -> None:
    node = network.nodes[0]
    async with (
        open_light_client(Identity.generate(), [node.address]) as provider,
        open_light_client(Identity.generate(), [node.address]) as stranger,
        connect(network.nodes[1].address) as user,
    ):
        tokens, never = [], trio.Event()

        async def stream(caller: str, body: object) -> object:
            tokens.append(msgspec.convert(body, StreamCall, builtin_types=(bytes,)).token)
            await never.wait()
            return None

        async def put(sender: LightClient, body: object) -> object:
            return await sender.peer.call_via([node.peer_id], user.peer_id, RESULTS_METHOD, body, timeout=5)

        provider.peer.serve(STREAM_METHOD, stream, relayed=True)
        there = user.on(provider.peer.peer_id, via=node.peer_id)
        async with there.stream("numbers", "any") as results:
            await eventually(trio.lowlevel.checkpoint, lambda _: tokens)
            [token] = tokens
            for body in ([token, ["forged"]], [bytes(16), ["forged"]], [b"", []], None):
                with pytest.raises(CallRefused):
                    await put(stranger, body)
            await put(provider, [token, ["genuine"]])
            assert await anext(results) == "genuine"
        with pytest.raises(CallRefused, match="nobody reads this stream"):
            await put(provider, [token, ["late"]])
