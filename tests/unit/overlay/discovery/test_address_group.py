"""Which peers' addresses count as close to each other."""

from __future__ import annotations

import pytest

from overlay.discovery.address_group import address_group


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (["/ip4/192.0.2.1/tcp/4001"], ["/ip4/192.0.77.9/udp/1"], True),
        (["/ip4/192.0.2.1/tcp/4001"], ["/ip4/192.1.2.1/tcp/4001"], False),
        (["/ip6/2001:db8:1::1/tcp/1"], ["/ip6/2001:db8:2::1/tcp/1"], True),
        (["/ip6/2001:db8::1/tcp/1"], ["/ip6/2001:db9::1/tcp/1"], False),
        (["/ip6/::ffff:192.0.2.1/tcp/1"], ["/ip4/192.0.2.1/tcp/1"], True),
        (["/dns4/one.example/tcp/1"], ["/dns4/ONE.example/tcp/2"], True),
        (["/dns4/one.example/tcp/1"], ["/dns4/other.example/tcp/1"], False),
        (["nonsense", "/ip4/999.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1"], ["/ip4/192.0.2.1/tcp/1"], True),
        ([], ["/ip4"], True),
    ],
)
def test_addresses_of_one_network_are_alike(one: list[str], other: list[str], alike: bool) -> None:
    assert (address_group(one) == address_group(other)) == alike
