"""Addresses that others told are dialled only where our own network is."""

from __future__ import annotations

from typing import Literal

import pytest

from overlay.libp2p.told_addresses import ToldAddresses
from overlay.libp2p.visitors import Visitors
from overlay.settings import DialLimits, LinkLimits, OverlaySettings

HERE, LAN, WORLD = "/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.7/tcp/1", "/ip4/8.8.4.4/tcp/1"


def told_addresses(
    *own: str, private: Literal["auto", "always", "never"] = "auto", bootstrap: tuple[str, ...] = ()
) -> ToldAddresses:
    settings = OverlaySettings(dials=DialLimits(private=private), bootstrap=bootstrap)
    return ToldAddresses(settings, Visitors(LinkLimits()), lambda: own)


@pytest.mark.parametrize(
    ("own", "told", "dialled"),
    [
        ((HERE,), "/ip4/127.0.0.1/tcp/99", True),
        ((LAN,), "/ip4/127.0.0.1/tcp/99", False),
        ((HERE, LAN), "/ip4/127.0.0.1/tcp/99", True),
        ((HERE, WORLD), "/ip4/127.0.0.1/tcp/99", False),
        ((HERE, WORLD), "/ip6/::ffff:127.0.0.1/tcp/99", False),
        ((LAN,), "/ip4/10.9.9.9/tcp/99", True),
        ((LAN,), "/ip4/192.168.0.1/tcp/99", False),
        ((WORLD,), "/ip4/10.9.9.9/tcp/99", False),
        ((WORLD,), "/ip4/169.254.169.254/tcp/80", False),
        ((LAN,), "/ip4/1.1.1.1/tcp/99", True),
        ((), "/ip4/1.1.1.1/tcp/99", True),
        ((), "/ip4/127.0.0.1/tcp/99", False),
        ((HERE,), "/ip4/0.0.0.0/tcp/99", False),
        ((HERE,), "/ip4/224.0.0.1/tcp/99", False),
    ],
)
async def test_private_addresses_are_dialled_where_the_network_is_there(
    own: tuple[str, ...], told: str, dialled: bool
) -> None:
    assert await told_addresses(*own).resolved(told) == (told if dialled else None)


async def test_setting_decides_for_all_ranges() -> None:
    assert await told_addresses(WORLD, private="always").resolved(LAN) == LAN
    assert await told_addresses(LAN, private="never").resolved(LAN) is None
    assert await told_addresses(LAN, private="never").resolved(WORLD) == WORLD


async def test_configured_addresses_show_where_the_network_is() -> None:
    assert await told_addresses(bootstrap=(LAN,)).resolved("/ip4/10.9.9.9/tcp/9") is not None
    addresses = told_addresses()
    addresses.note_configured(HERE)
    assert await addresses.resolved("/ip4/127.0.0.1/tcp/9") is not None


async def test_names_are_resolved_before_their_addresses_are_looked_at() -> None:
    assert await told_addresses(WORLD).resolved("/dns4/localhost/tcp/9/ws") is None
    assert await told_addresses(HERE).resolved("/dns4/localhost/tcp/9/ws") == "/ip4/127.0.0.1/tcp/9/ws"
    assert await told_addresses(HERE).resolved("/dns4/no-such-name.invalid/tcp/9") is None
