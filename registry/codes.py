"""What each refusal of the registry is, for programs: a code beside the text, and what kind of refusal that is.

Codes travel (`registry.protocol.error_info`, `overlay.errors.Refusal.code`), so they never change their meaning. A code
that a reader doesn't know counts as `FAILED`. Decisions are made by codes and kinds, never by texts.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final


class Kind(Enum):
    """What asking again may come to."""

    FINAL = "final"
    """The same request is refused again, by every peer."""
    ASKED = "asked"
    """It's about the peer that was asked: another one may take it."""
    CLOCK = "clock"
    """The two peers' clocks differ; later may work."""
    DISK = "disk"
    """The peer's disk failed, or is full; later may work."""
    LOAD = "load"
    """The peer has too much to do; later may work."""
    NETWORK = "network"
    """The peer wasn't reached or didn't answer; later may work."""
    UNKNOWN = "unknown"
    """The peer gave no cause that this version knows; later may work."""

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed at the same peer later."""
        return self not in (Kind.FINAL, Kind.ASKED)


class Code(StrEnum):
    """Every code; `kind` tells what it is."""

    FAILED = "failed"
    REFUSED = "refused"
    INVALID = "invalid"
    UNKNOWN_KIND = "unknown-kind"
    INTERNAL = "internal"
    STORAGE = "storage"
    DISK_FULL = "disk-full"
    DATABASE_DAMAGED = "database-damaged"
    NODE_UNAVAILABLE = "node-unavailable"
    NOT_CONNECTED = "not-connected"
    STOPPING = "stopping"
    OVERLOADED = "overloaded"
    UNREACHABLE = "unreachable"
    CONNECTION_LOST = "lost"
    TIMEOUT = "timeout"
    NO_SUCH_METHOD = "no-such-method"
    TOO_LARGE = "too-large"
    BAD_ANSWER = "bad-answer"
    CLOCK = "clock"
    CATCHING_UP = "catching-up"
    NOT_RESPONSIBLE = "not-responsible"
    TOO_FEW_REPLICAS = "too-few-replicas"
    NOT_PERMITTED = "not-permitted"
    HOSTING_REFUSED = "hosting"
    INSTANCE_UNKNOWN = "instance-unknown"
    QUOTA_EXCEEDED = "quota-exceeded"
    RATE_EXCEEDED = "rate-exceeded"
    VALUES_LIMIT_EXCEEDED = "values-limit-exceeded"
    KEY_NOT_EXISTS = "key-not-exists"
    KEY_REMOVED = "key-removed"
    NEWER_KEY_EXISTS = "newer-key-exists"
    NEWER_STATE_EXISTS = "newer-state-exists"
    KEY_FROM_FUTURE = "key-from-future"
    METADATA_FROM_FUTURE = "metadata-from-future"
    RECORD_FROM_FUTURE = "record-from-future"
    TOMBSTONE_FROM_FUTURE = "tombstone-from-future"
    KEY_EXPIRED = "key-expired"
    RECORD_EXPIRED = "record-expired"
    TOMBSTONE_EXPIRED = "tombstone-expired"
    KEY_SIGNATURE = "key-signature"
    KEY_TOMBSTONE_SIGNATURE = "key-tombstone-signature"
    METADATA_SIGNATURE = "metadata-signature"
    RECORD_SIGNATURE = "record-signature"
    TOMBSTONE_SIGNATURE = "tombstone-signature"
    PEER_ID = "peer-id"
    TIMESTAMP_TETRAPLET = "timestamp-tetraplet"
    WEIGHT_TETRAPLET = "weight-tetraplet"
    WEIGHT_PEER_ID = "weight-peer-id"
    WEIGHT_MISSING = "weight-missing"
    KEYS_EMPTY = "keys-empty"
    RECORDS_OF_SEVERAL_KEYS = "records-of-several-keys"
    TOMBSTONES_OF_SEVERAL_KEYS = "tombstones-of-several-keys"
    POLICY_FORM = "policy-form"
    POLICY_UNKNOWN_FIELDS = "policy-unknown-fields"
    POLICY_LOCKS_OWNER_OUT = "policy-locks-owner-out"
    POLICY_UNKNOWN = "policy-unknown"
    ISSUER_NOT_ALLOWED = "issuer-not-allowed"
    ISSUER_DENIED = "issuer-denied"
    HOST_NOT_ALLOWED = "host-not-allowed"
    CERTIFICATE_FORM = "certificate-form"
    CERTIFICATE_UNKNOWN_FIELDS = "certificate-unknown-fields"
    CERTIFICATE_CHAIN_TOO_LONG = "certificate-chain-too-long"
    CERTIFICATE_ROOT = "certificate-root"
    CERTIFICATE_LINK = "certificate-link"
    CERTIFICATE_SUBJECT = "certificate-subject"
    CERTIFICATE_PERMISSION = "certificate-permission"
    CERTIFICATE_DEPTH = "certificate-depth"
    CERTIFICATE_RESOURCE = "certificate-resource"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_SIGNATURE = "certificate-signature"
    TRUST_FORM = "trust-form"
    TRUST_SIGNATURE = "trust-signature"
    TRUST_EXPIRED = "trust-expired"
    TRUST_FROM_FUTURE = "trust-from-future"
    TRUST_OWNER = "trust-owner"
    TRUST_STRANGER = "trust-stranger"

    @property
    def kind(self) -> Kind:
        """What asking again may come to."""
        return _KINDS.get(self, Kind.FINAL)

    @property
    def is_by_policy(self) -> bool:
        """Whether it is refused by the policy of the resource, so that another key may let it in."""
        return self in _BY_POLICY

    @classmethod
    def known(cls, code: str) -> Code:
        """The code that a peer sent; `FAILED` for one that this version doesn't know."""
        return _CODES.get(code, cls.FAILED)


