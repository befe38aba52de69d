"""A host of the simulated internet, as `overlay.peer_host.PeerHost` asks: connections, streams and gossip."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from overlay.discovery.address_book import AddressBook, parse_peer_address
from overlay.errors import ProtocolNotSupported, StreamBroken, Unreachable
from overlay.presence.dial_outcome import DialOutcome
from overlay.pubsub.admission import Admission, message_id
from overlay.rpc.negotiation import negotiation_of
from overlay.rpc.transport import StreamHandler
from overlay.settings import OverlaySettings
from tests.simulation.internet import AGAIN, Internet

SHAKING_HANDS: Final = 4
"""Round trips until a new connection is secured and multiplexed."""
_END, _RESET = object(), object()  # of a stream


class Stream:
    """One end of a stream; satisfies `overlay.rpc.transport.ByteStream`."""

    def __init__(self, connection: Connection, host: SimulatedHost) -> None:
        self._connection = connection
        self._internet = connection.internet
        self._host = host
        self._to = connection.other(host)
        self.other: Stream
        self._on_the_way: deque[tuple[float, object]] = deque()  # to the other end
        self._latest = 0.0
        self._arrived = bytearray()
        self._has_ended = self._is_closed = False
        self.is_broken = False
        self._came: trio.Event | None = None

    async def read_some(self, max_bytes: int) -> bytes:
        while not self._arrived:
            if self.is_broken:
                await trio.lowlevel.checkpoint()
                raise StreamBroken("the stream was reset")
            if self._has_ended:
                await trio.lowlevel.checkpoint()
                return b""
            self._came = trio.Event()
            await self._came.wait()
        chunk = bytes(self._arrived[:max_bytes])
        del self._arrived[:max_bytes]
        return chunk

    async def write(self, payload: bytes) -> None:
        """At once, as long as nothing fills the window: a turn of the loop for each would be most of what is run."""
        if self.is_broken or self._is_closed:
            raise StreamBroken("the stream was reset")
        self._internet.messages += 1
        self._internet.note(f"{self._host.peer_id} {self._to.peer_id} {len(payload)}")
        self._send(bytes(payload))

    def hold(self, amount: int) -> bool:
        return True

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.is_broken and not self._is_closed:
            self._is_closed = True
            self._send(_END)
            self._leave()

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.is_broken:
            self._send(_RESET)
            self.break_off()

    def is_at(self, host: SimulatedHost) -> bool:
        """Whether it is this host's end."""
        return self._host is host

    def break_off(self) -> None:
        """This end is of no use any more."""
        self.is_broken = True
        self._arrived.clear()
        self._connection.streams.pop(self, None)
        self._wake()

    def _leave(self) -> None:
        if self._is_closed and self._has_ended:
            self._connection.streams.pop(self, None)

    def _wake(self) -> None:
        if self._came is not None:
            self._came.set()

    def _send(self, what: object) -> None:
        if self._host.is_lost:
            return
        due = trio.current_time() + self._internet.takes(self._host.peer_id, self._to.peer_id)
        self._latest = max(self._latest, due)
        self._on_the_way.append((self._latest, what))
        if len(self._on_the_way) == 1:
            self._internet.at(self._latest, self._arrive)

    def _arrive(self) -> None:
        """The first of what is on the way is there, unless a partition holds it up or nobody is there."""
        now = trio.current_time()
        if self._internet.are_apart(self._host.peer_id, self._to.peer_id):
            if self._host.is_lost:
                self._on_the_way.clear()  # nobody sends it again
            else:
                self._internet.at(now + AGAIN, self._arrive)
            return
        if self._to.is_lost:
            self._on_the_way.clear()
            if self._to.peer_id in self._internet.hosts:  # as another process, which knows nothing of it
                self._connection.break_off_for(self._host)
            return
        while self._on_the_way and self._on_the_way[0][0] <= now:
            self.other.take(self._on_the_way.popleft()[1])
        if self._on_the_way:
            self._internet.at(self._on_the_way[0][0], self._arrive)

    def take(self, what: object) -> None:
        """Something that the other end sent is here."""
        if self.is_broken:
            return
        if isinstance(what, bytes):
            self._arrived += what
        elif what is _END:
            self._has_ended = True
            self._leave()
        else:
            self.break_off()
        self._wake()


class Connection:
    """Between two hosts."""

    def __init__(self, one: SimulatedHost, other: SimulatedHost) -> None:
        self.internet = one.internet
        self._ends = (one, other)
        self.streams: dict[Stream, None] = {}
        one.connections[other.peer_id] = other.connections[one.peer_id] = self
        other.callers.add(one.peer_id)

    def other(self, host: SimulatedHost) -> SimulatedHost:
        return self._ends[1] if self._ends[0] is host else self._ends[0]

    @property
    def is_stale(self) -> bool:
        """Whether one of its ends is no more."""
        return self._ends[0].is_lost or self._ends[1].is_lost

    def pair(self, host: SimulatedHost) -> tuple[Stream, Stream]:
        """A new stream: the end of `host`, and the other."""
        ours, theirs = Stream(self, host), Stream(self, self.other(host))
        ours.other, theirs.other = theirs, ours
        self.streams[ours] = self.streams[theirs] = None
        return ours, theirs

    def break_off(self) -> None:
        """It is no more, for both ends, as soon as they can notice."""
        for host in self._ends:
            self.break_off_for(host)

    def break_off_for(self, host: SimulatedHost) -> None:
        """One of its ends notices that it is no more."""
        other = self.other(host)
        if host.connections.get(other.peer_id) is self:
            del host.connections[other.peer_id]
        for stream in list(self.streams):
            if stream.is_at(host):
                stream.break_off()


