"""The only place where this network touches py-libp2p's host: connections and streams, with every remedy applied.

It listens, dials by addresses of its own book, authenticates peers, and hands out byte streams; who opens which
stream, and what travels on it, is decided above.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio
from libp2p import new_host
from libp2p.abc import IHost, INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.discovery.address_book import AddressBook, parse_dialable, parse_peer_address
from overlay.errors import AddressError, OverlayError, ProtocolNotSupported, Unreachable
from overlay.identity import Identity
from overlay.libp2p.stream import Libp2pStream, negotiation_of
from overlay.libp2p.workarounds.authenticated_transports import muxer_options, security_options
from overlay.libp2p.workarounds.closed_connections import connections_closed_at_last
from overlay.libp2p.workarounds.connection_limits import connection_config, stop_dialling_by_itself, swarm_of
from overlay.libp2p.workarounds.exclusive_ports import taken_ports
from overlay.libp2p.workarounds.guarded_pubsub import GuardedPubsub, guarded_pubsub, run_gossip
from overlay.libp2p.workarounds.guarded_streams import guard_streams
from overlay.libp2p.workarounds.lasting_peerstore import LastingPeerStore
from overlay.libp2p.workarounds.mismatched_peers import who_answered
from overlay.libp2p.workarounds.quiet_loggers import quieten_libp2p
from overlay.libp2p.workarounds.thrifty_yamux import hold_window_updates_back
from overlay.pubsub.topics import Topics, message_id
from overlay.rpc.transport import ByteStream, StreamHandler
from overlay.settings import OverlaySettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_ADDRESSES_TRIED = 8
_MAX_BANNED = 4096
_NEXT_ADDRESS_AFTER = 0.25  # seconds of head start of an address over the next (happy eyeballs, RFC 8305)


class _ConnectionNotes(INotifee):
    """Tells the host of connections that come and go."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Banned peers are sent away; any other matters once it has opened a link."""
        peer_id = str(conn.muxed_conn.peer_id)
        if self._host.is_banned(peer_id):
            await self._host.disconnect(peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        self._host.note_disconnected(str(conn.muxed_conn.peer_id))

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Nothing."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Nothing."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Nothing."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Nothing."""


class Host:
    """A listening and dialling end of the network; satisfies `overlay.rpc.transport.Transport`. Made by `open_host`."""

    def __init__(self, identity: Identity, settings: OverlaySettings) -> None:
        key_pair = create_new_key_pair(identity.seed)
        self._settings = settings
        self._peer_id = identity.peer_id
        self._book = AddressBook(
            max_peers=settings.max_known_peers, max_addresses_per_peer=settings.max_addresses_per_peer
        )
        self._dials: dict[str, trio.Lock] = {}
        self.dial_failures = 0
        listen = tuple(Multiaddr(address) for address in settings.listen)
        shares_port = any(f"{address}/ws" in settings.listen and "/tcp/0" not in address for address in settings.listen)
        self._listen = listen
        self.libp2p: IHost = new_host(
            key_pair=key_pair,
            peerstore_opt=LastingPeerStore(key_pair, settings.max_known_peers),
            sec_opt=security_options(key_pair),
            muxer_opt=muxer_options(),
            connection_config=connection_config(settings),
            # Both transports, always: a node that listens on one of them dials the other too. libp2p looks at
            # addresses given here only for the one thing that the switches can't say: both on one port.
            listen_addrs=listen if shares_port else None,
            enable_tcp=True,
            enable_websocket=True,
            addrs_factory=partial(_announced, tuple(Multiaddr(address) for address in settings.announce)),
            disable_identify_address_discovery=True,
        )
        self._banned: dict[str, float] = {}
        self.pubsub: GuardedPubsub = guarded_pubsub(self.libp2p, message_id)
        self.topics = Topics(self.pubsub, settings.topics, self.ban)
        self._swarm = swarm_of(self.libp2p)
        hold_window_updates_back(self._swarm, self.topics.pause)
        guard_streams(self._swarm)
        self._swarm.register_notifee(_ConnectionNotes(self))

    @property
    def peer_id(self) -> str:
        """Our own peer id (base58)."""
        return self._peer_id

    def listen_addresses(self) -> list[str]:
        """Multiaddrs at which others reach this peer, each ending in `/p2p/<own id>`."""
        return [str(address) for address in self.libp2p.get_addrs()]

    def connected_peers(self) -> list[str]:
        """Peers with an open connection, members or not."""
        return [str(peer) for peer, connections in self._swarm.connections.items() if connections]

    def set_stream_handler(self, protocol_id: str, handler: StreamHandler) -> None:
        """Have `handler` called for every inbound stream of `protocol_id`, with the authenticated remote peer id."""

        async def adapted(stream: INetStream) -> None:
            wrapped = Libp2pStream(stream)
            try:
                await handler(str(stream.muxed_conn.peer_id), wrapped)
            except BaseException:
                with trio.CancelScope(shield=True), trio.move_on_after(0.5):
                    await wrapped.reset()
                raise

        self.libp2p.set_stream_handler(TProtocol(protocol_id), adapted)

    async def open_stream(self, peer_id: str, protocol_id: str) -> ByteStream:
        """A new stream to `peer_id`, over a connection that is made when there is none.

        Raises `Unreachable`, or `ProtocolNotSupported`; takes at most `dial_timeout` for each of both steps.
        """
        await self.ensure_connected(peer_id)
        stream: INetStream | None = None
        reason = "opening a stream took too long"
        with trio.move_on_after(self._settings.dial_timeout):
            try:
                stream = await self.libp2p.new_stream(_libp2p_id(peer_id), [TProtocol(protocol_id)])
            except Exception as error:
                if isinstance(error.__cause__, MultiselectClientError) and "not supported" in str(error.__cause__):
                    raise ProtocolNotSupported(peer_id, protocol_id) from error
                reason = f"can't open a stream: {error!r}"[:200]
        if stream is None:
            raise Unreachable(peer_id, protocol_id, reason)
        return Libp2pStream(stream)

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> ByteStream:
        """A new stream with `message` on it, to a peer that is known to speak `protocol_id`.

        What negotiates the protocol goes in the same frame, so that nobody waits for answers; these
        (`negotiation_of`) are the first that is read. Raises as `open_stream`, and doesn't notice if the peer refuses.
        """
        await self.ensure_connected(peer_id)
        stream: INetStream | None = None
        reason = "opening a stream took too long"
        written = False
        with trio.move_on_after(self._settings.dial_timeout):
            try:
                stream = await self._swarm.new_stream(_libp2p_id(peer_id))
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
            raise Unreachable(peer_id, protocol_id, reason)
        return Libp2pStream(stream)

    def add_addresses(self, peer_id: str, addresses: Sequence[str]) -> None:
        """Remember multiaddrs of a peer; bounded, and bad ones are dropped silently."""
        if peer_id == self._peer_id:
            return
        good = self._book.add(peer_id, addresses, in_use=set(self.connected_peers()))
        if good:
            self.libp2p.get_peerstore().add_addrs(_libp2p_id(peer_id), [Multiaddr(text) for text in good], 7200)

    def addresses_of(self, peer_id: str) -> list[str]:
        """Multiaddrs known of a peer: those of the book, then what the peer itself told by identify."""
        known = dict.fromkeys(self._book.of(peer_id))
        for text in self._identified_addresses(peer_id):
            known.setdefault(text)
        return list(known)[: self._settings.max_addresses_per_peer]

    def is_connected(self, peer_id: str) -> bool:
        """Whether a connection to the peer is open, with or without a link on it."""
        return any(not connection.is_closed for connection in self._swarm.get_connections(_libp2p_id(peer_id)))

    async def disconnect(self, peer_id: str) -> None:
        """Close every connection to the peer."""
        with trio.move_on_after(self._settings.shutdown_timeout):
            await self._swarm.close_peer(_libp2p_id(peer_id))

    async def ban(self, peer_id: str, seconds: float) -> None:
        """Close every connection to the peer and have none with it for so long."""
        now = trio.current_time()
        self._banned = {banned: until for banned, until in self._banned.items() if until > now}
        if len(self._banned) < _MAX_BANNED:
            self._banned[peer_id] = now + seconds
        await self.disconnect(peer_id)

    def is_banned(self, peer_id: str) -> bool:
        """Whether connections with the peer are refused now."""
        return self._banned.get(peer_id, 0.0) > trio.current_time()

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Connect to the peer that `multiaddr` names and return its id. Raises `Unreachable` or `AddressError`."""
        address, peer_id = parse_peer_address(multiaddr)
        if peer_id == self._peer_id:
            raise Unreachable(peer_id, "connect", "the address is this peer's own")
        self.add_addresses(peer_id, [address])
        await self.ensure_connected(peer_id, timeout=timeout, addresses=[address])
        return peer_id

    async def ensure_connected(
        self, peer_id: str, *, timeout: float | None = None, addresses: Sequence[str] = ()
    ) -> None:
        """Connect unless connected, trying `addresses`, then the known ones. Raises `Unreachable`.

        Callers at the same time share one attempt after the other.
        """
        if self.is_connected(peer_id):
            return
        if self.is_banned(peer_id):
            raise Unreachable(peer_id, "connect", "banned: it sent invalid announcements")
        lock = self._dials.setdefault(peer_id, trio.Lock())
        reason = "timeout exceeded"
        try:
            with trio.move_on_after(self._settings.dial_timeout if timeout is None else timeout):
                async with lock:
                    if self.is_connected(peer_id):
                        return
                    # Plain TCP first: through a WebSocket each frame costs half as much again.
                    known = sorted(self.addresses_of(peer_id), key=lambda address: "/ws" in address)
                    tried = list(dict.fromkeys((*addresses, *known)))[:_ADDRESSES_TRIED]
                    reason = "no address known" if not tried else f"no answer at {', '.join(tried)}"
                    others: list[str] = []
                    address = await self._dial_any(_libp2p_id(peer_id), tried, others)
                    if address is not None:
                        self._book.used(peer_id, address)
                        return
                    if others:
                        reason = f"another peer is at {', '.join(others)}"
        finally:
            if not lock.locked():
                self._dials.pop(peer_id, None)
        self.dial_failures += 1
        raise Unreachable(peer_id, "connect", reason)

    async def _dial_any(self, peer: ID, addresses: Sequence[str], others: list[str]) -> str | None:
        """The address that connected first, each given a head start over the next, or None.

        Adds to `others` the addresses at which another peer answered, as they are with its id.
        """
        winner: str | None = None

        async def dial(address: str, failed: trio.Event) -> None:
            nonlocal winner
            try:
                await self._swarm.dial_addr(Multiaddr(address), peer)
            except Exception as error:
                log.debug("dialling failed", address=address, error=repr(error)[:200])
                if other := who_answered(error):
                    others.append(f"{address.partition('/p2p/')[0]}/p2p/{other}")
                failed.set()
            else:
                winner = winner or address
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(dial, address, failed)
                with trio.move_on_after(_NEXT_ADDRESS_AFTER):
                    await failed.wait()
        return winner

    def note_disconnected(self, peer_id: str) -> None:
        """Keep a departed peer's addresses in the book; libp2p forgets peers without any."""
        if self.is_connected(peer_id):
            return
        addresses = self._identified_addresses(peer_id)
        if addresses:
            self._book.add(peer_id, addresses)
        elif self.libp2p.get_peerstore().has_peer(_libp2p_id(peer_id)) and not self._book.of(peer_id):
            self.libp2p.get_peerstore().clear_peerdata(_libp2p_id(peer_id))

    def _identified_addresses(self, peer_id: str) -> list[str]:
        good: list[str] = []
        try:
            addresses = self.libp2p.get_peerstore().addrs(_libp2p_id(peer_id))
        except PeerStoreError:
            return good
        for address in addresses[: self._settings.max_addresses_per_peer]:
            try:
                transport, named = parse_dialable(str(address))
            except AddressError:
                continue
            if named in (None, peer_id):
                good.append(transport)
        return good

    async def run(self) -> AsyncIterator[None]:
        """Serve until closed; a generator for `open_host`."""
        taken = taken_ports(self._listen)
        if taken:
            raise OverlayError(f"can't listen on {', '.join(taken)}: another process does")
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
                        f"can't listen on {', '.join(missing)}; is it of this machine, and may you use the port?"
                    )
                await nursery.start(run_gossip, self.pubsub)
                await nursery.start(self.topics.run)
                yield
            finally:
                # Without an explicit close, leaving run() leaks sockets and tasks (`BasicHost.close`).
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(self._settings.shutdown_timeout):
                        await self._close_connections()
                    nursery.cancel_scope.cancel()
                    with trio.move_on_after(self._settings.shutdown_timeout):
                        await self.libp2p.close()

    async def _close_connections(self) -> None:
        """Close all at once: `Swarm.close` takes 0.1 s for one after the other."""
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.get_connections():
                nursery.start_soon(_close_connection, connection)


