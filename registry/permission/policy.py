"""The policy of a resource: whom its owner lets register there, as it stands in the key's `challenge`.

A `challenge_type` that begins with "policy/" makes the challenge a policy; all others leave a resource open, as the
original's are. A policy is the CBOR array of its fields, deterministic and bounded: any other form makes the key
invalid. The first field of each version, also of later ones, is the revision, which orders keys: of a version that
isn't known here only that is read, and only the owner's records are served.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, cast

import cbor2
import msgspec

from overlay.errors import PeerIdError
from overlay.identity import peer_id_of, public_key_of
from overlay.limits.decoder import DecodeError, decode
from registry.permission.errors import InvalidPolicy, PolicyLocksOwnerOut, UnknownPolicyFields

POLICY_TYPE: Final = "policy/1"
MAX_POLICY: Final = 4096  # bytes, as a challenge may have
MAX_REVISION: Final = 2**32 - 1
MAX_ALLOWED: Final = 24
MAX_ROOTS: Final = 24
MAX_DENIALS: Final = 24
MAX_HOSTS: Final = 8
LONGEST_CHAIN: Final = 3
FOR_EVER: Final = 2**63 - 1
"""The end of a denial that has none."""
ANY_HOST: Final = b""

_PREFIX: Final = "policy/"
MARK: Final = _PREFIX.encode()
"""Is in the encoding of every key that has a policy."""
_VERSION: Final = re.compile(r"policy/[1-9][0-9]{0,8}")
_KEY_BYTES: Final = 32
_MAX_ITEMS: Final = 256  # of a policy's CBOR; full lists have 160


class Denial(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """What `issuer` issued until `until` (seconds, included) counts as not permitted: on `host`, or on any where that
    is empty. Both are public keys. Without a host it also holds for those whom the issuer certified."""

    issuer: bytes
    host: bytes
    until: int

    def __post_init__(self) -> None:
        _check_key("a denied issuer", self.issuer)
        if self.host != ANY_HOST:
            _check_key("the host of a denied issuer", self.host)
        if type(self.until) is not int or not 0 <= self.until <= FOR_EVER:
            raise InvalidPolicy("a denial's end isn't in seconds since 1970")


class Policy(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """Who may register on a resource beside its owner; `registry.permission.permitted` applies it.

    Anyone if it is `open`; the issuers in `allow`; and whom the `roots`, or the owner, certified, by chains of at most
    `longest_chain` certificates. Not whom `deny` names; and only on `hosts`, unless there are none. Keys are raw, lists
    in order. `previous`: the digest of the policy that this one was made from, empty for the first.
    """

    revision: int
    open: bool = False
    allow: tuple[bytes, ...] = ()
    roots: tuple[bytes, ...] = ()
    deny: tuple[Denial, ...] = ()
    hosts: tuple[bytes, ...] = ()
    longest_chain: int = LONGEST_CHAIN
    previous: bytes = b""

    def __post_init__(self) -> None:
        check_revision(self.revision)
        if type(self.open) is not bool:
            raise InvalidPolicy("whether it is open isn't true or false")
        _check_keys("allow", self.allow, MAX_ALLOWED)
        _check_keys("roots", self.roots, MAX_ROOTS)
        _check_keys("hosts", self.hosts, MAX_HOSTS)
        if type(self.deny) is not tuple or len(self.deny) > MAX_DENIALS:
            raise InvalidPolicy(f"more than {MAX_DENIALS} denials: keys are free, so use allow or roots")
        pairs = [(denial.issuer, denial.host) for denial in self.deny]
        if pairs != sorted(set(pairs)):
            raise InvalidPolicy("denials aren't in order, each pair once")
        if type(self.longest_chain) is not int or not 0 <= self.longest_chain <= LONGEST_CHAIN:
            raise InvalidPolicy(f"the longest chain isn't within 0 and {LONGEST_CHAIN}")
        if type(self.previous) is not bytes or len(self.previous) not in (0, 32):
            raise InvalidPolicy("the policy before isn't named by its digest")


class UnknownPolicy(msgspec.Struct, frozen=True):
    """A policy of a version that isn't known here: the owner alone may register."""

    revision: int


