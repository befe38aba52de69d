"""Connections to peers: which are open, how new ones are dialled, and which peers are banned."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import structlog
import trio
from cachetools import TLRUCache
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.discovery.address_book import parse_peer_address
from overlay.discovery.address_range import host_of
from overlay.discovery.host_names import numbers_of
from overlay.errors import Unreachable
from overlay.identity import Identity
from overlay.libp2p.addresses import KnownAddresses, libp2p_id
from overlay.libp2p.greeting_gate import GreetingGate
from overlay.libp2p.happy_eyeballs import first_reached
from overlay.libp2p.muxer.connection import MuxedConnection
from overlay.libp2p.probing import knock, most_telling
from overlay.libp2p.told_addresses import ToldAddresses
from overlay.libp2p.visitors import Visitors
from overlay.libp2p.workarounds.errors_by_text import who_answered
from overlay.presence.dial_outcome import DialOutcome
from overlay.settings import OverlaySettings
from overlay.tasks import Wakeup

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_ADDRESSES_TRIED: Final = 8
_MAX_BANNED: Final = 4096
_PROVING_TIMEOUT: Final = 3.0  # seconds
_ADDRESSES_PROVEN: Final = 4  # that are tried at the same time
_HANGING_UP: Final = 0.5  # seconds
_LOOK_INTERVAL: Final = 1.0  # seconds between two looks at idle connections, where none comes and there are many
_LOOK_PACE: Final = 0.1  # seconds between two looks at least


def _until(_peer_id: str, until: float, _now: float) -> float:
    """When a ban ends, by Trio's clock."""
    return until


