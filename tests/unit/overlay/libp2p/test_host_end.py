"""How a host ends: its connections are closed, and nothing is waited for that nobody needs any more."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from overlay.identity import Identity
from overlay.libp2p.host import open_host
from overlay.settings import OverlaySettings


@pytest.fixture
def idle_clock() -> MockClock:
    """Time passes only where nothing happened for half a second: what two hosts tell each other takes none of it."""
    return MockClock(autojump_threshold=0.5)


async def test_a_host_ends_as_soon_as_its_connections_are_closed(idle_clock: MockClock) -> None:
    async with open_host(Identity.generate(), OverlaySettings()) as node:
        async with open_host(Identity.generate(), OverlaySettings(listen=())) as client:
            await client.connect(node.listen_addresses()[0], timeout=5)
            assert client.is_connected(node.peer_id)
            began = trio.current_time()
        assert trio.current_time() == began
