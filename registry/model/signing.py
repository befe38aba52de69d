"""The bytes that owners, issuers and hosts sign, byte for byte as the original's, and what differs on purpose.

Rules, those of the original's `key.rs`, `record.rs` and `tombstone.rs` (vectors in tests/data/signing-vectors.json):

- every digest is sha256 over the fields in a fixed order; each string or byte field after its length, timestamps as
  8 bytes little endian; the 32 bytes of the digest are what Ed25519 signs;
- a length is one byte, as long as every field of the value has at most 255 bytes. When one is longer, all lengths are
  4 bytes little endian and a prefix names the type, so that no two values sign alike (docs/design.md, original's
  fault 2). The same holds for a value whose short layout would begin like that prefix;
- a record's digest covers its metadata, the issuer's signature and the host's timestamp (docs/design.md,
  original's fault 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import base58

Field = bytes | int | tuple[bytes, ...]

_ID_BYTES = 32
_LONGEST_ID = 44  # characters

_LONG = b"registry/v2/"  # how every prefix of the long layout begins


def key_id_of(label: str, owner_peer_id: str) -> str:
    """The id of the key (resource) that `owner_peer_id` gave `label`: base58 of 32 bytes (original: `get_key_id`)."""
    return base58.b58encode(sha256((label + owner_peer_id).encode()).digest()).decode()


def is_key_id(text: str) -> bool:
    """Whether `text` has the form of a key's id."""
    if len(text) > _LONGEST_ID:
        return False
    try:
        return len(base58.b58decode(text)) == _ID_BYTES
    except ValueError:
        return False


def key_digest(label: str, owner_peer_id: str, timestamp_created: int, challenge: bytes, challenge_type: str) -> bytes:
    """What the owner of a key signs (original: `get_key_bytes`). 32 bytes."""
    return _digest(
        b"registry/v2/key:",
        (label.encode(), owner_peer_id.encode(), timestamp_created, challenge, challenge_type.encode()),
    )


def metadata_digest(
    key_id: str,
    issued_by: str,
    peer_id: str,
    timestamp_issued: int,
    solution: bytes,
    value: str,
    relay_id: Sequence[str],
    service_id: Sequence[str],
) -> bytes:
    """What the issuer of a record signs (original: `get_record_metadata_bytes`). 32 bytes."""
    return _digest(
        b"registry/v2/metadata:",
        (
            key_id.encode(),
            issued_by.encode(),
            peer_id.encode(),
            timestamp_issued,
            solution,
            value.encode(),
            tuple(item.encode() for item in relay_id),
            tuple(item.encode() for item in service_id),
        ),
    )


def record_digest(signed_metadata: bytes, issuer_signature: bytes, timestamp_created: int) -> bytes:
    """What the hosting peer signs (original: `get_record_bytes`, mended). `signed_metadata` is `metadata_digest`."""
    # The original's nested layout: one field that holds the metadata's digest, then the signature after its length.
    signed = signed_metadata + bytes((len(issuer_signature),)) + issuer_signature
    return _digest(b"registry/v2/record:", (signed, timestamp_created))


def tombstone_digest(key_id: str, issued_by: str, peer_id: str, timestamp_issued: int, solution: bytes) -> bytes:
    """What the issuer of a tombstone signs (original: `get_tombstone_bytes`). 32 bytes."""
    return _digest(
        b"registry/v2/tombstone:", (key_id.encode(), issued_by.encode(), peer_id.encode(), timestamp_issued, solution)
    )


def key_tombstone_digest(
    key_id: str, label: str, owner_peer_id: str, timestamp_issued: int, revision: int = 0
) -> bytes:
    """What an owner signs to remove a resource, which is ours alone. 32 bytes; always the long layout.

    `revision`: above 0 where the resource has a policy; then it is signed too, under a domain of its own.
    """
    fields: tuple[Field, ...] = (key_id.encode(), label.encode(), owner_peer_id.encode(), timestamp_issued)
    prefix = b"registry/key-tombstone:"
    if revision:
        fields, prefix = (*fields, revision), b"registry/key-tombstone-of-policy:"
    return sha256(prefix + b"".join(_laid_out(field, 4) for field in fields)).digest()


def _digest(long_prefix: bytes, fields: tuple[Field, ...]) -> bytes:
    longest = max((len(part) for field in fields if not isinstance(field, int) for part in _parts(field)), default=0)
    if longest <= 255:
        short = b"".join(_laid_out(field, 1) for field in fields)
        if not short.startswith(
            _LONG
        ):  # a field of 114 bytes that begins "egistry/v2/" would look like the long layout
            return sha256(short).digest()
    return sha256(long_prefix + b"".join(_laid_out(field, 4) for field in fields)).digest()


def _parts(field: bytes | tuple[bytes, ...]) -> tuple[bytes, ...]:
    return (field,) if isinstance(field, bytes) else field


def _laid_out(field: Field, length_bytes: int) -> bytes:
    if isinstance(field, int):
        return field.to_bytes(8, "little")
    if isinstance(field, bytes):
        return len(field).to_bytes(length_bytes, "little") + field
    counted = len(field).to_bytes(4, "little")  # the count of a list is 4 bytes wide in both layouts
    return counted + b"".join(_laid_out(part, length_bytes) for part in field)
