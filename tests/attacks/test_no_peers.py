"""Peers name whom they like: an id of no peer is nobody that can be reached, and ends nothing."""

from __future__ import annotations

from typing import Final

import pytest

from overlay import Identity, OverlaySettings, open_peer
from overlay.errors import Unreachable

NO_PEERS: Final = ("0", "l0O", "\u202e12D3", "\0", "x" * 200, "", "QmYyQSo1c1Ym7orWxLYvCrM2EmxTXf8W8v1fE9pQ4u6Eb1")


async def test_who_is_no_peer_cant_be_called_and_the_caller_lives_on() -> None:
    settings = OverlaySettings(listen=("/ip4/127.0.0.1/tcp/0",))
    async with open_peer(Identity.generate(), settings) as other, open_peer(Identity.generate(), settings) as peer:
        for name in NO_PEERS:
            peer.add_addresses(name, other.addresses(), teller=other.peer_id)
            peer.add_addresses(name, ["/ip4/127.0.0.1/tcp/1"], teller=other.peer_id)
            with pytest.raises(Unreachable):
                await peer.call(name, "test/echo", 1, timeout=5)
        await peer.connect(other.addresses()[0], timeout=5)
        assert await peer.call(other.peer_id, "overlay/there", None, timeout=5) is None