class Connections:
    """The connections of one swarm: dialled by addresses that we know, one attempt per peer at a time."""

    def __init__(
        self,
        peer_id: str,
        swarm: Swarm,
        addresses: KnownAddresses,
        visitors: Visitors,
        told: ToldAddresses,
        gate: GreetingGate,
        settings: OverlaySettings,
    ) -> None:
        """`peer_id`: our own."""
        self._gate = gate
        self._peer_id = peer_id
        self._swarm = swarm
        self._addresses = addresses
        self._visitors = visitors
        self._told = told
        self._changed = Wakeup()
        self._settings = settings
        self._dials: dict[str, trio.Lock] = {}
        self._banned: TLRUCache[str, float] = TLRUCache(_MAX_BANNED, _until, timer=trio.current_time)
        self.dial_failures = 0
        """Attempts to connect that failed, since the start."""
        swarm.register_notifee(_ConnectionEvents(self))

    def peers(self) -> list[str]:
        """Peers with an open connection, members or not."""
        return [str(peer) for peer, connections in self._swarm.connections.items() if connections]

    def is_connected(self, peer_id: str) -> bool:
        """Whether a connection to the peer is open, with or without a link on it."""
        return any(not connection.is_closed for connection in self._swarm.get_connections(libp2p_id(peer_id)))

    async def disconnect(self, peer_id: str) -> None:
        """Close every connection to the peer."""
        with trio.move_on_after(self._settings.shutdown_timeout):
            await self._swarm.close_peer(libp2p_id(peer_id))

    async def close_all(self) -> None:
        """Say goodbye on all connections and close their sockets, at once, before the host ends.

        What `SwarmConn.close` does after that it does meanwhile, and its 0.1 s for those who handle streams are waited
        for by nobody: they have been told by the muxer. `Swarm.close` would take them for one after the other.
        """
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.get_connections():
                nursery.start_soon(_close, connection)

    async def ban(self, peer_id: str, seconds: float) -> None:
        """Close every connection to the peer and have none with it for so long."""
        self._banned[peer_id] = trio.current_time() + seconds
        await self.disconnect(peer_id)

    def is_banned(self, peer_id: str) -> bool:
        """Whether connections with the peer are refused now."""
        return peer_id in self._banned

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Connect to the peer that `multiaddr` names and return its id. Raises `Unreachable` or `AddressError`."""
        address, peer_id = parse_peer_address(multiaddr)
        if peer_id == self._peer_id:
            raise Unreachable(peer_id, "connect", "the address is this peer's own")
        self._told.note_configured(address)
        self._addresses.add(peer_id, [address], in_use=set(self.peers()))
        await self.ensure(peer_id, timeout=timeout, addresses=[address])
        return peer_id

    async def ensure(self, peer_id: str, *, timeout: float | None = None, addresses: Sequence[str] = ()) -> None:
        """Connect unless connected, trying `addresses`, then the known ones. Raises `Unreachable`.

        `timeout`: `dial_timeout` by default. Of callers at the same time one dials, and the others wait for it.
        """
        if self.is_connected(peer_id):
            return
        if self.is_banned(peer_id):
            raise Unreachable(peer_id, "connect", detail="banned: it sent invalid announcements")
        lock = self._dials.setdefault(peer_id, trio.Lock())
        reason = "timeout exceeded"
        try:
            with trio.move_on_after(self._settings.dial_timeout if timeout is None else timeout):
                async with lock:
                    if self.is_connected(peer_id):
                        return
                    # Plain TCP first: through a WebSocket each frame costs half as much again.
                    known = sorted(self._addresses.of(peer_id), key=lambda address: "/ws" in address)
                    tried = list(dict.fromkeys((*addresses, *known)))[:_ADDRESSES_TRIED]
                    reason = "no address known" if not tried else f"no answer at {', '.join(tried)}"
                    reasons: list[str] = []
                    address = await self._dial_any(peer_id, tried, reasons)
                    if address is not None:
                        self._addresses.used(peer_id, address)
                        return
                    if reasons:
                        reason = "; ".join(dict.fromkeys(reasons))
        finally:
            if not lock.locked():
                self._dials.pop(peer_id, None)
        self.dial_failures += 1
        raise Unreachable(peer_id, "connect", detail=reason)

    async def can_be_dialled(self, peer_id: str) -> bool:
        """Whether a peer, connected or not, proves who it is at one of its addresses, within a few seconds."""
        known = self._addresses.of(peer_id)
        if any(self._addresses.tellers(peer_id, address) is None for address in known):
            return True  # it was there lately
        found: list[str] = []

        async def try_at(address: str) -> None:
            try:
                if await self._dial(peer_id, address, self._authenticate) is not None:
                    found.append(address)
                    nursery.cancel_scope.cancel()
            except Exception as error:
                log.debug("a peer isn't where it says", address=address, error=repr(error)[:200])

        with trio.move_on_after(_PROVING_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for address in sorted(known, key=lambda address: "/ws" in address)[:_ADDRESSES_PROVEN]:
                    nursery.start_soon(try_at, address)
        for address in found[:1]:
            self._addresses.used(peer_id, address)
        return bool(found)

    async def who_is_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        """The addresses that a multiaddr without a peer's id stands for, each with the id of the peer that answers
        there now. It has proven that id, but not that it is the one who is meant."""
        self._told.note_configured(multiaddr)
        nobody = libp2p_id(Identity.generate().peer_id)  # libp2p authenticates only whom one expects
        found: list[str] = []

        async def ask(number: str) -> None:
            try:
                await self._authenticate(Multiaddr(number), nobody)
            except Exception as error:
                if other := who_answered(error):
                    found.append(f"{number}/p2p/{other}")
                else:
                    log.debug("nobody answers at an address", address=number, error=repr(error)[:200])

        with trio.move_on_after(timeout):
            numbers = await numbers_of(multiaddr)
            async with trio.open_nursery() as nursery:
                for number in numbers[:_ADDRESSES_TRIED]:
                    nursery.start_soon(ask, number)
        return found

    def silence(self, peer_id: str) -> float | None:
        """Seconds since the peer's machine sent anything on any connection; None where that isn't known."""
        connections = self._swarm.get_connections(libp2p_id(peer_id))
        muxed = [connection.muxed_conn for connection in connections if not connection.is_closed]
        told = [each.silence() for each in muxed if isinstance(each, MuxedConnection)]
        return min((seconds for seconds in told if seconds is not None), default=None)

    async def probe(self, peer_id: str, timeout: float) -> DialOutcome:
        """Dial a peer at the addresses known, beside the connections that there are, and hang up."""
        outcomes: list[DialOutcome] = []

        async def knock_at(address: str) -> None:
            async def knocked(resolved: Multiaddr, peer: ID) -> DialOutcome:
                return await knock(str(resolved), partial(self._authenticate, resolved, peer), timeout)

            try:
                outcome = await self._dial(peer_id, address, knocked)
            except Exception as error:
                log.debug("probing failed", address=address, error=repr(error)[:200])
                outcome = None
            outcomes.append(outcome if isinstance(outcome, DialOutcome) else DialOutcome.OWN_FAULT)
            if outcome is DialOutcome.ALIVE:
                nursery.cancel_scope.cancel()

        known = sorted(self._addresses.of(peer_id), key=lambda address: "/ws" in address)[:_ADDRESSES_PROVEN]
        with trio.move_on_after(timeout + 0.5):
            async with trio.open_nursery() as nursery:
                for address in known:
                    nursery.start_soon(knock_at, address)
        return most_telling(outcomes)

    async def _authenticate(self, address: Multiaddr, peer: ID) -> ID:
        """Have a peer prove who it is at an address, and hang up. Raises what libp2p does."""
        transport = self._swarm.transport_manager.transport_for_dialing(address)
        if transport is None:
            raise Unreachable(str(peer), "connect", detail="no transport dials that")
        raw = await transport.dial(address)
        try:
            await self._swarm.upgrader.upgrade_security(raw, True, peer)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(_HANGING_UP):
                await raw.close()
        return peer

    async def close_idle(self, is_linked: Callable[[str], bool]) -> None:
        """Close connections without a link when there are too many, until cancelled (`overlay.libp2p.visitors`)."""
        while True:
            closed = self._visitors.to_close(is_linked, trio.current_time())
            if closed:
                log.debug("closing idle connections", count=len(closed), first=closed[0])
            async with trio.open_nursery() as nursery:
                for peer_id in closed:
                    nursery.start_soon(self.disconnect, peer_id)
            for peer_id in closed:
                if not self.is_connected(peer_id):
                    self._visitors.forget(peer_id)
            with trio.move_on_after(_LOOK_INTERVAL if self._visitors.may_be_too_many else math.inf):
                await self._changed.wait()
            await trio.sleep(_LOOK_PACE)

    def note_connected(self, peer_id: str, address: str) -> None:
        """A connection was opened, to or from an IP address."""
        self._visitors.came(peer_id, address, trio.current_time())
        self._gate.came(peer_id)
        self._changed.set()

    def note_disconnected(self, peer_id: str, address: str | None) -> None:
        """Keep the addresses of a peer that has left; libp2p forgets peers without any.

        `address`: what `note_connected` was told, or None where it wasn't called.
        """
        if address is not None:
            self._visitors.left(peer_id, address)
            if not self._gate.lets_stay(peer_id):
                self._visitors.turned_away(address, trio.current_time())
        if not self.is_connected(peer_id):
            self._addresses.keep(peer_id)
            self._gate.gone(peer_id)

    async def _dial_any(self, peer_id: str, addresses: Sequence[str], reasons: list[str]) -> str | None:
        """The address that connected first, each given a head start over the next, or None.

        Those that others told are left out where they lie in a range, or are beyond a budget, that keeps them from it.

        Adds to `reasons` in words at which another peer answered, and which names aren't known.
        """

        async def attempt(address: str) -> str | None:
            try:
                return None if await self._dial(peer_id, address, self._swarm.dial_addr) is None else address
            except Exception as error:
                log.debug("dialling failed", address=address, error=repr(error)[:200])
                if isinstance(error, Unreachable):
                    reasons.append(error.detail)
                elif other := who_answered(error):
                    reasons.append(f"another peer is at {address.partition('/p2p/')[0]}/p2p/{other}")
                return None

        return await first_reached([partial(attempt, address) for address in addresses])

    async def _dial(
        self, peer_id: str, address: str, dial: Callable[[Multiaddr, ID], Awaitable[object]]
    ) -> object | None:
        """What `dial` returns for an address of a peer; None where it isn't to be dialled. Raises what `dial` does."""
        tellers = self._addresses.tellers(peer_id, address)
        if tellers is None:
            return await self._dial_configured(peer_id, address, dial)
        resolved = await self._told.resolved(address)
        dialled = None if resolved is None else self._told.begin(resolved, tellers)
        if resolved is None or dialled is None:
            log.debug("an address that others told isn't dialled", address=address, tellers=tellers)
            return None
        connection = await dial(Multiaddr(resolved), libp2p_id(peer_id))
        self._told.reached(dialled)
        return connection

    async def _dial_configured(
        self, peer_id: str, address: str, dial: Callable[[Multiaddr, ID], Awaitable[object]]
    ) -> object:
        """The same for an address that our user gave, or that led to the peer before; a name may have several."""
        numbers = await numbers_of(address)
        if len(numbers) == 1:
            return await dial(Multiaddr(numbers[0]), libp2p_id(peer_id))
        errors: list[Exception] = []

        async def attempt(number: str) -> object | None:
            try:
                return await dial(Multiaddr(number), libp2p_id(peer_id))
            except Exception as error:
                errors.append(error)
                return None

        reached = await first_reached([partial(attempt, number) for number in numbers])
        if reached is not None:
            return reached
        if errors:
            raise next(filter(who_answered, errors), errors[0])
        raise Unreachable(peer_id, "connect", detail=f"the name {host_of(address)[1]} isn't known here")


class _ConnectionEvents(INotifee):
    """Tells `Connections` of connections that come and go."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._addresses: dict[INetConn, str] = {}  # a closed connection tells none

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Send banned peers away; any other matters once it has opened a link."""
        peer_id = str(conn.muxed_conn.peer_id)
        if conn.is_closed:
            return  # told in the wrong order
        self._connections.note_connected(peer_id, self._addresses.setdefault(conn, _address_of(conn)))
        if self._connections.is_banned(peer_id):
            await self._connections.disconnect(peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        peer_id, address = str(conn.muxed_conn.peer_id), self._addresses.pop(conn, None)
        self._connections.note_disconnected(peer_id, address)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Do nothing."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Do nothing."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Do nothing."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Do nothing."""


def _address_of(connection: INetConn) -> str:
    """The IP address of the other end, empty where it isn't known."""
    remote = connection.muxed_conn.get_remote_address() if isinstance(connection.muxed_conn, MuxedConnection) else None
    return remote[0] if remote is not None else ""


async def _close(connection: INetConn) -> None:
    try:
        await connection.muxed_conn.close()
    except Exception as error:
        log.debug("closing a connection failed", error=repr(error)[:200])
