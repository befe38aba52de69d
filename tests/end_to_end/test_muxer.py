"""The muxer over real sockets: with our own peers, with py-libp2p's own muxer, and with peers that keep no rule."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from libp2p.abc import IHost
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.yamux.yamux import YamuxStream

from overlay import Identity, OverlaySettings, open_peer
from overlay.errors import StreamBroken
from overlay.libp2p.host import Host, open_host
from overlay.rpc.transport import ByteStream
from tests.end_to_end.libp2p_strangers import dial, stranger
from tests.end_to_end.network import eventually
from tests.unit.overlay.libp2p.muxer.frames import data

ECHO, SILENT = "/test/echo/1", "/test/silent/1"
LISTENING = ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws")
DIALS_ONLY = OverlaySettings(listen=(), member=False)
KIB = 1024


async def echo(_: str, stream: ByteStream) -> None:
    while payload := await stream.read_some(64 * KIB):
        await stream.write(payload)
    await stream.close()


async def read_nothing(_: str, stream: ByteStream) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def listening(*, direct_pipes: bool = True) -> AsyncIterator[Host]:
    async with open_host(Identity.generate(), OverlaySettings(listen=LISTENING, direct_pipes=direct_pipes)) as host:
        host.set_stream_handler(ECHO, echo)
        host.set_stream_handler(SILENT, read_nothing)
        yield host


def address_of(host: Host, transport: str = "tcp") -> str:
    [address] = [one for one in host.listen_addresses() if ("/ws/" in one) == (transport == "ws")]
    return address


async def assert_echoes(stream: ByteStream, payload: bytes) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write, payload)
        received = b""
        while len(received) < len(payload):
            received += await stream.read_some(64 * KIB)
        assert received == payload


@pytest.mark.parametrize("direct_pipes", [True, False])
@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_many_windows_flow_both_ways(transport: str, direct_pipes: bool) -> None:
    async with listening(direct_pipes=direct_pipes) as host, open_host(Identity.generate(), DIALS_ONLY) as other:
        await other.connect(address_of(host, transport), timeout=5)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    stream = await other.open_stream(host.peer_id, ECHO)
                    nursery.start_soon(assert_echoes, stream, bytes([number]) * 1_500_000)


async def test_large_calls_pass() -> None:
    async def answer(_: str, body: object) -> object:
        return body

    async with open_peer(Identity.generate(), OverlaySettings()) as callee:
        callee.serve("test/echo", answer)
        async with open_peer(Identity.generate(), OverlaySettings(bootstrap=(callee.addresses()[0],))) as caller:
            body = b"x" * 900_000
            for _ in range(10):
                assert await caller.call(callee.peer_id, "test/echo", body, timeout=10) == body


class Strange:
    """A stream of py-libp2p's own, as ours are read and written."""

    def __init__(self, host: IHost) -> None:
        self._host = host

    async def open(self, address: str, protocol: str) -> None:
        self.stream = await self._host.new_stream(await dial(self._host, address), [TProtocol(protocol)])

    async def read_some(self, max_bytes: int) -> bytes:
        return await self.stream.read(max_bytes)

    async def write(self, payload: bytes) -> None:
        await self.stream.write(payload)

    def hold(self, amount: int) -> bool:
        return True

    async def close(self) -> None:
        await self.stream.close()

    async def reset(self) -> None:
        await self.stream.reset()


@pytest.mark.parametrize("direct_pipes", [True, False])
@pytest.mark.parametrize("protocol", ["noise", "tls"])
async def test_many_windows_flow_to_and_from_libp2ps_own_muxer(protocol: str, direct_pipes: bool) -> None:
    async with listening(direct_pipes=direct_pipes) as host, stranger(security_protocol=protocol) as other:
        stream = Strange(other)
        await stream.open(address_of(host), ECHO)
        with trio.fail_after(20):
            await assert_echoes(stream, b"strange" * 200_000)


@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_a_reset_and_a_cut_connection_are_told_apart_from_an_end(how: str) -> None:
    broken, greeted = trio.Event(), trio.Event()

    async def read(_: str, stream: ByteStream) -> None:
        assert await stream.read_some(10) == b"hello"
        greeted.set()
        with pytest.raises(StreamBroken):
            await stream.read_some(10)
        broken.set()

    async with listening() as host:
        host.set_stream_handler("/test/read/1", read)
        async with stranger() as other:
            stream = Strange(other)
            await stream.open(address_of(host), "/test/read/1")
            await stream.write(b"hello")
            with trio.fail_after(5):
                await greeted.wait()
            if how == "reset":
                await stream.reset()
                with trio.fail_after(5):
                    await broken.wait()
        with trio.fail_after(5):
            await broken.wait()


async def test_a_peer_that_keeps_no_window_loses_its_connection_and_others_do_not() -> None:
    """More than a stream's window is written to one that nobody reads."""
    async with listening() as host, stranger() as attacker, open_host(Identity.generate(), DIALS_ONLY) as other:
        await other.connect(address_of(host), timeout=5)
        stream = await other.open_stream(host.peer_id, ECHO)
        target = await dial(attacker, address_of(host))
        unread = await attacker.new_stream(target, [TProtocol(SILENT)])
        assert isinstance(unread, NetStream)
        assert isinstance(unread.muxed_stream, YamuxStream)
        piece = data(unread.muxed_stream.stream_id, bytes(60 * KIB))
        with suppress(Exception):  # however libp2p calls the end of its connection
            for _ in range(100):
                await unread.muxed_stream.conn.secured_conn.write(piece)

        async def attackers() -> list[str]:
            await trio.lowlevel.checkpoint()
            return [peer for peer in host.connected_peers() if peer != other.peer_id]

        assert await eventually(attackers, lambda peers: not peers) == []
        await assert_echoes(stream, b"still well")
