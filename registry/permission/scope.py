"""On which resources a certificate permits to register: one, or of one owner's those of a label, of labels that begin
alike, or all. The owner is part of it, so that what a root permits on one owner's resources is nothing on another's."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Final

import cbor2
import msgspec

from overlay.limits.decoder import DecodeError, decode
from overlay.membership.certificate import KEY_BYTES, MAX_SCOPE

MAX_NAME: Final = 256  # bytes of a label, or of a resource's id


class ScopeKind(StrEnum):
    """What a scope's name is."""

    RESOURCE = "resource"
    """A resource's id, which tells the owner too."""
    LABEL = "label"
    PREFIX = "prefix"
    """How labels begin."""
    ALL = "all"
    """There is no name."""


class Scope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`owner`: the public key of the owner whose resources these are; empty where `name` is a resource's id."""

    kind: ScopeKind
    owner: bytes = b""
    name: str = ""

    def __post_init__(self) -> None:
        if len(self.owner) != (0 if self.kind is ScopeKind.RESOURCE else KEY_BYTES):
            raise ValueError("a scope names the owner of the resources, or one resource")
        if len(self.name.encode("utf-8", "surrogatepass")) > MAX_NAME:
            raise ValueError(f"the name in a scope has more than {MAX_NAME} bytes")
        if bool(self.name) is (self.kind is ScopeKind.ALL):
            raise ValueError("a scope has a name, unless it is of all of an owner's resources")

    def covers(self, resource_id: str, label: str, owner: bytes) -> bool:
        """Whether the resource of this id, label and owner is among these."""
        if self.kind is ScopeKind.RESOURCE:
            return resource_id == self.name
        if owner != self.owner:
            return False
        if self.kind is ScopeKind.LABEL:
            return label == self.name
        return label.startswith(self.name)

    def encoded(self) -> bytes:
        """The scope as a certificate carries it."""
        return cbor2.dumps(msgspec.to_builtins(self, builtin_types=(bytes,)), canonical=True)


@lru_cache(maxsize=1024)
def scope_in(encoded: bytes) -> Scope | None:
    """The scope in a certificate, None for what is none that this version knows: that covers nothing."""
    try:
        raw = decode(encoded, max_bytes=MAX_SCOPE, max_items=8)
        scope = msgspec.convert(raw, Scope, strict=True, builtin_types=(bytes,))
    except (DecodeError, msgspec.ValidationError):
        return None
    return scope if scope.encoded() == encoded else None
