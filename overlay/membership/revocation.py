"""Revocations: what a network's root took back, as a list that peers merge in any order and agree on.

An entry names a root, a key and a time. It ends every chain from that root in which the key is a subject: a member's
own certificate, and all that an invitation key admitted. Whoever was handed the right to admit could date its
certificates as it likes; so only a certificate that the root itself gave, and that begins after the entry's time, is
good again.

The list is a union: of entries about one key the latest stays, of a root's the `MOST_ENTRIES` latest. Only roots can
add to it, since entries are signed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, cast

import cbor2
import msgspec

from overlay.identity import Identity, peer_id_of, public_key_of, verify
from overlay.limits.decoder import DecodeError, decode
from overlay.membership.certificate import KEY_BYTES, LATEST, SIGNATURE_BYTES, Certificate

MOST_ENTRIES: Final = 512
"""Entries of one root that are kept, of about 140 bytes each."""

ENTRY_BYTES: Final = 160
"""One encoded entry has at most so many."""

_DOMAIN: Final = b"aqua-registry/revocation/1:"


class Revocation(msgspec.Struct, frozen=True, cache_hash=True, array_like=True, forbid_unknown_fields=True):
    """`root` (an Ed25519 public key, as `subject`) takes back at `time` (seconds since 1970) what `subject` got."""

    root: bytes
    subject: bytes
    time: int
    signature: bytes = b""

    def __post_init__(self) -> None:
        for key in (self.root, self.subject):
            if type(key) is not bytes or len(key) != KEY_BYTES:
                raise ValueError(f"a revocation names keys of {KEY_BYTES} bytes")
        if type(self.time) is not int or not 0 <= self.time <= LATEST:
            raise ValueError("a revocation's time is in seconds since 1970")
        if type(self.signature) is not bytes or len(self.signature) > SIGNATURE_BYTES:
            raise ValueError(f"a signature has {SIGNATURE_BYTES} bytes")

    @classmethod
    def by(cls, root: Identity, subject: bytes, time: int) -> Revocation:
        """The entry, signed."""
        entry = cls(public_key_of(root.peer_id), subject, time)
        return msgspec.structs.replace(entry, signature=root.sign(entry.signed_bytes()))

    def signed_bytes(self) -> bytes:
        """What the root signs. 32 bytes."""
        return sha256(_DOMAIN + cbor2.dumps(_fields(self)[:-1], canonical=True)).digest()

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        """What decides between two entries for one peer: the greater stays."""
        return self.time, self.subject, self.signature


class Revocations:
    """A list of entries. Immutable; entries are taken as genuine: see `genuine`."""

    def __init__(self, entries: Iterable[Revocation] = (), *, most: int = MOST_ENTRIES) -> None:
        """`most`: entries of one root that are kept."""
        self._most = most
        latest: dict[tuple[bytes, bytes], Revocation] = {}
        for entry in entries:
            place = entry.root, entry.subject
            if place not in latest or latest[place].order < entry.order:
                latest[place] = entry
        by_root: dict[bytes, list[Revocation]] = {}
        for entry in latest.values():
            by_root.setdefault(entry.root, []).append(entry)
        self._digest = b""
        self._entries: dict[tuple[bytes, bytes], Revocation] = {
            (entry.root, entry.subject): entry
            for root in sorted(by_root)
            for entry in sorted(by_root[root], key=lambda entry: entry.order)[-most:]
        }

    def __iter__(self) -> Iterator[Revocation]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Revocations) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.values()))

    def __or__(self, other: Iterable[Revocation]) -> Revocations:
        """Both together."""
        return Revocations([*self, *other], most=self._most)

    def beyond(self, other: Revocations) -> tuple[Revocation, ...]:
        """The entries that the other list lacks."""
        return tuple(entry for place, entry in self._entries.items() if other._entries.get(place) != entry)

    def of(self, root: bytes, subject: bytes) -> Revocation | None:
        """What a root says about a key."""
        return self._entries.get((root, subject))

    def revokes(self, chain: Sequence[Certificate]) -> bool:
        """Whether a chain that begins at a root was taken back."""
        root = chain[0].issuer
        for certificate in chain:
            entry = self._entries.get((root, certificate.subject))
            if entry is not None and not (certificate.issuer == root and certificate.not_before > entry.time):
                return True
        return False

    def digest(self) -> bytes:
        """32 bytes that are equal for equal lists."""
        if not self._digest:
            self._digest = sha256(b"".join(sorted(map(encode_entry, self)))).digest()
        return self._digest


def encode_entry(entry: Revocation) -> bytes:
    """An entry as it travels and is saved: deterministic CBOR."""
    return cbor2.dumps(_fields(entry), canonical=True)


def genuine(encoded: Iterable[object], roots: Collection[bytes]) -> list[Revocation]:
    """The entries among what somebody sent that are in form, by one of `roots`, and signed by it.

    Verdicts are remembered, so that an entry that comes again costs no signature.
    """
    found: list[Revocation] = []
    for item in encoded:
        entry = _decoded(item) if type(item) is bytes and len(item) <= ENTRY_BYTES else None
        if entry is not None and entry.root in roots and _is_signed(entry):
            found.append(entry)
    return found


def _decoded(encoded: bytes) -> Revocation | None:
    try:
        raw = decode(encoded, max_bytes=ENTRY_BYTES, max_items=8)
        entry = msgspec.convert(raw, Revocation, strict=True, builtin_types=(bytes,))
    except (DecodeError, msgspec.ValidationError):
        return None
    return entry if encode_entry(entry) == encoded else None


@lru_cache(maxsize=4096)
def _is_signed(entry: Revocation) -> bool:
    return verify(peer_id_of(entry.root), entry.signed_bytes(), entry.signature)


def _fields(entry: Revocation) -> list[Any]:
    return cast("list[Any]", msgspec.to_builtins(entry, builtin_types=(bytes,)))
