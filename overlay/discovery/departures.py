"""Members that come and go.

A newcomer is entered into the routing table. The end of a link is no departure: most links may be closed to save them,
and a contact stays in the table until it can't be dialled. A neighbour, whose link this peer needs, is dialled again a
few times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio
from cachetools import LRUCache

from overlay.discovery.address_book import PeerAddresses
from overlay.discovery.routing_table import RoutingTable
from overlay.errors import CallFailed
from overlay.rpc.links import Links
from overlay.tasks import Wakeup

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_MAX_REMEMBERED: Final = 256
_SECOND_DIALS: Final = (0.0, 0.5, 1.5)  # seconds before each dial of a member whose link was lost


class Departures:
    """Follows the links of one peer, and keeps its routing table as they say."""

    def __init__(
        self,
        addresses: PeerAddresses,
        links: Links,
        routing: RoutingTable,
        dial_timeout: float,
        *,
        is_neighbour: Callable[[str], bool],
        when_changed: Callable[[bool], None],
    ) -> None:
        """`is_neighbour(peer id)`: whether we need a link to it. `when_changed(member)` is called whenever one came up
        or went down.

        Registers itself with `links` and not the other way round, because it also calls and dials over them.
        """
        self._addresses = addresses
        self._links = links
        self._routing = routing
        self._dial_timeout = dial_timeout
        self._is_neighbour = is_neighbour
        self._when_changed = when_changed
        self._remembered: LRUCache[str, None] = LRUCache(_MAX_REMEMBERED)
        self._live: set[str] = set()
        self._came: dict[str, None] = {}
        self._went: dict[str, None] = {}
        self._due = Wakeup()
        links.on_up(self._note_up)
        links.on_down(self._note_down)
        links.on_closed(self._note_closed)
        links.on_unreachable(routing.remove)

    def remembered(self) -> list[str]:
        """The latest peers that were members, in no order."""
        return list(self._remembered)

    async def run(self) -> None:
        """Welcome newcomers and try lost members again, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._due.wait()
                came, self._came = self._came, {}
                went, self._went = self._went, {}
                for peer_id in came:
                    await self._routing.add(peer_id)
                for peer_id in went:
                    nursery.start_soon(self._try_again, peer_id)

    def _note_up(self, peer_id: str, member: bool) -> None:
        if member:
            self._remembered[peer_id] = None
            self._live.add(peer_id)
            self._came[peer_id] = None
            self._went.pop(peer_id, None)
        self._due.set()
        self._when_changed(member)

    def _note_down(self, peer_id: str) -> None:
        member = peer_id in self._live
        if member:
            self._live.discard(peer_id)
            self._came.pop(peer_id, None)
            if self._is_neighbour(peer_id):
                self._went[peer_id] = None
        self._due.set()
        self._when_changed(member)

    def _note_closed(self, peer_id: str) -> None:
        """A link that neither side kept has ended: its peer lives on."""
        member = peer_id in self._live
        self._live.discard(peer_id)
        self._came.pop(peer_id, None)
        self._when_changed(member)

    async def _try_again(self, peer_id: str) -> None:
        """Dial a member whose link was lost: it may live all the same."""
        reason = "no address known"
        for delay in _SECOND_DIALS if self._addresses.addresses_of(peer_id) else ():
            await trio.sleep(delay)
            try:
                await self._links.ensure_link(peer_id, timeout=self._dial_timeout)
            except CallFailed as error:
                reason = error.detail
            else:
                return
        log.info("a neighbour is gone", peer_id=peer_id, reason=reason)
        self._routing.remove(peer_id)
