"""The registrations of this identity: services on this peer and on others, their health, and their end.

This peer is the one that this process is: as a rule of the same identity, but a node registers services on itself under
other keys, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
import trio

from overlay.identity import Identity
from registry.client.issuer import Issuer, no_resource_id, not_found
from registry.client.key_cache import KeyCache
from registry.client.node_api import NodeApi
from registry.client.node_writer import failed, optional, until
from registry.client.own_certificates import OwnCertificates, ShownSolution
from registry.client.patience import patiently
from registry.client.policies import PolicyEditor
from registry.client.results import Done
from registry.codes import Code
from registry.errors import HostingRefused, InvalidValue, NewerRecordOrTombstoneExists, RegistryError, several_issuers
from registry.health.host_health import HostHealth
from registry.health.report import signed_report
from registry.health.state import Health, HealthState
from registry.model.signing import is_key_id
from registry.model.values import Key, Record, RecordMetadata, Slot, State
from registry.permission.edits import Edit, EditKind
from registry.permission.errors import RefusedByPolicy
from registry.permission.policy import FOR_EVER, key_of
from registry.protocol.messages import Item
from registry.quorum.read_machine import ReadOutcome
from registry.replica.countersign import Countersigner
from registry.settings import RegistrySettings

ENDING_TIMEOUT: Final = 2.0  # seconds for ending a record on this peer, when the network has been given up
# Where the time was up, the original's `: timeout exceeded` stands behind these.
NOT_REGISTERED: Final = "service hasn't registered"
NOT_UNREGISTERED: Final = "unregisterService failed"
NOT_REPORTED: Final = "the service's health wasn't reported"


class Moderation(NamedTuple):
    """What an owner that unregisters says of others' records. `issuer`: whose is meant, this identity's own too; None
    for its own, else for the only other one's. `is_of_all`: several others are denied without being named. `until`:
    seconds since 1970, the end of the denial."""

    issuer: str | None = None
    is_of_all: bool = False
    until: int = FOR_EVER


OWN: Final = Moderation()
"""Nothing is said of others' records."""


