"""This network's host over py-libp2p, with every remedy applied: it listens, and opens and takes streams.

Other rooms decide which streams are opened and what is said on them. Connections are in `connections`, addresses in
`addresses`, gossip in `gossip`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.discovery.address_book import parse_dialable
from overlay.errors import OverlayError, ProtocolNotSupported, Unreachable
from overlay.identity import Identity
from overlay.libp2p.addresses import KnownAddresses, announced, libp2p_id
from overlay.libp2p.callers import Callers
from overlay.libp2p.connections import Connections
from overlay.libp2p.gossip import Libp2pGossip
from overlay.libp2p.greeting_gate import GreetingGate
from overlay.libp2p.identify import serve_identify
from overlay.libp2p.muxer.connection import MuxedConnection
from overlay.libp2p.muxer.pipe import SecuredPipe
from overlay.libp2p.silent_connections import close_silent
from overlay.libp2p.stream import Libp2pStream
from overlay.libp2p.told_addresses import ToldAddresses
from overlay.libp2p.visitors import Visitors
from overlay.libp2p.workarounds.authenticated_transports import security_options
from overlay.libp2p.workarounds.bounded_negotiation import bound_streams
from overlay.libp2p.workarounds.closed_connections import connections_closed_at_last
from overlay.libp2p.workarounds.connection_limits import (
    connection_config,
    resource_manager,
    stop_dialling_by_itself,
    swarm_of,
)
from overlay.libp2p.workarounds.direct_pipes import direct_pipe
from overlay.libp2p.workarounds.ended_handlers import end_handlers, end_of_handler
from overlay.libp2p.workarounds.errors_by_text import is_protocol_unsupported
from overlay.libp2p.workarounds.exclusive_ports import taken_ports
from overlay.libp2p.workarounds.guarded_streams import guard_streams
from overlay.libp2p.workarounds.lasting_peerstore import LastingPeerStore
from overlay.libp2p.workarounds.muxer_table import install_muxer, muxer_options
from overlay.libp2p.workarounds.quiet_loggers import quieten_libp2p
from overlay.limits.fair_quota import FairQuota
from overlay.presence.dial_outcome import DialOutcome
from overlay.pubsub.admission import Admission
from overlay.rpc.greetings import Greetings
from overlay.rpc.negotiation import negotiation_of
from overlay.rpc.transport import ByteStream, StreamHandler
from overlay.settings import OverlaySettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Host:
    """A listening and dialling end of the network; satisfies `overlay.rpc.transport.Transport`. Made by `open_host`."""

    def __init__(self, identity: Identity, settings: OverlaySettings, greetings: Greetings) -> None:
        key_pair = create_new_key_pair(identity.seed)
        self._settings = settings
        self._peer_id = identity.peer_id
        self._visitors = Visitors(settings.links)
        self._callers = Callers()
        listen = tuple(Multiaddr(address) for address in settings.listen)
        shares_port = any(f"{address}/ws" in settings.listen and "/tcp/0" not in address for address in settings.listen)
        self._listen = listen
        self.libp2p: IHost = new_host(
            key_pair=key_pair,
            peerstore_opt=LastingPeerStore(key_pair, settings.max_known_peers),
            sec_opt=self._callers.noted_by(security_options(key_pair)),
            muxer_opt=muxer_options(),
            connection_config=connection_config(settings),
            resource_manager=resource_manager(settings, self._visitors),
            # Both transports, always: a node that listens on one of them dials the other too. libp2p looks at
            # addresses given here only for the one thing that the switches can't say: both on one port.
            listen_addrs=listen if shares_port else None,
            enable_tcp=True,
            enable_websocket=True,
            addrs_factory=partial(announced, tuple(Multiaddr(address) for address in settings.announce)),
            disable_identify_address_discovery=True,
        )
        self._swarm = swarm_of(self.libp2p)
        bound_streams(self.libp2p)
        end_handlers(self._swarm)
        self._addresses = KnownAddresses(identity.peer_id, self.libp2p.get_peerstore(), settings)
        told = ToldAddresses(settings, self._visitors, self.listen_addresses)
        self._greetings = greetings
        self._gate = GreetingGate(self.libp2p, self._swarm, greetings, settings)
        self._connections = Connections(
            identity.peer_id, self._swarm, self._addresses, self._visitors, told, self._gate, settings
        )
        self.admission = Admission(settings.topics, self._connections.ban)
        """Decides which gossip of others is let in."""
        self.gossip = Libp2pGossip(
            self.libp2p,
            self.admission,
            lambda peer_id: self._gate.wait_until_in(peer_id, self._connections.is_connected),
        )
        serve_identify(self.libp2p)
        self._unread = FairQuota(settings.max_unread, settings.max_unread_per_peer)
        install_muxer(self._swarm, self._muxed)
        guard_streams(self._swarm)

    @property
    def peer_id(self) -> str:
        """Our own peer id (base58)."""
        return self._peer_id

    @property
    def dial_failures(self) -> int:
        """Attempts to connect that failed, since the start."""
        return self._connections.dial_failures

    def has_dialled(self, peer_id: str) -> bool:
        """Whether a peer has dialled this host since it started, as far as it remembers."""
        return peer_id in self._callers

    def listen_addresses(self) -> list[str]:
        """Multiaddrs at which others reach this peer, each ending in `/p2p/<own id>`."""
        return [str(address) for address in self.libp2p.get_addrs()]

    def connected_peers(self) -> list[str]:
        """Peers with an open connection, members or not."""
        return self._connections.peers()

    def is_connected(self, peer_id: str) -> bool:
        """Whether a connection to the peer is open, with or without a link on it."""
        return self._connections.is_connected(peer_id)

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Connect to the peer that `multiaddr` names and return its id. Raises `Unreachable` or `AddressError`."""
        return await self._connections.connect(multiaddr, timeout=timeout)

    async def who_is_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        """The addresses, each with a peer's id, that a multiaddr without one stands for now."""
        return await self._connections.who_is_at(multiaddr, timeout=timeout)

    async def can_be_dialled(self, peer_id: str) -> bool:
        """Whether a peer, connected or not, answers at one of its addresses; takes at most a few seconds."""
        return await self._connections.can_be_dialled(peer_id)

    async def probe(self, peer_id: str, timeout: float) -> DialOutcome:
        """Dial a peer to see whether it is there, beside the connections that there are; takes `timeout` at most."""
        return await self._connections.probe(peer_id, timeout)

    def silence(self, peer_id: str) -> float | None:
        """Seconds since a connected peer's machine sent anything; None where that isn't known."""
        return self._connections.silence(peer_id)

    async def disconnect(self, peer_id: str) -> None:
        """Close every connection to the peer."""
        await self._connections.disconnect(peer_id)

    def add_addresses(self, peer_id: str, addresses: Sequence[str], *, teller: str = "") -> None:
        """Remember multiaddrs of a peer; bounded, and bad ones are dropped silently. `teller`: who says so."""
        self._addresses.add(peer_id, addresses, teller=teller, in_use=set(self.connected_peers()))

    def addresses_of(self, peer_id: str) -> list[str]:
        """Multiaddrs known of a peer: those of the book, then what the peer itself told by identify."""
        return self._addresses.of(peer_id)

    def set_stream_handler(self, protocol_id: str, handler: StreamHandler) -> None:
        """Have `handler` called for every inbound stream of `protocol_id`, with the authenticated remote peer id."""

        async def adapted(stream: INetStream) -> None:
            wrapped, peer_id = Libp2pStream(stream), str(stream.muxed_conn.peer_id)
            self._visitors.began(peer_id, trio.current_time())
            try:
                await handler(peer_id, wrapped)
            except BaseException:
                with trio.CancelScope(shield=True), trio.move_on_after(0.5):
                    await wrapped.reset()
                raise
            finally:
                self._visitors.ended(peer_id, trio.current_time())

        self.libp2p.set_stream_handler(TProtocol(protocol_id), adapted)

    async def open_stream(self, peer_id: str, protocol_id: str) -> ByteStream:
        """A new stream to `peer_id`, over a connection that is made when there is none.

        Raises `Unreachable`, or `ProtocolNotSupported`; takes at most `dial_timeout` for each of both steps.
        """
        self._gate.check(peer_id, protocol_id)
        await self._connections.ensure(peer_id)
        stream: INetStream | None = None
        reason = "opening a stream took too long"
        with trio.move_on_after(self._settings.dial_timeout):
            try:
                stream = await self.libp2p.new_stream(libp2p_id(peer_id), [TProtocol(protocol_id)])
            except Exception as error:
                if is_protocol_unsupported(error):
                    raise ProtocolNotSupported(peer_id, protocol_id) from error
                reason = f"can't open a stream: {error!r}"[:200]
        if stream is None:
            raise Unreachable(peer_id, protocol_id, detail=reason)
        self._visitors.used(peer_id, trio.current_time())
        return Libp2pStream(stream)

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> ByteStream:
        """A new stream with `message` on it, to a peer that is known to speak `protocol_id`.

        What negotiates the protocol goes in the same frame, so that nobody waits for answers; these
        (`negotiation_of`) are the first that is read. Raises as `open_stream`, and doesn't notice if the peer refuses.
        """
        self._gate.check(peer_id, protocol_id)
        await self._connections.ensure(peer_id)
        stream: INetStream | None = None
        reason = "opening a stream took too long"
        written = False
        with trio.move_on_after(self._settings.dial_timeout):
            try:
                stream = await self._swarm.new_stream(libp2p_id(peer_id))
                stream.set_protocol(TProtocol(protocol_id))
                await stream.write(negotiation_of(protocol_id) + message)
                written = True
            except Exception as error:
                reason = f"can't open a stream: {error!r}"[:200]
            finally:
                if stream is not None and not written:
                    with trio.CancelScope(shield=True), trio.move_on_after(0.5):
                        await Libp2pStream(stream).reset()
        if stream is None or not written:
            raise Unreachable(peer_id, protocol_id, detail=reason)
        self._visitors.used(peer_id, trio.current_time())
        return Libp2pStream(stream)

    async def tend_connections(self, is_linked: Callable[[str], bool]) -> None:
        """Close connections without a link whose peers are silent, or idle when there are many, until cancelled."""

        def is_asked_elsewhere(peer_id: str) -> bool:
            return is_linked(peer_id) or not self._gate.is_in(peer_id)  # no ping for who isn't let in: it's closed soon

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_silent, self._swarm, self._settings, is_asked_elsewhere)
            nursery.start_soon(self._connections.close_idle, is_linked)
            nursery.start_soon(self._gate.run, self._connections.disconnect)

    def _muxed(self, connection: ISecureConn, peer_id: ID) -> MuxedConnection:
        direct = direct_pipe(connection) if self._settings.direct_pipes else None
        return MuxedConnection(
            connection,
            peer_id,
            pipe=direct or SecuredPipe(connection),
            pause=self.admission.pause,
            budget=self._unread,
            write_timeout=self._settings.calls.write_timeout,
            when_closed=_nothing if connection.is_initiator else end_of_handler(self._settings.dial_timeout),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and serve until the block ends."""
        taken = taken_ports(self._listen)
        if taken:
            where = ", ".join(taken)
            raise OverlayError(f"can't listen on {where} (overlay.listen): another process does; choose another port")
        async with (
            connections_closed_at_last(self._swarm),
            self.libp2p.run(self._listen),
            trio.open_nursery() as nursery,
        ):
            try:
                await stop_dialling_by_itself(self._swarm)
                missing = [str(address) for address in self._listen if str(address) not in self._swarm.listeners]
                if missing:
                    raise OverlayError(
                        f"can't listen on {', '.join(missing)} (overlay.listen); is it of this machine, and may you use"
                        " the port?"
                    )
                await nursery.start(self.gossip.run)
                yield
            finally:
                # Without an explicit close, leaving run() leaks sockets and tasks (`BasicHost.close`).
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(self._settings.shutdown_timeout):
                        await self._connections.close_all()
                    nursery.cancel_scope.cancel()
                    with trio.move_on_after(self._settings.shutdown_timeout):
                        await self.libp2p.close()


def _nothing() -> None:
    """What a connection that we dialled ends besides itself."""


@asynccontextmanager
async def open_host(
    identity: Identity, settings: OverlaySettings, greetings: Greetings | None = None
) -> AsyncIterator[Host]:
    """A host that listens and dials until the block ends; then its sockets and tasks are gone within seconds.

    `greetings`: who is let in, by its links; everybody by default.
    Raises `AddressError` for addresses that it can't listen on or announce, `OverlayError` when a port is taken.
    """
    for address in (*settings.listen, *settings.announce):
        parse_dialable(address)
    quieten_libp2p()
    host = Host(identity, settings, greetings or Greetings())
    failure: Exception | KeyboardInterrupt | SystemExit | None = None
    async with host.running():
        try:
            yield host
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Raised again outside: libp2p's nurseries would wrap what the block raises in six groups.
            failure = error
    if failure is not None:
        raise failure
