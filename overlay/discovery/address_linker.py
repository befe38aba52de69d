"""Links to the peer at a given address, or where that one has no place or isn't of our kind, to a member it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog
import trio

from overlay.discovery.routing_table import RoutingTable
from overlay.errors import CallFailed, PeerFull, ProtocolNotSupported
from overlay.rpc.links import Links

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Connecting(Protocol):
    """What is needed of the host."""

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Connect to the peer that `multiaddr` names and return its id. Raises `Unreachable` or `AddressError`."""
        ...


class AddressLinker:
    """Opens links by addresses that somebody was given."""

    def __init__(self, host: Connecting, links: Links, routing: RoutingTable) -> None:
        self._host = host
        self._links = links
        self._routing = routing

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Connect and link to the peer at a multiaddr, and return its id. Raises `CallFailed`, `AddressError`."""
        deadline = trio.current_time() + timeout
        peer_id = await self._host.connect(multiaddr, timeout=timeout)
        await self._links.ensure_link(peer_id, timeout=max(deadline - trio.current_time(), 0.0))
        return peer_id

    async def link_through(self, multiaddr: str, *, timeout: float) -> str:
        """Connect and link, and return to whom: the peer itself, or a member that it names.

        It names some where all its places are taken, and where it is one of another implementation, which speaks Kad
        and nothing else of ours. `timeout`: seconds for each attempt.
        """
        try:
            return await self.connect(multiaddr, timeout=timeout)
        except PeerFull as full:
            return await self._link_any(full.others, full, timeout)
        except ProtocolNotSupported as stranger:
            return await self._link_any(
                await self._routing.find_members_at(multiaddr, timeout=timeout), stranger, timeout
            )

    async def _link_any(self, named: Sequence[str], refusal: CallFailed, timeout: float) -> str:
        """Link to one of the peers that another named, unless one is. Raises `refusal` when none can be linked."""
        linked = next(filter(self._links.is_linked, named), None)
        if linked is not None:
            return linked
        for peer_id in named:
            try:
                await self._links.ensure_link(peer_id, timeout=timeout)
            except CallFailed as error:
                log.debug("a peer that another named can't be linked", peer_id=peer_id, error=str(error))
            else:
                return peer_id
        raise refusal
