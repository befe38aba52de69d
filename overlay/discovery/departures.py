"""Who came and who went: newcomers enter the routing table, who went is dialled once more before it is struck out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import structlog
import trio

from overlay.errors import CallFailed
from overlay.libp2p.host import Host
from overlay.libp2p.kad import KadRouting
from overlay.rpc.links import Links

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_ADDRESSES_METHOD: Final = "overlay/addresses"
_ADDRESSES_TIMEOUT: Final = 5.0
_MAX_REMEMBERED: Final = 256
_SECOND_DIALS: Final = (0.0, 0.5, 1.5)  # seconds before each dial of a member that went, until it counts as gone


class Departures:
    """Of one peer's links."""

    def __init__(
        self, host: Host, links: Links, routing: KadRouting, dial_timeout: float, when_changed: Callable[[bool], None]
    ) -> None:
        """`when_changed(member)` is called whenever a link came up or went down."""
        self._host = host
        self._links = links
        self._routing = routing
        self._dial_timeout = dial_timeout
        self._when_changed = when_changed
        self._remembered: dict[str, None] = {}
        self._live: set[str] = set()
        self._came: set[str] = set()
        self._went: set[str] = set()
        self._soon = trio.Event()
        links.on_up(self._note_up)
        links.on_down(self._note_down)
        links.serve(_ADDRESSES_METHOD, self._answer_addresses)

    def remembered(self) -> list[str]:
        """Peers that were members, the latest of them last."""
        return list(self._remembered)

    async def run(self) -> None:
        """Keep books until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._soon.wait()
                self._soon = trio.Event()
                came, self._came = self._came, set()
                went, self._went = self._went, set()
                for peer_id in came:
                    nursery.start_soon(self._welcome, peer_id)
                for peer_id in went:
                    nursery.start_soon(self._try_again, peer_id)

    def _note_up(self, peer_id: str, member: bool) -> None:
        if member:
            self._remembered.pop(peer_id, None)
            self._remembered[peer_id] = None
            if len(self._remembered) > _MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._live.add(peer_id)
            self._came.add(peer_id)
            self._went.discard(peer_id)
        self._soon.set()
        self._when_changed(member)

    def _note_down(self, peer_id: str) -> None:
        member = peer_id in self._live
        if member:
            self._live.discard(peer_id)
            self._went.add(peer_id)
            self._came.discard(peer_id)
        self._soon.set()
        self._when_changed(member)

    async def _welcome(self, peer_id: str) -> None:
        """Learn where a new member can be reached, from itself, and tell others from now on."""
        try:
            answer = await self._links.call(peer_id, _ADDRESSES_METHOD, None, timeout=_ADDRESSES_TIMEOUT)
            self._host.add_addresses(peer_id, msgspec.convert(answer, list[str], strict=True))
        except (CallFailed, msgspec.ValidationError) as error:
            log.debug("a member didn't tell its addresses", peer_id=peer_id, error=str(error))
        await self._routing.add(peer_id)

    async def _try_again(self, peer_id: str) -> None:
        """A link was lost: the peer may live all the same."""
        reason = "no address known"
        for delay in _SECOND_DIALS if self._host.addresses_of(peer_id) else ():
            await trio.sleep(delay)
            try:
                await self._links.ensure_link(peer_id, timeout=self._dial_timeout)
            except CallFailed as error:
                reason = error.reason
            else:
                return
        log.info("a member is gone", peer_id=peer_id, reason=reason)
        self._routing.remove(peer_id)

    async def _answer_addresses(self, caller: str, body: object) -> object:  # noqa: ARG002 - a handler's signature
        await trio.lowlevel.checkpoint()
        return self._host.listen_addresses()
