"""TLS and noise driven directly on a socket, against libp2p's own reads and writes at the other end."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from libp2p.abc import ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.secure_session import SecureSession
from libp2p.security.tls.io import TLSReadWriter

from overlay.libp2p.muxer.pipe import Pipe, SecuredPipe
from overlay.libp2p.workarounds.authenticated_transports import security_options
from overlay.libp2p.workarounds.direct_pipes import direct_pipe

CIPHERS = ("/tls/1.0.0", "/noise")
SIZES = (1, 12, 4096, 16_384, 16_385, 65_519, 65_536, 200_000)
LARGE = 8 * 1024 * 1024


class Pair:
    """A secured connection in memory of this process, and the socket of the first end."""

    def __init__(self, ends: tuple[ISecureConn, ISecureConn], sockets: tuple[Any, Any]) -> None:
        self.ours, self.theirs = ends
        self.sockets = sockets


@asynccontextmanager
async def secured(protocol: str) -> AsyncIterator[Pair]:
    keys = create_new_key_pair(bytes(32)), create_new_key_pair(bytes([1]) * 32)
    dialling, listening = (
        next(made for name, made in security_options(key).items() if str(name) == protocol) for key in keys
    )
    sockets = trio.socket.socketpair()
    raw = [RawConnection(TrioTCPStream(trio.SocketStream(one)), one is sockets[0]) for one in sockets]
    ends: dict[str, ISecureConn] = {}

    async def listen() -> None:
        ends["theirs"] = await listening.secure_inbound(raw[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        ends["ours"] = await dialling.secure_outbound(raw[0], ID.from_pubkey(keys[1].public_key))
    try:
        yield Pair((ends["ours"], ends["theirs"]), sockets)
    finally:
        for one in sockets:
            one.close()


def taken_over(connection: ISecureConn) -> Pipe:
    pipe = direct_pipe(connection)
    assert pipe is not None
    return pipe


async def sent(pipe: Pipe, payload: bytes) -> None:
    if not pipe.send(payload):
        await pipe.drain()
    assert pipe.is_clear


async def received(pipe: Pipe, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = await pipe.receive()
        assert piece
        found += piece
    return found


@pytest.mark.parametrize("protocol", CIPHERS)
@pytest.mark.parametrize("theirs_is_direct", [True, False])
async def test_bytes_pass_both_ways_whatever_their_number(protocol: str, theirs_is_direct: bool) -> None:
    async with secured(protocol) as pair, trio.open_nursery() as nursery:
        ours = taken_over(pair.ours)
        theirs = taken_over(pair.theirs) if theirs_is_direct else SecuredPipe(pair.theirs)
        for size in SIZES:
            payload = bytes(number % 251 for number in range(size))
            for sender, receiver in ((ours, theirs), (theirs, ours)):
                nursery.start_soon(sent, sender, payload)
                assert await received(receiver, size) == payload


@pytest.mark.parametrize("protocol", CIPHERS)
async def test_what_came_before_it_was_taken_over_is_not_lost(protocol: str) -> None:
    async with secured(protocol) as pair:
        await pair.theirs.write(b"negotiated, and early")
        await pair.theirs.write(b", and earlier than read")
        assert await pair.ours.read(10) == b"negotiated"
        assert await received(taken_over(pair.ours), 34) == b", and early, and earlier than read"


@pytest.mark.parametrize("protocol", CIPHERS)
async def test_what_a_peer_does_not_read_waits_and_a_cancelled_wait_loses_nothing(protocol: str) -> None:
    async with secured(protocol) as pair, trio.open_nursery() as nursery:
        ours, theirs = taken_over(pair.ours), taken_over(pair.theirs)
        payload = bytes(number % 251 for number in range(251)) * (LARGE // 251)
        assert not ours.send(payload)
        assert not ours.is_clear
        with trio.move_on_after(0.05) as waiting:
            await ours.drain()
        assert waiting.cancelled_caught
        nursery.start_soon(ours.drain)
        assert await received(theirs, len(payload)) == payload
        assert ours.is_clear


@pytest.mark.parametrize("protocol", CIPHERS)
async def test_forged_bytes_end_it(protocol: str) -> None:
    async with secured(protocol) as pair:
        ours = taken_over(pair.ours)
        await pair.sockets[1].send(b"\x00\x20" + b"forged bytes, as long as they claim")
        with pytest.raises(Exception):  # noqa: B017, PT011 - the library's choice
            await ours.receive()


@pytest.mark.parametrize("protocol", CIPHERS)
async def test_its_end_is_told(protocol: str) -> None:
    async with secured(protocol) as pair:
        ours, theirs = taken_over(pair.ours), taken_over(pair.theirs)
        await sent(theirs, b"last words")
        await theirs.close()
        assert await received(ours, 10) == b"last words"
        assert await ours.receive() == b""


class _Other:
    """A connection of another type."""


async def test_there_is_none_for_what_is_not_known() -> None:
    async with secured(CIPHERS[0]) as pair:
        assert direct_pipe(cast("ISecureConn", _Other())) is None
        assert isinstance(pair.ours, SecureSession)
        pair.ours.conn = cast("Any", _Other())
        assert direct_pipe(pair.ours) is None
        # Without a handshake it has none of the attributes that are needed, as a later version may.
        raw = cast("Any", pair.theirs).conn.stream_writer.raw_connection
        pair.ours.conn = TLSReadWriter(raw, ssl.create_default_context(), b"")
        assert direct_pipe(pair.ours) is None
