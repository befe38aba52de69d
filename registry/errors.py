"""Every way in which the registry refuses, as one hierarchy.

`RegistryRefusal` and its subclasses carry the texts of Registry 0.9.4's errors, because scripts and people compare
them; where ours refuses something that the original let pass, the text is ours. Our own code decides by `code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from registry.codes import Code

MOST_NAMED: Final = 16  # peers in the text of one error


class RegistryError(Exception):
    """Base of everything that the registry raises for what a user, a peer or the disk did.

    `code` says what it is, for programs; `str()` is the text for people.
    """

    code: Code = Code.FAILED
    retry_after: float = 0.0
    """Seconds after which the same may be taken, as far as whoever refused it for its load told; 0: it didn't."""

    @classmethod
    def told(cls, text: str) -> Self:
        """An error of this class with the text that another peer gave."""
        error = cls.__new__(cls)
        Exception.__init__(error, text)
        return error


class StorageError(RegistryError):
    """The data folder can't be used or its disk failed; the text names the path and the remedy."""

    code = Code.STORAGE


class DatabaseDamaged(StorageError):
    """The database isn't what was written to it."""

    code = Code.DATABASE_DAMAGED


class InvalidValue(RegistryError, ValueError):
    """A key, record or tombstone whose form is wrong: it never becomes a value."""

    code = Code.INVALID


class UnknownKind(InvalidValue):
    """A value, item or announcement of a kind, or with further fields, that a later version may know."""

    code = Code.UNKNOWN_KIND


class NodeUnavailable(RegistryError):
    """The node acted through can't be reached, or refuses because it has no neighbours."""

    code = Code.NODE_UNAVAILABLE


class RegistryRefusal(RegistryError):
    """A function of the service `registry` refused; `str()` is the text for the result's `error`."""

    code = Code.REFUSED


class InternalError(RegistryRefusal):
    """Something that no rule of the registry foresees."""

    code = Code.INTERNAL

    def __init__(self, reason: object) -> None:
        super().__init__(f"Internal error: {reason}")


class KeyNotExists(RegistryRefusal):
    """No key of this id is known to who was asked."""

    code = Code.KEY_NOT_EXISTS

    def __init__(self, key_id: str) -> None:
        super().__init__(f"Requested key {key_id} does not exist")


class TooFewReplicas(RegistryRefusal):
    """Ours: fewer replicas are known than have to answer, or to take a write."""

    code = Code.TOO_FEW_REPLICAS

    def __init__(self, known: int, wanted: int) -> None:
        super().__init__(f"{known} of {wanted} replicas are known")


class KeyRemoved(RegistryRefusal):
    """Ours: the owner ended the resource, or this state is from before that."""

    code = Code.KEY_REMOVED

    def __init__(self, key_id: str) -> None:
        super().__init__(f"Key {key_id} was removed by its owner")


class InvalidKeyTombstoneSignature(RegistryRefusal):
    """A key tombstone that the key's owner didn't sign."""

    code = Code.KEY_TOMBSTONE_SIGNATURE

    def __init__(self, key_id: str, reason: str) -> None:
        super().__init__(f"Invalid key tombstone signature for key_id {key_id}: {reason}")


class KeyAlreadyExistsNewerTimestamp(RegistryRefusal):
    """A greater key is stored already."""

    code = Code.NEWER_KEY_EXISTS

    def __init__(self, label: str, owner_peer_id: str) -> None:
        super().__init__(f"Key {label} for {owner_peer_id} peer_id already exists with newer timestamp")


class ValuesLimitExceeded(RegistryRefusal):
    """The key has as many records as it may have, and none of them weighs less."""

    code = Code.VALUES_LIMIT_EXCEEDED

    def __init__(self, key_id: str) -> None:
        super().__init__(f"Values limit for key_d {key_id} is exceeded")  # sic: the original's text


class ClockOff(RegistryRefusal):
    """Ours: this machine's clock is wrong, as enough peers say. `difference`: as in "40 s ahead of 3 peers'"."""

    code = Code.CLOCK

    def __init__(self, difference: str, remedy: str = "set it") -> None:
        super().__init__(f"this machine's clock is {difference}; {remedy}")


