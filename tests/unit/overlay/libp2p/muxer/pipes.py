"""Two muxed connections, or one and a peer by hand, over a pipe in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import trio
from libp2p.abc import ISecureConn
from trio.testing import lockstep_stream_pair

from overlay.identity import Identity
from overlay.libp2p.addresses import libp2p_id
from overlay.libp2p.muxer.connection import MuxedConnection, Pause
from overlay.limits.fair_quota import FairQuota
from tests.unit.overlay.libp2p.muxer.frames import Sent, parsed_so_far

PEER = Identity.from_seed(bytes(32)).peer_id
WRITE_TIMEOUT = 5.0


class MemoryPipe:
    """One end of a pipe which holds nothing: what is sent waits until the other end receives it."""

    def __init__(self, stream: trio.abc.Stream, *, immediate: bool = False) -> None:
        self.immediate = immediate
        self.sends = 0
        self.is_closed = False
        self._stream = stream
        self._taken = b""

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some(64 * 1024))

    def send(self, data: bytes) -> bool:
        assert not self._taken
        assert data, "an empty message is an end, over a WebSocket"
        self.sends += 1
        self._taken = data
        return False

    @property
    def is_clear(self) -> bool:
        return not self._taken

    async def drain(self) -> None:
        await self._stream.send_all(self._taken)
        self._taken = b""

    async def close(self) -> None:
        self.is_closed = True
        await self._stream.aclose()


class _Secured:
    """What a muxed connection asks of the secured one beneath, other than bytes."""

    def __init__(self, is_initiator: bool) -> None:
        self.is_initiator = is_initiator


class PeerByHand:
    """The other end of a pipe, which sends what a test wants."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._frames: list[Sent] = []
        self._rest = b""

    async def send(self, frames: bytes) -> None:
        with trio.fail_after(100):
            await self.stream.send_all(frames)

    async def next_frame(self) -> Sent:
        while not self._frames:
            piece = bytes(await self.stream.receive_some(64 * 1024))
            assert piece, "the connection ended"
            self._frames, self._rest = parsed_so_far(self._rest + piece)
        return self._frames.pop(0)

    async def received(self, kind: int, flags: int = 0) -> Sent:
        """The next frame of a kind with those flags."""
        with trio.fail_after(100):
            while True:
                sent = await self.next_frame()
                if (sent.kind, sent.flags) == (kind, flags):
                    return sent


def connection_on(
    pipe: MemoryPipe,
    *,
    initiator: bool,
    budget: FairQuota | None = None,
    pause: Pause = lambda _: 0.0,
    peer: str = PEER,
) -> MuxedConnection:
    return MuxedConnection(
        cast("ISecureConn", _Secured(initiator)),
        libp2p_id(peer),
        pipe=pipe,
        pause=pause,
        budget=budget or FairQuota(1 << 30, 1 << 30),
        write_timeout=WRITE_TIMEOUT,
    )


@asynccontextmanager
async def running(*connections: MuxedConnection) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(connection.start)
            await connection.event_started.wait()
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(*, immediate: bool = False) -> AsyncIterator[tuple[MuxedConnection, MuxedConnection]]:
    """Who dialled, and who was dialled."""
    ours, theirs = lockstep_stream_pair()
    first = connection_on(MemoryPipe(ours, immediate=immediate), initiator=True)
    second = connection_on(MemoryPipe(theirs, immediate=immediate), initiator=False)
    async with running(first, second):
        yield first, second


@asynccontextmanager
async def with_peer_by_hand(
    *, budget: FairQuota | None = None, pause: Pause = lambda _: 0.0, peer: str = PEER
) -> AsyncIterator[tuple[MuxedConnection, PeerByHand]]:
    """A connection that was dialled by a peer of the test."""
    ours, theirs = lockstep_stream_pair()
    connection = connection_on(MemoryPipe(ours), initiator=False, budget=budget, pause=pause, peer=peer)
    async with running(connection):
        yield connection, PeerByHand(theirs)