async def _close_connection(connection: INetConn) -> None:
    try:
        await connection.close()
    except Exception as error:
        log.debug("closing a connection failed", error=repr(error)[:200])


def _announced(announce: Sequence[Multiaddr], candidates: list[Multiaddr]) -> list[Multiaddr]:
    """The addresses to tell others: those configured, or those listened on with wildcards spelled out."""
    if announce:
        return list(announce)
    return list(dict.fromkeys(concrete for candidate in candidates for concrete in _spelled_out(candidate)))


def _spelled_out(candidate: Multiaddr) -> list[Multiaddr]:
    text = str(candidate)
    if not text.startswith(("/ip4/0.0.0.0/", "/ip6/::/")):
        return [candidate]  # libp2p's function drops /ws, of these too
    ending = "/ws" if text.endswith("/ws") else ""
    return [Multiaddr(str(concrete).removesuffix("/ws") + ending) for concrete in expand_wildcard_address(candidate)]


def _libp2p_id(peer_id: str) -> ID:
    return ID.from_base58(peer_id)


@asynccontextmanager
async def open_host(identity: Identity, settings: OverlaySettings) -> AsyncIterator[Host]:
    """A host that listens and dials until the block ends; then its sockets and tasks are gone within seconds.

    Raises `AddressError` for addresses that it can't listen on or announce, `OverlayError` when a port is taken.
    """
    for address in (*settings.listen, *settings.announce):
        parse_dialable(address)
    quieten_libp2p()
    host = Host(identity, settings)
    failure: Exception | KeyboardInterrupt | SystemExit | None = None
    async with asynccontextmanager(host.run)():
        try:
            yield host
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Raised again outside: libp2p's nurseries would wrap what the block raises in six groups.
            failure = error
    if failure is not None:
        raise failure
