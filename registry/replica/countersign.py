"""Signing records as their host: those that the operator's policy and quotas allow.

What is signed is only the digest of a record that names this peer as host, for metadata with a genuine and timely
issuer's signature, at this peer's own time (docs/design.md, Permission).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import trio

from overlay.errors import Refusal
from overlay.identity import Identity
from overlay.limits.token_bucket import TokenBuckets
from registry.codes import Code
from registry.errors import HostingRefused, InvalidValue, RegistryError
from registry.model.decoding import decode_key, decode_metadata
from registry.model.merge import greater_key, is_served
from registry.model.policy_withholding import why_withheld
from registry.model.signing import record_digest
from registry.model.values import Key, Record, RecordMetadata, Slot, State, encode
from registry.model.verification import check_field_limits, check_key, check_metadata
from registry.permission.errors import RefusedByPolicy
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import COUNTERSIGN, CountersignBody, Item, parse
from registry.protocol.network import Clock, Network
from registry.replica.ingest import Ingest
from registry.settings import RegistrySettings
from registry.storage import Store


class SignedStates(Protocol):
    """Sees to it that what this peer signs is written, though whoever asked for it may go away meanwhile: satisfied by
    `registry.client.abandoned_writes.AbandonedWrites`."""

    def note(self, key_id: str, slot: Slot | None) -> None:
        """Notes that a state of this slot is about to be signed; without a slot, the key itself or its tombstone."""
        ...

    def settle(self, items: Iterable[Item]) -> None:
        """Notes that the writes of these are under way."""
        ...


def sign_record(identity: Identity, metadata: RecordMetadata, timestamp_created: int) -> Record:
    """A record by its host. `timestamp_created` in seconds."""
    digest = record_digest(metadata.signed_bytes(), metadata.issuer_signature, timestamp_created)
    return Record(metadata=metadata, timestamp_created=timestamp_created, signature=identity.sign(digest))


class Countersigner:
    """Signs records that name this peer as their host: for others (`registry.countersign`) and for this process."""

    def __init__(
        self,
        network: Network,
        identity: Identity,
        store: Store,
        ingest: Ingest,
        settings: RegistrySettings,
        clock: Clock,
        signed: SignedStates,
    ) -> None:
        """`signed` is told what is signed and stored here, before it is."""
        self._identity = identity
        self.signed = signed
        self._store = store
        self._ingest = ingest
        self._settings = settings
        self._clock = clock
        self.clock_guard = ingest.clock_guard
        self._rates = TokenBuckets(settings.hosting.rate, settings.hosting.burst)
        network.serve(COUNTERSIGN, self._serve_countersign, relayed=True)

    @property
    def peer_id(self) -> str:
        """The host."""
        return self._identity.peer_id

    def sign(self, metadata: RecordMetadata, timestamp_created: int) -> Record:
        """A record that an identity of this process issues on this peer. `timestamp_created` in seconds."""
        return sign_record(self._identity, metadata, timestamp_created)

    async def countersign(self, key: Key, metadata: RecordMetadata, timestamp_created: int | None = None) -> Record:
        """Signs a record that names this peer as its host, and keeps it. Raises RegistryError, with the cause.

        `timestamp_created`: the time to sign, within the tolerance for clocks; this peer's own by default.
        """
        await self.clock_guard.wait()
        now = int(self._clock())
        if metadata.key_id != key.id:
            raise InvalidValue(f"the metadata is of key {metadata.key_id}, sent with key {key.id}")
        self.check(metadata, timestamp_created)
        check_field_limits(key, self._settings)
        check_key(key, now, self._settings)
        known = await self._state(metadata.slot)
        if (
            isinstance(known, Record)
            and known.metadata == metadata
            and timestamp_created in (None, known.timestamp_created)
            and is_served(known, now, self._settings)
        ):
            return known  # asked again, for instance after an answer was lost: costs no quota
        stored = await self._store.resource(key.id)
        why = why_withheld(greater_key(stored.key, key), metadata, now)
        if why is not None:
            raise RefusedByPolicy(key.id, why, metadata.issued_by, metadata.peer_id)
        if not self.trusts(metadata.issued_by):
            await self._check_policy(metadata, is_update=isinstance(known, Record))
        signed_at = self.clock_guard.time_to_sign() if timestamp_created is None else timestamp_created
        record = sign_record(self._identity, metadata, signed_at)
        self.signed.note(key.id, record.slot)
        error = await self._ingest.keep(Item(key, record))
        if error:
            raise HostingRefused(error.text, code=error.known_code)
        return record

    def check(self, metadata: RecordMetadata, timestamp_created: int | None) -> None:
        """Raises RegistryError for what this peer wouldn't sign whatever the key."""
        self.clock_guard.check()
        now = int(self._clock())
        if timestamp_created is not None and abs(timestamp_created - now) > self._settings.clock_skew:
            raise HostingRefused(f"{timestamp_created} isn't the time of this peer, where it is {now}", code=Code.CLOCK)
        if metadata.peer_id != self._identity.peer_id:
            raise HostingRefused(f"the record names {metadata.peer_id} as its host, this is {self._identity.peer_id}")
        check_field_limits(metadata, self._settings)
        check_metadata(metadata, now, self._settings)

    def trusts(self, issuer: str) -> bool:
        """Whether no quota binds this issuer."""
        return issuer == self._identity.peer_id or issuer in self._settings.hosting.issuers

    def check_allowed(self, issuer: str) -> None:
        """Raises HostingRefused for an issuer of whom the operator wants nothing hosted."""
        if not self.trusts(issuer) and self._settings.hosting.allow != "anyone":
            raise HostingRefused(f"this peer hosts no records issued by {issuer}")

    async def has_countersigned(self, metadata: RecordMetadata) -> bool:
        """Whether the record with this metadata is what this peer hosts in its slot now."""
        known = await self._state(metadata.slot)
        return isinstance(known, Record) and known.metadata == metadata

    async def countersigned(self, slot: Slot) -> tuple[Key, Record] | None:
        """The record that this peer hosts in a slot, and its key."""
        resource = await self._store.resource(slot.key_id)
        record, key = resource.slots.get(slot), resource.key
        return (key, record) if isinstance(record, Record) and key is not None else None

    async def keep_key(self, key: Key) -> None:
        """Keeps a key of this peer's own, which it renews. Raises KeyRemoved and other kinds of RegistryError."""
        self.signed.note(key.id, None)
        error = await self._ingest.keep(Item(key))
        if error and error.code != Code.NEWER_KEY_EXISTS:
            raise error.exception()

    async def keep(self, item: Item) -> None:
        """Keeps anything else of this peer's: what it renews, or mustn't renew. Raises RegistryRefusal."""
        error = await self._ingest.keep(item)
        if error:
            raise error.exception()

    async def _state(self, slot: Slot) -> State | None:
        return (await self._store.resource(slot.key_id)).slots.get(slot)

    async def _check_policy(self, metadata: RecordMetadata, *, is_update: bool) -> None:
        policy, issuer = self._settings.hosting, metadata.issued_by
        self.check_allowed(issuer)
        now = trio.current_time()
        if not self._rates.take(issuer, now):
            wait = self._rates.wait(issuer, now)
            raise HostingRefused(
                f"too many requests by {issuer}; come back in {wait:.1f} s", code=Code.RATE_EXCEEDED, retry_after=wait
            )
        records, size, by_issuer = await self._store.read(
            lambda transaction: transaction.counts.hosting(self._identity.peer_id, issuer)
        )
        if is_update:
            return
        if by_issuer >= policy.max_records_per_issuer:
            raise HostingRefused(
                f"this peer already hosts {by_issuer} records issued by {issuer}", code=Code.QUOTA_EXCEEDED
            )
        if records >= policy.max_records or size + len(encode(metadata)) > policy.max_bytes:
            raise HostingRefused("this peer's quota for records of others is used up", code=Code.QUOTA_EXCEEDED)

    async def _serve_countersign(self, caller: str, body: object) -> object:  # noqa: ARG002 - the issuer's signature counts
        try:
            request = parse(body, CountersignBody)
            record = await self.countersign(decode_key(request.key), decode_metadata(request.metadata))
        except RegistryError as error:
            info = ErrorInfo.of(error)
            raise Refusal(info.code, info.text, error.retry_after) from error
        return encode(record)
