"""Renews what this identity hosts, owns and issued, and what others of this process issued: it is signed anew well
before it expires.

Rules (docs/design.md, State and merging; original's faults 7 and 22):
1. A record is renewed by its host, whoever issued it, and a key by its owner, before three quarters of the expired age.
2. What expired while its host or owner was away isn't renewed: others may have ended it since.
3. The network is asked first: what was tombstoned or removed in the meantime is learned, not renewed.
4. What the policy of a resource withholds isn't renewed. A key with a policy is, also with nothing under it: else an
   older key, without it, would rule once this one is collected. It is read from a majority, since another machine of
   the owner may have changed it.
5. An issuer's signature is good for a longer, but limited time; it is issued anew at half of that, if a majority of
   the replicas says that it wasn't ended: issued anew it would be later than an end of which a replica hasn't heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
import structlog

from overlay.identity import Identity
from registry.client.majority import read_majority
from registry.client.node_api import NodeApi
from registry.client.registry import DEFAULT_TIMEOUT, Registry
from registry.errors import RegistryError
from registry.model.merge import ResourceState, is_served, merged
from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, Record, Slot
from registry.model.verification import is_expired
from registry.protocol.messages import Item
from registry.protocol.network import Clock
from registry.replica.countersign import Countersigner, sign_record
from registry.settings import RegistrySettings
from registry.storage import Store, Transaction

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Renewed(msgspec.Struct):
    """Counts what one run did."""

    keys: int = 0
    records: int = 0
    reissued: int = 0
    ended: int = 0
    """Records and keys that were found tombstoned, removed or superseded in the network."""
    failed: int = 0

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in msgspec.structs.asdict(self).items() if count)
        return counts or "nothing was due"


class Renewal:
    """Renews keys and records of a process's own identity, through the node API, and what its other ones issued."""

    def __init__(
        self,
        identity: Identity,
        node_api: NodeApi,
        countersigner: Countersigner,
        registry: Registry,
        store: Store,
        settings: RegistrySettings,
        period: float,
        clock: Clock,
        others: Sequence[Registry] = (),
    ) -> None:
        """`period`: seconds until it runs again. `others`: of the identities that issue here besides this one."""
        self._registries = (registry, *others)
        self._identity = identity
        self._node_api = node_api
        self._countersigner = countersigner
        self._registry = registry
        self._store = store
        self._settings = settings
        self._due_age = max(int(settings.expired_age * 0.75 - period), 0)
        self._clock = clock

    async def run_in_words(self) -> str:
        """Does as `run`, and says in words what was done, as a schedule wants it."""
        return str(await self.run())

    async def run(self) -> Renewed:
        """Renews what is due. Raises ClockOff, StorageError."""
        await self._countersigner.clock_guard.wait()
        done = Renewed()
        me = self._identity.peer_id
        due = int(self._clock()) - self._due_age
        keys = await self._store.read(lambda transaction: transaction.owned_keys(me, due))
        records = await self._store.read(lambda transaction: transaction.hosted_records(me, due))
        key_ids = {key.id for key in keys} | {record.key_id for record in records}
        for key_id in sorted(key_ids):
            await self._renew(key_id, due, done)
        half = int(self._clock()) - self._settings.record_lifetime // 2
        for registry in self._registries:
            for key_id, peer_id in await self._store.read(partial(self._issued_until, registry, half)):
                await self._reissue(registry, Slot(key_id, registry.identity.peer_id, peer_id), half, done)
        return done

    def _issued_until(self, registry: Registry, until: int, transaction: Transaction) -> list[tuple[str, str]]:
        return transaction.issued.of(registry.identity.peer_id, self._identity.peer_id).until(until)

    async def _renew(self, key_id: str, due: int, done: Renewed) -> None:
        try:
            mine = await self._store.resource(key_id)
            resource = merged(mine, (await self._node_api.read(key_id, ack=1, timeout=DEFAULT_TIMEOUT)).resource)
            if self._rules(resource.key):
                resource = merged(resource, (await read_majority(self._node_api, key_id, DEFAULT_TIMEOUT)).resource)
            await self._learn(mine, resource, done)
            key = resource.key
            if key is None:
                return
            key = await self._renew_key(key, resource, due, done)
            if self._rules(key):
                await self._registry.look_after_policy(resource)
            for state in resource.slots.values():
                if isinstance(state, Record) and self._is_due(key, state, due):
                    record = sign_record(self._identity, state.metadata, self._now_after(state.timestamp_created))
                    done.records += await self._write(Item(key, record), done)
        except RegistryError as error:
            done.failed += 1
            _log.warning("a resource couldn't be renewed", key_id=key_id, error=str(error))

    def _rules(self, key: Key | None) -> bool:
        """Whether it is a policy of this identity's: of that the one that a majority knows is renewed, which another
        machine of the owner may have written."""
        return key is not None and key.revision > 0 and key.owner_peer_id == self._identity.peer_id

    async def _learn(self, mine: ResourceState, resource: ResourceState, done: Renewed) -> None:
        """Keeps here what ended in the network, so that it isn't renewed (rule 3)."""
        for key_tombstone in resource.key_tombstones:
            if key_tombstone not in mine.key_tombstones:
                done.ended += 1
                await self._countersigner.keep(Item(key_tombstone))
        if resource.key is None:
            return
        for slot, state in resource.slots.items():
            if slot in mine.slots and mine.slots[slot] != state:
                done.ended += 1
                await self._countersigner.keep(Item(resource.key, state))

    async def _renew_key(self, key: Key, resource: ResourceState, due: int, done: Renewed) -> Key:
        now = int(self._clock())
        if key.owner_peer_id != self._identity.peer_id or key.timestamp_created > due:
            return key
        is_old = is_expired(key.timestamp_created, self._settings.expired_age, now)
        if is_old and not resource.slots and not key.revision:
            return key  # rule 2: nothing lives under it
        unsigned = msgspec.structs.replace(key, timestamp_created=self._now_after(key.timestamp_created))
        renewed = msgspec.structs.replace(unsigned, signature=self._identity.sign(unsigned.signed_bytes()))
        done.keys += await self._write(Item(renewed), done)
        return renewed

    def _is_due(self, key: Key, record: Record, due: int) -> bool:
        hosted_here = record.metadata.peer_id == self._identity.peer_id
        if not hosted_here or record.timestamp_created > due:
            return False
        now = int(self._clock())
        return is_served(record, now, self._settings) and why_withheld(key, record, now) is None

    def _now_after(self, timestamp: int) -> int:
        return max(self._countersigner.clock_guard.time_to_sign(), timestamp + 1)

    async def _write(self, item: Item, done: Renewed) -> bool:
        self._countersigner.clock_guard.check()
        await self._countersigner.keep(item)
        outcome = await self._node_api.write(item, factor=1, timeout=DEFAULT_TIMEOUT)
        if outcome.stored:
            return True
        done.failed += 1
        _log.warning("nobody took a renewal", key_id=item.key_id, errors=[error.text for error in outcome.errors[:3]])
        return False

    async def _reissue(self, registry: Registry, slot: Slot, issued_until: int, done: Renewed) -> None:
        """Issues anew what the identity of `registry` issued long ago (rule 5)."""
        try:
            read = await read_majority(self._node_api, slot.key_id, DEFAULT_TIMEOUT)
            state = read.resource.slots.get(slot)
            if read.resource.key is None or not isinstance(state, Record) or state.timestamp_issued > issued_until:
                return
            if not read.is_decided:
                done.failed += 1
                _log.warning("a record couldn't be issued anew", key_id=slot.key_id, error=read.why_undecided)
                return
            issued = await registry.reissue(state)
        except RegistryError as error:
            done.failed += 1
            _log.warning("a record couldn't be issued anew", key_id=slot.key_id, error=str(error))
            return
        done.reissued += issued.success
        done.failed += not issued.success
