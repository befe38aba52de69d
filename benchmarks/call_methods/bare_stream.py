"""A bare persistent stream: what calls cost when nothing is checked, bounded or given a deadline.

One stream (TLS, yamux) on py-libp2p's own host, and one on ours, whose connections have its faults worked around.
Frames of a 4-byte length and the CBOR of `[kind, id, body]`; one task reads, and one writes all frames that wait as
one. The server answers as it reads.

As a process: `python -m benchmarks.call_methods.bare_stream stock|ours`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import cbor2
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from benchmarks.call_methods.method import CALL_TIMEOUT, Measure, measured, serve_until_told, server
from benchmarks.call_methods.stock_host import stock_host
from overlay.identity import Identity
from overlay.libp2p.host import open_host
from overlay.rpc.transport import ByteStream
from overlay.settings import OverlaySettings

PROTOCOL = "/benchmark/bare-stream/1"
REQUEST, RESPONSE = 0, 1
READ_BYTES = 64 * 1024


class ReadWrite(Protocol):
    """What is used of a stream, ours or py-libp2p's."""

    async def read_some(self, max_bytes: int) -> bytes:
        """Returns the next bytes, up to `max_bytes`; empty at the end."""
        ...

    async def write(self, payload: bytes) -> None:
        """Sends all of `payload`."""
        ...


class Frames:
    """Frames both ways on a stream. `run` reads and writes until the stream ends."""

    def __init__(self, stream: ReadWrite, received: Callable[[int, int, bytes], None]) -> None:
        self._stream = stream
        self._received = received
        self._waiting: list[bytes] = []
        self._any = trio.Event()

    def send(self, kind: int, call_id: int, body: bytes) -> None:
        """Has a frame sent."""
        encoded = cbor2.dumps([kind, call_id, body])
        self._waiting.append(len(encoded).to_bytes(4, "big") + encoded)
        self._any.set()

    async def run(self) -> None:
        """Reads and writes frames until the stream ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            await self._read()
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        while True:
            await self._any.wait()
            self._any = trio.Event()
            batch, self._waiting = b"".join(self._waiting), []
            await self._stream.write(batch)

    async def _read(self) -> None:
        buffer = bytearray()
        while chunk := await self._stream.read_some(READ_BYTES):
            buffer += chunk
            start = 0
            while len(buffer) - start >= 4:
                end = start + 4 + int.from_bytes(buffer[start : start + 4], "big")
                if len(buffer) < end:
                    break
                self._received(*cbor2.loads(bytes(buffer[start + 4 : end])))
                start = end
            del buffer[:start]


class Caller:
    """Calls over frames, many at the same time."""

    def __init__(self, stream: ReadWrite) -> None:
        self.frames = Frames(stream, self._settle)
        self._pending: dict[int, trio.Event] = {}
        self._answers: dict[int, bytes] = {}
        self._next_id = 0

    async def echo(self, payload: bytes) -> bytes:
        """Sends a request, and returns the answer to it."""
        call_id = self._next_id
        self._next_id += 1
        answered = self._pending[call_id] = trio.Event()
        self.frames.send(REQUEST, call_id, payload)
        await answered.wait()
        return self._answers.pop(call_id)

    def _settle(self, kind: int, call_id: int, body: bytes) -> None:  # noqa: ARG002 - a frame's parts
        self._answers[call_id] = body
        self._pending.pop(call_id).set()


class StockStream:
    """A stream of py-libp2p's own host, as `Frames` reads and writes it."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream

    async def write(self, payload: bytes) -> None:
        """Sends all of `payload`."""
        await self._stream.write(payload)

    async def read_some(self, max_bytes: int) -> bytes:
        """Returns the next bytes, up to `max_bytes`; empty at the end."""
        try:
            return await self._stream.read(max_bytes)
        except StreamEOF:
            return b""


@asynccontextmanager
async def on_stock_host() -> AsyncIterator[Measure]:
    """py-libp2p's host opens a stream to another one and makes all calls on it."""
    async with server("bare_stream", "stock") as address, stock_host() as host:
        info = info_from_p2p_addr(Multiaddr(address))
        await host.connect(info)
        async with _calls_on(StockStream(await host.new_stream(info.peer_id, [TProtocol(PROTOCOL)]))) as measure:
            yield measure


@asynccontextmanager
async def on_our_host() -> AsyncIterator[Measure]:
    """The same between hosts of ours."""
    async with (
        server("bare_stream", "ours") as address,
        open_host(Identity.generate(), OverlaySettings(listen=())) as host,
    ):
        peer_id = await host.connect(address, timeout=CALL_TIMEOUT)
        async with _calls_on(await host.open_stream(peer_id, PROTOCOL)) as measure:
            yield measure


@asynccontextmanager
async def _calls_on(stream: ReadWrite) -> AsyncIterator[Measure]:
    caller = Caller(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.frames.run)
        yield measured(caller.echo)
        nursery.cancel_scope.cancel()


async def _answer(stream: ReadWrite) -> None:
    frames = Frames(stream, lambda _, call_id, body: frames.send(RESPONSE, call_id, body))
    await frames.run()


async def _answer_stock(stream: INetStream) -> None:
    await _answer(StockStream(stream))


async def _answer_ours(caller: str, stream: ByteStream) -> None:  # noqa: ARG001 - a stream handler's signature
    await _answer(stream)


async def serve(host_kind: str) -> None:
    """Answers callers until told to end. `host_kind`: libp2p's own host (`stock`) or ours."""
    if host_kind == "stock":
        async with stock_host() as stock:
            stock.set_stream_handler(TProtocol(PROTOCOL), _answer_stock)
            await serve_until_told(str(stock.get_addrs()[0]))
    else:
        async with open_host(Identity.generate(), OverlaySettings()) as host:
            host.set_stream_handler(PROTOCOL, _answer_ours)
            await serve_until_told(host.listen_addresses()[0])


if __name__ == "__main__":
    trio.run(serve, *sys.argv[1:])