AnyPolicy = Policy | UnknownPolicy


def encode_policy(policy: Policy) -> bytes:
    """The policy as a challenge. Raises InvalidPolicy if it is too large for one."""
    encoded = cbor2.dumps(msgspec.to_builtins(policy, builtin_types=(bytes,)), canonical=True)
    if len(encoded) > MAX_POLICY:
        raise InvalidPolicy(f"it has {len(encoded)} bytes, more than {MAX_POLICY}")
    return encoded


def is_policy(challenge_type: str) -> bool:
    """Whether a challenge of this type is a policy."""
    return challenge_type.startswith(_PREFIX)


def policy_in(challenge_type: str, challenge: bytes, owner_peer_id: str) -> AnyPolicy | None:
    """The policy that a key carries, None if its resource is open. Raises InvalidPolicy, UnknownPolicyFields,
    PolicyLocksOwnerOut."""
    if not is_policy(challenge_type):
        return None
    if challenge_type != POLICY_TYPE:
        return _decode_unknown(challenge_type, challenge)
    policy = _decode(challenge)
    owner = public_key_of(owner_peer_id)
    if any(denial.issuer == owner for denial in policy.deny):
        raise PolicyLocksOwnerOut("it denies the resource's owner; leave the owner's key out of its denials")
    return policy


def policy_digest(challenge_type: str, challenge: bytes) -> bytes:
    """The identity of a policy, whatever key carries it. 32 bytes."""
    return sha256(b"%d:%b%b" % (len(challenge_type), challenge_type.encode(), challenge)).digest()


def check_revision(revision: object) -> None:
    """Raises InvalidPolicy unless it is one that a policy can have."""
    if type(revision) is not int or not 1 <= revision <= MAX_REVISION:
        raise InvalidPolicy(f"its revision isn't within 1 and {MAX_REVISION}")


def key_of(peer_id: str) -> bytes:
    """The public key of a peer as policies name it. Raises InvalidPolicy."""
    try:
        return public_key_of(peer_id)
    except PeerIdError as error:
        raise InvalidPolicy(str(error)) from error


def peer_of(key: bytes) -> str:
    """The peer id of a public key in a policy."""
    return peer_id_of(key)


@lru_cache(maxsize=1024)
def _decode(challenge: bytes) -> Policy:
    raw = _decoded(challenge)
    if len(raw) > len(Policy.__struct_fields__):
        raise UnknownPolicyFields(
            f"{POLICY_TYPE} with fields that it doesn't have; use a later version's type for them"
        )
    try:
        policy = msgspec.convert(raw, Policy, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise InvalidPolicy(str(error)) from error
    if encode_policy(policy) != challenge:
        raise InvalidPolicy("it isn't in deterministic CBOR, with all its fields")
    return policy


@lru_cache(maxsize=1024)
def _decode_unknown(challenge_type: str, challenge: bytes) -> UnknownPolicy:
    if _VERSION.fullmatch(challenge_type) is None:
        raise InvalidPolicy(f"{challenge_type[:40]!r} is no version of policies")
    raw = _decoded(challenge)
    check_revision(raw[0] if raw else None)
    return UnknownPolicy(cast("int", raw[0]))


def _decoded(challenge: bytes) -> list[Any]:
    try:
        raw = decode(challenge, max_bytes=MAX_POLICY, max_items=_MAX_ITEMS)
    except DecodeError as error:
        raise InvalidPolicy(f"it {error}") from error
    if not isinstance(raw, list):
        raise InvalidPolicy("it isn't a list of fields")
    return raw


def _check_keys(name: str, keys: object, most: int) -> None:
    if type(keys) is not tuple or len(keys) > most:
        raise InvalidPolicy(f"{name} has more than {most} keys: certificates of a root admit any number")
    for key in keys:
        _check_key(f"one of {name}", key)
    if list(keys) != sorted(set(keys)):
        raise InvalidPolicy(f"{name} isn't in order, each key once")


def _check_key(name: str, key: object) -> None:
    if type(key) is not bytes or len(key) != _KEY_BYTES:
        raise InvalidPolicy(f"{name} isn't a key of {_KEY_BYTES} bytes")
