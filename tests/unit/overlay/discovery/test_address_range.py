"""Which addresses mean the same everywhere."""

from __future__ import annotations

import pytest

from overlay.discovery.address_range import GLOBAL, LOOPBACK, OTHER, UNUSABLE, address_range, host_of


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", LOOPBACK),
        ("127.9.9.9", LOOPBACK),
        ("::1", LOOPBACK),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("10.1.2.3", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("172.16.0.1", "172.16.0.0/12"),
        ("172.32.0.1", GLOBAL),
        ("192.168.1.1", "192.168.0.0/16"),
        ("100.64.0.1", "100.64.0.0/10"),
        ("169.254.169.254", "169.254.0.0/16"),
        ("fd00::1", "fc00::/7"),
        ("fe80::1%eth0", "fe80::/10"),
        ("203.0.113.1", OTHER),
        ("0.0.0.0", UNUSABLE),
        ("::", UNUSABLE),
        ("224.0.0.1", UNUSABLE),
        ("ff02::1", UNUSABLE),
        ("255.255.255.255", UNUSABLE),
        ("8.8.8.8", GLOBAL),
        ("2606:4700::1", GLOBAL),
    ],
)
def test_range_of_an_address(address: str, expected: str) -> None:
    assert address_range(address) == expected


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "1.2.3.4.5"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear"):
        address_range(text)


def test_host_of_a_multiaddr() -> None:
    assert host_of("/ip4/192.0.2.1/tcp/1/ws") == ("ip4", "192.0.2.1")
    assert host_of("/dns4/node.example/tcp/1") == ("dns4", "node.example")
    assert host_of("") == ("", "")
