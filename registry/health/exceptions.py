"""How a host tells which of its services don't pass: in its presence, and in a list where that has no room for them.

1. Who says nothing of a service says that it passes. A host all of whose services pass sends nothing: no bytes.
2. The form is the deterministic CBOR of [entries, count, digest]. An entry is [resource id, issuer, instance, state,
   since, note]; the issuer is empty where it is the host itself, and the instance where the record is meant. They come
   in the order of resource, issuer (never as empty) and instance.
3. What doesn't fit is told by its count and digest alone, without an entry: sha256 of all entries' encodings, one
   after the other. Readers ask the host for the entries, page by page (`registry.exceptions`), and compare the digest.
4. Fields behind those known here are ignored; a state that isn't known counts as unknown.

Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Final

import cbor2
import msgspec
from msgspec import Meta

from overlay.limits.decoder import DecodeError, decode
from registry.errors import InvalidValue
from registry.health.state import MAX_INSTANCE, Health, HealthState, HostedService, worst
from registry.model.fields import SHORT_ID, check_text

MOST_BYTES: Final = 4096
"""Of exceptions within a presence."""
MOST_LISTED: Final = 16_384
"""Entries in the list of one host. One with 256 bytes of note has 450 bytes."""
MOST_IN_PAGE: Final = 512
"""Entries in one page: reading them takes 10 ms."""
_MOST_ITEMS: Final = 4096  # in the CBOR of a presence's exceptions: no more than bytes
_MAX_ENTRY: Final = 1024  # bytes; longer ones are no entries of this version, or of one that adds little


class _Form(msgspec.Struct, frozen=True, array_like=True):
    entries: Annotated[tuple[Any, ...], Meta(max_length=MOST_BYTES)]
    count: Annotated[int, Meta(ge=0, le=MOST_LISTED)] = 0
    digest: Annotated[bytes, Meta(max_length=64)] = b""


class _WrittenException(msgspec.Struct, frozen=True, array_like=True):
    key_id: str
    issued_by: str
    instance: str
    state: int
    since: int
    note: str


class Exceptions(msgspec.Struct, frozen=True):
    """What a host tells: either all services that don't pass, or how many there are, and the digest of their list."""

    services: Mapping[HostedService, Health]
    count: int = 0
    digest: bytes = b""
    """32 bytes; empty where `services` has all of them."""

    @property
    def is_listed_elsewhere(self) -> bool:
        """Whether the entries have to be asked for."""
        return bool(self.digest)


class ExceptionList:
    """The services of one host that don't pass, in order, with their encodings: what its host tells is made of them.

    A change takes microseconds, and telling 10,000 entries 2 ms.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._order: list[HostedService] = []
        self._entries: dict[HostedService, bytes] = {}
        self._digest = b""

    def __len__(self) -> int:
        return len(self._order)

    def put(self, service: HostedService, health: Health) -> bool:
        """Lists a service, or takes it off the list if it passes; whether that changed anything."""
        if health.state is HealthState.PASSING:
            return self.remove(service)
        entry = entry_of(self._host, service, health)
        if self._entries.get(service) == entry:
            return False
        if service not in self._entries:
            insort(self._order, service)
        self._entries[service] = entry
        self._digest = b""
        return True

    def remove(self, service: HostedService) -> bool:
        """Takes a service off the list; whether it was there."""
        if self._entries.pop(service, None) is None:
            return False
        del self._order[bisect_left(self._order, service)]
        self._digest = b""
        return True

    def digest(self) -> bytes:
        """The digest of the whole list. 32 bytes."""
        if not self._digest:
            self._digest = digest_of_entries(self._entries[service] for service in self._order)
        return self._digest

    def told(self, most_bytes: int = MOST_BYTES) -> bytes:
        """What the presence carries, in `most_bytes` at most."""
        if not self._order:
            return b""
        if sum(map(len, self._entries.values())) <= most_bytes:
            inline = _head(3) + _head(len(self._order))
            inline += b"".join(self._entries[service] for service in self._order)
            inline += cbor2.dumps(0) + cbor2.dumps(b"")
            if len(inline) <= most_bytes:
                return inline
        return cbor2.dumps([[], len(self._order), self.digest()], canonical=True)

    def page(self, after: HostedService | None) -> tuple[list[bytes], bool]:
        """The entries that follow `after`, as many as one page has, and whether there are more."""
        first = 0 if after is None else bisect_right(self._order, after)
        last = first + MOST_IN_PAGE
        return [self._entries[service] for service in self._order[first:last]], last < len(self._order)


def entry_of(host: str, service: HostedService, health: Health) -> bytes:
    """The encoding of one entry in what `host` tells."""
    issued_by = "" if service.issued_by == host else service.issued_by
    fields = [service.key_id, issued_by, service.instance, int(health.state), health.since, health.note]
    return cbor2.dumps(fields, canonical=True)


def digest_of_entries(entries: Iterable[bytes]) -> bytes:
    """The digest of a list's entries, in order. 32 bytes."""
    hashed = sha256()
    for entry in entries:
        hashed.update(entry)
    return hashed.digest()


def exceptions_in(host: str, told: bytes) -> Exceptions:
    """What `host` tells in its presence. Raises InvalidValue."""
    if not told:
        return Exceptions({})
    form = _parsed(_decoded(told, MOST_BYTES), _Form)
    if form.digest:
        return Exceptions({}, form.count, form.digest)
    return Exceptions(_merged([_entry(host, entry) for entry in form.entries]))


def entries_in(host: str, encoded: Sequence[bytes]) -> list[tuple[HostedService, Health]]:
    """The entries of a page. Raises InvalidValue."""
    return [_entry(host, _decoded(entry, _MAX_ENTRY)) for entry in encoded]


def _entry(host: str, entry: object) -> tuple[HostedService, Health]:
    parsed = _parsed(entry, _WrittenException)
    check_text("resource id", parsed.key_id, SHORT_ID)
    check_text("issuer", parsed.issued_by, SHORT_ID)
    check_text("instance", parsed.instance, MAX_INSTANCE)
    service = HostedService(parsed.key_id, parsed.issued_by or host, parsed.instance)
    return service, Health(HealthState.received(parsed.state), parsed.since, parsed.note)


def _merged(entries: Iterable[tuple[HostedService, Health]]) -> dict[HostedService, Health]:
    """By service; of one that is there more than once the worst counts."""
    merged: dict[HostedService, Health] = {}
    for service, health in entries:
        merged[service] = worst((merged[service], health)) if service in merged else health
    return merged


def _decoded(encoded: bytes, most_bytes: int) -> object:
    try:
        return decode(encoded, max_bytes=most_bytes, max_items=_MOST_ITEMS)
    except DecodeError as error:
        raise InvalidValue(f"exceptions that can't be read: {error}") from error


def _parsed(value: object, form: type[Any]) -> Any:
    try:
        return msgspec.convert(value, form, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidValue(f"malformed exceptions: {error}") from error


def _head(count: int) -> bytes:
    """How a CBOR array of so many elements begins."""
    return cbor2.dumps([None] * count)[:-count]
