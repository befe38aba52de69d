"""A certificate: what one key permits another, where and from when until when, signed; it is checked offline.

Its form is the CBOR array of its fields, deterministic: other encodings of the same are refused. The layer that gives
certificates says what they permit (`permits`) and on what (`scope`); the digest that is signed covers both, under a
domain of certificates alone, so that no other signature passes for one, nor one for another purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, cast

import cbor2
import msgspec

from overlay.errors import OverlayError
from overlay.identity import Identity, peer_id_of, verify
from overlay.limits.decoder import DecodeError, decode

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
MAX_CHAIN: Final = 3
"""Certificates from a root to who shows them, and so the signatures that are checked at most."""
MAX_PERMITS: Final = 4
MAX_PERMIT: Final = 32  # bytes of one permission's name
MAX_SCOPE: Final = 384  # bytes
MAX_CHAIN_BYTES: Final = 4096
LATEST: Final = 2**63 - 1  # seconds since 1970

_DOMAIN: Final = b"aqua-registry/certificate/1:"
_CHAIN: Final = "certificates/1"
_MAX_ITEMS: Final = 64  # of a chain's CBOR: three certificates have 39


class CertificateFault(StrEnum):
    """Why a chain of certificates doesn't permit what is asked."""

    FORM = "form"
    """What should be certificates has another form."""
    UNKNOWN_FIELDS = "unknown-fields"
    """A certificate says more than this version knows, which could narrow what it permits."""
    TOO_LONG = "too-long"
    """There are more certificates than may be."""
    ROOT = "root"
    """The first one isn't by a root."""
    LINK = "link"
    """One wasn't issued by the subject of the one before."""
    SUBJECT = "subject"
    """The last one is for somebody else."""
    PERMISSION = "permission"
    """The last one doesn't permit this."""
    DEPTH = "depth"
    """One that was handed on mustn't be, or not so often."""
    SCOPE = "scope"
    """One is for something else."""
    NOT_YET_VALID = "not-yet-valid"
    """One begins after it was used."""
    EXPIRED = "expired"
    """One has ended."""
    SIGNATURE = "signature"
    """One isn't signed by its issuer."""


class CertificateError(OverlayError, ValueError):
    """Bytes or fields that are no certificates. `fault` is FORM, UNKNOWN_FIELDS or TOO_LONG."""

    def __init__(self, fault: CertificateFault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class Certificate(msgspec.Struct, frozen=True, cache_hash=True, array_like=True, forbid_unknown_fields=True):
    """`issuer` (an Ed25519 public key, as `subject`) permits `subject` what `permits` names, within `scope`.

    `depth`: how many further certificates may follow this one in a chain. It holds for what is signed at `not_before`
    or later, and until the clock says `expires_at` (seconds since 1970).
    """

    issuer: bytes
    subject: bytes
    permits: tuple[str, ...]
    depth: int
    scope: bytes
    not_before: int
    expires_at: int
    signature: bytes = b""

    def __post_init__(self) -> None:
        for name, key in (("issuer", self.issuer), ("subject", self.subject)):
            if type(key) is not bytes or len(key) != KEY_BYTES:
                raise _malformed(f"{name} isn't a key of {KEY_BYTES} bytes")
        if type(self.permits) is not tuple or len(self.permits) > MAX_PERMITS:
            raise _malformed(f"it permits no list of at most {MAX_PERMITS} names")
        if any(type(name) is not str or not name.isascii() or len(name) > MAX_PERMIT for name in self.permits):
            raise _malformed(f"it permits what has no name of at most {MAX_PERMIT} ASCII characters")
        if list(self.permits) != sorted(set(self.permits)):
            raise _malformed("what it permits isn't in order, each once")
        if type(self.depth) is not int or not 0 <= self.depth < MAX_CHAIN:
            raise _malformed(f"its depth isn't within 0 and {MAX_CHAIN - 1}")
        if type(self.scope) is not bytes or len(self.scope) > MAX_SCOPE:
            raise _malformed(f"its scope isn't of at most {MAX_SCOPE} bytes")
        for name, time in (("not_before", self.not_before), ("expires_at", self.expires_at)):
            if type(time) is not int or not 0 <= time <= LATEST:
                raise _malformed(f"{name} isn't in seconds since 1970")
        if type(self.signature) is not bytes or len(self.signature) > SIGNATURE_BYTES:
            raise _malformed(f"its signature isn't of {SIGNATURE_BYTES} bytes")

    def signed_bytes(self) -> bytes:
        """What the issuer signs. 32 bytes."""
        return sha256(_DOMAIN + cbor2.dumps(_fields(self)[:-1], canonical=True)).digest()

    def signed_by(self, issuer: Identity) -> Certificate:
        """The same with the signature of `issuer`, which must be whom it names."""
        return msgspec.structs.replace(self, signature=issuer.sign(self.signed_bytes()))


def is_genuine(certificate: Certificate) -> bool:
    """Whether its issuer signed it. Verdicts are remembered, so that a chain that is shown again costs no signature."""
    return _verdict(certificate)


@lru_cache(maxsize=4096)
def _verdict(certificate: Certificate) -> bool:
    return verify(peer_id_of(certificate.issuer), certificate.signed_bytes(), certificate.signature)


def encode_chain(chain: Sequence[Certificate]) -> bytes:
    """A chain as it travels: a marker, and each certificate's fields, the root's first."""
    return cbor2.dumps([_CHAIN, [_fields(certificate) for certificate in chain]], canonical=True)


def decode_chain(encoded: bytes) -> tuple[Certificate, ...]:
    """The certificates of a chain, whose form is checked and nothing else; none of empty bytes. Raises
    CertificateError."""
    return _decode_chain(encoded) if encoded else ()


@lru_cache(maxsize=1024)
def _decode_chain(encoded: bytes) -> tuple[Certificate, ...]:
    try:
        raw = decode(encoded, max_bytes=MAX_CHAIN_BYTES, max_items=_MAX_ITEMS)
    except DecodeError as error:
        raise _malformed(f"a chain that {error}") from error
    match raw:
        case ["certificates/1", list(parts)]:
            pass
        case ["certificates/1", list(_), *_]:
            raise CertificateError(
                CertificateFault.UNKNOWN_FIELDS, "a chain with fields that this version doesn't know"
            )
        case _:
            raise _malformed("not a chain of certificates")
    if len(parts) > MAX_CHAIN:
        raise CertificateError(
            CertificateFault.TOO_LONG, f"a chain of {len(parts)} certificates; at most {MAX_CHAIN} are taken"
        )
    chain = tuple(_certificate(part) for part in parts)
    if encode_chain(chain) != encoded:
        raise _malformed("a chain that isn't in deterministic CBOR")
    return chain


def _certificate(raw: object) -> Certificate:
    if isinstance(raw, list) and len(raw) > len(Certificate.__struct_fields__):
        raise CertificateError(
            CertificateFault.UNKNOWN_FIELDS, "a certificate with fields that this version doesn't know; issue it anew"
        )
    try:
        return msgspec.convert(raw, Certificate, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _malformed(f"not a certificate: {error}") from error


def _fields(certificate: Certificate) -> list[Any]:
    return cast("list[Any]", msgspec.to_builtins(certificate, builtin_types=(bytes,)))


def _malformed(text: str) -> CertificateError:
    return CertificateError(CertificateFault.FORM, text)
