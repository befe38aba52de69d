"""A bare persistent stream: what calls cost when nothing is checked, bounded or given a deadline.

One stream on the connections that our peers have (TLS, yamux); frames of a 4-byte length and the CBOR of
`[kind, id, body]`; one task reads, and one writes all frames that wait as one. The server answers as it reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import cbor2
import trio

from benchmarks.call_ways.way import CALL_TIMEOUT, Measure, measured, serve_until_told, server
from overlay.calls.stream import ByteStream
from overlay.host import open_host
from overlay.identity import Identity
from overlay.settings import OverlaySettings

PROTOCOL = "/benchmark/bare-stream/1"
REQUEST, RESPONSE = 0, 1
READ_BYTES = 64 * 1024


class Frames:
    """Frames both ways on a stream. `run` reads and writes until the stream ends."""

    def __init__(self, stream: ByteStream, received: Callable[[int, int, bytes], None]) -> None:
        self._stream = stream
        self._received = received
        self._waiting: list[bytes] = []
        self._any = trio.Event()

    def send(self, kind: int, call_id: int, body: bytes) -> None:
        encoded = cbor2.dumps([kind, call_id, body])
        self._waiting.append(len(encoded).to_bytes(4, "big") + encoded)
        self._any.set()

    async def run(self) -> None:
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
    def __init__(self, stream: ByteStream) -> None:
        self.frames = Frames(stream, self._settle)
        self._pending: dict[int, trio.Event] = {}
        self._answers: dict[int, bytes] = {}
        self._next_id = 0

    async def echo(self, payload: bytes) -> bytes:
        call_id = self._next_id
        self._next_id += 1
        answered = self._pending[call_id] = trio.Event()
        self.frames.send(REQUEST, call_id, payload)
        await answered.wait()
        return self._answers.pop(call_id)

    def _settle(self, kind: int, call_id: int, body: bytes) -> None:  # noqa: ARG002 - a frame's parts
        self._answers[call_id] = body
        self._pending.pop(call_id).set()


@asynccontextmanager
async def bare_stream() -> AsyncIterator[Measure]:
    """A peer opens a stream to another one and makes all calls on it."""
    async with server("bare_stream") as address, open_host(Identity.generate(), OverlaySettings(listen=())) as host:
        peer_id = await host.connect(address, timeout=CALL_TIMEOUT)
        caller = Caller(await host.open_stream(peer_id, PROTOCOL))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.frames.run)
            yield measured(caller.echo)
            nursery.cancel_scope.cancel()


async def _answer(caller: str, stream: ByteStream) -> None:  # noqa: ARG001 - a stream handler's signature
    frames = Frames(stream, lambda _, call_id, body: frames.send(RESPONSE, call_id, body))
    await frames.run()


async def serve() -> None:
    async with open_host(Identity.generate(), OverlaySettings()) as host:
        host.set_stream_handler(PROTOCOL, _answer)
        await serve_until_told(host.listen_addresses()[0])


if __name__ == "__main__":
    trio.run(serve)
