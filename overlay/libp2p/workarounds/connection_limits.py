"""Faults in how libp2p counts, dials and watches connections, and the configuration that avoids them.

- After 250 inbound connections in its lifetime a node refuses all further ones: the slot of a closed one isn't given
  back (`Swarm._handle_inbound_connection`). With limits that are never reached nothing is refused; live connections
  are limited by libp2p's resource manager.
- That one takes 256 connections in and 256 out by default, so that a network ends at 257 nodes; where its limit is
  reached it halves it ("graceful degradation"), and five errors close it to all for a minute ("circuit breaker"). So it
  gets limits that leave room for all links (`LinkLimits`), and neither of the two.
- Every dial waits 250 ms for a second address even when the first one connected, unless one connection per peer is
  all that is wanted (`Swarm.dial_peer`). Our own dials go address by address and don't wait; Kad's and gossip's do.
- A failed dial is tried again for 0.7 s, then the peer is blocked for 60 s. We retry by our own policy.
- The auto-connector dials every peer it has heard of.

Remove each line when its fault is fixed upstream; tests/end_to_end/test_overlay_regressions.py has a test for each.
"""

from __future__ import annotations

from typing import Any

import trio
from libp2p.abc import IHost
from libp2p.network.config import ConnectionConfig
from libp2p.network.swarm import Swarm
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import ConnectionScope, ResourceLimits, ResourceManager

from overlay.libp2p.visitors import Visitors
from overlay.settings import OverlaySettings

_NEVER_REACHED = 10**6
_NEWCOMERS = 512  # connections without a link that have just come, and links that we keep beyond all others
_STREAMS = 16  # of a connection, on average: a link, gossip, and what comes and goes
_PER_PEER = 8
_PENDING = 256


def connection_config(settings: OverlaySettings) -> ConnectionConfig:
    """libp2p's connection settings without the faults above."""
    return ConnectionConfig(
        max_connections=_NEVER_REACHED,
        high_watermark=_NEVER_REACHED,
        min_connections=0,
        low_watermark=0,
        max_connections_per_peer=1,
        dial_timeout=settings.dial_timeout,
        inbound_upgrade_timeout=settings.dial_timeout,
        outbound_upgrade_timeout=settings.dial_timeout,
        enable_health_monitoring=False,
    )


def most_connections(settings: OverlaySettings) -> int:
    """Connections that a host has at most: room for all links, those that are being closed, and those without one."""
    return 2 * settings.links.max_members + settings.links.max_light_clients + settings.links.max_unlinked + _NEWCOMERS


class AddressLimits(ResourceManager):
    """libp2p's limits, and those on connections from one address, which apply before anything costs much."""

    def __init__(self, visitors: Visitors, **limits: Any) -> None:
        """`limits`: those of libp2p."""
        super().__init__(**limits)
        self._visitors = visitors

    def open_connection(
        self, peer_id: Any | None = None, endpoint_ip: str | None = None, direction: str = "inbound"
    ) -> ConnectionScope | None:
        """Without a peer's id: a connection that comes in and has yet to shake hands."""
        if peer_id is not None or direction != "inbound" or endpoint_ip is None:
            return super().open_connection(peer_id, endpoint_ip, direction)
        if not self._visitors.admits(endpoint_ip, trio.current_time()):
            return None
        scope = super().open_connection(peer_id, endpoint_ip, direction)
        return None if scope is None else _Handshake(scope, self._visitors, endpoint_ip)


class _Handshake(ConnectionScope):
    """Counts a connection for its address while it shakes hands."""

    def __init__(self, scope: ConnectionScope, visitors: Visitors, address: str) -> None:
        super().__init__(scope.peer_id, scope.resource_manager)
        self._scope = scope
        self._visitors = visitors
        self._address = address
        visitors.count(address, 1)

    def close(self) -> None:
        """The handshake ended, one way or the other."""
        if not self.closed:
            self.closed = True
            self._visitors.count(self._address, -1)
            self._scope.close()


def resource_manager(settings: OverlaySettings, visitors: Visitors) -> ResourceManager:
    """libp2p's limits on live connections and streams."""
    most = most_connections(settings)
    return AddressLimits(
        visitors,
        # A connection that is being set up counts twice.
        limits=ResourceLimits(max_connections=most + _PENDING, max_streams=_STREAMS * most),
        connection_limits=ConnectionLimits(
            max_pending_inbound=_PENDING,
            max_pending_outbound=_PENDING,
            max_established_inbound=most,
            max_established_outbound=most,
            max_established_per_peer=_PER_PEER,
            max_established_total=most,
        ),
        enable_circuit_breaker=False,
        enable_graceful_degradation=False,
    )


def swarm_of(host: IHost) -> Swarm:
    """The host's network, which in libp2p is always a `Swarm`."""
    network = host.get_network()
    assert isinstance(network, Swarm)
    return network


async def stop_dialling_by_itself(swarm: Swarm) -> None:
    """Leave retries and the choice of peers to us. To be called once the swarm runs."""
    swarm.retry_config.max_retries = 0
    await swarm.auto_connector.stop()
