"""A connection of an attacker's: authenticated with a key of his own as any peer's, and from then on without rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.security_multistream import SecurityMultistream

from overlay.identity import Identity
from overlay.libp2p.muxer.pipe import Pipe
from overlay.libp2p.muxer.session import PROTOCOL_ID, YamuxSession
from overlay.libp2p.muxer.stream_state import StreamState
from overlay.libp2p.workarounds.authenticated_transports import security_options
from overlay.libp2p.workarounds.direct_pipes import direct_pipe
from overlay.rpc.framing import encode_frame
from overlay.rpc.negotiation import negotiation_of
from overlay.settings import OverlaySettings
from overlay.tasks import Broadcast
from tests.attacks.corpus.target import Target

LINK = OverlaySettings().protocol_id
HELLO = encode_frame([0, 0, False, b"attacker"])
"""The first frame of a light client's link."""


class Wire:
    """Streams as yamux has them, and whatever else is written between their frames. Made by `open_wire`.

    What comes is read and thrown away, so that windows move on, unless it was opened to be left unread.
    """

    def __init__(self, pipe: Pipe) -> None:
        self.session = YamuxSession(initiator=True)
        self._pipe = pipe
        self._writing = trio.Lock()
        self._changed = Broadcast()

    async def open(self, protocol: str = LINK, first: bytes = b"") -> StreamState:
        """A stream of a protocol, with its first bytes; nobody waits for whether it is spoken."""
        stream = self.session.open()
        await self.send(stream, negotiation_of(protocol) + first)
        return stream

    async def send(self, stream: StreamState, data: bytes) -> None:
        """Send all of `data`, as fast as the other side reads. Raises BrokenPipeError where it dropped the stream."""
        while data:
            sent = self.session.send(stream, data)
            data = data[sent:]
            await self.flush()
            if stream.was_reset:
                raise BrokenPipeError("the stream was reset")
            if data and not sent:
                await self._changed.wait()

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are, whatever they mean to a muxer."""
        async with self._writing:
            if not self._pipe.send(data):
                await self._pipe.drain()

    async def flush(self) -> None:
        """Send what the session has to say."""
        while self.session.has_output:
            await self.raw(self.session.take_output(64 * 1024))

    async def read(self) -> None:
        """Read for ever. Raises what ended the connection."""
        while True:
            data = await self._pipe.receive()
            if not data:
                raise BrokenPipeError("the node closed the connection")
            for stream in self.session.receive(data):
                if stream.unread:
                    self.session.read(stream, stream.unread)
            self._changed.send()
            await self.flush()


@asynccontextmanager
async def open_wire(target: Target, *, unread: bool = False) -> AsyncIterator[Wire]:
    """A connection under a new identity. `unread`: nothing that the node says is ever read."""
    key_pair = create_new_key_pair(Identity.generate().seed)
    tcp = await trio.open_tcp_stream(target.host, target.port)
    try:
        raw = RawConnection(TrioTCPStream(tcp), initiator=True)
        with trio.fail_after(20):
            secured = await SecurityMultistream(security_options(key_pair)).secure_outbound(
                raw, ID.from_string(target.peer_id)
            )
            await MultiselectClient().select_one_of([TProtocol(PROTOCOL_ID)], MultiselectCommunicator(secured))
        pipe = direct_pipe(secured)
        assert pipe is not None
        wire = Wire(pipe)
        async with trio.open_nursery() as nursery:
            if not unread:
                nursery.start_soon(wire.read)
            yield wire
            nursery.cancel_scope.cancel()
    finally:
        tcp.socket.close()
