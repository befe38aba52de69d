"""What peers sign of each other: trusts and revocations, byte for byte as the original's, and chains of trusts.

Rules:
- A digest is sha256 of the other peer's public key after a byte that names its type, and of times as 8 bytes little
  endian; a revocation's begins with the key's length. Ed25519 signs its 32 bytes.
- Of what one peer says of another the latest counts; of one second a revocation rather than a trust, then the trust
  that ends later, then the greater signature (docs/design.md, original's fault 30: there by arrival).
- A trust counts until it expires, and for `LONGEST_TRUST` at most. So a revocation of a time can be forgotten as long
  after it: whatever it revokes has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final

import base58
import msgspec

from overlay.errors import PeerIdError
from overlay.identity import peer_id_of, public_key_of, verify
from registry.errors import PeerIdParseError
from registry.trust.errors import TrustForm

LONGEST_TRUST: Final = 3_650 * 86_400
"""Seconds for which a trust counts, whatever it says; and for which a revocation is kept."""
MAX_STEPS: Final = 16
"""Trusts in a chain below a root's in itself, at most: then weights are at their end."""
MAX_CHAIN: Final = MAX_STEPS + 1
"""Trusts in a certificate."""
U64_MAX: Final = 2**64 - 1
SIGNATURE_BYTES: Final = 64
KEY_TYPE: Final = "ed25519"

_TYPE: Final = b"\x00"  # Ed25519, before keys and signatures
_LONGEST_FIELD: Final = 100  # characters of a key or signature in base58: 64 bytes and a type take 90
_LINES: Final = 4  # of a trust in a certificate's text
_HEAD: Final = 2  # lines before them: format and version, which nobody heeds


class TrustStatement(msgspec.Struct, frozen=True):
    """What one peer signs when it trusts another, or itself."""

    issued_by: str
    issued_for: str
    issued_at: int
    expires_at: int
    """Seconds since 1970, as `issued_at`."""
    signature: bytes

    @property
    def ends_at(self) -> int:
        """When it stops to count."""
        return min(self.expires_at, self.issued_at + LONGEST_TRUST)

    @property
    def is_of_itself(self) -> bool:
        """Whether a peer signed it for itself: so chains begin."""
        return self.issued_by == self.issued_for

    def digest(self) -> bytes:
        """What its issuer signs."""
        return trust_digest(self.issued_for, self.expires_at, self.issued_at)

    def order(self) -> tuple[int, bool, int, bytes]:
        """What decides between two statements of a pair: the greater one counts."""
        return self.issued_at, False, self.expires_at, self.signature


class TrustRevocation(msgspec.Struct, frozen=True):
    """What one peer signs to end its trust in another, and every path from it to that one."""

    issued_by: str
    issued_for: str
    """Who is revoked."""
    issued_at: int
    signature: bytes

    @property
    def ends_at(self) -> int:
        """When all that it revokes has ended."""
        return self.issued_at + LONGEST_TRUST

    def digest(self) -> bytes:
        """What its issuer signs."""
        return revocation_digest(self.issued_for, self.issued_at)

    def order(self) -> tuple[int, bool, int, bytes]:
        """What decides between two statements of a pair, as of a trust."""
        return self.issued_at, True, 0, self.signature


Statement = TrustStatement | TrustRevocation
Chain = tuple[TrustStatement, ...]
"""A certificate: from a root's trust in itself to the peer that it is for."""


def trust_digest(issued_for: str, expires_at: int, issued_at: int) -> bytes:
    """What the issuer of a trust signs (original: `get_trust_bytes`). Raises PeerIdParseError, TrustForm."""
    return sha256(_TYPE + _key(issued_for) + _seconds(expires_at) + _seconds(issued_at)).digest()


def revocation_digest(revoked_peer_id: str, revoked_at: int) -> bytes:
    """What the issuer of a revocation signs (original: `get_revocation_bytes`). Raises PeerIdParseError, TrustForm."""
    key = _TYPE + _key(revoked_peer_id)
    return sha256(bytes([len(key)]) + key + _seconds(revoked_at)).digest()


def is_genuine(statement: Statement) -> bool:
    """Whether its issuer signed it. Raises PeerIdParseError, TrustForm."""
    _key(statement.issued_by)
    return verify(statement.issued_by, statement.digest(), statement.signature)


def chain_of(trusts: Sequence[TrustStatement]) -> Chain:
    """The trusts of a certificate, which don't name their issuers: each is by the peer before, the first by itself.

    Raises TrustForm.
    """
    if not trusts:
        raise TrustForm("Chain is empty")
    if len(trusts) > MAX_CHAIN:
        raise TrustForm(f"the certificate has {len(trusts)} trusts, more than {MAX_CHAIN}")
    issuers = (trusts[0].issued_for, *(trust.issued_for for trust in trusts))
    return tuple(
        msgspec.structs.replace(trust, issued_by=issuer) for issuer, trust in zip(issuers, trusts, strict=False)
    )


def chain_from_text(text: str) -> Chain:
    """The certificate in a text: two lines that are ignored, then four for each trust, with its key, signature, end and
    time (original: `insert_cert_raw`). Raises TrustForm, PeerIdParseError."""
    lines = text.splitlines() if len(text) <= (_LINES * MAX_CHAIN + _HEAD) * (_LONGEST_FIELD + 2) else []
    if len(lines) < _HEAD or (len(lines) - _HEAD) % _LINES:  # the original ends when there is no second line
        raise TrustForm(f"Incorrect format of the certificate: {text[:_LONGEST_FIELD]}")
    return chain_of(list(_trusts_in(lines[_HEAD:])))


def _trusts_in(lines: Sequence[str]) -> Iterator[TrustStatement]:
    for first in range(0, len(lines), _LINES):
        key, signature, expires_at, issued_at = lines[first : first + _LINES]
        number = first + _HEAD
        yield TrustStatement(
            "",
            peer_id_of(_typed(key, 32, "issued_for", number)),
            _number(issued_at, "issued_at", number),
            _number(expires_at, "expires_at", number),
            _typed(signature, SIGNATURE_BYTES, "signature", number),
        )


def _typed(text: str, length: int, field: str, number: int) -> bytes:
    """A key or signature without the byte that names its type."""
    raw = bytes_of_base58(text, field)
    if len(raw) != length + 1 or not raw.startswith(_TYPE):
        raise TrustForm(f"Cannot convert trust number {number} from string: {field} isn't that of an Ed25519 key")
    return raw[1:]


def _number(text: str, field: str, number: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= U64_MAX):
        raise TrustForm(f"Cannot convert trust number {number} from string: {field} is no time in seconds")
    return int(text)


def bytes_of_base58(text: str, field: str) -> bytes:
    """The bytes of a key or a signature. Raises TrustForm."""
    try:
        return base58.b58decode(text if len(text) <= _LONGEST_FIELD else "0")
    except ValueError:
        raise TrustForm(f"Cannot convert base58 string to bytes: {field}") from None


def _key(peer_id: str) -> bytes:
    try:
        return public_key_of(peer_id)
    except PeerIdError:
        raise PeerIdParseError(repr(peer_id[:64])) from None


def _seconds(time: int) -> bytes:
    if not 0 <= time <= U64_MAX:
        raise TrustForm(f"a time isn't whole seconds within 0 and {U64_MAX}")
    return time.to_bytes(8, "little")


def shown_signature(statement: Statement) -> str:
    """A statement's signature as texts have it."""
    return base58.b58encode(statement.signature).decode()
