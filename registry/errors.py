"""Every way in which the registry refuses, as one hierarchy.

`RegistryRefusal` and its subclasses carry the original's texts (`ServiceError` of Registry 0.9.4), because scripts and
people compare them; where ours refuses something that the original let pass, the text is ours.
"""

from __future__ import annotations


class RegistryError(Exception):
    """Base of everything that the registry raises for what a user, a peer or the disk did."""


class StorageError(RegistryError):
    """The data folder can't be used or its disk failed; the text names the path and the remedy."""


class InvalidValue(RegistryError, ValueError):
    """A key, record or tombstone whose form is wrong: it never becomes a value."""


class NodeUnavailable(RegistryError):
    """The node acted through can't be reached, or refuses because it has no neighbours."""


class RegistryRefusal(RegistryError):
    """A function of the service `registry` refused; `str()` is the text for the result's `error`."""


class InternalError(RegistryRefusal):
    def __init__(self, reason: object) -> None:
        super().__init__(f"Internal error: {reason}")


class KeyNotExists(RegistryRefusal):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"Requested key {key_id} does not exist")


class KeyRemoved(RegistryRefusal):
    """Ours: the owner ended the resource, or this state is from before that."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"Key {key_id} was removed by its owner")


class InvalidKeyTombstoneSignature(RegistryRefusal):
    def __init__(self, key_id: str, reason: str) -> None:
        super().__init__(f"Invalid key tombstone signature for key_id {key_id}: {reason}")


class KeyAlreadyExistsNewerTimestamp(RegistryRefusal):
    def __init__(self, label: str, owner_peer_id: str) -> None:
        super().__init__(f"Key {label} for {owner_peer_id} peer_id already exists with newer timestamp")


class ValuesLimitExceeded(RegistryRefusal):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"Values limit for key_d {key_id} is exceeded")  # sic: the original's text


class QuotaExceeded(RegistryRefusal):
    """Ours: what strangers may make a node keep is bounded; what it acknowledged before stays."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"quota exceeded: {reason}")


class InvalidTimestampTetraplet(RegistryRefusal):
    """In the particle path: the time isn't this host's."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"Invalid timestamp tetraplet: you should use host peer.timestamp_sec to pass timestamp: {found}"
        )


class InvalidWeightTetraplet(RegistryRefusal):
    """In the particle path: the weight isn't what this host says."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"Invalid weight tetraplet: you should use host trust-graph.get_weight to pass weight: {found}"
        )


class InvalidWeightPeerId(RegistryRefusal):
    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"Invalid weight peer_id: expected {expected}, found {found}")


class InvalidKeySignature(RegistryRefusal):
    def __init__(self, key_id: str, label: str, peer_id: str, reason: str) -> None:
        super().__init__(f"Invalid signature for key_id {key_id}; label {label} and peer_id {peer_id}: {reason}")


class InvalidRecordMetadataSignature(RegistryRefusal):
    def __init__(self, key_id: str, issued_by: str, reason: str) -> None:
        super().__init__(f"Invalid record metadata signature for key_id {key_id} and issued by {issued_by}: {reason}")


class InvalidRecordSignature(RegistryRefusal):
    def __init__(self, key_id: str, issued_by: str, reason: str) -> None:
        super().__init__(f"Invalid record signature for key_id {key_id} and issued by {issued_by}: {reason}")


class InvalidTombstoneSignature(RegistryRefusal):
    def __init__(self, key_id: str, issued_by: str, reason: str) -> None:
        super().__init__(f"Invalid tombstone signature for key_id {key_id} and issued by {issued_by}: {reason}")


class InvalidKeyTimestamp(RegistryRefusal):
    def __init__(self) -> None:
        super().__init__("Key can't be registered in the future")


class InvalidRecordMetadataTimestamp(RegistryRefusal):
    def __init__(self) -> None:
        super().__init__("Record metadata can't be issued in the future")


class InvalidRecordTimestamp(RegistryRefusal):
    def __init__(self) -> None:
        super().__init__("Record can't be registered in the future")


class InvalidTombstoneTimestamp(RegistryRefusal):
    def __init__(self) -> None:
        super().__init__("Tombstone can't be issued in the future")


class RecordAlreadyExpired(RegistryRefusal):
    def __init__(self) -> None:
        super().__init__("Record is already expired")


class KeyAlreadyExpired(RegistryRefusal):
    """Ours: the owner's signature is older than it may be; the owner's node re-issues keys before that."""

    def __init__(self) -> None:
        super().__init__("Key is already expired")


class TombstoneAlreadyExpired(RegistryRefusal):
    """Ours: older than anything that it could still kill."""

    def __init__(self) -> None:
        super().__init__("Tombstone is already expired")


class RecordsPublishingError(RegistryRefusal):
    def __init__(self) -> None:
        super().__init__("Records to publish should belong to one key id")


class TombstonesPublishingError(RegistryRefusal):
    def __init__(self) -> None:
        super().__init__("Tombstones to publish should belong to one key id")


class PeerIdParseError(RegistryRefusal):
    def __init__(self, reason: object) -> None:
        super().__init__(f"peer id parse error: {reason}")


class MissingRecordWeight(RegistryRefusal):
    def __init__(self, peer_id: str, set_by: str) -> None:
        # the trailing space is the original's
        super().__init__(f"Weight for record with peer_id {peer_id} and set_by {set_by} is missing ")


class KeysArgumentEmpty(RegistryRefusal):
    def __init__(self) -> None:
        super().__init__("merge_keys: keys argument is empty")


class NewerRecordOrTombstoneExists(RegistryRefusal):
    def __init__(self, key_id: str, issued_by: str, peer_id: str) -> None:
        super().__init__(
            f"Newer record or tombstone for key_id: {key_id}, issued_by: {issued_by}, peer_id: {peer_id} already exists"
        )


class NotPermitted(RegistryRefusal):
    """Ours (fault 19): only the node's operator may do this."""

    def __init__(self, function: str) -> None:
        super().__init__(f"{function}: only the node's operator may call this")


class HostingRefused(RegistryRefusal):
    """Ours: the peer that should host a record doesn't, by its operator's policy or quota."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"hosting refused: {reason}")


class NotResponsible(RegistryRefusal):
    """Ours: the peer isn't near enough to the resource to store it."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"Peer is not responsible for key {key_id}")
