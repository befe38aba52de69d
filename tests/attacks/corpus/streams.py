"""Attacks on what carries streams, and on what reads them, by peers with keys of their own."""

from __future__ import annotations

from contextlib import suppress

import trio

from overlay.rpc.framing import encode_frame
from registry.client.node_operations import STATUS
from tests.attacks.corpus.target import Target
from tests.attacks.corpus.wire import HELLO, LINK, Wire, open_wire
from tests.unit.overlay.libp2p.muxer.frames import DATA, PING, RST, SYN, WINDOW_UPDATE, frame

_FRAME = 1024 * 1024  # bytes of the longest frame of a link
_MANY = 64  # identities
_STREAMS = 4  # of each


async def muxer_pings(target: Target) -> None:
    """Asks the muxer for signs of life, and for nothing else."""
    async with open_wire(target) as wire:
        async for _ in target.paced(40):
            await wire.raw(frame(PING, SYN, 0, 7) * 500)
            target.done["pings"] += 500


async def unread_answers(target: Target) -> None:
    """Has the muxer and a link answer, and reads nothing."""
    async with open_wire(target, unread=True) as wire:
        stream = await wire.open(LINK, HELLO)
        async for _ in target.paced(50):
            for _ in range(10):
                number = target.done["requests"]
                await wire.send(stream, encode_frame([1, number, STATUS.name, b"\x82\x0a\x80", 10_000]))
                target.done["requests"] += 1
            await wire.raw(frame(PING, SYN, 0, 7) * 10)


async def stream_churn(target: Target) -> None:
    """Opens streams and drops them at once."""
    async with open_wire(target) as wire:
        stream = 1
        async for _ in target.paced(20):
            burst = bytearray()
            for _ in range(25):
                burst += frame(DATA, SYN, stream, 0) + frame(WINDOW_UPDATE, RST, stream, 0)
                stream += 2
            await wire.raw(bytes(burst))
            target.done["streams"] += 25


async def idle_streams(target: Target) -> None:
    """Opens as many streams as each of some identities may, and says nothing on them."""

    async def idle() -> None:
        while True:
            with suppress(Exception):
                async with open_wire(target) as wire:
                    for stream in range(1, 512, 2):
                        await wire.raw(frame(WINDOW_UPDATE, SYN, stream, 0))
                        target.done["streams"] += 1
                    await trio.sleep(20)
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(idle)
            await trio.sleep(0.3)


async def partial_frames(target: Target) -> None:
    """Begins frames as long as may be, on links of many identities, and never ends them."""

    async def begin(wire: Wire) -> None:
        stream = await wire.open(LINK, HELLO + _FRAME.to_bytes(4, "big"))
        left = _FRAME - 1
        target.done["frames"] += 1
        async for _ in target.paced(0.6):
            await wire.send(stream, bytes(min(64 * 1024, left)))
            left -= min(64 * 1024, left)

    async def hold() -> None:
        while True:
            with suppress(Exception):
                async with open_wire(target) as wire, trio.open_nursery() as streams:
                    for _ in range(_STREAMS):
                        streams.start_soon(begin, wire)
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        for _ in range(_MANY):
            nursery.start_soon(hold)
            await trio.sleep(0.15)


async def filled_streams(target: Target) -> None:
    """Fills the windows of streams that nobody reads: their protocol is never agreed on, or it waits."""

    async def fill() -> None:
        while True:
            with suppress(Exception):
                async with open_wire(target) as wire:
                    for number in range(16):
                        first = bytes([0xFF, 0xFF, 0x03]) if number % 2 else b"\x13/multistream/1.0.0\n\xff\xff\x03"
                        stream = wire.session.open()
                        await wire.send(stream, first)
                        while wire.session.send(stream, bytes(60_000)):
                            await wire.flush()
                        target.done["streams"] += 1
                    await trio.sleep(10)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(fill)
            await trio.sleep(0.2)


async def junk_frames(target: Target) -> None:
    """Says hello on links, and then what is no frame, or none that may come then."""
    junk = [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x05\x9b\xff\xff\xff\xff",
        b"\x00\x01\x00\x00" + b"\x81" * 65_536,
        (64 * 1024).to_bytes(4, "big") + b"\x9f" + b"\xa0" * (64 * 1024 - 1),
        HELLO,
        encode_frame([1, 1, "x", b"", 10_000]) * 2,
        encode_frame([2, 5, b"\xff"]) * 100,
    ]
    async with open_wire(target) as wire:
        async for _ in target.paced(30):
            stream = await wire.open(LINK, HELLO + target.random.choice([*junk, target.random.randbytes(1000)]))
            target.done["links"] += 1
            await trio.sleep(0.02)
            wire.session.reset(stream)
            await wire.flush()


async def idle_identities(target: Target) -> None:
    """Holds links of many identities, which nobody uses."""

    async def hold() -> None:
        while True:
            with suppress(Exception):
                async with open_wire(target) as wire:
                    for _ in range(_STREAMS):
                        await wire.open(LINK, HELLO)
                    target.done["identities"] += 1
                    await trio.sleep(30)
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        for _ in range(_MANY):
            nursery.start_soon(hold)
            await trio.sleep(0.15)


async def slow_readers(target: Target) -> None:
    """Reads answers so slowly that the node holds them."""

    async def read_slowly() -> None:
        while True:
            with suppress(Exception):
                async with open_wire(target, unread=True) as wire:
                    stream = await wire.open(LINK, HELLO)
                    for number in range(400):
                        await wire.send(stream, encode_frame([1, number, STATUS.name, b"\x82\x0a\x80", 10_000]))
                        target.done["requests"] += 1
                    await trio.sleep(8)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(read_slowly)
            await trio.sleep(1)