class Message:
    """An announcement on its way; satisfies `overlay.pubsub.gossip.GossipMessage`."""

    def __init__(self, topic: str, payload: bytes) -> None:
        self.topics = (topic,)
        self.payload = payload

    def is_authentic(self) -> bool:
        return True


class FloodedGossip:
    """Every announcement goes to every connected peer in its topic that it didn't come from; satisfies `Gossip`.

    Stands in for libp2p's gossipsub, which sends to a few of them. Everybody knows at once who is in which topic.
    """

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self.joined: set[str] = set()

    async def subscribe(self, topic: str) -> None:
        await trio.lowlevel.checkpoint()
        self.joined.add(topic)

    async def unsubscribe(self, topic: str) -> None:
        await trio.lowlevel.checkpoint()
        self.joined.discard(topic)

    async def publish(self, topic: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._host.admission.seen.add(message_id((topic,), payload))
        self._spread(Message(topic, payload), came_from="")

    def peers_in(self, topic: str) -> Collection[str]:
        host = self._host
        return [peer for peer, link in host.connections.items() if topic in link.other(host).gossip.joined]

    def backlogged(self, length: int) -> set[str]:
        return set()

    def _spread(self, message: Message, *, came_from: str) -> None:
        for peer_id in self.peers_in(message.topics[0]):
            if peer_id != came_from:
                self._send(self._host.connections[peer_id], message)

    def _send(self, connection: Connection, message: Message) -> None:
        host, internet, to = self._host, self._host.internet, connection.other(self._host)

        def arrive() -> None:
            if connection.is_stale or host.connections.get(to.peer_id) is not connection:
                return
            if internet.are_apart(host.peer_id, to.peer_id):
                internet.at(trio.current_time() + AGAIN, arrive)
            else:
                to.start_soon(to.gossip.take, host.peer_id, message)

        internet.messages += 1
        internet.note(f"{host.peer_id} {to.peer_id} announces {len(message.payload)}")
        internet.at(trio.current_time() + internet.takes(host.peer_id, to.peer_id), arrive)

    async def take(self, forwarder: str, message: Message) -> None:
        """An announcement of a neighbour's."""
        admission = self._host.admission
        if await admission.admit(forwarder, message):
            admission.seen.add(message_id(message.topics, message.payload))
            self._spread(message, came_from=forwarder)


class SimulatedHost:
    """One life of a host. Made by `open_host`."""

    def __init__(self, internet: Internet, peer_id: str, settings: OverlaySettings, nursery: trio.Nursery) -> None:
        self.internet = internet
        self.peer_id = peer_id
        self.is_lost = False
        self.connections: dict[str, Connection] = {}
        self.admission = Admission(settings.topics, self._ban)
        self.gossip = FloodedGossip(self)
        self.dial_failures = 0
        self.callers: set[str] = set()
        self._settings = settings
        self._book = AddressBook(
            max_peers=settings.max_known_peers, max_addresses_per_peer=settings.max_addresses_per_peer
        )
        self._handlers: dict[str, StreamHandler] = {}
        self._banned: dict[str, float] = {}
        self._nursery = nursery
        self.start_soon = nursery.start_soon
        internet.address_of(peer_id)
        internet.hosts[peer_id] = self
        internet.powerless.pop(peer_id, None)
        internet.changed.send()

    def lose(self, *, silently: bool) -> None:
        """kill -9 of its process, or, `silently`, the end of its power: from now on it does nothing any more."""
        self.is_lost = True
        del self.internet.hosts[self.peer_id]
        if silently:
            self.internet.powerless[self.peer_id] = trio.current_time()
        for connection in [] if silently else list(self.connections.values()):
            other = connection.other(self)
            if not self.internet.are_apart(self.peer_id, other.peer_id):
                takes = self.internet.takes(self.peer_id, other.peer_id)
                self.internet.at(trio.current_time() + takes, partial(connection.break_off_for, other))

    # Addresses

    def listen_addresses(self) -> list[str]:
        return [f"{self.internet.address_of(self.peer_id)}/p2p/{self.peer_id}"]

    def add_addresses(self, peer_id: str, addresses: Sequence[str], *, teller: str = "") -> None:
        if peer_id != self.peer_id:
            self._book.add(peer_id, list(addresses), in_use=self.connections)

    def addresses_of(self, peer_id: str) -> list[str]:
        return list(self._book.of(peer_id))

    # Connections

    def has_dialled(self, peer_id: str) -> bool:
        return peer_id in self.callers

    def connected_peers(self) -> list[str]:
        return list(self.connections)

    def is_connected(self, peer_id: str) -> bool:
        return peer_id in self.connections

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        address, peer_id = parse_peer_address(multiaddr)
        self.add_addresses(peer_id, [address])
        await self._ensure(peer_id, timeout)
        return peer_id

    async def who_is_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        """Nobody: all peers here are named by those who tell of them."""
        await trio.lowlevel.checkpoint()
        return []

    async def can_be_dialled(self, peer_id: str) -> bool:
        for address in self.addresses_of(peer_id):
            await self._round_trips(peer_id)
            target = self.internet.host_at(address, peer_id)
            if target is not None:
                target.callers.add(self.peer_id)
                return True
        return False

    async def probe(self, peer_id: str, timeout: float) -> DialOutcome:
        if not self.addresses_of(peer_id):
            await trio.lowlevel.checkpoint()
            return DialOutcome.OWN_FAULT
        with trio.move_on_after(timeout):
            if await self.can_be_dialled(peer_id):
                return DialOutcome.ALIVE
            while peer_id in self.internet.powerless:
                await self.internet.changed.wait()
            return DialOutcome.REFUSED
        return DialOutcome.SILENT

    def silence(self, peer_id: str) -> float | None:
        if peer_id not in self.connections:
            return None
        since = self.internet.silent_since(self.peer_id, peer_id)
        return trio.current_time() - since if since is not None else 0.0

    async def disconnect(self, peer_id: str) -> None:
        await trio.lowlevel.checkpoint()
        connection = self.connections.get(peer_id)
        if connection is not None:
            connection.break_off_for(self)
            if not connection.is_stale:
                other = connection.other(self)
                takes = self.internet.takes(self.peer_id, peer_id)
                self.internet.at(trio.current_time() + takes, lambda: connection.break_off_for(other))

    async def _ban(self, peer_id: str, seconds: float) -> None:
        self._banned[peer_id] = trio.current_time() + seconds
        await self.disconnect(peer_id)

    def _refuses(self, peer_id: str) -> bool:
        return self._banned.get(peer_id, 0.0) > trio.current_time()

    async def _ensure(self, peer_id: str, timeout: float) -> Connection:
        await trio.lowlevel.checkpoint()
        known = self.connections.get(peer_id)
        if known is not None:
            return known
        reason = "timeout exceeded"
        with trio.move_on_after(timeout):
            for address in self.addresses_of(peer_id):
                await self._round_trips(peer_id, SHAKING_HANDS)
                target = self.internet.host_at(address, peer_id)
                if target is not None and not target._refuses(self.peer_id) and not self._refuses(peer_id):
                    return self.connections.get(peer_id) or Connection(self, target)
            reason = "nobody is there"
        self.dial_failures += 1
        raise Unreachable(peer_id, "connect", reason)

    async def _round_trips(self, peer_id: str, number: int = 1) -> None:
        """To a host and back, as soon as a partition lets it."""
        internet = self.internet
        await trio.sleep(sum(internet.takes(self.peer_id, peer_id) for _ in range(2 * number)))
        while internet.are_apart(self.peer_id, peer_id):
            await internet.changed.wait()

    async def tend_connections(self, is_linked: Callable[[str], bool]) -> None:
        """Every connection here is of a peer that links."""
        await trio.sleep_forever()

    # Streams

    def set_stream_handler(self, protocol_id: str, handler: StreamHandler) -> None:
        self._handlers[protocol_id] = handler

    async def open_stream(self, peer_id: str, protocol_id: str) -> Stream:
        connection = await self._ensure(peer_id, self._settings.dial_timeout)
        with trio.move_on_after(self._settings.dial_timeout):
            await self._round_trips(peer_id)
            target = connection.other(self)
            if target.is_lost:
                while peer_id not in self.internet.hosts:  # nothing tells that nobody answers
                    await self.internet.changed.wait()
                connection.break_off_for(self)
            elif self.connections.get(peer_id) is connection:
                handler = target._handlers.get(protocol_id)
                if handler is None:
                    raise ProtocolNotSupported(peer_id, protocol_id)
                ours, theirs = connection.pair(self)
                target.start_soon(handler, self.peer_id, theirs)
                return ours
            raise Unreachable(peer_id, protocol_id, "the connection broke")
        raise Unreachable(peer_id, protocol_id, "opening a stream took too long")

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> Stream:
        stream = await self.open_stream(peer_id, protocol_id)
        await stream.write(negotiation_of(protocol_id) + message)
        return stream


@asynccontextmanager
async def open_host(internet: Internet, peer_id: str, settings: OverlaySettings) -> AsyncIterator[SimulatedHost]:
    """A host that is up until the block ends, or `lose` is called."""
    async with trio.open_nursery() as nursery:
        host = SimulatedHost(internet, peer_id, settings, nursery)
        try:
            yield host
        finally:
            if not host.is_lost:
                host.lose(silently=False)
            nursery.cancel_scope.cancel()