class QuotaExceeded(RegistryRefusal):
    """Ours: what strangers may make a node keep is bounded; what it acknowledged before stays."""

    code = Code.QUOTA_EXCEEDED

    def __init__(self, reason: str) -> None:
        super().__init__(f"quota exceeded: {reason}")


class NodeOverloaded(RegistryRefusal):
    """Ours: whoever was asked has too much to do; after `retry_after` seconds it may take the same."""

    code = Code.OVERLOADED

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(f"overloaded: {reason}; come back in {retry_after:.1f} s")
        self.retry_after = retry_after


class RateExceeded(QuotaExceeded):
    """Ours: somebody asks for too much at once; in a moment it may be taken."""

    code = Code.RATE_EXCEEDED


class DiskFull(QuotaExceeded):
    """Ours: the disk's budget is full, and nobody who takes more has to give way; later there may be room."""

    code = Code.DISK_FULL

    def __init__(self, budget: int) -> None:
        super().__init__(f"this peer's disk budget of {budget} bytes is full")


class InvalidTimestampTetraplet(RegistryRefusal):
    """In the particle path: the time isn't this host's."""

    code = Code.TIMESTAMP_TETRAPLET

    def __init__(self, found: str) -> None:
        super().__init__(
            f"Invalid timestamp tetraplet: you should use host peer.timestamp_sec to pass timestamp: {found}"
        )


class InvalidWeightTetraplet(RegistryRefusal):
    """In the particle path: the weight isn't what this host says."""

    code = Code.WEIGHT_TETRAPLET

    def __init__(self, found: str) -> None:
        super().__init__(
            f"Invalid weight tetraplet: you should use host trust-graph.get_weight to pass weight: {found}"
        )


class InvalidWeightPeerId(RegistryRefusal):
    """The weight given is another peer's."""

    code = Code.WEIGHT_PEER_ID

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"Invalid weight peer_id: expected {expected}, found {found}")


class InvalidKeySignature(RegistryRefusal):
    """A key that its owner didn't sign."""

    code = Code.KEY_SIGNATURE

    def __init__(self, key_id: str, label: str, peer_id: str, reason: str) -> None:
        super().__init__(f"Invalid signature for key_id {key_id}; label {label} and peer_id {peer_id}: {reason}")


class InvalidRecordMetadataSignature(RegistryRefusal):
    """A record's metadata that its issuer didn't sign."""

    code = Code.METADATA_SIGNATURE

    def __init__(self, key_id: str, issued_by: str, reason: str) -> None:
        super().__init__(f"Invalid record metadata signature for key_id {key_id} and issued by {issued_by}: {reason}")


class InvalidRecordSignature(RegistryRefusal):
    """A record that its host didn't sign."""

    code = Code.RECORD_SIGNATURE

    def __init__(self, key_id: str, issued_by: str, reason: str) -> None:
        super().__init__(f"Invalid record signature for key_id {key_id} and issued by {issued_by}: {reason}")


class InvalidTombstoneSignature(RegistryRefusal):
    """A tombstone that its issuer didn't sign."""

    code = Code.TOMBSTONE_SIGNATURE

    def __init__(self, key_id: str, issued_by: str, reason: str) -> None:
        super().__init__(f"Invalid tombstone signature for key_id {key_id} and issued by {issued_by}: {reason}")


class InvalidKeyTimestamp(RegistryRefusal):
    """A key of a later time than this peer's clock and its tolerance allow."""

    code = Code.KEY_FROM_FUTURE

    def __init__(self) -> None:
        super().__init__("Key can't be registered in the future")


class InvalidRecordMetadataTimestamp(RegistryRefusal):
    """Metadata of a later time than this peer's clock and its tolerance allow."""

    code = Code.METADATA_FROM_FUTURE

    def __init__(self) -> None:
        super().__init__("Record metadata can't be issued in the future")


class InvalidRecordTimestamp(RegistryRefusal):
    """A record of a later time than this peer's clock and its tolerance allow."""

    code = Code.RECORD_FROM_FUTURE

    def __init__(self) -> None:
        super().__init__("Record can't be registered in the future")


