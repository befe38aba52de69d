"""Small builders of signed values. Pure: what they make is a function of their arguments."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from overlay.identity import Identity
from registry.results import WeightResult
from registry.values import Key, Record, RecordMetadata, Tombstone

NOW = 1_700_000_000


@lru_cache(maxsize=1024)
def identity(number: int) -> Identity:
    """The identity number `number`: its seed repeats that number."""
    return Identity.from_seed(number.to_bytes(4, "big") * 8)


OWNER, ISSUER, HOST, NODE, STRANGER = (identity(number) for number in (1, 2, 3, 4, 5))


def a_key(label: str = "sample", owner: Identity = OWNER, created: int = NOW, challenge: bytes = b"") -> Key:
    """A key signed by its owner."""
    unsigned = Key(label, owner.peer_id, created, challenge, "", b"")
    return msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))


def a_metadata(
    key_id: str,
    issuer: Identity = ISSUER,
    host: Identity = HOST,
    issued: int = NOW,
    value: str = "",
    relay_id: tuple[str, ...] = (),
    service_id: tuple[str, ...] = ("service",),
) -> RecordMetadata:
    """Metadata signed by its issuer."""
    unsigned = RecordMetadata(key_id, issuer.peer_id, host.peer_id, issued, b"", value, relay_id, service_id, b"")
    return msgspec.structs.replace(unsigned, issuer_signature=issuer.sign(unsigned.signed_bytes()))


def a_record(
    key_id: str,
    issuer: Identity = ISSUER,
    host: Identity = HOST,
    issued: int = NOW,
    created: int | None = None,
    value: str = "",
    relay_id: tuple[str, ...] = (),
    service_id: tuple[str, ...] = ("service",),
) -> Record:
    """A record signed by issuer and host; the host signs at `created`, which is `issued` unless given."""
    metadata = a_metadata(key_id, issuer, host, issued, value, relay_id, service_id)
    return hosted(metadata, host, issued if created is None else created)


def hosted(metadata: RecordMetadata, host: Identity, created: int) -> Record:
    """The record of `metadata`, signed by `host` at `created`."""
    unsigned = Record(metadata, created, b"")
    return msgspec.structs.replace(unsigned, signature=host.sign(unsigned.signed_bytes()))


def a_tombstone(
    key_id: str, issuer: Identity = ISSUER, host: Identity = HOST, issued: int = NOW, solution: bytes = b""
) -> Tombstone:
    """A tombstone signed by its issuer."""
    unsigned = Tombstone(key_id, issuer.peer_id, host.peer_id, issued, solution, b"")
    return msgspec.structs.replace(unsigned, issuer_signature=issuer.sign(unsigned.signed_bytes()))


def weight_of(who: Identity, weight: int = 0) -> WeightResult:
    """What the weight function says of `who`."""
    return WeightResult(success=True, weight=weight, peer_id=who.peer_id)
