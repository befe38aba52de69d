"""Which addresses a peer tells others, and what becomes of ids that are none."""

from __future__ import annotations

import pytest
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.assembly import open_peer
from overlay.errors import Unreachable
from overlay.identity import Identity
from overlay.libp2p.addresses import announced
from overlay.settings import OverlaySettings


def test_configured_addresses_are_told_instead_of_those_listened_on() -> None:
    configured = [Multiaddr("/dns4/node.example/tcp/443/ws")]
    assert announced(configured, [Multiaddr("/ip4/127.0.0.1/tcp/4001")]) == configured


@pytest.mark.parametrize("ending", ["", "/ws"])
def test_wildcards_are_spelled_out_and_keep_their_transport(ending: str) -> None:
    told = [str(address) for address in announced([], [Multiaddr(f"/ip4/0.0.0.0/tcp/4001{ending}")])]
    assert told
    assert all(text.endswith(f"/tcp/4001{ending}") and "0.0.0.0" not in text for text in told)


@pytest.mark.parametrize("name", ["", "nobody at all", "0OIl", "é", "12D3KooW", "1" * 1000])
async def test_what_is_no_peer_id_is_reached_nowhere_and_ends_nothing(name: str) -> None:
    """Who names it to this peer chooses the text, and where that is to be."""
    async with open_peer(Identity.generate(), OverlaySettings(listen=("/ip4/127.0.0.1/tcp/0",))) as peer:
        for _ in range(2):  # with an address, the second time
            with pytest.raises(Unreachable):
                await peer.call(name, "greet", None, timeout=3)
            peer.add_addresses(name, ["/ip4/127.0.0.1/tcp/9"], teller=peer.peer_id)
        assert peer.members() == []
