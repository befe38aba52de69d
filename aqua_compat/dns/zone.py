"""What a name under the domain asks for. Pure; names come in as labels in lower case, since DNS forgets case.

    OWNER             `acme`, an alias of the settings, `me`, or a peer id as `peer_names` writes it
    web.OWNER         the service `web`, and so are web.service.OWNER and _web._tcp.OWNER
    v2.web.OWNER      its instances with the tag `v2`, and so are v2.web.service.OWNER and _web._v2.OWNER
    PEER.node         where a peer is; PEER like OWNER
    c0000207.addr     an address, in hexadecimal: what SRV records lead to
    ns                this server

A name between such a name and the domain exists, and has no records (RFC 8020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from aqua_compat.dns.peer_names import label_of_peer, peer_in_label
from registry.model.names import OWN
from registry.model.signing import key_id_of

IpAddress = IPv4Address | IPv6Address

NODE: Final = "node"
ADDRESS: Final = "addr"
SERVER: Final = "ns"
SERVICE: Final = "service"
UDP: Final = "_udp"
_TRANSPORTS: Final = ("_tcp", UDP)
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


class OfService(NamedTuple):
    """Asks for the instances of a resource: all of them or those with a tag; over UDP, or over anything else."""

    resource_id: str
    tag: str = ""
    transport: str = ""
    """`_tcp` or `_udp`; empty: all."""


class OfNode(NamedTuple):
    """The addresses of a peer."""

    peer_id: str


class OfAddress(NamedTuple):
    """An address that the name itself tells."""

    address: IpAddress


class OfServer(NamedTuple):
    """Asks for this server."""


class OfDomain(NamedTuple):
    """Asks for the domain itself."""


class Between(NamedTuple):
    """A name that only leads on to others."""


Asked = OfService | OfNode | OfAddress | OfServer | OfDomain | Between


class Zone:
    """The names of one server, for as long as its aliases are the same. Immutable."""

    def __init__(self, aliases: Mapping[str, str], own: str) -> None:
        """`aliases`: alias to peer id; `own`: the peer id that `me` is. Of aliases that differ in case alone the first
        one counts."""
        self._owners: dict[tuple[str, ...], str] = {(OWN,): own}
        for alias, peer_id in aliases.items():
            self._owners.setdefault(tuple(alias.lower().split(".")), peer_id)
        self._longest = max(map(len, self._owners))

    def asked(self, labels: Sequence[str]) -> Asked | None:
        """What the labels left of the domain ask for; None for a name that can't be there."""
        if not labels:
            return OfDomain()
        reserved = _of_reserved(labels, self)
        if isinstance(reserved, (OfNode, OfAddress, OfServer)):  # also where an alias is `node`, `addr` or `ns`
            return reserved
        found = self._of_owner(labels)
        return found if found is not None else reserved

    def owner(self, labels: Sequence[str]) -> str | None:
        """The peer id that labels stand for."""
        known = self._owners.get(tuple(labels))
        return known if known is not None or len(labels) != 1 else peer_in_label(labels[0])

    def leads_to_owner(self, labels: Sequence[str]) -> bool:
        """Whether an alias with dots ends so."""
        return any(owner[-len(labels) :] == tuple(labels) for owner in self._owners if len(owner) > len(labels))

    def _of_owner(self, labels: Sequence[str]) -> Asked | None:
        """The longest alias that the name ends with counts."""
        for length in range(min(self._longest, len(labels)), 0, -1):
            owner = self.owner(labels[-length:])
            if owner is not None:
                return _under(owner, labels[:-length])
        return Between() if self.leads_to_owner(labels) else None


def _under(owner: str, labels: Sequence[str]) -> Asked | None:
    match labels:
        case [] | ["service"]:
            return Between()
        case [only] if only.startswith("_"):  # between _web._v2.OWNER and its owner, whatever tags there are
            return Between()
        case [*before, last] if last.startswith("_") and len(before) == 1 and before[0].startswith("_"):
            tag, transport = ("", last) if last in _TRANSPORTS else (last[1:], "")
            return _service(owner, before[0][1:], tag, transport)
        case [*tag, label, "service"] if len(tag) <= 1:
            return _service(owner, label, *tag)
        case [*tag, label] if len(tag) <= 1:
            return _service(owner, label, *tag)
    return None


def _service(owner: str, label: str, tag: str = "", transport: str = "") -> OfService | None:
    return OfService(key_id_of(label, owner), tag, transport) if label else None


def _of_reserved(labels: Sequence[str], zone: Zone) -> Asked | None:
    match labels:
        case ["node"] | ["addr"]:
            return Between()
        case ["ns"]:
            return OfServer()
        case [*peer, "node"]:
            peer_id = zone.owner(peer)
            if peer_id is not None:
                return OfNode(peer_id)
            return Between() if zone.leads_to_owner(peer) else None
        case [text, "addr"]:
            return _address(text)
    return None


def _address(text: str) -> OfAddress | None:
    if not set(text) <= _HEXADECIMAL:
        return None
    if len(text) == 8:
        return OfAddress(IPv4Address(bytes.fromhex(text)))
    return OfAddress(IPv6Address(bytes.fromhex(text))) if len(text) == 32 else None


def labels_of_node(peer_id: str) -> tuple[str, ...]:
    """The name of a peer, left of the domain."""
    return label_of_peer(peer_id), NODE


def labels_of_address(address: IpAddress) -> tuple[str, ...]:
    """The name of an address, left of the domain."""
    return address.packed.hex(), ADDRESS
