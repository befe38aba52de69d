"""Window updates are held back, and bulk still flows, over real sockets."""

from __future__ import annotations

import pytest
import trio
from libp2p.security.secure_session import SecureSession

from overlay import Identity, OverlayPeer, OverlaySettings, open_peer

HEADER_BYTES = 12
CALLS = 100


async def echo(_caller: str, body: object) -> object:
    return body


async def called(peer: OverlayPeer, callee: str, body: object, count: int) -> None:
    for _ in range(count):
        with trio.fail_after(10):
            assert await peer.call(callee, "test/echo", body, timeout=10) == body


async def test_small_messages_cost_one_write_each_and_bulk_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bare_headers = 0
    write = SecureSession.write

    async def counted(self: SecureSession, data: bytes) -> None:
        nonlocal bare_headers
        bare_headers += len(data) == HEADER_BYTES
        await write(self, data)

    monkeypatch.setattr(SecureSession, "write", counted)
    async with open_peer(Identity.generate(), OverlaySettings(listen=("/ip4/127.0.0.1/tcp/0",))) as callee:
        callee.serve("test/echo", echo)
        async with open_peer(Identity.generate(), OverlaySettings(bootstrap=(callee.addresses()[0],))) as caller:
            await called(caller, callee.peer_id, "warm", 3)
            bare_headers = 0
            await called(caller, callee.peer_id, "x" * 500, CALLS)
            assert bare_headers < CALLS / 5  # plain yamux writes two of them for each call
            await called(caller, callee.peer_id, b"x" * 900_000, 10)  # many windows' worth, both ways
