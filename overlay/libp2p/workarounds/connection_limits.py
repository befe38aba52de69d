"""Faults in how libp2p counts, dials and watches connections, and the configuration that avoids them.

- After 250 inbound connections in its lifetime a node refuses all further ones: the slot of a closed one isn't given
  back (`Swarm._handle_inbound_connection`). With limits that are never reached nothing is refused; live connections
  stay limited by libp2p's resource manager (256 in, 256 out, 8 per peer, 1,024 in all).
- Every dial waits 250 ms for a second address even when the first one connected, unless one connection per peer is
  all that is wanted (`Swarm.dial_peer`). Our own dials go address by address and don't wait; Kad's and gossip's do.
- A failed dial is tried again for 0.7 s, then the peer is blocked for 60 s. We retry by our own policy.
- The auto-connector dials every peer it has heard of.
- A frozen peer isn't noticed, unless health monitoring aborts connections whose ping fails. That monitor also
  replaces connections by a score; its thresholds are set so that it never does.

Remove each line when its fault is fixed upstream; tests/end_to_end/test_overlay_regressions.py has a test for each.
"""

from __future__ import annotations

from libp2p.abc import IHost
from libp2p.network.config import ConnectionConfig
from libp2p.network.swarm import Swarm

from overlay.settings import OverlaySettings

_NEVER_REACHED = 10**6


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
        enable_health_monitoring=True,
        abort_connection_on_ping_failure=True,
        health_initial_delay=settings.health_interval,
        health_warmup_window=0.0,
        health_check_interval=settings.health_interval,
        ping_timeout=settings.health_timeout,
        record_ping_latency_in_peerstore=False,
        min_health_threshold=0.0,
        critical_health_threshold=0.0,
        max_ping_latency=float(_NEVER_REACHED),
        min_ping_success_rate=0.0,
        max_failed_streams=_NEVER_REACHED,
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
