"""libp2p's limits leave room for all links that a peer may have."""

from __future__ import annotations

import pytest

from overlay.identity import Identity
from overlay.libp2p.addresses import libp2p_id
from overlay.libp2p.visitors import Visitors
from overlay.libp2p.workarounds.connection_limits import most_connections, resource_manager
from overlay.settings import LinkLimits, OverlaySettings


@pytest.mark.parametrize("links", [LinkLimits(), LinkLimits(max_members=500, max_light_clients=5000)])
@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_all_links_find_room_and_the_limit_is_no_trap(links: LinkLimits, direction: str) -> None:
    settings = OverlaySettings(links=links)
    manager = resource_manager(settings, Visitors(settings.links))
    most = most_connections(settings)
    assert most > 2 * links.max_members + links.max_light_clients
    peer = libp2p_id(Identity.generate().peer_id)
    scopes = [
        manager.open_connection(None, endpoint_ip=f"10.0.{n // 250}.{n % 250}", direction=direction)
        for n in range(most)
    ]
    assert None not in scopes
    refused = [manager.open_connection(None, endpoint_ip="10.1.1.1", direction=direction) is None for _ in range(1000)]
    assert sum(refused) > 500, "there is a limit, and reaching it doesn't lower it"
    scopes.pop().close()
    assert manager.open_connection(peer, endpoint_ip="10.1.1.1", direction=direction) is not None


def test_limits_by_direction_leave_the_same_room() -> None:
    settings = OverlaySettings()
    limits = resource_manager(settings, Visitors(settings.links)).connection_limits
    most = most_connections(settings)
    for limit in (limits.max_established_inbound, limits.max_established_outbound, limits.max_established_total):
        assert limit == most
