"""The channel between the two peers of a relayed call, sealed against the relays between them.

Pure: without I/O, clock or network.

1. The caller opens a session: its and the called peer's id, a fresh X25519 key and a time, signed by its identity.
2. The called peer accepts: a session id, a fresh X25519 key and the hash of what it accepts, signed by its identity.
   Both derive a key for each direction from the shared secret and from all that was signed (SIGMA's idea, Krawczyk
   2003).
3. Each request has a number of its own and is sealed (ChaCha20-Poly1305, RFC 8439) with that as the nonce; its answer
   is sealed with the same number in the other direction. A number is opened once.

A relay sees sizes and times. A session's keys die with it: a thief of an identity can't read earlier sessions.
"""

from __future__ import annotations

from hashlib import blake2b, sha256
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_box_keypair,
    crypto_scalarmult,
)
from nacl.exceptions import CryptoError

from overlay.identity import Identity, verify
from overlay.rpc.framing import FrameError, decode_item, encode_item

WINDOW: Final = 4096  # numbers behind the greatest that are still opened: more than there are calls under way

_OPENING_DOMAIN: Final = b"aqua-registry/relayed-opening/1\0"
_ACCEPTANCE_DOMAIN: Final = b"aqua-registry/relayed-acceptance/1\0"
_KEYS: Final = b"aqua-relayed/1"

_PeerId = Annotated[str, Meta(min_length=1, max_length=64)]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
SessionId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Number = Annotated[int, Meta(ge=0, le=2**53)]

T = TypeVar("T", bound=Struct)


class SecureChannelError(ValueError):
    """What came isn't from the peer that it should be from, isn't for this peer, was altered, or was opened before."""


