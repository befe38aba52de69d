"""The original's `registry-api`: signing, and single functions of the service `registry` on the node acted through.

Same function names, argument names, order and results; `?T` is `T | None`, `[]u8` is bytes. Signatures are made by
this identity here, never by the node. The results tell what the network does; it never raises.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from aqua_compat.schema.arguments import (
    check_bytes,
    check_instance,
    check_peer_id,
    check_resource_id,
    check_string,
    check_strings,
    check_u64,
)
from aqua_compat.schema.constants import Constants
from overlay.errors import OverlayError
from registry.errors import RegistryError
from registry.model.names import Names
from registry.model.service_results import GetKeyMetadataResult, RegisterKeyResult, RegistryResult
from registry.model.signing import key_digest, metadata_digest, tombstone_digest
from registry.model.values import Key, RecordMetadata

if TYPE_CHECKING:
    from registry.client.registry import Registry

Result = TypeVar("Result", RegisterKeyResult, RegistryResult, GetKeyMetadataResult)


class SignatureResult(msgspec.Struct, frozen=True):
    """A signature, or why there is none (original: the signing service's `SignatureResult`)."""

    success: bool
    error: str | None = None
    signature: bytes | None = None


class RegistryApi:
    """The functions of `registry-api`, acting as one user through one node or light client."""

    def __init__(self, registry: Registry, constants: Constants, names: Names | None = None) -> None:
        self._registry = registry
        self.constants = constants
        self.names = (names or Names()).of(registry.identity.peer_id)

    def _key_id(self, text: str) -> str:
        return check_resource_id("key_id", text, self.names)

    async def getKeySignature(self, label: str, timestamp_created: int) -> SignatureResult:
        """This identity's signature, as owner, of the key `label` of that time (seconds)."""
        identity = self._registry.identity
        label, timestamp = check_string("label", label), check_u64("timestamp_created", timestamp_created)
        return SignatureResult(True, None, identity.sign(key_digest(label, identity.peer_id, timestamp, b"", "")))

    async def getRecordMetadata(
        self,
        key_id: str,
        value: str,
        peer_id: str,
        relay_id: list[str],
        service_id: list[str],
        solution: bytes,
    ) -> tuple[RecordMetadata | None, str | None]:
        """Metadata of a record, issued and signed by this identity now; or None and why not."""
        identity = self._registry.identity
        key_id, value = self._key_id(key_id), check_string("value", value)
        peer_id, solution = check_peer_id("peer_id", peer_id), check_bytes("solution", solution)
        relays, services = check_strings("relay_id", relay_id), check_strings("service_id", service_id)
        issued = int(time.time())
        digest = metadata_digest(key_id, identity.peer_id, peer_id, issued, solution, value, relays, services)
        return (
            RecordMetadata(
                key_id, identity.peer_id, peer_id, issued, solution, value, relays, services, identity.sign(digest)
            ),
            None,
        )

    async def getRecordSignature(self, metadata: RecordMetadata, timestamp_created: int) -> SignatureResult:
        """The signature of the peer that the metadata names as host.

        When that is another peer, it signs by its policy, only at its own present time, and keeps the record.
        """
        metadata = check_instance("metadata", metadata, RecordMetadata)
        timestamp = check_u64("timestamp_created", timestamp_created)
        try:
            signature = await self._registry.host_signature(metadata, timestamp, timeout=self.constants.timeout)
        except (OverlayError, RegistryError) as error:
            return SignatureResult(False, str(error))
        return SignatureResult(True, None, signature)

    async def getTombstoneSignature(
        self, key_id: str, peer_id: str, timestamp_issued: int, solution: bytes
    ) -> SignatureResult:
        """This identity's signature, as issuer, of a tombstone of that time (seconds)."""
        identity = self._registry.identity
        digest = tombstone_digest(
            self._key_id(key_id),
            identity.peer_id,
            check_peer_id("peer_id", peer_id),
            check_u64("timestamp_issued", timestamp_issued),
            check_bytes("solution", solution),
        )
        return SignatureResult(True, None, identity.sign(digest))

    async def registerKey(self, label: str, timestamp_created: int, signature: bytes) -> RegisterKeyResult:
        """Store a key owned by this identity on the node acted through, and only there."""
        return await self._on_host(
            RegisterKeyResult,
            "register_key",
            check_string("label", label),
            (),
            check_u64("timestamp_created", timestamp_created),
            b"",
            "",
            check_bytes("signature", signature),
            None,
            None,
        )

    async def putRecord(self, metadata: RecordMetadata, timestamp_created: int, signature: bytes) -> RegistryResult:
        """Store a record on the node acted through, and only there; `signature` is its hosting peer's."""
        return await self._on_host(
            RegistryResult,
            "put_record",
            check_instance("metadata", metadata, RecordMetadata),
            check_u64("timestamp_created", timestamp_created),
            check_bytes("signature", signature),
            None,
            None,
        )

    async def addTombstone(
        self, key_id: str, peer_id: str, timestamp_issued: int, solution: bytes, signature: bytes
    ) -> RegistryResult:
        """Store a tombstone issued by this identity on the node acted through, and only there."""
        return await self._on_host(
            RegistryResult,
            "add_tombstone",
            self._key_id(key_id),
            self._registry.identity.peer_id,
            check_peer_id("peer_id", peer_id),
            check_u64("timestamp_issued", timestamp_issued),
            check_bytes("solution", solution),
            check_bytes("signature", signature),
            None,
        )

    async def getKeyMetadata(self, key_id: str) -> GetKeyMetadataResult:
        """The key as the node acted through has it stored."""
        return await self._on_host(GetKeyMetadataResult, "get_key_metadata", self._key_id(key_id))

    async def republishKey(self, key: Key) -> RegistryResult:
        """Store a key, whoever owns it, on the node acted through; one older than the stored one changes nothing."""
        return await self._on_host(RegistryResult, "republish_key", check_instance("key", key, Key), None, None)

    async def _on_host(self, form: type[Result], function: str, *arguments: object) -> Result:
        try:
            return cast("Result", await self._registry.on_host(function, *arguments, timeout=self.constants.timeout))
        except (OverlayError, RegistryError) as error:
            return form(success=False, error=str(error))