class InvalidTombstoneTimestamp(RegistryRefusal):
    """A tombstone of a later time than this peer's clock and its tolerance allow."""

    code = Code.TOMBSTONE_FROM_FUTURE

    def __init__(self) -> None:
        super().__init__("Tombstone can't be issued in the future")


class RecordAlreadyExpired(RegistryRefusal):
    """A record whose host's or issuer's signature is older than it may be."""

    code = Code.RECORD_EXPIRED

    def __init__(self) -> None:
        super().__init__("Record is already expired")


class KeyAlreadyExpired(RegistryRefusal):
    """Ours: the owner's signature is older than it may be; the owner's node re-issues keys before that."""

    code = Code.KEY_EXPIRED

    def __init__(self) -> None:
        super().__init__("Key is already expired")


class TombstoneAlreadyExpired(RegistryRefusal):
    """Ours: older than anything that it could still kill."""

    code = Code.TOMBSTONE_EXPIRED

    def __init__(self) -> None:
        super().__init__("Tombstone is already expired")


class RecordsPublishingError(RegistryRefusal):
    """The records given are of several keys."""

    code = Code.RECORDS_OF_SEVERAL_KEYS

    def __init__(self) -> None:
        super().__init__("Records to publish should belong to one key id")


class TombstonesPublishingError(RegistryRefusal):
    """The tombstones given are of several keys."""

    code = Code.TOMBSTONES_OF_SEVERAL_KEYS

    def __init__(self) -> None:
        super().__init__("Tombstones to publish should belong to one key id")


class PeerIdParseError(RegistryRefusal):
    """Text that should be a peer id and is none."""

    code = Code.PEER_ID

    def __init__(self, reason: object) -> None:
        super().__init__(f"peer id parse error: {reason}")


class MissingRecordWeight(RegistryRefusal):
    """Fewer weights than records were given."""

    code = Code.WEIGHT_MISSING

    def __init__(self, peer_id: str, set_by: str) -> None:
        # the trailing space is the original's
        super().__init__(f"Weight for record with peer_id {peer_id} and set_by {set_by} is missing ")


class KeysArgumentEmpty(RegistryRefusal):
    """None of the keys to merge is genuine, or there are none."""

    code = Code.KEYS_EMPTY

    def __init__(self) -> None:
        super().__init__("merge_keys: keys argument is empty")


def several_issuers(host: str, issuers: Sequence[str]) -> InvalidValue:
    """An owner would end what others registered on a host, and doesn't say which of them."""
    shown = ", ".join(issuers[:MOST_NAMED]) + (" and more" if len(issuers) > MOST_NAMED else "")
    return InvalidValue(
        f"{len(issuers)} others registered services on {host}; name the one to end (issuer=, --issuer): {shown}"
    )


class NewerRecordOrTombstoneExists(RegistryRefusal):
    """A greater state of the slot is stored already."""

    code = Code.NEWER_STATE_EXISTS

    def __init__(self, key_id: str, issued_by: str, peer_id: str) -> None:
        super().__init__(
            f"Newer record or tombstone for key_id: {key_id}, issued_by: {issued_by}, peer_id: {peer_id} already exists"
        )


class NotPermitted(RegistryRefusal):
    """Ours (docs/design.md, original's fault 19): only the node's operator may do this."""

    code = Code.NOT_PERMITTED

    def __init__(self, function: str) -> None:
        super().__init__(f"{function}: only the node's operator may call this; its setting `operators` names them")


class HostingRefused(RegistryRefusal):
    """Ours: the peer that should host a record doesn't, by its operator's policy or quota, or for the cause that
    `code` tells."""

    code = Code.HOSTING_REFUSED

    def __init__(self, reason: str, *, code: Code = Code.HOSTING_REFUSED, retry_after: float = 0.0) -> None:
        super().__init__(f"hosting refused: {reason}")
        self.code = code
        self.retry_after = retry_after


class NotResponsible(RegistryRefusal):
    """Ours: the peer isn't near enough to the resource to store it."""

    code = Code.NOT_RESPONSIBLE

    def __init__(self, key_id: str) -> None:
        super().__init__(f"Peer is not responsible for key {key_id}")
