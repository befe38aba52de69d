"""Whether a light client is there: it is asked through the nodes that it acts through, who can't answer for it."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from overlay.errors import CallFailed
from overlay.relaying.relayed_rpc import RelayedRpc
from overlay.rpc.links import Links

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_THERE = "overlay/there"


class ClientProbe:
    """Asks others whether they are there, and answers those who ask this peer."""

    def __init__(self, peer_id: str, links: Links, relayed: RelayedRpc) -> None:
        self._peer_id = peer_id
        self._links = links
        self._relayed = relayed
        links.serve(_THERE, self._answer)
        relayed.serve(_THERE, self._answer)

    async def answers_through(self, nodes: Sequence[str], peer_id: str, timeout: float) -> bool:
        """Whether a light client answers through any of these nodes, in a way that none of them can make up."""
        answered = False

        async def ask(node: str) -> None:
            nonlocal answered
            try:
                if node == self._peer_id:
                    if self._links.is_linked(peer_id):
                        await self._links.call(peer_id, _THERE, None, timeout=timeout)
                        answered = True
                else:
                    await self._relayed.call(peer_id, [node], _THERE, None, timeout=timeout)
                    answered = True
            except CallFailed as error:
                log.debug("a light client doesn't answer", peer_id=peer_id, node=node, error=str(error))
            if answered:
                asking.cancel_scope.cancel()

        async with trio.open_nursery() as asking:
            for node in nodes:
                asking.start_soon(ask, node)
        return answered

    async def _answer(self, caller: str, body: object) -> object:  # noqa: ARG002 - anyone may know
        await trio.lowlevel.checkpoint()
        return None
