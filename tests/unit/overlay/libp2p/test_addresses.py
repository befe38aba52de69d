"""Which addresses a peer tells others."""

from __future__ import annotations

import pytest
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.libp2p.addresses import announced


def test_configured_addresses_are_told_instead_of_those_listened_on() -> None:
    configured = [Multiaddr("/dns4/node.example/tcp/443/ws")]
    assert announced(configured, [Multiaddr("/ip4/127.0.0.1/tcp/4001")]) == configured


@pytest.mark.parametrize("ending", ["", "/ws"])
def test_wildcards_are_spelled_out_and_keep_their_transport(ending: str) -> None:
    told = [str(address) for address in announced([], [Multiaddr(f"/ip4/0.0.0.0/tcp/4001{ending}")])]
    assert told
    assert all(text.endswith(f"/tcp/4001{ending}") and "0.0.0.0" not in text for text in told)
