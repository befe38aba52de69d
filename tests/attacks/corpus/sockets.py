"""Attacks on a node's port by who never gets as far as proving a key, or proves one and goes."""

from __future__ import annotations

from contextlib import suppress

import trio

from tests.attacks.corpus.target import Target
from tests.attacks.corpus.wire import open_wire

_SELECT = b"\x13/multistream/1.0.0\n"
_SILENT = 100


async def random_bytes(target: Target) -> None:
    """Opens connections and sends what means nothing."""
    async for _ in target.paced(20):
        stream = await trio.open_tcp_stream(target.host, target.port)
        async with stream:
            with suppress(trio.BrokenResourceError), trio.move_on_after(2):
                await stream.send_all(target.random.randbytes(target.random.choice((1, 100, 64 * 1024))))
                await stream.receive_some(4096)
        target.done["connections"] += 1


async def bad_handshakes(target: Target) -> None:
    """Begins to secure connections, and sends what is no handshake of TLS or noise."""
    beginnings = [
        _SELECT + b"\x07/noise\n" + b"\x00\x20" + bytes(32),
        _SELECT + b"\x07/noise\n" + b"\xff\xff" + bytes(65_535),
        _SELECT + b"\x0b/tls/1.0.0\n" + b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        _SELECT + b"\x0b/tls/1.0.0\n" + b"\x16\x03\x01\x40\x00" + b"\x01" * 16_384,
        _SELECT + (b"\x04/x/\n" * 2000),
        b"\xff\xff\xff\x7f" + b"a" * 10_000,
        b"\xff\xff\xff\xff\x03" + bytes(2**22),
        b"\xff\xff\xff\xff\xff\x6e" + b"a" * 10_000,
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ]

    async def begin() -> None:
        async for _ in target.paced(2):
            async with await trio.open_tcp_stream(target.host, target.port) as stream:
                with suppress(trio.BrokenResourceError), trio.move_on_after(2):
                    await stream.send_all(target.random.choice(beginnings))
                    while await stream.receive_some(4096):
                        pass
            target.done["handshakes"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(begin)


async def slow_handshakes(target: Target) -> None:
    """Keeps connections that say a byte of their handshake each second."""

    async def creep() -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                async with await trio.open_tcp_stream(target.host, target.port) as stream:
                    target.done["connections"] += 1
                    for byte in _SELECT + b"\x0b/tls/1.0.0\n" + bytes(600):
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(1 / target.rate)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(_SILENT):
            nursery.start_soon(creep)


async def churn(target: Target) -> None:
    """Comes as a new peer again and again, with a link, and goes without a word."""
    async for _ in target.paced(8):
        async with open_wire(target) as wire:
            await wire.open()
            target.done["connections"] += 1
