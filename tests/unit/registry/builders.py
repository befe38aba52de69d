"""Small builders of signed values, functions of their arguments alone, and the service that they are given to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

import msgspec

from overlay.identity import Identity, public_key_of
from overlay.membership.certificate import Certificate
from registry.model.service_results import RegisterKeyResult, RegistryResult, WeightResult
from registry.model.signing import key_id_of
from registry.model.values import Key, KeyTombstone, Record, RecordMetadata, Tombstone
from registry.permission.permitted import REGISTER
from registry.permission.policy import POLICY_TYPE, Policy, encode_policy
from registry.permission.scope import Scope, ScopeKind
from registry.replica.sender_limits import SenderLimits
from registry.service import RegistryService
from registry.settings import CurrentSettings, RegistrySettings
from registry.storage import Store, open_store
from registry.trust.statements import TrustRevocation, TrustStatement

NOW = 1_700_000_000


@lru_cache(maxsize=1024)
def identity(number: int) -> Identity:
    """The identity number `number`: its seed repeats that number."""
    return Identity.from_seed(number.to_bytes(4, "big") * 8)


OWNER, ISSUER, HOST, NODE, STRANGER = (identity(number) for number in (1, 2, 3, 4, 5))


def a_key(
    label: str = "sample",
    owner: Identity = OWNER,
    created: int = NOW,
    challenge: bytes = b"",
    policy: Policy | None = None,
) -> Key:
    """A key signed by its owner, with a policy or any other challenge."""
    kind = "" if policy is None else POLICY_TYPE
    unsigned = Key(label, owner.peer_id, created, challenge if policy is None else encode_policy(policy), kind, b"")
    return msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))


def a_metadata(
    key_id: str,
    issuer: Identity = ISSUER,
    host: Identity = HOST,
    issued: int = NOW,
    value: str = "",
    relay_id: tuple[str, ...] = (),
    service_id: tuple[str, ...] = ("service",),
    solution: bytes = b"",
) -> RecordMetadata:
    """Metadata signed by its issuer."""
    unsigned = RecordMetadata(key_id, issuer.peer_id, host.peer_id, issued, solution, value, relay_id, service_id, b"")
    return msgspec.structs.replace(unsigned, issuer_signature=issuer.sign(unsigned.signed_bytes()))


def a_record(
    key_id: str,
    issuer: Identity = ISSUER,
    host: Identity = HOST,
    issued: int = NOW,
    created: int | None = None,
    value: str = "",
    relay_id: tuple[str, ...] = (),
    service_id: tuple[str, ...] = ("service",),
    solution: bytes = b"",
) -> Record:
    """A record signed by issuer and host; the host signs at `created`, which is `issued` unless given."""
    metadata = a_metadata(key_id, issuer, host, issued, value, relay_id, service_id, solution)
    return hosted(metadata, host, issued if created is None else created)


def hosted(metadata: RecordMetadata, host: Identity, created: int) -> Record:
    """The record of `metadata`, signed by `host` at `created`."""
    unsigned = Record(metadata, created, b"")
    return msgspec.structs.replace(unsigned, signature=host.sign(unsigned.signed_bytes()))


def a_tombstone(
    key_id: str, issuer: Identity = ISSUER, host: Identity = HOST, issued: int = NOW, solution: bytes = b""
) -> Tombstone:
    """A tombstone signed by its issuer."""
    unsigned = Tombstone(key_id, issuer.peer_id, host.peer_id, issued, solution, b"")
    return msgspec.structs.replace(unsigned, issuer_signature=issuer.sign(unsigned.signed_bytes()))


def a_key_tombstone(
    label: str = "sample", owner: Identity = OWNER, issued: int = NOW, revision: int = 0
) -> KeyTombstone:
    """A key tombstone signed by the owner."""
    unsigned = KeyTombstone(key_id_of(label, owner.peer_id), label, owner.peer_id, issued, b"", revision)
    return msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))


def public_key(who: Identity) -> bytes:
    """The public key of `who`, as policies and certificates name it."""
    return public_key_of(who.peer_id)


def keys_of(*who: Identity) -> tuple[bytes, ...]:
    """Their public keys, in the order in which policies have them."""
    return tuple(sorted(map(public_key, who)))


def a_certificate(
    issuer: Identity = OWNER,
    subject: Identity = ISSUER,
    *,
    scope: Scope | None = None,
    permits: tuple[str, ...] = (REGISTER,),
    depth: int = 0,
    not_before: int = NOW - 60,
    expires_at: int = NOW + 3600,
) -> Certificate:
    """A certificate signed by its issuer; of all resources of OWNER by default."""
    scope = scope or Scope(ScopeKind.ALL, public_key(OWNER))
    unsigned = Certificate(
        public_key(issuer), public_key(subject), permits, depth, scope.encoded(), not_before, expires_at
    )
    return unsigned.signed_by(issuer)


def a_trust(by: Identity, whom: Identity, issued: int = NOW, expires: int = NOW + 3600) -> TrustStatement:
    """What `by` signs when it trusts `whom`."""
    unsigned = TrustStatement(by.peer_id, whom.peer_id, issued, expires, b"")
    return msgspec.structs.replace(unsigned, signature=by.sign(unsigned.digest()))


def a_revocation(by: Identity, whom: Identity, issued: int = NOW) -> TrustRevocation:
    """What `by` signs when it revokes `whom`."""
    unsigned = TrustRevocation(by.peer_id, whom.peer_id, issued, b"")
    return msgspec.structs.replace(unsigned, signature=by.sign(unsigned.digest()))


def weight_of(who: Identity, weight: int = 0) -> WeightResult:
    """What the weight function says of `who`."""
    return WeightResult(success=True, weight=weight, peer_id=who.peer_id)


@asynccontextmanager
async def open_service(path: Path, rules: RegistrySettings | None = None) -> AsyncIterator[RegistryService]:
    """The service of NODE over the database in the folder `path`, called by its operator."""
    async with open_store(path / "registry.sqlite", inline=True) as store:
        yield service_over(store, rules or RegistrySettings())


def service_over(store: Store, rules: RegistrySettings) -> RegistryService:
    """The service of NODE over `store`, called by its operator."""
    return RegistryService(store, NODE.peer_id, CurrentSettings(rules), SenderLimits(NODE.peer_id, rules))


async def register(service: RegistryService, key: Key, weight: int = 0, now: int = NOW) -> RegisterKeyResult:
    """`register_key` with the fields of `key`."""
    return await service.register_key(
        key.label,
        (key.owner_peer_id,),
        key.timestamp_created,
        key.challenge,
        key.challenge_type,
        key.signature,
        WeightResult(success=True, weight=weight, peer_id=key.owner_peer_id),
        now,
    )


async def put(service: RegistryService, record: Record, weight: int = 0, now: int = NOW) -> RegistryResult:
    """`put_record` with the fields of `record`."""
    weighed = WeightResult(success=True, weight=weight, peer_id=record.metadata.issued_by)
    return await service.put_record(record.metadata, record.timestamp_created, record.signature, weighed, now)


async def bury(service: RegistryService, tombstone: Tombstone, now: int = NOW) -> RegistryResult:
    """`add_tombstone` with the fields of `tombstone`."""
    return await service.add_tombstone(
        *tombstone.slot, tombstone.timestamp_issued, tombstone.solution, tombstone.issuer_signature, now
    )
