"""Holds back everything in a private network until a peer has greeted and was let in: the one place where that is done.

Rules, for a peer that wasn't let in (`overlay.rpc.greetings`):
1. Of the streams that it opens, those of links are served, identify, and protocols of light clients where these are
   free. Any other protocol is answered as one that isn't known, and none is listed. A proposal waits for a greeting
   that is under way: the other side may have let us in before we have read its hello.
2. Identify tells our key and the protocols of rule 1: libp2p's implementations ask for it before anything else.
3. We open no streams but those: no Kad-DHT, and no gossip, whose first message names topics, which are ids of
   resources. libp2p itself asks for identify, and that tells nothing.
4. Its connection is closed after `_PATIENCE`, unless light clients are free.

In a network that isn't private this does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.network.swarm import Swarm
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError, MultiselectError
from libp2p.protocol_muxer.multiselect import PROTOCOL_NOT_FOUND_MSG, Multiselect

from overlay.errors import Unreachable
from overlay.libp2p.identify import IDENTIFY, identify_stranger
from overlay.libp2p.workarounds.bounded_negotiation import BoundedCommunicator
from overlay.rpc.greetings import Greetings
from overlay.settings import OverlaySettings
from overlay.tasks import Wakeup

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PATIENCE: Final = 2.0  # times the deadline for a hello
_PROPOSALS: Final = 16  # of protocols, on one stream


class GreetingGate:
    """The gate of one host. Made by it; `run` closes connections that come to nothing."""

    def __init__(self, host: IHost, swarm: Swarm, greetings: Greetings, settings: OverlaySettings) -> None:
        """Takes the place of the handler of all streams that `swarm` has: whatever guards that one comes after."""
        self._host = host
        self._greetings = greetings
        self._own = settings.protocol_id
        self._hello_timeout = settings.calls.hello_timeout
        self._waiting: dict[str, float] = {}  # when the connections to these peers are closed, the earliest first
        self._came = Wakeup()
        if greetings.is_private:
            self._serve = swarm.common_stream_handler
            swarm.set_stream_handler(self._hold_back)

    def is_in(self, peer_id: str) -> bool:
        """Whether a peer was let in."""
        return self._greetings.is_in(peer_id)

    def lets_stay(self, peer_id: str) -> bool:
        """Whether a peer may have a connection for long: one that was let in, and any where light clients are free."""
        return self._greetings.is_in(peer_id) or bool(self._greetings.client_protocols)

    def check(self, peer_id: str, protocol_id: str) -> None:
        """Raise `Unreachable` for a stream that isn't to be opened (rule 3)."""
        if not self._greetings.is_in(peer_id) and not self._is_open(protocol_id):
            raise Unreachable(
                peer_id, protocol_id, detail="it isn't linked, and nothing else is said in a private network before"
            )

    async def wait_until_in(self, peer_id: str, is_connected: Callable[[str], bool]) -> bool:
        """Wait until a peer is let in; False if it leaves before."""
        return await self._greetings.wait_until_in(peer_id, while_there=lambda: is_connected(peer_id))

    def came(self, peer_id: str) -> None:
        """A connection to a peer was opened."""
        if not self.lets_stay(peer_id):
            self._waiting.setdefault(peer_id, trio.current_time() + _PATIENCE * self._hello_timeout)
            self._came.set()

    def gone(self, peer_id: str) -> None:
        """The last connection to a peer ended."""
        self._waiting.pop(peer_id, None)
        self._greetings.forget(peer_id)

    async def run(self, disconnect: Callable[[str], Awaitable[None]]) -> None:
        """Close the connections of those that greet too late, until cancelled (rule 4)."""
        async with trio.open_nursery() as nursery:
            while True:
                while self._waiting:
                    peer_id, until = next(iter(self._waiting.items()))
                    await trio.sleep_until(until)
                    if self._waiting.get(peer_id) == until:
                        del self._waiting[peer_id]
                        if not self._greetings.is_in(peer_id):
                            log.debug("a peer connected and wasn't let in", peer_id=peer_id)
                            nursery.start_soon(disconnect, peer_id)
                await self._came.wait()

    def _is_open(self, protocol_id: str) -> bool:
        return protocol_id in (self._own, IDENTIFY) or protocol_id in self._greetings.client_protocols

    async def _hold_back(self, stream: INetStream) -> None:
        """Rule 1."""
        peer_id = str(stream.muxed_conn.peer_id)
        if self._greetings.is_in(peer_id):
            await self._serve(stream)
            return
        handler: StreamHandlerFn | None = None
        try:
            with trio.move_on_after(self._hello_timeout):
                handler = await self._negotiate(peer_id, stream)
        except (MultiselectError, MultiselectCommunicatorError) as error:
            log.debug("a peer that wasn't let in opened a stream to no end", peer_id=peer_id, error=repr(error)[:200])
        if handler is None:
            await stream.reset()
        else:
            await handler(stream)

    async def _negotiate(self, peer_id: str, stream: INetStream) -> StreamHandlerFn | None:
        communicator = BoundedCommunicator(stream)
        await Multiselect().handshake(communicator)
        for _ in range(_PROPOSALS):
            proposed = await communicator.read()
            handler = await self._handler_of(peer_id, proposed)
            if handler is None:
                await communicator.write(PROTOCOL_NOT_FOUND_MSG)
                continue
            await communicator.write(proposed)
            stream.set_protocol(TProtocol(proposed))
            return handler
        return None

    async def _handler_of(self, peer_id: str, proposed: str) -> StreamHandlerFn | None:
        if proposed == IDENTIFY and not self._greetings.is_in(peer_id):
            return self._identify
        if not self._is_open(proposed) and not await self._greetings.wait_in(peer_id):
            return None
        return self._host.get_mux().handlers.get(TProtocol(proposed))

    async def _identify(self, stream: INetStream) -> None:
        """Rule 2."""
        await identify_stranger(self._host, stream, [self._own, IDENTIFY, *sorted(self._greetings.client_protocols)])