class Opening(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a caller signs to open a session. `time`: seconds since 1970 by the caller's clock."""

    caller: _PeerId
    target: _PeerId
    key: _Bytes32
    time: float


class Acceptance(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the called peer signs to accept a session. `opening`: the hash of the opening as it came."""

    opening: _Bytes32
    session: SessionId
    key: _Bytes32


class _Signed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    payload: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class SecureSession:
    """A session with one peer, as its caller or as the called peer holds it."""

    def __init__(self, session_id: bytes, peer_id: str, requests: bytes, answers: bytes) -> None:
        """`requests`, `answers`: the keys of the two directions, 32 bytes each."""
        self.id = session_id
        self.peer_id = peer_id
        self._requests = requests
        self._answers = answers
        self._next = 0
        self._greatest = -1
        self._opened = 0  # bit n: number greatest - n

    def seal_request(self, plain: bytes) -> tuple[int, bytes]:
        """The number of a request, and the sealed request."""
        number = self._next
        self._next += 1
        return number, self._seal(self._requests, number, plain)

    def open_request(self, number: int, sealed: bytes) -> bytes:
        """The request in `sealed`; each number is opened once. Raises `SecureChannelError`."""
        if number <= self._greatest - WINDOW or (
            number <= self._greatest and self._opened >> (self._greatest - number) & 1
        ):
            raise SecureChannelError("the request was served already")
        plain = self._open(self._requests, number, sealed)
        if number > self._greatest:
            self._opened = (self._opened << min(number - self._greatest, WINDOW)) & (1 << WINDOW) - 1
            self._greatest = number
        self._opened |= 1 << (self._greatest - number)
        return plain

    def seal_answer(self, number: int, plain: bytes) -> bytes:
        """The sealed answer to a request. To be called once per number, since a nonce mustn't repeat."""
        return self._seal(self._answers, number, plain)

    def open_answer(self, number: int, sealed: bytes) -> bytes:
        """The answer to the request of that number. Raises `SecureChannelError`."""
        return self._open(self._answers, number, sealed)

    def _seal(self, key: bytes, number: int, plain: bytes) -> bytes:
        return crypto_aead_chacha20poly1305_ietf_encrypt(plain, self.id, _nonce(number), key)

    def _open(self, key: bytes, number: int, sealed: bytes) -> bytes:
        try:
            return crypto_aead_chacha20poly1305_ietf_decrypt(sealed, self.id, _nonce(number), key)
        except (CryptoError, ValueError) as error:
            raise SecureChannelError("not sealed by the peer, or altered") from error


class PendingSession:
    """The opening of a session by this peer, until it is accepted."""

    def __init__(self, identity: Identity, target: str, now: float) -> None:
        public, self._private = crypto_box_keypair()
        self._target = target
        self.sealed = _signed(identity, _OPENING_DOMAIN, Opening(identity.peer_id, target, public, now))
        """The signed opening, as it is sent."""

    def accepted(self, raw: object) -> SecureSession:
        """The session, if the target accepted this offer. Raises `SecureChannelError`."""
        acceptance = _opened(raw, self._target, _ACCEPTANCE_DOMAIN, Acceptance)
        if acceptance.opening != sha256(self.sealed).digest():
            raise SecureChannelError("another session was accepted")
        return _session(acceptance.session, self._target, self._private, acceptance.key, self.sealed, _raw(raw))


def opening_of(raw: object, target: str) -> Opening:
    """The opening in `raw`, signed by the caller that it names and meant for `target`. Raises `SecureChannelError`."""
    try:
        caller = msgspec.convert(decode_item(_parts(raw).payload), Opening, builtin_types=(bytes,)).caller
    except (msgspec.ValidationError, FrameError) as error:
        raise SecureChannelError(f"not an opening: {error}") from error
    opening = _opened(raw, caller, _OPENING_DOMAIN, Opening)
    if opening.target != target:
        raise SecureChannelError("it is for another peer")
    return opening


def accept(identity: Identity, raw: object, opening: Opening, session_id: bytes) -> tuple[SecureSession, bytes]:
    """The session that `opening`, which came as `raw`, asks for, and the answer that accepts it.

    Raises `SecureChannelError`.
    """
    public, private = crypto_box_keypair()
    acceptance = Acceptance(sha256(_raw(raw)).digest(), session_id, public)
    answer = _signed(identity, _ACCEPTANCE_DOMAIN, acceptance)
    return _session(session_id, opening.caller, private, opening.key, _raw(raw), answer), answer


def _session(
    session_id: bytes, peer_id: str, private: bytes, public: bytes, opening: bytes, answer: bytes
) -> SecureSession:
    try:
        shared = crypto_scalarmult(private, public)
    except (CryptoError, RuntimeError) as error:  # a point of small order
        raise SecureChannelError("not a usable key") from error
    said = sha256(sha256(opening).digest() + sha256(answer).digest()).digest()
    keys = blake2b(said, key=shared, digest_size=64, person=_KEYS).digest()
    return SecureSession(session_id, peer_id, keys[:32], keys[32:])


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _signed(identity: Identity, domain: bytes, value: Struct) -> bytes:
    payload = encode_item(msgspec.to_builtins(value, builtin_types=(bytes,)))
    return encode_item([payload, identity.sign(domain + payload)])


def _raw(raw: object) -> bytes:
    if not isinstance(raw, bytes):
        raise SecureChannelError("not bytes")
    return raw


def _parts(raw: object) -> _Signed:
    return msgspec.convert(decode_item(_raw(raw)), _Signed, builtin_types=(bytes,))


def _opened(raw: object, signer: str, domain: bytes, form: type[T]) -> T:
    try:
        signed = _parts(raw)
        if not verify(signer, domain + signed.payload, signed.signature):
            raise SecureChannelError(f"not signed by {signer}")
        return msgspec.convert(decode_item(signed.payload), form, builtin_types=(bytes,))
    except (msgspec.ValidationError, FrameError) as error:
        raise SecureChannelError(str(error)) from error
    except ValueError as error:  # the signer is no peer id
        raise SecureChannelError(str(error)) from error
