"""Names of hosts are what the operating system says."""

from __future__ import annotations

import pytest
import trio

from overlay.assembly import open_peer
from overlay.discovery.host_names import numbers_of
from overlay.errors import Unreachable
from overlay.identity import Identity
from overlay.settings import OverlaySettings


@pytest.mark.parametrize("protocol", ["dns", "dns4"])
async def test_a_name_stands_for_what_the_resolver_says_and_a_number_for_itself(protocol: str) -> None:
    assert "/ip4/127.0.0.1/tcp/7000/ws" in await numbers_of(f"/{protocol}/localhost/tcp/7000/ws")
    assert await numbers_of("/ip6/::1/tcp/7000") == ["/ip6/::1/tcp/7000"]
    assert await numbers_of("/dns/no-such-host.invalid/tcp/7000") == []
    assert await numbers_of(f"/dns/{'x' * 64}.invalid/tcp/7000") == []


async def test_a_peer_is_reached_by_its_hosts_name_and_an_unknown_name_is_told() -> None:
    settings = OverlaySettings(listen=("/ip4/127.0.0.1/tcp/0",))
    async with open_peer(Identity.generate(), settings) as one, open_peer(Identity.generate(), settings) as other:
        port = one.addresses()[0].split("/")[4]
        with pytest.raises(Unreachable, match=r"the name no-such-host\.invalid isn't known here"):
            await other.connect(f"/dns4/no-such-host.invalid/tcp/{port}/p2p/{one.peer_id}", timeout=10)
        with trio.fail_after(10):
            assert await other.connect(f"/dns4/localhost/tcp/{port}/p2p/{one.peer_id}", timeout=10) == one.peer_id
        assert one.is_linked(other.peer_id)
