"""What an answer says, by what is asked and what is known. Pure; docs/dns.md tells the rules to users.

Rules:
1. A name that isn't there is NXDOMAIN; one that is, without what is asked of it, an empty NOERROR. Both have the
   domain's SOA, which tells how long that may be remembered.
2. A resource that exists is a name that is there, also while nothing on it is usable.
3. An SRV record leads to a name: an instance's host name, or one of this domain that tells its address; that address is
   in the answer, too. An instance without an address is at its host's.
4. A and AAAA tell addresses. Where there are only host names, one of them is told, as a CNAME, and
   to who asks for that.
5. Everything there is (ANY) is asked in vain (RFC 8482).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from ipaddress import IPv4Address
from typing import Any, Final

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.HINFO
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rrset

from aqua_compat.dns.providers import Provider, Providers
from aqua_compat.dns.query import Content
from aqua_compat.dns.zone import (
    SERVER,
    Asked,
    IpAddress,
    OfAddress,
    OfDomain,
    OfNode,
    OfServer,
    OfService,
    labels_of_address,
    labels_of_node,
)

IN: Final = dns.rdataclass.IN
A, AAAA, SRV, TXT, SOA, NS, CNAME, ANY, HINFO = (
    dns.rdatatype.A,
    dns.rdatatype.AAAA,
    dns.rdatatype.SRV,
    dns.rdatatype.TXT,
    dns.rdatatype.SOA,
    dns.rdatatype.NS,
    dns.rdatatype.CNAME,
    dns.rdatatype.ANY,
    dns.rdatatype.HINFO,
)
_CLASSES: Final[dict[dns.rdatatype.RdataType, Any]] = {
    A: dns.rdtypes.IN.A.A,
    AAAA: dns.rdtypes.IN.AAAA.AAAA,
    SRV: dns.rdtypes.IN.SRV.SRV,
    TXT: dns.rdtypes.ANY.TXT.TXT,
    NS: dns.rdtypes.ANY.NS.NS,
    SOA: dns.rdtypes.ANY.SOA.SOA,
    CNAME: dns.rdtypes.ANY.CNAME.CNAME,
    HINFO: dns.rdtypes.ANY.HINFO.HINFO,
}
PRIORITY: Final = 1
LONGEST_STRING: Final = 255  # bytes of a string of a TXT record
_REFRESH, _RETRY, _EXPIRE = 3600, 600, 86_400  # seconds, for secondary servers, which there are none of

AddressesOf = Callable[[str], Sequence[IpAddress]]
"""The addresses of a peer, as far as known."""


class Answers:
    """Makes answers for one domain."""

    def __init__(
        self,
        domain: dns.name.Name,
        *,
        ttl: int,
        negative_ttl: int,
        most: int,
        serial: int,
        own: Sequence[IpAddress],
        addresses_of: AddressesOf,
        randomness: random.Random,
    ) -> None:
        """`ttl`, `negative_ttl`: seconds that answers may be remembered. `most`: records of an answer. `own`: where
        this server answers."""
        self._domain = domain
        self._ttl = ttl
        self._most = most
        self._own = own
        self._addresses_of = addresses_of
        self._randomness = randomness
        self._server = dns.name.Name((SERVER.encode(), *domain.labels))
        soa = _rdata(
            SOA,
            self._server,
            dns.name.Name((b"hostmaster", *domain.labels)),
            serial,
            _REFRESH,
            _RETRY,
            _EXPIRE,
            negative_ttl,
        )
        self._soa = dns.rrset.from_rdata(domain, ttl, soa)
        self._no_soa = dns.rrset.from_rdata(domain, negative_ttl, soa)
        alone = BytesIO()
        self._no_soa.to_wire(alone)
        self.soa = alone.getvalue()
        """The SOA of answers without records, as bytes."""

    def about(self, asked: Asked, name: dns.name.Name, kind: int, providers: Providers | None = None) -> Content:
        """What there is of a name that exists. `providers`: of the resource that it needs."""
        if kind == ANY:
            return self._with(name, [_rdata(HINFO, "RFC8482", "")])
        match asked:
            case OfService():
                return self._service(asked, name, kind, providers)
            case OfDomain():
                return self._domains(kind)
            case OfNode(peer_id) if kind == TXT:
                return self._with(name, [_text([f"peer_id={peer_id}"])])
        return self._with(name, _of_kind(self._addresses(asked), kind))

    def _addresses(self, asked: Asked) -> Sequence[IpAddress]:
        match asked:
            case OfNode(peer_id):
                return self._addresses_of(peer_id)
            case OfAddress(address):
                return [address]
            case OfServer():
                return self._own
        return []

    def _domains(self, kind: int) -> Content:
        if kind == SOA:
            return Content([self._soa])
        if kind == NS:
            found = self._with(self._domain, [_rdata(NS, self._server)])
            return found._replace(additional=self._beside([(self._server, each) for each in self._own]))
        return Content()

    def _service(self, asked: OfService, name: dns.name.Name, kind: int, providers: Providers | None) -> Content:
        chosen = providers.chosen(asked, self._randomness) if providers is not None else []
        if kind == SRV:
            return self._servers(name, chosen)
        if kind == TXT:
            texts = [_text(_strings(each)) for each in chosen if each.instance.metadata]
            return self._with(name, texts)
        if kind not in (A, AAAA, CNAME):
            return Content()
        addresses = [each for provider in chosen for each in self._where(provider)]
        if not addresses:
            for provider in chosen:
                target = _host_name(provider.instance.address)
                if target is not None:
                    return self._with(name, [_rdata(CNAME, target)])
        return self._with(name, _of_kind(addresses, kind))

    def _servers(self, name: dns.name.Name, chosen: Iterable[Provider]) -> Content:
        servers: list[dns.rdata.Rdata] = []
        beside: list[tuple[dns.name.Name, IpAddress]] = []
        for provider in chosen:
            instance = provider.instance
            if not instance.port or len(servers) >= self._most:
                continue
            addresses = self._where(provider)
            if instance.address and provider.address is None:
                target = _host_name(instance.address)
                if target is None:
                    continue
            elif provider.address is not None:
                target = self._name(labels_of_address(provider.address))
            elif addresses:
                target = self._name(labels_of_node(provider.host))
            else:
                continue
            servers.append(_rdata(SRV, PRIORITY, instance.weight, instance.port, target))
            beside += [(target, each) for each in addresses]
        return self._with(name, servers)._replace(additional=self._beside(beside))

    def _where(self, provider: Provider) -> Sequence[IpAddress]:
        if provider.address is not None:
            return [provider.address]
        return [] if provider.instance.address else self._addresses_of(provider.host)

    def _with(self, name: dns.name.Name, found: Sequence[dns.rdata.Rdata]) -> Content:
        return Content([self._set(name, found[: self._most])]) if found else Content()

    def _set(self, name: dns.name.Name, found: Sequence[dns.rdata.Rdata]) -> dns.rrset.RRset:
        made = dns.rrset.RRset(name, IN, found[0].rdtype)
        made.ttl = self._ttl
        for each in found:
            made.add(each)
        return made

    def _beside(self, found: Iterable[tuple[dns.name.Name, IpAddress]]) -> list[dns.rrset.RRset]:
        sets: dict[tuple[dns.name.Name, int], list[dns.rdata.Rdata]] = {}
        for name, address in found:
            sets.setdefault((name, _kind_of(address)), []).append(_rdata(_kind_of(address), str(address)))
        return [self._set(name, each) for (name, _), each in sets.items()]

    def _name(self, labels: Sequence[str]) -> dns.name.Name:
        return dns.name.Name((*(label.encode() for label in labels), *self._domain.labels))


def _kind_of(address: IpAddress) -> dns.rdatatype.RdataType:
    return A if isinstance(address, IPv4Address) else AAAA


def _of_kind(addresses: Iterable[IpAddress], kind: int) -> list[dns.rdata.Rdata]:
    return [_rdata(_kind_of(each), str(each)) for each in dict.fromkeys(addresses) if _kind_of(each) == kind]


def _text(strings: Sequence[str]) -> dns.rdata.Rdata:
    return _rdata(TXT, [each.encode() for each in strings] or [b""])


def _rdata(kind: dns.rdatatype.RdataType, *fields: object) -> dns.rdata.Rdata:
    made: dns.rdata.Rdata = _CLASSES[kind](IN, kind, *fields)
    return made


def _strings(provider: Provider) -> list[str]:
    """The metadata of an instance, `key=value` each, as far as each fits."""
    found = [f"{key}={value}" for key, value in sorted(provider.instance.metadata.items())]
    return [each for each in found if len(each.encode()) <= LONGEST_STRING]


def _host_name(text: str) -> dns.name.Name | None:
    try:
        return dns.name.from_text(text.removesuffix(".") + ".")
    except (dns.exception.DNSException, UnicodeError):
        return None
