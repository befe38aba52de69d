"""Peers joined by pairs of in-memory streams: what calls need of a network, without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair

from overlay.errors import ProtocolNotSupported, StreamBroken, Unreachable
from overlay.rpc.greetings import Greetings
from overlay.rpc.links import Links
from overlay.rpc.transport import ByteStream, StreamHandler
from overlay.settings import CallLimits, OverlaySettings

SMALLER, LARGER = "12D3KooWA", "12D3KooWB"


class MemoryStream:
    """One end of a pair. `stall` makes its writes wait, as a peer's that doesn't read."""

    def __init__(self, outgoing: MemorySendStream, incoming: MemoryReceiveStream) -> None:
        self.outgoing = outgoing
        self.incoming = incoming
        self.may_write = trio.Event()
        self.may_write.set()
        self.other: MemoryStream | None = None
        self.was_reset = False
        self.was_closed = False
        self.writes: list[bytes] = []
        self.held = 0
        self.may_hold = 1 << 30

    def stall(self) -> None:
        self.may_write = trio.Event()

    def lose(self) -> None:
        """Break this end, and have the other not notice, as when the path between them is gone."""
        self.other = None
        self.outgoing, _ = memory_stream_one_way_pair()
        self.incoming.close()

    async def read_some(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self.incoming.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamBroken("the stream was reset") from error
        finally:
            if self.was_reset:
                raise StreamBroken("the stream was reset")

    async def write(self, payload: bytes) -> None:
        await self.may_write.wait()
        try:
            await self.outgoing.send_all(payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamBroken("the stream was reset") from error
        self.writes.append(payload)

    def hold(self, amount: int) -> bool:
        if amount > self.may_hold:
            return False
        self.held = amount
        return True

    async def close(self) -> None:
        self.was_closed = True
        self.outgoing.close()

    async def reset(self) -> None:
        for end in (self, self.other):
            if end is not None:
                end.was_reset = end.was_closed = True
                end.outgoing.close()
                end.incoming.close()


def memory_streams() -> tuple[MemoryStream, MemoryStream]:
    (a_out, b_in), (b_out, a_in) = memory_stream_one_way_pair(), memory_stream_one_way_pair()
    a, b = MemoryStream(a_out, a_in), MemoryStream(b_out, b_in)
    a.other, b.other = b, a
    return a, b


class MemoryDialler:
    """One peer's side of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, peer_id: str) -> None:
        self.network = network
        self._peer_id = peer_id
        self.handlers: dict[str, StreamHandler] = {}
        self.addresses: dict[str, list[str]] = {}
        self.dialled: list[str] = []
        self.streams: list[MemoryStream] = []
        self.before_dialling: trio.Event | None = None

    @property
    def peer_id(self) -> str:
        return self._peer_id

    async def open_stream(self, peer_id: str, protocol_id: str) -> ByteStream:
        self.dialled.append(peer_id)
        if self.before_dialling is not None:
            await self.before_dialling.wait()
        await trio.lowlevel.checkpoint()
        remote = self.network.diallers.get(peer_id)
        if remote is None:
            raise Unreachable(peer_id, protocol_id, "nobody is there")
        handler = remote.handlers.get(protocol_id)
        if handler is None:
            raise ProtocolNotSupported(peer_id, protocol_id)
        ours, theirs = memory_streams()
        self.streams.append(ours)
        self.network.nursery.start_soon(handler, self.peer_id, theirs)
        return ours

    def set_stream_handler(self, protocol_id: str, handler: StreamHandler) -> None:
        self.handlers[protocol_id] = handler

    def add_addresses(self, peer_id: str, addresses: Sequence[str], *, teller: str = "") -> None:
        self.addresses.setdefault(peer_id, []).extend(addresses)

    def addresses_of(self, peer_id: str) -> list[str]:
        return self.addresses.get(peer_id, [])

    def is_connected(self, peer_id: str) -> bool:
        return any(not stream.was_reset for stream in self.streams)

    async def disconnect(self, peer_id: str) -> None:
        for stream in self.streams:
            await stream.reset()


class MemoryNetwork:
    """Peers that can dial each other."""

    def __init__(self, nursery: trio.Nursery, limits: CallLimits | None = None) -> None:
        self.nursery = nursery
        self.settings = OverlaySettings(calls=limits or CallLimits())
        self.diallers: dict[str, MemoryDialler] = {}

    def dialler(self, peer_id: str) -> MemoryDialler:
        dialler = self.diallers[peer_id] = MemoryDialler(self, peer_id)
        return dialler

    async def links(
        self,
        peer_id: str,
        *,
        member: bool = True,
        keeps: Callable[[str], bool] = lambda _: True,
        greetings: Greetings | None = None,
    ) -> Links:
        """The links of a new peer, running."""
        links = Links(self.dialler(peer_id), self.settings, member, keeps=keeps, greetings=greetings)
        await self.nursery.start(links.run)
        return links


@asynccontextmanager
async def memory_network(limits: CallLimits | None = None) -> AsyncIterator[MemoryNetwork]:
    async with trio.open_nursery() as nursery:
        yield MemoryNetwork(nursery, limits)
        nursery.cancel_scope.cancel()
