"""Where a service can be reached, as the value of its record says: one or more instances, each with address and tags.

A record's value is a text of its issuer's. This is the form that has a meaning here (docs/agent.md, What a record
says):

    {"schema": "aqua-registry.endpoints/1", "instances": [{"id": "web-1", "address": "203.0.113.5", "port": 8080}]}

Rules:
1. Writing is strict: bounds, one id per instance, an address that is an IP address or a host name.
2. Reading is lenient: fields of later versions are passed over, an instance that doesn't hold the bounds is left out,
   and so is one whose id an earlier one has. A plain URL, `host:port` and a multiaddr are one instance. Any other text
   is none.
3. Neither raises for what comes from the network: the values are other peers' texts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from registry.errors import InvalidValue
from registry.model.fields import check_text
from registry.model.values import MAX_VALUE, Record, Slot

SCHEMA: Final = "aqua-registry.endpoints/1"
MAX_INSTANCES: Final = 64
MAX_ITEMS: Final = 64
"""Tags, entries of metadata, names of checks, each, of one instance."""
MAX_ITEM: Final = 128
"""Bytes of an id, a tag, a key of metadata, or the name of a check."""
MAX_METADATA_VALUE: Final = 512
MAX_WEIGHT: Final = 65_535
MAX_PORT: Final = 65_535

_LONGEST_ADDRESS: Final = 253
_LONGEST_TEXT: Final = 2_048  # characters of a plain URL, `host:port` or multiaddr
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PROTOCOL: Final = re.compile(r"[a-z0-9][a-z0-9+.-]{0,31}")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ONLY: Final = "1"  # the id of what a plain text says


class Instance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One running copy of a service: where it is, and what tells it from others. Raises InvalidValue when made wrongly.

    Its health isn't in it: that changes too often to be signed each time.
    """

    id: str
    """Tells it from the other instances of its record."""
    address: str = ""
    """IP address or host name; empty: it is called through its host peer."""
    port: int = 0
    """1 to 65535; 0: it has none."""
    protocol: str = ""
    """What is spoken there, such as `http`, in lower case."""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    weight: int = 1
    """How much of the load it is to get beside others; 0: none."""
    checks: tuple[str, ...] = ()
    """The names of the checks that its agent does."""

    def __post_init__(self) -> None:
        _check_name("id", self.id)
        if self.address:
            _check_address(self.address)
        _check_number("port", self.port, MAX_PORT)
        if self.protocol and (type(self.protocol) is not str or not _PROTOCOL.fullmatch(self.protocol)):
            raise InvalidValue(f"protocol {_shown(self.protocol)} isn't like http: lower case, at most 32 characters")
        _check_number("weight", self.weight, MAX_WEIGHT)
        for field, names in (("tags", self.tags), ("checks", self.checks)):
            if type(names) is not tuple or len(names) > MAX_ITEMS:
                raise InvalidValue(f"{field} isn't a tuple of at most {MAX_ITEMS}")
            for name in names:
                _check_name(field, name)
        if type(self.metadata) is not dict or len(self.metadata) > MAX_ITEMS:
            raise InvalidValue(f"metadata isn't a dict of at most {MAX_ITEMS} entries")
        for name, text in self.metadata.items():
            _check_name("metadata", name)
            check_text(f"metadata {name}", text, MAX_METADATA_VALUE)

    @property
    def location(self) -> str:
        """Address and port as one text, such as `[::1]:80`; empty without an address."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}" if host and self.port else host


class Endpoint(msgspec.Struct, frozen=True):
    """An instance and the record that tells of it: who said so, and on which host it is."""

    instance: Instance
    record: Record


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which instances are wanted: those that have all these tags and all these entries of metadata."""

    tags: Sequence[str] = ()
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.tags or self.metadata)

    def matches(self, instance: Instance) -> bool:
        """Whether this one is wanted."""
        return set(self.tags) <= set(instance.tags) and self.metadata.items() <= instance.metadata.items()


Order = Callable[[Endpoint], Any]
"""What endpoints are sorted by, the least first, as the `key` of `sorted`."""


def by_weight(endpoint: Endpoint) -> tuple[int, str, str, str]:
    """The heaviest first; of equal ones by host, issuer and id, so that all who ask see one order."""
    metadata = endpoint.record.metadata
    return (-endpoint.instance.weight, metadata.peer_id, metadata.issued_by, endpoint.instance.id)


def by_distance(distance: Callable[[str], int], order: Order = by_weight) -> Order:
    """The nearest first, as `distance(peer id)` of their hosts has it; of equally near ones as `order` has it."""
    return lambda endpoint: (distance(endpoint.record.metadata.peer_id), order(endpoint))


def endpoints_in(
    records: Iterable[Record],
    wanted: Selection | None = None,
    order: Order = by_weight,
    left_out: Mapping[Slot, Collection[str]] = MappingProxyType({}),
) -> list[Endpoint]:
    """All instances of which `records` tell, or those that are wanted, in this order. `left_out`: the ids of instances
    that don't work, by their record."""
    found = [
        Endpoint(instance, record)
        for record in records
        for instance in instances_in(record.metadata.value)
        if instance.id not in left_out.get(record.slot, ())
    ]
    return sorted((one for one in found if wanted is None or wanted.matches(one.instance)), key=order)