_CODES: Final[dict[str, Code]] = {code.value: code for code in Code}

_BY_POLICY: Final = frozenset(
    code
    for code in Code
    if code.value.startswith("certificate-")
    or code in (Code.POLICY_UNKNOWN, Code.ISSUER_NOT_ALLOWED, Code.ISSUER_DENIED, Code.HOST_NOT_ALLOWED)
)

_KINDS: Final[dict[Code, Kind]] = {
    Code.FAILED: Kind.UNKNOWN,
    Code.UNKNOWN_KIND: Kind.ASKED,
    Code.INTERNAL: Kind.ASKED,
    Code.STORAGE: Kind.DISK,
    Code.DISK_FULL: Kind.DISK,
    Code.DATABASE_DAMAGED: Kind.DISK,
    Code.NODE_UNAVAILABLE: Kind.NETWORK,
    Code.NOT_CONNECTED: Kind.NETWORK,
    Code.STOPPING: Kind.ASKED,
    Code.OVERLOADED: Kind.LOAD,
    Code.UNREACHABLE: Kind.NETWORK,
    Code.CONNECTION_LOST: Kind.NETWORK,
    Code.TIMEOUT: Kind.NETWORK,
    Code.NO_SUCH_METHOD: Kind.ASKED,
    Code.BAD_ANSWER: Kind.ASKED,
    Code.CLOCK: Kind.CLOCK,
    Code.CATCHING_UP: Kind.ASKED,
    Code.NOT_RESPONSIBLE: Kind.ASKED,
    Code.TOO_FEW_REPLICAS: Kind.NETWORK,
    Code.QUOTA_EXCEEDED: Kind.ASKED,
    Code.RATE_EXCEEDED: Kind.LOAD,
    Code.VALUES_LIMIT_EXCEEDED: Kind.ASKED,
    Code.KEY_NOT_EXISTS: Kind.ASKED,
    Code.KEY_FROM_FUTURE: Kind.CLOCK,
    Code.METADATA_FROM_FUTURE: Kind.CLOCK,
    Code.RECORD_FROM_FUTURE: Kind.CLOCK,
    Code.TOMBSTONE_FROM_FUTURE: Kind.CLOCK,
    # By the key that this peer has; another one may have a later one.
    Code.POLICY_UNKNOWN: Kind.ASKED,
    Code.ISSUER_NOT_ALLOWED: Kind.ASKED,
    Code.ISSUER_DENIED: Kind.ASKED,
    Code.HOST_NOT_ALLOWED: Kind.ASKED,
    Code.CERTIFICATE_UNKNOWN_FIELDS: Kind.ASKED,
    Code.CERTIFICATE_CHAIN_TOO_LONG: Kind.ASKED,
    Code.CERTIFICATE_ROOT: Kind.ASKED,
    Code.TRUST_FROM_FUTURE: Kind.CLOCK,
    Code.TRUST_OWNER: Kind.ASKED,
    Code.TRUST_STRANGER: Kind.ASKED,  # by whom the operator of this peer trusts
}
"""All others are final."""
