"""Closes connections to peers that are frozen or gone, where nothing else would notice: those without a link.

Links ask for signs of life themselves. libp2p's own monitor would ask on each connection, linked or not, and each
question is a stream of its own: in a network of thirty-two they were half of what an idle node did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio
from libp2p.abc import INetConn
from libp2p.network.health.ping_probe import ping_connection
from libp2p.network.swarm import Swarm

from overlay.settings import OverlaySettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_AT_ONCE: Final = 16  # peers that are asked at the same time


async def close_silent(swarm: Swarm, settings: OverlaySettings, is_linked: Callable[[str], bool]) -> None:
    """Ask every peer without a link for a sign of life each `connection_check_interval`, until cancelled.

    `is_linked(peer_id)`: whether somebody else asks.
    """
    places = trio.CapacityLimiter(_AT_ONCE)

    async def check(connection: INetConn) -> None:
        peer_id = _peer_of(connection)
        async with places:
            if connection.is_closed or is_linked(peer_id):
                return
            try:
                if not (await ping_connection(connection, ping_timeout=settings.connection_check_timeout)).success:
                    log.debug("closing a connection that gives no sign of life", peer_id=peer_id)
                    with trio.move_on_after(settings.shutdown_timeout):
                        await connection.close()
            except Exception as error:
                log.debug("a connection couldn't be checked", peer_id=peer_id, error=repr(error)[:200])

    while True:
        await trio.sleep(settings.connection_check_interval)
        async with trio.open_nursery() as nursery:
            for connection in swarm.get_connections():
                if not is_linked(_peer_of(connection)):
                    nursery.start_soon(check, connection)


def _peer_of(connection: INetConn) -> str:
    return str(connection.muxed_conn.peer_id)
