"""Whether a peer that says it is a member is one: it serves calls, and others can dial it.

Until then it is in nobody's home, neighbourhood, lookup or routing table. Rules:
1. It is asked for its addresses over the link, and has to answer.
2. Whoever we dialled can be dialled. Whoever dialled us is dialled at an address that it tells, until it has proven who
   it is; bounds on dialling what others tell hold here, too (`overlay.settings.DialLimits`).
3. `overlay.rpc.links` asks again, ever less often, while the link lasts; and not for ten minutes once it was so.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
import structlog
import trio

from overlay.discovery.address_book import PeerAddresses
from overlay.errors import CallFailed
from overlay.rpc.links import Links

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

METHOD: Final = "overlay/addresses"
_TIMEOUT: Final = 5.0  # seconds
_AT_ONCE: Final = 64  # peers that are dialled; those whose addresses lead nowhere hold the others up for a while only


class Dialling(PeerAddresses, Protocol):
    """What is needed of the host."""

    async def can_be_dialled(self, peer_id: str) -> bool:
        """Whether a peer, connected or not, answers at one of its addresses; takes at most a few seconds."""
        ...


class Vetting:
    """Vets peers for the links of one, and tells others our own addresses."""

    def __init__(self, host: Dialling, links: Links) -> None:
        self._host = host
        self._links = links
        self._places = trio.CapacityLimiter(_AT_ONCE)
        links.serve(METHOD, self._answer)

    async def vet(self, peer_id: str, *, dialled: bool) -> bool:
        """Whether a linked peer may count as a member. `dialled`: by us. Never raises for what peers do."""
        try:
            answer = await self._links.call(peer_id, METHOD, None, timeout=_TIMEOUT)
            told = msgspec.convert(answer, list[str], strict=True)
        except (CallFailed, msgspec.ValidationError) as error:
            log.debug("a peer that says it is a member serves nothing", peer_id=peer_id, error=str(error))
            return False
        self._host.add_addresses(peer_id, told, teller=peer_id)
        if dialled:
            return True
        async with self._places:
            is_there = await self._host.can_be_dialled(peer_id)
        if not is_there:
            log.debug("a peer that says it is a member can't be dialled", peer_id=peer_id)
        return is_there

    async def _answer(self, caller: str, body: object) -> object:  # noqa: ARG002 - a handler's signature
        await trio.lowlevel.checkpoint()
        return self._host.listen_addresses()