class Registrations:
    """Registers services under one identity, and ends them. Times in seconds."""

    def __init__(
        self,
        identity: Identity,
        node_api: NodeApi,
        host: Countersigner,
        health: HostHealth,
        issuer: Issuer,
        policies: PolicyEditor,
        keys: KeyCache,
        certificates: OwnCertificates,
        settings: RegistrySettings,
    ) -> None:
        self._identity = identity
        self._node_api = node_api
        self._host = host
        self._health = health
        self._reported = 0  # milliseconds since 1970, of the last report
        self._issuer = issuer
        self._policies = policies
        self._keys = keys
        self._certificates = certificates
        self._settings = settings

    async def register(
        self,
        resource_id: str,
        value: str,
        peer_id: str,
        service_id: str | None,
        factor: int,
        timeout: float,
        ttl: float | None,
    ) -> Done:
        """See `Registry.register_service`."""
        return await self._register(resource_id, value, peer_id, service_id, None, factor, timeout, ttl)

    async def report_health(
        self, slot: Slot, instance: str, state: HealthState, note: str, ttl: float | None, timeout: float
    ) -> Done:
        """See `Registry.report_health`."""
        try:
            with trio.fail_after(timeout):
                await self._report(slot, instance, state, note, ttl, timeout)
        except trio.TooSlowError:
            return Done(False, failed((), NOT_REPORTED, timed_out=True), code=Code.TIMEOUT)
        except RegistryError as error:
            return Done(False, (str(error),), code=error.code)
        return Done(True, ())

    def own_health(self, slot: Slot, instance: str) -> Health:
        """How a service is on this peer, as it was said last."""
        return self._health.health_of(slot, instance)

    async def _report(
        self, slot: Slot, instance: str, state: HealthState | None, note: str, ttl: float | None, timeout: float
    ) -> None:
        """Raises RegistryError."""
        if slot.peer_id == self._host.peer_id:
            await self._health.report(slot, instance, state, note, ttl)
            return
        self._reported = max(self._reported + 1, int(self._host.clock_guard.time() * 1000))
        report = signed_report(self._identity, slot, instance, self._reported, state, note, ttl)
        await patiently(lambda seconds: self._node_api.report_health(report, timeout=seconds), timeout)

    async def reissue(self, record: Record, timeout: float) -> Done:
        """See `Registry.reissue`."""
        metadata = record.metadata
        service_id = metadata.service_id[0] if metadata.service_id else None
        if metadata.peer_id != self._host.peer_id:
            return await self._register(metadata.key_id, metadata.value, metadata.peer_id, service_id, None, 1, timeout)
        try:
            resource = (await self._node_api.read(metadata.key_id, ack=1, timeout=timeout)).resource
            newer = resource.slots.get(record.slot)
            if resource.key is not None:
                self._keys.remember(resource.key)  # its policy may have changed: what is shown has to suit the new one
            if newer is not None and resource.key is not None and newer.timestamp_issued > record.timestamp_issued:
                await self._host.keep(Item(resource.key, newer))  # said elsewhere with this identity: that counts
                return Done(False, (str(NewerRecordOrTombstoneExists(*record.slot)),), code=Code.NEWER_STATE_EXISTS)
        except RegistryError as error:
            return Done(False, (str(error),), code=error.code)
        return await self._register(
            metadata.key_id, metadata.value, metadata.peer_id, service_id, record.metadata, 1, timeout
        )

    async def _register(
        self,
        resource_id: str,
        value: str,
        peer_id: str,
        service_id: str | None,
        instead_of: RecordMetadata | None,
        factor: int,
        timeout: float,
        ttl: float | None = None,
    ) -> Done:
        is_here = peer_id == self._host.peer_id
        is_unwanted = False  # what its host signed, and gave no time to live

        async def issue(outcome: ReadOutcome, key: Key, slot: Slot, remaining: float) -> State:
            nonlocal is_unwanted
            if instead_of is not None and not await self._host.has_countersigned(instead_of):
                raise NewerRecordOrTombstoneExists(*instead_of.slot)
            # The node acted through may have changed since the call began.
            relay = (self._node_api.peer_id,) if is_here and self._node_api.peer_id != peer_id else ()

            unsigned = RecordMetadata(
                *slot, self._issuer.now(), b"", value, relay, optional(service_id), issuer_signature=b""
            )
            shown = await self._shown(key, unsigned)

            def metadata(timestamp: int) -> RecordMetadata:
                unsigned = RecordMetadata(
                    *slot, timestamp, shown.solution, value, relay, optional(service_id), issuer_signature=b""
                )
                signature = self._identity.sign(unsigned.signed_bytes())
                return msgspec.structs.replace(unsigned, issuer_signature=signature)

            if not is_here:
                deadline = trio.current_time() + remaining
                timestamp = await self._issuer.reserve(slot, outcome, shown.from_time)
                signed = metadata(timestamp)
                record = await patiently(
                    lambda seconds: self._node_api.countersign(key, signed, timeout=seconds), remaining
                )
                if ttl is not None:  # before the record is written anywhere else
                    is_unwanted = True
                    await self._report(slot, "", None, "", ttl, until(deadline))
                    is_unwanted = False
                return record
            if instead_of is None:  # before anybody sees the record
                await self._health.report(slot, ttl=ttl or 0, is_registered=False)
            state, error = await self._issuer.issue_here(
                slot,
                outcome,
                key,
                lambda timestamp: self._host.sign(metadata(timestamp), self._issuer.now()),
                shown.from_time,
            )
            if error:
                raise HostingRefused(error.text, code=error.known_code)
            return state

        done = await self._issuer.issue(resource_id, peer_id, issue, factor, timeout, NOT_REGISTERED)
        if is_unwanted:  # the host would bring it to the network, and all would take it for passing
            await self.unregister(resource_id, peer_id, 1, ENDING_TIMEOUT)
        if done.stored:
            self._certificates.note(Slot(resource_id, self._identity.peer_id, peer_id))
        return done

    async def _shown(self, key: Key, unsigned: RecordMetadata) -> ShownSolution:
        try:
            return await self._certificates.shown(key, unsigned, self._issuer.now())
        except RefusedByPolicy:
            self._keys.forget(key.id)  # the owner may have let it in meanwhile
            raise

    async def unregister(
        self, resource_id: str, peer_id: str, factor: int, timeout: float, moderation: Moderation = OWN
    ) -> Done:
        """See `Registry.unregister_service`."""
        deadline = trio.current_time() + timeout
        is_own = moderation.issuer == self._identity.peer_id
        if moderation.issuer is not None and not is_own:
            return await self._end_of_other(Slot(resource_id, moderation.issuer, peer_id), factor, timeout, moderation)
        others: list[Record] = []
        moderates = not is_own and peer_id != self._host.peer_id
        try:
            hosted = await self._host.countersigned(Slot(resource_id, self._identity.peer_id, peer_id))
        except RegistryError as error:
            return Done(False, (str(error),), code=error.code)
        was_there = hosted is not None

        async def end(outcome: ReadOutcome, key: Key, slot: Slot, remaining: float) -> State:
            nonlocal was_there
            was_there = was_there or isinstance(outcome.resource.slots.get(slot), Record)
            if moderates and not was_there and key.owner_peer_id == self._identity.peer_id:
                shown = outcome.resource.records(self._issuer.now(), self._settings)
                others[:] = [each for each in shown if each.slot.peer_id == peer_id]
                if len(others) > 1 and not moderation.is_of_all:
                    raise several_issuers(peer_id, sorted(each.slot.issued_by for each in others))
                self._check_end(others, moderation.until)
            return await self._issuer.issue_tombstone(outcome, key, slot, remaining)

        done = await self._issuer.issue(
            resource_id, peer_id, end, factor, timeout, NOT_UNREGISTERED, reads_slot=hosted is None
        )
        if done.success and not was_there and others:
            return await self._deny(others, 1, until(deadline), moderation.until)
        if done.success and not was_there:
            nothing = f"nothing was registered for {peer_id} by {self._identity.peer_id}"
            done = Done(True, (nothing, *done.errors), done.stored, was_there=False)
        if peer_id == self._host.peer_id and not done.success:
            with trio.move_on_after(ENDING_TIMEOUT):  # a slot that is ahead of our clock makes it wait
                await self._issuer.end_here(Slot(resource_id, self._identity.peer_id, peer_id))
        return done

    async def _end_of_other(self, slot: Slot, factor: int, timeout: float, moderation: Moderation) -> Done:
        """Denies who issued what is in the slot on its host, if it shows anything."""
        if not is_key_id(slot.key_id):
            return Done(False, (no_resource_id(slot.key_id),), code=Code.INVALID)
        deadline = trio.current_time() + timeout
        try:
            outcome = await self._node_api.read(slot.key_id, ack=1, timeout=timeout)
            key = outcome.resource.key
            if key is None:
                return not_found(outcome)
            if key.owner_peer_id != self._identity.peer_id:
                only_owner = f"only its owner {key.owner_peer_id} may end what others registered"
                return Done(False, (only_owner,), code=Code.NOT_PERMITTED)
            shown = outcome.resource.records(self._issuer.now(), self._settings)
            ended = [each for each in shown if each.slot == slot]
            if not ended:
                nothing = f"nothing was registered for {slot.peer_id} by {slot.issued_by}"
                return Done(True, (nothing,), was_there=False)
            self._check_end(ended, moderation.until)
        except RegistryError as error:
            errors = failed((str(error),), NOT_UNREGISTERED, timed_out=until(deadline) <= 0)
            return Done(False, errors, code=error.code)
        return await self._deny(ended, factor, until(deadline), moderation.until)

    def _check_end(self, records: Iterable[Record], end: int) -> None:
        """Raises InvalidValue for a denial that leaves some of the `records`."""
        if end < max((self._issuer.now(), *(each.timestamp_issued for each in records))):
            raise InvalidValue("the end of the denial is before what it is to end: give a later one, or none")

    async def _deny(self, records: Iterable[Record], factor: int, timeout: float, end: int) -> Done:
        """Has the policy of their resource withhold what these issuers register on these hosts, up to `end`."""
        slots = [each.slot for each in records]
        edits = [Edit(EditKind.DENY, key_of(slot.issued_by), key_of(slot.peer_id), end) for slot in slots]
        changed = await self._policies.change(slots[0].key_id, edits, timeout, factor)
        if not changed.success:
            return changed
        told = (f"the resource's policy denies now what {slot.issued_by} registers on {slot.peer_id}" for slot in slots)
        return Done(True, tuple(told), changed.stored, denied=tuple(slot.issued_by for slot in slots))
