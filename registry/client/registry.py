"""The registry as its users see it: one identity, acting through one node.

Nothing here raises for what the network does: every result carries its errors, in the original's texts where it has one
(docs/aqua.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog
import trio

from overlay.identity import Identity
from registry.client.issuer import ATTEMPTS, NOT_FOUND, Issuer, code_of_read, no_resource_id, not_found
from registry.client.key_cache import KeyCache
from registry.client.node_api import NodeApi
from registry.client.node_status import NodeStatus
from registry.client.node_writer import NodeWriter, Written, failed, optional, refused, until
from registry.client.own_certificates import CertificateSource, OwnCertificates, ShownSolution
from registry.client.patience import patiently
from registry.client.policies import PolicyEditor
from registry.client.results import Created, Done, Found, Listed, Resolved, code_of
from registry.client.timestamps import TimestampLog
from registry.codes import Code
from registry.errors import HostingRefused, KeyNotExists, NewerRecordOrTombstoneExists, RegistryError
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.host_health import HostHealth
from registry.health.report import signed_report
from registry.health.state import Health, HealthState
from registry.model.fields import check_peer_id, check_text
from registry.model.history import HistoryEvent
from registry.model.merge import ResourceState
from registry.model.owner_index import listed
from registry.model.signing import is_key_id, key_id_of, record_digest
from registry.model.trusted_issuers import TrustChoice, TrustRule
from registry.model.values import MAX_LABEL, Key, KeyTombstone, Record, RecordMetadata, Slot, State
from registry.permission.edits import Edit, EditKind
from registry.permission.errors import RefusedByPolicy
from registry.permission.policy import POLICY_TYPE, Policy, encode_policy, key_of
from registry.protocol.error_info import texts
from registry.protocol.index_messages import MOST_LISTED
from registry.protocol.messages import Item
from registry.protocol.network import Clock
from registry.quorum.read_machine import ReadOutcome
from registry.replica.countersign import Countersigner, sign_record
from registry.settings import RegistrySettings
from registry.upkeep.schedule import ScheduleStatus
from registry.watch.watch import Watch
from registry.watch.watches import Watches

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

ENDING_TIMEOUT: Final = 2.0  # seconds for ending a record on this peer, when the network has been given up
LISTS_TIMEOUT: Final = 1.0  # seconds in which hosts have to tell which of many services don't pass
DEFAULT_TIMEOUT: Final = 6.0  # seconds; the original's DEFAULT_TIMEOUT
# Where the time was up, the original's `: timeout exceeded` stands behind these.
NOT_CREATED: Final = "resource wasn't created"
NOT_REGISTERED: Final = "service hasn't registered"
NOT_UNREGISTERED: Final = "unregisterService failed"
NOT_REPORTED: Final = "the service's health wasn't reported"
NOT_REMOVED: Final = "resource wasn't removed"
NOT_LISTED: Final = "resources weren't listed"


class Registry:
    """Use `open_node` or `open_light_client`. Times in seconds."""

    def __init__(
        self,
        identity: Identity,
        node_api: NodeApi,
        host: Countersigner,
        health: HostHealth,
        health_of_hosts: HealthOfHosts,
        issued: TimestampLog,
        watches: Watches,
        settings: RegistrySettings,
        clock: Clock,
    ) -> None:
        self.identity = identity
        self._node_api = node_api
        self._host = host
        self._health = health
        self._health_of_hosts = health_of_hosts
        self._reported = 0  # milliseconds since 1970, of the last report
        self._watches = watches
        self._settings = settings
        self._clock = clock
        self._keys = KeyCache()
        self.certificates = OwnCertificates(identity, settings.clock_skew)
        self._writer = NodeWriter(node_api, watches, host.signed)
        self._policies = PolicyEditor(identity, node_api, host, self._writer, self._keys, clock)
        self._issuer = Issuer(identity, node_api, host, issued, self._writer, self._keys, settings, clock)

    @property
    def host_peer_id(self) -> str:
        """The node acted through: this one on a full node."""
        return self._node_api.peer_id

    async def create_resource(self, label: str, *, factor: int = 1, timeout: float = DEFAULT_TIMEOUT) -> Created:
        """Gives `label` a key under this identity, on `factor` replicas' disks at least (original: createResource)."""
        deadline = trio.current_time() + timeout
        written = Written(Done(False, failed((), NOT_CREATED, timed_out=True), code=Code.TIMEOUT))
        try:
            await self._host.clock_guard.wait()
        except RegistryError as error:
            return Created(None, (str(error), NOT_CREATED), code=error.code)
        timestamp, challenge, challenge_type = int(self._clock()), b"", ""
        with trio.move_on_at(deadline):
            for _ in range(ATTEMPTS):
                try:
                    # The value checks the label before it is hashed.
                    unsigned = Key(label, self.identity.peer_id, timestamp, challenge, challenge_type, b"")
                    key = msgspec.structs.replace(unsigned, signature=self.identity.sign(unsigned.signed_bytes()))
                    await self._host.keep_key(key)
                except RegistryError as error:
                    if error.code is not Code.KEY_REMOVED:
                        return Created(None, (str(error),), code=error.code)
                    written = refused(error, NOT_CREATED)
                else:
                    written = await self._writer.write(Item(key), factor, until(deadline), NOT_CREATED)
                if written.done.success:
                    self._keys.remember(key)
                    return Created(key.id, written.done.errors, written.done.stored)
                if Code.KEY_REMOVED not in written.codes:
                    break
                try:
                    timestamp, revision = await self._after_key_tombstones(unsigned.id, until(deadline))
                    if revision:  # what had a policy begins anew above the removal, or a stale key would
                        challenge, challenge_type = encode_policy(Policy(revision=revision, open=True)), POLICY_TYPE
                except RegistryError as error:
                    errors = refused(error, NOT_CREATED, timed_out=until(deadline) <= 0).done.errors
                    return Created(None, errors, code=error.code)
        return Created(None, written.done.errors, written.done.stored, code=written.done.code)

    async def remove_resource(self, resource_id: str, *, factor: int = 1, timeout: float = DEFAULT_TIMEOUT) -> Done:
        """Ends a resource of this identity's, and with it everything registered on it so far (ours: the original
        promised this). Creating it again begins anew."""
        if not is_key_id(resource_id):
            return Done(False, (no_resource_id(resource_id),), code=Code.INVALID)
        deadline = trio.current_time() + timeout
        try:
            await self._host.clock_guard.wait()
            outcome = await self._read(resource_id, 1, timeout)
            if outcome.resource.key is not None and outcome.resource.key.revision:
                outcome = await self._by_majority(resource_id, until(deadline) / 2) or outcome
            key = outcome.resource.key
            if key is None:
                return not_found(outcome)
            if key.owner_peer_id != self.identity.peer_id:
                only_owner = f"only its owner {key.owner_peer_id} may remove resource {resource_id}"
                return Done(False, (only_owner,), code=Code.NOT_PERMITTED)
            # Later than all that it should end, some of which may be from a clock ahead of ours.
            latest = max((state.timestamp_issued for state in outcome.resource.slots.values()), default=0)
            timestamp = max(int(self._clock()), key.timestamp_created, latest)
            revision = key.revision + 1 if key.revision else 0
            unsigned = KeyTombstone(key.id, key.label, key.owner_peer_id, timestamp, b"", revision)
            key_tombstone = msgspec.structs.replace(unsigned, signature=self.identity.sign(unsigned.signed_bytes()))
            self._host.signed.note(key.id, None)
            await self._host.keep(Item(key_tombstone))
        except RegistryError as error:
            return Done(False, (str(error),), code=error.code)
        self._keys.forget(resource_id)
        return (await self._writer.write(Item(key_tombstone), factor, until(deadline), NOT_REMOVED)).done

    async def run_schedule(self, name: str, *, timeout: float = 600.0) -> ScheduleStatus:
        """Runs a schedule of the node acted through by hand: `clearExpired_86400`, `replicate_3600` or `renew_43200`.

        The node's operators may. Raises RegistryError.
        """
        return await self._node_api.run_schedule(name, timeout=timeout)

    async def explain(self, resource_id: str, *, timeout: float = DEFAULT_TIMEOUT) -> list[HistoryEvent]:
        """What happened to a resource on the node acted through and why, oldest first. Raises RegistryError."""
        return await self._node_api.explain(resource_id, timeout=timeout)

    async def get_resource(self, resource_id: str, *, ack: int = 1, timeout: float = DEFAULT_TIMEOUT) -> Found:
        """The key of a resource, once `ack` replicas that hold it have answered (original: getResource)."""
        if not is_key_id(resource_id):
            return Found(None, (no_resource_id(resource_id),), code=Code.INVALID)
        deadline = trio.current_time() + timeout
        try:
            outcome = await self._node_api.read(resource_id, ack=ack, timeout=timeout, key_suffices=True)
        except RegistryError as error:
            errors = failed((str(error),), NOT_FOUND, timed_out=until(deadline) <= 0)
            return Found(None, errors, code=error.code)
        if outcome.resource.key is None or outcome.answered < ack:
            errors = failed(texts(outcome.errors), NOT_FOUND, timed_out=outcome.timed_out)
            return Found(None, errors, code=code_of_read(outcome))
        return Found(outcome.resource.key, texts(outcome.errors))

    async def list_resources(
        self,
        owner_peer_id: str,
        *,
        after: str | None = None,
        limit: int = MOST_LISTED,
        ack: int = 1,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Listed:
        """A page of an owner's resources, in order of their labels, removed and expired ones too: up to `limit` whose
        labels follow `after`, as `ack` replicas of the owner's index, two where there are, know them together."""
        deadline = trio.current_time() + timeout
        try:
            check_peer_id("the owner", owner_peer_id)
            if after is not None:
                check_text("after", after, MAX_LABEL)
            outcome = await self._node_api.list_resources(owner_peer_id, after, limit=limit, ack=ack, timeout=timeout)
        except RegistryError as error:
            errors = failed((str(error),), NOT_LISTED, timed_out=until(deadline) <= 0)
            return Listed(None, errors, code=error.code)
        if outcome.answered < max(ack, 1):
            codes = [error.known_code for error in outcome.errors]
            code = code_of(codes, timed_out=outcome.timed_out, otherwise=Code.TOO_FEW_REPLICAS)
            return Listed(None, failed(texts(outcome.errors), NOT_LISTED, timed_out=outcome.timed_out), code=code)
        now = int(self._clock())
        resources = tuple(listed(entry, now, self._settings) for entry in outcome.entries)
        return Listed(resources, texts(outcome.errors), outcome.after)

    async def register_service(
        self,
        resource_id: str,
        value: str,
        peer_id: str,
        service_id: str | None,
        *,
        factor: int = 1,
        ttl: float | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Done:
        """Says that a service runs on `peer_id`, which signs the record too (original: registerService).

        `ttl`: seconds for which it passes after each `report_health`, and not before the first one (docs/health.md).
        None: it passes until something else is said; on another host, a time to live that it has stays.
        """
        return await self._register(resource_id, value, peer_id, service_id, None, factor, timeout, ttl)

    async def report_health(
        self,
        resource_id: str,
        state: HealthState = HealthState.PASSING,
        note: str = "",
        *,
        peer_id: str | None = None,
        instance: str = "",
        ttl: float | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Done:
        """Says how a service is that this identity registered on a resource, or one instance of it.

        `peer_id`: its host, by default this peer. `ttl`: its time to live from now on, in seconds; 0 ends it and what
        was said, None changes nothing. A success once the host has it.
        """
        slot = Slot(resource_id, self.identity.peer_id, peer_id or self.identity.peer_id)
        try:
            with trio.fail_after(timeout):
                await self._report(slot, instance, state, note, ttl, timeout)
        except trio.TooSlowError:
            return Done(False, failed((), NOT_REPORTED, timed_out=True), code=Code.TIMEOUT)
        except RegistryError as error:
            return Done(False, (str(error),), code=error.code)
        return Done(True, ())

    def note_unreachable(self, peer_id: str) -> None:
        """A caller couldn't reach the host of a record: where there is presence it is looked at now, by the node acted
        through."""
        if peer_id != self.identity.peer_id:
            self._health_of_hosts.complain(peer_id)

    def own_health(self, resource_id: str, instance: str = "") -> Health:
        """How a service is that this identity registered on this peer, as it was said last."""
        return self._health.health_of(Slot(resource_id, self.identity.peer_id, self.identity.peer_id), instance)

    async def _report(
        self, slot: Slot, instance: str, state: HealthState | None, note: str, ttl: float | None, timeout: float
    ) -> None:
        """Raises RegistryError."""
        if slot.peer_id == self.identity.peer_id:
            await self._health.report(slot, instance, state, note, ttl)
            return
        self._reported = max(self._reported + 1, int(self._host.clock_guard.time() * 1000))
        report = signed_report(self.identity, slot, instance, self._reported, state, note, ttl)
        await patiently(lambda seconds: self._node_api.report_health(report, timeout=seconds), timeout)

    async def reissue(self, record: Record, *, timeout: float = DEFAULT_TIMEOUT) -> Done:
        """Says anew, with the relay of now, what this identity said of a service on itself, unless it ended it."""
        metadata = record.metadata
        try:
            resource = (await self._read(metadata.key_id, 1, timeout)).resource
            newer = resource.slots.get(record.slot)
            if resource.key is not None:
                self._keys.remember(resource.key)  # its policy may have changed: what is shown has to suit the new one
            if newer is not None and resource.key is not None and newer.timestamp_issued > record.timestamp_issued:
                await self._host.keep(Item(resource.key, newer))  # said elsewhere with this identity: that counts
                return Done(False, (str(NewerRecordOrTombstoneExists(*record.slot)),), code=Code.NEWER_STATE_EXISTS)
        except RegistryError as error:
            return Done(False, (str(error),), code=error.code)
        service_id = metadata.service_id[0] if metadata.service_id else None
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
        is_own = peer_id == self.identity.peer_id
        is_unwanted = False  # what its host signed, and gave no time to live

        async def issue(outcome: ReadOutcome, key: Key, slot: Slot, remaining: float) -> State:
            nonlocal is_unwanted
            if instead_of is not None and not await self._host.has_countersigned(instead_of):
                raise NewerRecordOrTombstoneExists(*instead_of.slot)
            # The node acted through may have changed since the call began.
            relay = (self._node_api.peer_id,) if is_own and self._node_api.peer_id != self.identity.peer_id else ()

            unsigned = RecordMetadata(
                *slot, self._issuer.now(), b"", value, relay, optional(service_id), issuer_signature=b""
            )
            shown = await self._shown(key, unsigned)

            def metadata(timestamp: int) -> RecordMetadata:
                unsigned = RecordMetadata(
                    *slot, timestamp, shown.solution, value, relay, optional(service_id), issuer_signature=b""
                )
                signature = self.identity.sign(unsigned.signed_bytes())
                return msgspec.structs.replace(unsigned, issuer_signature=signature)

            if not is_own:
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
                lambda timestamp: sign_record(self.identity, metadata(timestamp), self._issuer.now()),
                shown.from_time,
            )
            if error:
                raise HostingRefused(error.text, code=error.known_code)
            return state

        done = await self._issuer.issue(resource_id, peer_id, issue, factor, timeout, NOT_REGISTERED)
        if is_unwanted:  # the host would bring it to the network, and all would take it for passing
            await self.unregister_service(resource_id, peer_id, timeout=ENDING_TIMEOUT)
        if done.stored:
            self.certificates.note(Slot(resource_id, self.identity.peer_id, peer_id))
        return done

    async def change_policy(
        self, resource_id: str, edits: Sequence[Edit], *, factor: int = 1, timeout: float = DEFAULT_TIMEOUT
    ) -> Done:
        """Has the policy of a resource of this identity's hold `edits`. A success once a majority of its replicas, and
        `factor` of them at least, say that it does."""
        return await self._policies.change(resource_id, edits, timeout, factor)

    async def look_after_policy(self, resource: ResourceState, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Sees to it that what this identity's machines changed at the same moment all counts, in the policy of a
        resource of its own: see `PolicyEditor`."""
        if resource.key is not None:
            await self._policies.look_after(resource.key, timeout, has_siblings=resource.has_siblings)

    def use_certificates(self, source: CertificateSource) -> None:
        """Has this identity show certificates where a resource's policy asks for them.

        `source` gives the chains that there are; it may be async, such as `CertificateFiles`. It is called for each
        record that is issued, and every two seconds: what was issued under a chain that ends is issued anew under one
        that ends later, as soon as that is there (`registry.client.certified_records`).
        """
        self.certificates.use(source)

    async def _shown(self, key: Key, unsigned: RecordMetadata) -> ShownSolution:
        try:
            return await self.certificates.shown(key, unsigned, self._issuer.now())
        except RefusedByPolicy:
            self._keys.forget(key.id)  # the owner may have let it in meanwhile
            raise

    async def unregister_service(
        self, resource_id: str, peer_id: str, *, factor: int = 1, timeout: float = DEFAULT_TIMEOUT
    ) -> Done:
        """Ends what this identity said of a service on `peer_id` (original: unregisterService).

        Where nothing is found the end is written all the same, as there, and the result says so. Where nothing is found
        of the resource's owner, what others said of a service there is denied from now on: each of those issuers on
        that peer, no other on it and not on other peers. Not so on the owner's own peer: there whoever ends its own
        service twice would shut out its guests.
        """
        deadline = trio.current_time() + timeout
        others: dict[str, None] = {}
        try:
            hosted = await self._host.countersigned(Slot(resource_id, self.identity.peer_id, peer_id))
        except RegistryError as error:
            return Done(False, (str(error),), code=error.code)
        was_there = hosted is not None

        async def end(outcome: ReadOutcome, key: Key, slot: Slot, remaining: float) -> State:
            nonlocal was_there
            was_there = was_there or isinstance(outcome.resource.slots.get(slot), Record)
            if key.owner_peer_id == self.identity.peer_id:
                shown = outcome.resource.records(self._issuer.now(), self._settings)
                others.update(dict.fromkeys(each.slot.issued_by for each in shown if each.slot.peer_id == peer_id))
            return await self._issuer.issue_tombstone(outcome, key, slot, remaining)

        done = await self._issuer.issue(
            resource_id, peer_id, end, factor, timeout, NOT_UNREGISTERED, reads_slot=hosted is None
        )
        if done.success and not was_there and others and peer_id != self.identity.peer_id:
            denied = [Edit(EditKind.DENY, key_of(issuer), key_of(peer_id)) for issuer in others]
            changed = await self.change_policy(resource_id, denied, timeout=until(deadline))
            told = tuple(f"the resource's policy denies now what {issuer} registers on {peer_id}" for issuer in others)
            if not changed.success:
                return changed
            return Done(True, told, changed.stored, denied=tuple(others))
        if done.success and not was_there:
            nothing = f"nothing was registered for {peer_id} by {self.identity.peer_id}"
            done = Done(True, (nothing, *done.errors), done.stored, was_there=False)
        if peer_id == self.identity.peer_id and not done.success:
            with trio.move_on_after(ENDING_TIMEOUT):  # a slot that is ahead of our clock makes it wait
                await self._issuer.end_here(Slot(resource_id, peer_id, peer_id))
        return done

    async def resolve_resource(
        self,
        resource_id: str,
        ack: int,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        trusted: TrustChoice | None = None,
        include_down: bool = False,
    ) -> Resolved:
        """The live records of a resource, once `ack` replicas have answered (original: resolveResource).

        Where there is presence: of those the ones whose host is up, and says that they pass or gives a warning; with
        `include_down` all, and how each is. Hosts without presence count as up.
        `trusted`: whom to believe of those that the resource's policy permits; None for all.
        Raises InvalidValue for trusted ids that are none.
        With an `ack` of 1, one that is watched is resolved from what the watch knows, without asking anybody.
        """
        trust = None if trusted is None else TrustRule(trusted)
        if not is_key_id(resource_id):
            return Resolved(None, (no_resource_id(resource_id),), code=Code.INVALID)
        if ack <= 1 and (known := self._watches.at_hand(resource_id)) is not None and known.key is not None:
            return await self._resolved(known, trust, (), timeout, include_down=include_down)
        deadline = trio.current_time() + timeout
        try:
            outcome = await self._read(resource_id, ack, timeout)
        except RegistryError as error:
            return Resolved(None, failed((str(error),), "", timed_out=until(deadline) <= 0), code=error.code)
        if outcome.answered < max(ack, 1):
            timed_out = outcome.timed_out
            errors = failed(texts(outcome.errors) or (NOT_FOUND,), "", timed_out=timed_out)
            return Resolved(None, errors, code=code_of_read(outcome))
        errors = texts(outcome.errors)
        return await self._resolved(outcome.resource, trust, errors, until(deadline), include_down=include_down)

    async def _resolved(
        self,
        resource: ResourceState,
        trust: TrustRule | None,
        errors: tuple[str, ...],
        timeout: float,
        *,
        include_down: bool,
    ) -> Resolved:
        records = self._shown_of(resource, trust)
        if not self._health_of_hosts.is_there:
            return Resolved(records, errors)
        hosts = {record.metadata.peer_id for record in records}
        await self._health_of_hosts.settle(hosts, min(timeout, LISTS_TIMEOUT))
        health = {record.slot: self._health_of_hosts.health_of_record(record) for record in records}
        if not include_down:
            records = tuple(record for record in records if health[record.slot].is_usable)
        return Resolved(records, errors, health)

    def _shown_of(self, resource: ResourceState, trust: TrustRule | None) -> tuple[Record, ...]:
        now = int(self._host.clock_guard.time())
        records = resource.records(now, self._settings)
        if trust is None or resource.key is None:
            return tuple(records)
        return tuple(record for record in records if trust.believes(resource.key, record, now))

    def watch(self, resource_id: str, *, trusted: TrustChoice | None = None, include_down: bool = False) -> Watch:
        """Events of a resource: a snapshot, then each change; `async for event in watch`. Close it in the end.

        Nothing that the network does ends it: it looks for other replicas, and goes on where it was.
        `trusted`: whose records are told, None for all. `include_down`: as of `resolve_resource`; without it a record
        is told of once it is usable. Raises InvalidValue for what is no resource id, and for trusted
        ids that are none.
        """
        trust = None if trusted is None else TrustRule(trusted)
        return self._watches.watch(resource_id, trust, include_down=include_down)

    def resource_id(self, label: str, peer_id: str) -> str:
        """The id of a resource by its label and owner (original: getResourceId)."""
        return key_id_of(label, peer_id)

    async def neighbours(self, resource_id: str, *, timeout: float = DEFAULT_TIMEOUT) -> list[str]:
        """The peers that keep a resource, nearest first. Raises RegistryError."""
        return await self._node_api.neighbours(resource_id, timeout=timeout)

    async def status(self, *, timeout: float = DEFAULT_TIMEOUT) -> NodeStatus:
        """What the node acted through says of itself. Raises RegistryError."""
        return await self._node_api.status(timeout=timeout)

    async def on_host(self, function: str, *arguments: Any, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """A function of the service `registry` on the node acted through, called by this identity.

        `current_timestamp_sec` and weights given as None are the host's. Raises RegistryError.
        """
        return await self._node_api.service(function, arguments, timeout=timeout)

    async def host_signature(
        self, metadata: RecordMetadata, timestamp_created: int, *, timeout: float = DEFAULT_TIMEOUT
    ) -> bytes:
        """The signature of the peer that `metadata` names as host (original: getRecordSignature). Raises RegistryError.

        Another peer signs by its policy, at its own time, and keeps the record.
        """
        if metadata.peer_id == self.identity.peer_id:
            await self._host.clock_guard.wait()
            digest = record_digest(metadata.signed_bytes(), metadata.issuer_signature, timestamp_created)
            return self.identity.sign(digest)
        key = (await self._read(metadata.key_id, 1, timeout)).resource.key
        if key is None:
            raise KeyNotExists(metadata.key_id)
        record = await self._node_api.countersign(key, metadata, timeout=timeout)
        if record.timestamp_created != timestamp_created:
            raise HostingRefused(f"{metadata.peer_id} signs at its own time, which is {record.timestamp_created}")
        return record.signature

    def forget_key(self, resource_id: str) -> None:
        """The key of a resource was signed anew."""
        self._keys.forget(resource_id)

    async def _read(self, resource_id: str, ack: int, timeout: float) -> ReadOutcome:
        return await self._node_api.read(resource_id, ack=ack, timeout=timeout)

    async def _by_majority(self, resource_id: str, timeout: float) -> ReadOutcome | None:
        """What a majority of the replicas knows, as far as it answers: the removal of a policy has to be above the one
        that rules, which another machine of the owner may have written. None where no key is found."""
        majority = len(await self._node_api.neighbours(resource_id, timeout=timeout)) // 2 + 1
        outcome = await self._read(resource_id, majority, timeout)
        return outcome if outcome.resource.key is not None else None

    async def _after_key_tombstones(self, resource_id: str, timeout: float) -> tuple[int, int]:
        """A time at which a removed resource can begin anew, and its policy's lowest revision then (0: without one)."""
        ended = (await self._read(resource_id, 1, timeout)).resource.key_tombstones
        timestamp = max([int(self._clock()), *(each.timestamp_issued + 1 for each in ended)])
        await self._issuer.wait_until_accepted(timestamp)
        return timestamp, max((each.revision for each in ended), default=0)
