"""The functions of the service `registry` that need no storage: ids, and what owners, issuers and hosts sign."""

from __future__ import annotations

from collections.abc import Sequence

from registry.model.signing import key_id_of
from registry.model.values import Key, Record, RecordMetadata, Tombstone
from registry.service.call_context import ServiceView


class BytesToSign(ServiceView):
    """Ids and bytes to sign."""

    async def get_key_bytes(
        self, label: str, owner_peer_id: Sequence[str], timestamp_created: int, challenge: bytes, challenge_type: str
    ) -> bytes:
        """What the owner signs. The owner is the first of `owner_peer_id`, else the caller (docs/design.md,
        original's fault 17).

        Raises InvalidValue, like the other functions that have no result type to tell.
        """
        return Key(label, self._owner(owner_peer_id), timestamp_created, challenge, challenge_type, b"").signed_bytes()

    async def get_key_id(self, label: str, peer_id: str) -> str:
        """The id of the key with this label and owner; an empty `peer_id` names nobody, not the caller."""
        return key_id_of(label, peer_id)

    async def get_record_metadata_bytes(
        self,
        key_id: str,
        issued_by: str,
        timestamp_issued: int,
        value: str,
        peer_id: str,
        relay_id: Sequence[str],
        service_id: Sequence[str],
        solution: bytes,
    ) -> bytes:
        """What the issuer signs. Raises InvalidValue."""
        metadata = await self.create_record_metadata(
            key_id, issued_by, timestamp_issued, value, peer_id, relay_id, service_id, solution, b""
        )
        return metadata.signed_bytes()

    async def create_record_metadata(
        self,
        key_id: str,
        issued_by: str,
        timestamp_issued: int,
        value: str,
        peer_id: str,
        relay_id: Sequence[str],
        service_id: Sequence[str],
        solution: bytes,
        signature: bytes,
    ) -> RecordMetadata:
        """The value of these fields. Raises InvalidValue."""
        return RecordMetadata(
            key_id=key_id,
            issued_by=issued_by,
            peer_id=peer_id,
            timestamp_issued=timestamp_issued,
            solution=solution,
            value=value,
            relay_id=tuple(relay_id),
            service_id=tuple(service_id),
            issuer_signature=signature,
        )

    async def get_record_bytes(self, metadata: RecordMetadata, timestamp_created: int) -> bytes:
        """What the hosting peer signs. Raises InvalidValue."""
        return Record(metadata=metadata, timestamp_created=timestamp_created, signature=b"").signed_bytes()

    async def get_tombstone_bytes(
        self, key_id: str, issued_by: str, peer_id: str, timestamp_issued: int, solution: bytes
    ) -> bytes:
        """What the issuer of a tombstone signs. Raises InvalidValue."""
        return Tombstone(key_id, issued_by, peer_id, timestamp_issued, solution, b"").signed_bytes()
