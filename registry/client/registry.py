"""The registry as its users see it: one identity, acting through one node.

Nothing here raises for what the network does: every result carries its errors, in the original's texts where it has one
(docs/aqua.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import trio

from overlay.identity import Identity
from registry.client.issuer import NOT_FOUND, Issuer, code_of_read, no_resource_id
from registry.client.key_cache import KeyCache
from registry.client.node_api import NodeApi
from registry.client.node_status import NodeStatus
from registry.client.node_writer import NodeWriter, failed, until
from registry.client.own_certificates import CertificateSource, OwnCertificates
from registry.client.policies import PolicyEditor
from registry.client.registrations import Moderation, Registrations
from registry.client.resources import Resources
from registry.client.results import Created, Done, Found, Listed, Resolved, code_of
from registry.client.timestamps import TimestampLog
from registry.codes import Code
from registry.errors import HostingRefused, InvalidValue, KeyNotExists, RegistryError
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.host_health import HostHealth
from registry.health.state import Health, HealthState
from registry.model.fields import check_peer_id, check_text
from registry.model.history import HistoryEvent
from registry.model.merge import ResourceState
from registry.model.owner_index import listed
from registry.model.signing import is_key_id, key_id_of, record_digest
from registry.model.trusted_issuers import TrustChoice, TrustRule
from registry.model.values import MAX_LABEL, Record, RecordMetadata, Slot
from registry.permission.edits import Edit
from registry.permission.policy import FOR_EVER
from registry.protocol.error_info import texts
from registry.protocol.index_messages import MOST_LISTED
from registry.protocol.network import Clock
from registry.quorum.read_machine import ReadOutcome
from registry.replica.countersign import Countersigner
from registry.settings import RegistrySettings
from registry.upkeep.schedule import ScheduleStatus
from registry.watch.watch import Watch
from registry.watch.watches import Watches

LISTS_TIMEOUT: Final = 1.0  # seconds in which hosts have to tell which of many services don't pass
DEFAULT_TIMEOUT: Final = 6.0  # seconds; the original's DEFAULT_TIMEOUT
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
        self._health_of_hosts = health_of_hosts
        self._watches = watches
        self._settings = settings
        self._clock = clock
        self._keys = KeyCache()
        self.certificates = OwnCertificates(identity, settings.clock_skew)
        writer = NodeWriter(node_api, watches, host.signed)
        self._policies = PolicyEditor(identity, node_api, host, writer, self._keys)
        issuer = Issuer(identity, node_api, host, issued, writer, self._keys, settings, clock)
        self._resources = Resources(identity, node_api, host, writer, issuer, self._keys)
        self._registrations = Registrations(
            identity, node_api, host, health, issuer, self._policies, self._keys, self.certificates, settings
        )

    @property
    def peer_id(self) -> str:
        """The peer that this process is, on which it registers its services: this identity's own, but where a node
        issues under another key."""
        return self._host.peer_id

    @property
    def host_peer_id(self) -> str:
        """The node acted through: this one on a full node."""
        return self._node_api.peer_id

    async def create_resource(self, label: str, *, factor: int = 1, timeout: float = DEFAULT_TIMEOUT) -> Created:
        """Gives `label` a key under this identity, on `factor` replicas' disks at least (original: createResource)."""
        return await self._resources.create(label, factor, timeout)

    async def remove_resource(self, resource_id: str, *, factor: int = 1, timeout: float = DEFAULT_TIMEOUT) -> Done:
        """Ends a resource of this identity's, and with it everything registered on it so far (ours: the original
        promised this). Creating it again begins anew."""
        return await self._resources.remove(resource_id, factor, timeout)

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
        return await self._registrations.register(resource_id, value, peer_id, service_id, factor, timeout, ttl)

    async def unregister_service(
        self,
        resource_id: str,
        peer_id: str,
        *,
        issuer: str | None = None,
        until: int = FOR_EVER,
        is_of_all: bool = False,
        factor: int = 1,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Done:
        """Ends what this identity said of a service on `peer_id` (original: unregisterService).

        Where nothing is found the end is written all the same, as there, and the result says so. Where nothing is found
        of the resource's owner, what the only other issuer said of a service there is denied: that issuer on that peer,
        no other on it and not on other peers. Not so on the owner's own peer: there whoever ends its own service twice
        would shut out its guest. Of several other issuers the one has to be named, or with `is_of_all` all are denied.
        `issuer`: whose record is to end, on any peer, and nobody else's. What isn't this identity's own is denied,
        which the resource's owner may, where there is something to end.
        `until`: in seconds since 1970, up to when what is issued is denied; for ever unless it is lifted.
        Raises InvalidValue for an `issuer` or `until` that is none.
        """
        if issuer is not None:
            check_peer_id("the issuer", issuer)
        if type(until) is not int or not 0 <= until <= FOR_EVER:
            raise InvalidValue("`until` is no whole number of seconds since 1970")
        moderation = Moderation(issuer, is_of_all, until)
        return await self._registrations.unregister(resource_id, peer_id, factor, timeout, moderation)

    async def reissue(self, record: Record, *, timeout: float = DEFAULT_TIMEOUT) -> Done:
        """Says anew, with the relay of now, what this identity said of a service, on this peer unless it ended it. A
        time to live that it has stays."""
        return await self._registrations.reissue(record, timeout)

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
        slot = Slot(resource_id, self.identity.peer_id, peer_id or self.peer_id)
        return await self._registrations.report_health(slot, instance, state, note, ttl, timeout)

    def own_health(self, resource_id: str, instance: str = "") -> Health:
        """How a service is that this identity registered on this peer, as it was said last."""
        return self._registrations.own_health(Slot(resource_id, self.identity.peer_id, self.peer_id), instance)

    def note_unreachable(self, peer_id: str) -> None:
        """A caller couldn't reach the host of a record: where there is presence it is looked at now, by the node acted
        through."""
        if peer_id != self.peer_id:
            self._health_of_hosts.complain(peer_id)

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

    async def overtaken_edits(self, resource_id: str, *, timeout: float = DEFAULT_TIMEOUT) -> list[Edit]:
        """What the policy of a resource lacks of what a machine of its owner changed: see `PolicyEditor.overtaken`.
        Raises RegistryError."""
        return await self._policies.overtaken(resource_id, timeout)

    def use_certificates(self, source: CertificateSource) -> None:
        """Has this identity show certificates where a resource's policy asks for them.

        `source` gives the chains that there are; it may be async, such as `CertificateFiles`. It is called for each
        record that is issued, and every two seconds: what was issued under a chain that ends is issued anew under one
        that ends later, as soon as that is there (`registry.client.certified_records`).
        """
        self.certificates.use(source)

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
        hosts = dict.fromkeys(record.metadata.peer_id for record in records)
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
        if not is_key_id(resource_id):
            raise InvalidValue(no_resource_id(resource_id))
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