def write_instances(instances: Sequence[Instance]) -> str:
    """The value of a record that tells of these. Raises InvalidValue for none, too many, or two of one id."""
    if not 1 <= len(instances) <= MAX_INSTANCES:
        raise InvalidValue(f"a record tells of 1 to {MAX_INSTANCES} instances, not {len(instances)}")
    ids = [instance.id for instance in instances]
    if len(set(ids)) < len(ids):
        twice = next(one for index, one in enumerate(ids) if one in ids[:index])
        raise InvalidValue(f"two instances have the id {_shown(twice)}")
    document = {"schema": SCHEMA, "instances": list(instances)}
    value = msgspec.json.encode(document, order="deterministic").decode()
    check_text("the value of instances", value, MAX_VALUE)
    return value


def instances_in(value: str) -> tuple[Instance, ...]:
    """The instances of which the value of a record tells, none where it is some other text."""
    if value.startswith("{"):
        return _written(value)
    one = _plain(value.strip()) if len(value) <= _LONGEST_TEXT else None
    return () if one is None else (one,)


@lru_cache(maxsize=256)  # asked for with each look at how a record is
def named_in(value: str) -> tuple[str, ...]:
    """The ids of the instances that a value names; of a plain address there is nothing to say but of its record."""
    return tuple(instance.id for instance in _written(value)) if value.startswith("{") else ()


class _Document(msgspec.Struct):
    schema: str
    instances: list[msgspec.Raw]


def _written(value: str) -> tuple[Instance, ...]:
    try:
        document = msgspec.json.decode(value, type=_Document)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # JSON nested a thousand deep is a peer's doing
        return ()
    if document.schema != SCHEMA:
        return ()
    found: dict[str, Instance] = {}
    for raw in document.instances[:MAX_INSTANCES]:
        try:
            instance = msgspec.json.decode(raw, type=Instance)
        except (msgspec.DecodeError, UnicodeError, RecursionError, InvalidValue):
            continue
        found.setdefault(instance.id, instance)
    return tuple(found.values())


def _plain(text: str) -> Instance | None:
    try:
        if text.startswith("/"):
            return _multiaddr(text)
        if "://" in text:
            return _url(text)
        host, port = _split(text)
        return Instance(id=_ONLY, address=host, port=port) if port else None
    except ValueError:  # InvalidValue is one
        return None


def _url(text: str) -> Instance:
    parts = urlsplit(text)
    host, port = _split(parts.netloc.rpartition("@")[2])
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    metadata = {"path": path} if path not in ("", "/") else {}
    port = port or _DEFAULT_PORTS.get(parts.scheme, 0)
    return _located(Instance(id=_ONLY, address=host, port=port, protocol=parts.scheme, metadata=metadata))


def _multiaddr(text: str) -> Instance:
    _, family, host, *rest = text.split("/")
    if family not in ("ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr"):
        raise ValueError
    transport, port = (rest[0], _number(rest[1])) if len(rest) > 1 and rest[0] in ("tcp", "udp") else ("", 0)
    spoken = [name for name in rest[2:] if name in ("http", "https", "ws", "wss", "quic-v1", "webtransport")]
    return _located(Instance(id=_ONLY, address=host, port=port, protocol=spoken[-1] if spoken else transport))


def _located(instance: Instance) -> Instance:
    if not instance.address:
        raise ValueError
    return instance


def _split(text: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[v6]:port`; 0 without one. Raises ValueError."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or ipaddress.ip_address(host).version != 6 or (rest and not rest.startswith(":")):
            raise ValueError
        return host, _number(rest[1:]) if rest else 0
    host, colon, port = text.partition(":")
    return host, _number(port) if colon else 0


def _number(text: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= MAX_PORT:
        raise ValueError
    return int(text)


def _check_name(field: str, name: object) -> None:
    check_text(field, name, MAX_ITEM)
    if not name or not str(name).isprintable():
        raise InvalidValue(f"{field} {_shown(name)} is empty or holds characters that don't show")


def _check_number(field: str, number: object, maximum: int) -> None:
    if type(number) is not int or not 0 <= number <= maximum:
        shown = number if type(number) is int and abs(number) < 2**64 else "that"
        raise InvalidValue(f"{field} isn't within 0 and {maximum}: {shown}")


def _check_address(address: object) -> None:
    check_text("address", address, _LONGEST_ADDRESS)
    text = str(address)
    try:
        if "%" not in text and ipaddress.ip_address(text):
            return
    except ValueError:
        pass
    labels = text.removesuffix(".").split(".")
    if not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise InvalidValue(f"address {_shown(text)} is neither an IP address nor a host name")


def _shown(text: object) -> str:
    return repr(str(text)[:80])
