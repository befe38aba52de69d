"""What an operator may give to join through: a peer's address, or where peers are found that can be joined through.

| given as | means |
|---|---|
| `/ip4/192.0.2.1/tcp/7000/p2p/12D3...`, also with a host's name | that peer |
| `/dns/seed.example/tcp/7000`, `seed.example:7000`, `[2001:db8::1]:7000` | whoever answers there (`bootstrap_pins`) |
| `/dnsaddr/example.org`, also with `/p2p/12D3...` | the addresses in TXT records of `_dnsaddr.example.org` |
| `file:PATH` | the addresses in a file, one on a line; what follows `#` is a comment |

Pure.
"""

from __future__ import annotations

import enum
import re
from ipaddress import IPv6Address
from typing import Final

from msgspec import Struct

from overlay.discovery.address_book import parse_dialable
from overlay.errors import AddressError

MOST_ADDRESSES: Final = 64
"""Of a file, or a name."""
_DNSADDR: Final = re.compile(r"/dnsaddr/([^/]{1,253})(?:/p2p/(\w{1,64}))?")
_FILE: Final = "file:"
_HOST_AND_PORT: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([\w.-]{1,253})):(\d{1,5})")


class SourceKind(enum.Enum):
    """What kind of thing an operator gave to bootstrap from."""

    PEER = enum.auto()
    PLACE = enum.auto()
    """An address without a peer's id."""
    DNSADDR = enum.auto()
    FILE = enum.auto()


class BootstrapSource(Struct, frozen=True):
    """One entry of `OverlaySettings.bootstrap`."""

    kind: SourceKind
    text: str
    """As it was given."""
    where: str
    """The multiaddr without a peer's id, the name, or the path."""
    peer_id: str = ""
    """Who it has to be; empty for anybody."""


def parse_source(text: str) -> BootstrapSource:
    """What `text` means. Raises `AddressError`."""
    if text.startswith(_FILE):
        return BootstrapSource(SourceKind.FILE, text, text.removeprefix(_FILE))
    if text.startswith("/dnsaddr/"):
        named = _DNSADDR.fullmatch(text)
        if named is None:
            raise AddressError(f"not of the form /dnsaddr/<name>[/p2p/<peer id>]: {text!r}")
        return BootstrapSource(SourceKind.DNSADDR, text, named[1], named[2] or "")
    place = _multiaddr_of(text)
    try:
        transport, peer_id = parse_dialable(place)
    except AddressError as error:
        if text.startswith("/"):
            raise
        raise AddressError(f"neither a multiaddr nor HOST:PORT, /dnsaddr/NAME or file:PATH: {text!r}") from error
    if peer_id is None:
        return BootstrapSource(SourceKind.PLACE, text, transport)
    return BootstrapSource(SourceKind.PEER, text, transport, peer_id)


def addresses_in(text: str) -> list[str]:
    """What a file of addresses has on its lines, without comments; `MOST_ADDRESSES` at most."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return list(dict.fromkeys(filter(None, lines)))[:MOST_ADDRESSES]


def _multiaddr_of(text: str) -> str:
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        return text
    number, host, port = found.groups()
    if number is not None:
        try:
            return f"/ip6/{IPv6Address(number)}/tcp/{port}"
        except ValueError as error:
            raise AddressError(f"not an IPv6 address: {number!r}") from error
    is_number = re.fullmatch(r"[\d.]+", host) is not None
    return f"/ip4/{host}/tcp/{port}" if is_number else f"/dns/{host}/tcp/{port}"
