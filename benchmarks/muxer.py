"""What a call between two peers costs: on libp2p's own muxer, and on ours, by public reads and writes and directly.

    python -m benchmarks.muxer [--seconds S] [--rounds N]

Both ends are in this process, on loopback, over TLS, with our links on top; a figure is the CPU of both ends for one
call. The ways take turns, and the fastest round of each counts: whatever else the machine does only slows down.
"""

from __future__ import annotations

import argparse
import logging
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
import trio
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import Yamux

from benchmarks.call_methods.method import CALL_TIMEOUT
from overlay.identity import Identity
from overlay.libp2p.host import Host, open_host
from overlay.libp2p.muxer.session import PROTOCOL_ID
from overlay.libp2p.muxer.stream import MuxedStream
from overlay.libp2p.workarounds.connection_limits import swarm_of
from overlay.rpc.links import Links
from overlay.settings import OverlaySettings

STOCK, PUBLIC, DIRECT = "libp2p's yamux", "ours, public reads and writes", "ours, directly"
WAYS: Final = (STOCK, PUBLIC, DIRECT)
METHOD: Final = "echo"


class StockStream:
    """A stream of libp2p's muxer, with what our layers ask of one besides: it counts nothing."""

    def __init__(self, stream: IMuxedStream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def hold(self, amount: int) -> bool:  # noqa: ARG002 - as our streams have it
        """Whether so many bytes more may be held."""
        return True


MuxedStream.register(StockStream)


class StockMuxer(Yamux):
    """libp2p's own muxer under our layers."""

    async def open_stream(self) -> Any:
        """A stream of ours."""
        return StockStream(await super().open_stream())

    async def accept_stream(self) -> Any:
        """The peer's next stream."""
        return StockStream(await super().accept_stream())


class StockMultistream(MuxerMultistream):
    """Negotiates yamux, and has `StockMuxer` made for it."""

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        """Negotiates the muxer of a connection, and makes it."""
        await self.select_transport(conn)
        return StockMuxer(conn, peer_id, is_initiator=conn.is_initiator)


class Case(NamedTuple):
    """How many bytes are sent, how many at the same time, and what is aimed at."""

    size: int
    in_flight: int
    aim: str

    def __str__(self) -> str:
        return f"{self.size:,} B, {self.in_flight} in flight"


CASES: Final = (
    Case(300, 1, "340 public, 270 direct"),
    Case(300, 16, ""),
    Case(300, 100, ""),
    Case(100_000, 1, "750"),
)
CONNECTING: Final = "connecting and linking"


async def echo(caller: str, body: object) -> object:  # noqa: ARG001 - a handler's signature
    """A handler that returns what it is given."""
    return body


@asynccontextmanager
async def linking(way: str, *, listens: bool) -> AsyncIterator[tuple[Host, Links]]:
    """A host and its links, over one of the muxers, while the block lasts."""
    listen = ("/ip4/127.0.0.1/tcp/0",) if listens else ()
    settings = OverlaySettings(listen=listen, direct_pipes=way == DIRECT)
    async with open_host(Identity.generate(), settings) as host, trio.open_nursery() as nursery:
        if way == STOCK:
            swarm_of(host.libp2p).upgrader.muxer_multistream = StockMultistream({TProtocol(PROTOCOL_ID): StockMuxer})
        links = Links(host, settings, True, keeps=lambda _: True)
        links.serve(METHOD, echo)
        await nursery.start(links.run)
        yield host, links
        nursery.cancel_scope.cancel()


class LinkedPair:
    """A caller and whom it calls."""

    def __init__(self, caller: tuple[Host, Links], callee: tuple[Host, Links]) -> None:
        self._host, self._links = caller
        self._callee, _ = callee
        self._host.add_addresses(self._callee.peer_id, self._callee.listen_addresses())

    async def calls(self, case: Case, count: int) -> None:
        """Make `count` calls, as many at a time as the case says."""
        body = bytes(case.size)
        numbers = iter(range(count))

        async def work() -> None:
            for _ in numbers:
                await self._links.call(self._callee.peer_id, METHOD, body, timeout=CALL_TIMEOUT)

        async with trio.open_nursery() as nursery:
            for _ in range(case.in_flight):
                nursery.start_soon(work)

    async def connect(self, count: int) -> None:
        """Connect, link and part, `count` times."""
        for _ in range(count):
            await self._links.call(self._callee.peer_id, METHOD, b"", timeout=CALL_TIMEOUT)
            await self._host.disconnect(self._callee.peer_id)
            while self._still_connected():  # noqa: ASYNC110 - nobody tells of the end of a connection
                await trio.sleep(0.005)

    def _still_connected(self) -> bool:
        return self._links.is_linked(self._callee.peer_id) or self._callee.is_connected(self._host.peer_id)


async def measured(work: Callable[[int], Awaitable[None]], seconds: float) -> float:
    """CPU per call in microseconds, over about so many seconds."""
    count, used = 1, 0.0
    while used < seconds / 2:
        before = time.process_time()
        await work(count)
        used = time.process_time() - before
        count_before, count = count, max(count + 1, int(count * min(10, seconds / max(used, 1e-6))))
    return used / count_before * 1e6


async def main(seconds: float, rounds: int) -> None:
    """Measures, as the command line says."""
    print(f"Python {platform.python_version()}, microseconds of CPU of both ends, the least of {rounds} rounds\n")
    print(f"{'':26}" + "".join(f"{way:>32}" for way in WAYS) + "   aim")
    async with AsyncExitStack() as stack:
        ends = {}
        for way in WAYS:
            callee = await stack.enter_async_context(linking(way, listens=True))
            ends[way] = LinkedPair(await stack.enter_async_context(linking(way, listens=False)), callee)
        for case in CASES:
            least = dict.fromkeys(WAYS, float("inf"))
            for _ in range(rounds):
                for way in WAYS:
                    least[way] = min(least[way], await measured(partial(ends[way].calls, case), seconds))
            print(f"{case!s:26}" + "".join(f"{least[way]:32,.0f}" for way in WAYS) + f"   {case.aim}", flush=True)
        least = dict.fromkeys(WAYS, float("inf"))
        for _ in range(rounds):
            for way in WAYS:
                least[way] = min(least[way], await measured(ends[way].connect, seconds))
        print(f"{CONNECTING:26}" + "".join(f"{least[way]:32,.0f}" for way in WAYS))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.muxer", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of CPU per way, case and round [1]")
    parser.add_argument("--rounds", type=int, default=5, help="of which the least counts [5]")
    arguments = parser.parse_args()
    trio.run(partial(main, arguments.seconds, arguments.rounds))
