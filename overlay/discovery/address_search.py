"""Where a peer can be dialled of which no address is known here: members near it tell, or a light client's nodes."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog
import trio

from overlay.discovery.address_book import PeerAddresses
from overlay.discovery.keyspace import peer_position
from overlay.discovery.lookup import Lookup
from overlay.errors import CallFailed, PeerIdError, Refusal
from overlay.rpc.links import Links

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

METHOD: Final = "overlay/find"


class AddressSearch:
    """Asks others for addresses, and answers those who ask where it is a member's."""

    def __init__(self, addresses: PeerAddresses, links: Links, lookup: Lookup, *, member: bool) -> None:
        """`member`: whether we are one; light clients look nothing up and answer nobody."""
        self._addresses = addresses
        self._links = links
        self._lookup = lookup
        self._member = member
        if member:
            links.serve(METHOD, self._answer)

    async def find(self, peer_id: str, *, timeout: float) -> list[str]:
        """Multiaddrs of a peer: those known, else those that others tell within `timeout` seconds; remembers them."""
        with trio.move_on_after(timeout):
            if not self._known(peer_id) and self._member:
                await self._lookup.nearest(peer_position(peer_id), 1)
            for member in self._lookup.members() if not self._known(peer_id) else ():
                try:
                    answer = await self._links.call(member, METHOD, peer_id, timeout=timeout)
                    self._addresses.add_addresses(
                        peer_id, msgspec.convert(answer, list[str], strict=True), teller=member
                    )
                except (CallFailed, msgspec.ValidationError) as error:
                    log.debug("a member didn't tell where a peer is", peer_id=peer_id, error=str(error))
                if self._known(peer_id):
                    break
        return self._known(peer_id)

    async def _answer(self, caller: str, body: object) -> object:  # noqa: ARG002 - a handler's signature
        """Tell the addresses of a peer. Asks others only by a lookup, so no question runs in circles."""
        try:
            position = peer_position(msgspec.convert(body, str))
        except (msgspec.ValidationError, PeerIdError) as error:
            raise Refusal("malformed", "not a peer id") from error
        peer_id = str(body)
        if not self._known(peer_id):
            await self._lookup.nearest(position, 1)
        return self._known(peer_id)

    def _known(self, peer_id: str) -> list[str]:
        if peer_id == self._addresses.peer_id:
            return self._addresses.listen_addresses()
        return self._addresses.addresses_of(peer_id)
