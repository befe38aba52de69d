"""`sig` for scripts: who may have this host sign what.

By default only a record that names this host, made by its own get_record_bytes in the same particle, and allowed by the
hosting policy: so it is kept and renewed like every hosted record. The original signs for anyone whatever bytes of
records or metadata it made itself; with that, strangers can have the node issue records in its own name.

The record's key is looked up in the network only for what the host wouldn't refuse with any key, and for one issuer as
often as the policy lets it ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from aqua_compat.builtins.sig import Sig, SignResult
from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.errors import CallError
from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.host_calls.host_calls import HostFunction, Tetraplets, native
from aqua_compat.particles.host_calls.registry_calls import MadeBytes
from overlay.identity import Identity
from overlay.limits.token_bucket import TokenBuckets
from registry.client.registry import Registry
from registry.errors import HostingRefused, KeyNotExists, RegistryError
from registry.model.values import Record, RecordMetadata
from registry.protocol.network import Clock
from registry.replica.countersign import Countersigner
from registry.settings import HostingPolicy

Countersign = Callable[[str, RecordMetadata, int], Awaitable[Record]]
"""(source of the particle, metadata, timestamp_created) -> the record, signed by this host, which keeps it. Raises
RegistryError."""

_LONGEST: Final = 4096  # numbers; what this host makes to be signed are digests
_KEY_TIMEOUT: Final = 5.0  # seconds for finding the key of a record that this node is to host
_SERVICE: Final = "registry"
_BYTES: Final = "get_record_bytes"
_METADATA_BYTES: Final = "get_record_metadata_bytes"


class _Signing:
    """A countersignature that is being made; `result` stays None where its call ended without one."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: SignResult | None = None


class SigningCalls:
    """Answers calls of `sig` as `identity`."""

    def __init__(
        self, identity: Identity, countersign: Countersign, check_clock: Callable[[], None], *, as_original: bool
    ) -> None:
        """`check_clock` raises RegistryError while this host's clock is wrong, and it signs nothing."""
        self._identity = identity
        self._check_clock = check_clock
        self._countersign = countersign
        self._as_original = as_original
        self._running: dict[tuple[Context, bytes], _Signing] = {}

    def functions(self) -> dict[str, HostFunction]:
        """The service `sig`."""
        return {**native(Sig(self._identity)), "sign": self._sign}

    async def _sign(self, context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:
        given = _only_bytes(arguments)
        origins = [(_SERVICE, _BYTES), (_SERVICE, _METADATA_BYTES)] if self._as_original else [(_SERVICE, _BYTES)]
        found = tetraplets[0] if tetraplets else ()
        if (
            len(found) != 1
            or found[0].peer_pk != self._identity.peer_id
            or found[0].lens
            or (found[0].service_id, found[0].function_name) not in origins
        ):
            names = " or ".join(f"{service}.{function}" for service, function in origins)
            raise CallError(f"sig.sign signs only what {names} of this peer made")
        made = context.made_bytes.get(given)
        if self._as_original:
            if isinstance(made, MadeBytes):
                context.countersigned_keys.add(made.metadata.key_id)
            try:
                self._check_clock()
            except RegistryError as error:
                return SignResult(False, [str(error)], [])
            return SignResult(True, [], [list(self._identity.sign(given))])
        if not isinstance(made, MadeBytes):
            raise CallError("sig.sign signs only what get_record_bytes of this peer made in the same particle")
        return await self._once(context, given, made)

    async def _once(self, context: Context, given: bytes, made: MadeBytes) -> SignResult:
        """Countersigns; calls of one particle that want the same meanwhile share the result."""
        while (signing := self._running.get((context, given))) is not None:
            await signing.done.wait()
            if signing.result is not None:
                return signing.result
        signing = self._running[context, given] = _Signing()
        try:
            signing.result = await self._countersigned(context, made)
        finally:
            del self._running[context, given]
            signing.done.set()
        return signing.result

    async def _countersigned(self, context: Context, made: MadeBytes) -> SignResult:
        try:
            record = await self._countersign(context.source, made.metadata, made.timestamp_created)
        except RegistryError as error:
            return SignResult(False, [str(error)], [])
        context.countersigned_keys.add(made.metadata.key_id)
        return SignResult(True, [], [list(record.signature)])


def countersigning(
    registry: Registry, host: Countersigner, policy: HostingPolicy, lookups: FairSemaphore, clock: Clock
) -> Countersign:
    """How `host` countersigns for scripts: it looks up the key, in a place of `lookups`, once all else is good."""
    rates = TokenBuckets(policy.rate, policy.burst)

    async def countersign(source: str, metadata: RecordMetadata, timestamp_created: int) -> Record:
        issuer = metadata.issued_by
        host.check(metadata, timestamp_created)
        host.check_allowed(issuer)
        if not host.trusts(issuer) and not rates.take(issuer, clock()):
            raise HostingRefused(f"too many requests by {issuer}; try again in a moment")
        async with lookups.place(source):
            found = await registry.get_resource(metadata.key_id, timeout=_KEY_TIMEOUT)
        if found.key is None:
            raise KeyNotExists(metadata.key_id)
        return await host.countersign(found.key, metadata, timestamp_created)

    return countersign


def _only_bytes(arguments: list[object]) -> bytes:
    given = arguments[0] if len(arguments) == 1 else None
    if not isinstance(given, list) or len(given) > _LONGEST or not set(map(type, given)) <= {int}:
        raise CallError("sig.sign takes one array of bytes")
    try:
        return bytes(given)
    except ValueError:
        raise CallError("sig.sign takes one array of numbers from 0 to 255") from None
