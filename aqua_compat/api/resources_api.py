"""The original's `resources-api`: the same function names, argument names, order and results.

`?T` is `T | None`, a stream of errors a list of texts, several results a tuple. What the network does never raises:
the results tell it. Wrong arguments raise TypeError or ValueError at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING

import structlog
import trio

from aqua_compat.rpc.errors import PeerUnreachable, TooSlow
from aqua_compat.schema.arguments import (
    check_ack,
    check_optional_string,
    check_peer_id,
    check_resource_id,
    check_string,
)
from aqua_compat.schema.constants import Constants
from overlay.tasks import in_thread
from registry.model.names import Names
from registry.model.signing import key_id_of
from registry.model.values import Key, Record
from registry.protocol.index_messages import MOST_LISTED

if TYPE_CHECKING:
    from registry.client.registry import Registry
    from registry.client.results import Listed

ResourceId = str
Resource = Key
Error = str
PeerId = str
RecordCall = Callable[[Record], object] | Callable[[Record], Awaitable[object]]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ResourcesApi:
    """The functions of `resources-api`, acting as one user through one node or light client."""

    def __init__(self, registry: Registry, constants: Constants, names: Names | None = None) -> None:
        """`names`: the aliases of owners, for names such as `web@acme` in place of ids; `me` is this identity."""
        self._registry = registry
        self.constants = constants
        self.names = (names or Names()).of(registry.identity.peer_id)

    def _resource_id(self, text: ResourceId) -> ResourceId:
        return check_resource_id("resource_id", text, self.names)

    async def createResource(self, label: str) -> tuple[ResourceId | None, list[Error]]:
        """Create a resource owned by this identity, or publish it anew; its id, or None and why not.

        The id depends only on label and owner: see `getResourceId`.
        """
        label = check_string("label", label)
        created = await self._registry.create_resource(
            label, factor=self.constants.INITIAL_REPLICATION_FACTOR, timeout=self.constants.timeout
        )
        return created.resource_id, list(created.errors)

    async def getResource(self, resource_id: ResourceId) -> tuple[Resource | None, list[Error]]:
        """The key of a resource, the newest that CONSISTENCY_LEVEL of its replicas know; None when too few have it."""
        resource_id = self._resource_id(resource_id)
        found = await self._registry.get_resource(
            resource_id, ack=self.constants.CONSISTENCY_LEVEL, timeout=self.constants.timeout
        )
        return found.key, list(found.errors)

    async def getResourceId(self, label: str, peer_id: PeerId) -> ResourceId:
        """The id that the resource `label` of the owner `peer_id` has, existing or not. Asks nobody."""
        return key_id_of(check_string("label", label), check_peer_id("peer_id", peer_id))

    async def registerService(
        self, resource_id: ResourceId, value: str, peer_id: PeerId, service_id: str | None
    ) -> tuple[bool, list[Error]]:
        """Register on a resource that a service runs on `peer_id`; that peer signs the record as its host.

        Done when INITIAL_REPLICATION_FACTOR replicas have it on disk. Registering again replaces the record that this
        identity has there for that peer.
        """
        done = await self._registry.register_service(
            self._resource_id(resource_id),
            check_string("value", value),
            check_peer_id("peer_id", peer_id),
            check_optional_string("service_id", service_id),
            factor=self.constants.INITIAL_REPLICATION_FACTOR,
            timeout=self.constants.timeout,
        )
        return done.success, list(done.errors)

    async def unregisterService(self, resource_id: ResourceId, peer_id: PeerId) -> tuple[bool, list[Error]]:
        """End the record that this identity issued for `peer_id` on a resource.

        Where a resource of its own has none by it there, this denies what others registered for that peer, of all who
        did, unless `peer_id` is this identity; the errors name them. To end what one of them registered alone, or for
        a time, take the same of `client.registry`, with `issuer=` and `until=`.
        """
        done = await self._registry.unregister_service(
            self._resource_id(resource_id),
            check_peer_id("peer_id", peer_id),
            is_of_all=True,
            factor=self.constants.INITIAL_REPLICATION_FACTOR,
            timeout=self.constants.timeout,
        )
        return done.success, list(done.errors)

    async def resolveResource(self, resource_id: ResourceId, ack: int) -> tuple[list[Record] | None, list[Error]]:
        """All live records of a resource, as `ack` of its replicas (0 to 32767) know them together.

        None when too few answered in DEFAULT_TIMEOUT or when nobody knows the resource.
        """
        resolved = await self._registry.resolve_resource(
            self._resource_id(resource_id), check_ack("ack", ack), timeout=self.constants.timeout
        )
        return None if resolved.records is None else list(resolved.records), list(resolved.errors)

    async def removeResource(self, resource_id: ResourceId) -> tuple[bool, list[Error]]:
        """End a resource that this identity owns, and all that was registered on it. Ours: the original promised it.

        Done when INITIAL_REPLICATION_FACTOR replicas have it on disk; `createResource` begins anew under the same id.
        """
        done = await self._registry.remove_resource(
            self._resource_id(resource_id),
            factor=self.constants.INITIAL_REPLICATION_FACTOR,
            timeout=self.constants.timeout,
        )
        return done.success, list(done.errors)

    async def listResources(self, owner: PeerId, after: str | None = None, limit: int = MOST_LISTED) -> Listed:
        """A page of an owner's resources, by its alias, peer id or `me`, in order of their labels. Ours.

        Each is a `ListedResource`; those that were removed or have expired are among them. The next page is asked for
        with the `after` of this one, which is None at the end. The resources are None when too few replicas answered.
        """
        owner_peer_id = self.names.owner(check_string("owner", owner))
        if after is not None:
            check_string("after", after)
        if not 0 < limit <= MOST_LISTED:
            raise ValueError(f"limit is {limit}, not a number from 1 to {MOST_LISTED}")
        return await self._registry.list_resources(
            owner_peer_id,
            after=after,
            limit=limit,
            ack=self.constants.CONSISTENCY_LEVEL,
            timeout=self.constants.timeout,
        )

    async def executeOnResource(self, resource_id: ResourceId, ack: int, call: RecordCall) -> tuple[bool, list[Error]]:
        """Resolve, then run `call` for every record at once, each within DEFAULT_TIMEOUT.

        `call` is an async function, or a sync one, which runs in a thread. True when the resource was resolved; a
        call that raises or takes too long adds an error, as one that failed did in the original.
        """
        if not callable(call):
            raise TypeError(f"call must be a function of a Record, not {type(call).__name__}")
        records, errors = await self.resolveResource(resource_id, ack)
        if records is None:
            return False, errors
        async with trio.open_nursery() as nursery:
            for record in records:
                nursery.start_soon(self._run_call, call, record, errors)
        return True, errors

    async def _run_call(self, call: RecordCall, record: Record, errors: list[Error]) -> None:
        where = f" on {record.metadata.peer_id}"
        with trio.move_on_after(self.constants.timeout) as deadline:
            try:
                await _outcome(call, record)
            except Exception as error:  # the caller's own function: whatever it raises is its result
                if isinstance(error, PeerUnreachable | TooSlow):
                    self._registry.note_unreachable(record.metadata.peer_id)
                log.debug("a call on a resource raised", peer_id=record.metadata.peer_id, exc_info=True)
                errors.append(f"{type(error).__name__}: {error}{where}")
        if deadline.cancelled_caught:
            self._registry.note_unreachable(record.metadata.peer_id)
            errors.append(f"timeout exceeded{where}")


async def _outcome(call: RecordCall, record: Record) -> None:
    if iscoroutinefunction(call):
        await call(record)
        return
    # A plain function may block, so it gets a thread; one that outlives its deadline is left to end there.
    result = await in_thread(call, record)
    if isawaitable(result):
        await result
