"""Renews the resources of owners whose keys are here, as a node renews those of its own key.

Rules (those of `registry.client.record_renewal`, for keys):
1. What its owner has by the index is signed anew before three quarters of the expired age, whoever of the key's holders
   made it: a signature that nobody renews ends within a year, and a policy with it.
2. What expired meanwhile is signed anew only if something is registered on it, or it has a policy.
3. The network is asked first; a key with a policy is read from a majority. What is removed isn't made again.
4. Of several holders of a key the first one renews: each comes at another time, and finds the others' done.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from aqua_compat.agent.owner_keys import OwnerKeys
from registry.client.majority import read_majority
from registry.client.registry import DEFAULT_TIMEOUT
from registry.errors import RegistryError
from registry.model.merge import ResourceState
from registry.model.names import Names
from registry.model.owner_index import ListedResource, ResourceStanding
from registry.upkeep.schedule import Schedule
from registry.upkeep.schedules import FIRST_AFTER

if TYPE_CHECKING:
    from registry.client.node_api import NodeApi
    from registry.client.registry import Registry
    from registry.model.values import Key
    from registry.node import Node
    from registry.protocol.network import Clock
    from registry.settings import RegistrySettings, UpkeepSettings

_MOST_PAGES: Final = 200
"""Of one owner: more than an index holds."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class KeysRenewed(msgspec.Struct):
    """Counts what one run did."""

    renewed: int = 0
    failed: int = 0


class OwnerRenewal:
    """Renews what the owners in `keys` have."""

    def __init__(
        self,
        keys: OwnerKeys,
        registry: Registry,
        node_api: NodeApi,
        settings: RegistrySettings,
        period: float,
        clock: Clock,
        names: Callable[[], Names] = Names,
    ) -> None:
        """`period`: seconds until it runs again. `names`: how resources are called at the moment."""
        self._names = names
        self._keys = keys
        self._registry = registry
        self._node_api = node_api
        self._due_age = max(int(settings.expired_age * 0.75 - period), 0)
        self._clock = clock

    async def run_in_words(self) -> str:
        """Renews what is due, and says how much that was. Raises RegistryError."""
        done = KeysRenewed()
        for owner in self._keys.owners:
            async for resource in self._due(owner):
                try:
                    key = await self._to_renew(resource)
                    errors = () if key is None else await self._keys.sign_anew(key)
                except RegistryError as error:
                    key, errors = None, (str(error),)
                done.renewed += key is not None and not errors
                if errors:
                    done.failed += 1
                    name = self._names().name(resource.label, owner)
                    _log.warning("an owner's resource isn't renewed", name=name, errors=list(errors[:3]))
        return f"keys {done.renewed}, failed {done.failed}"

    async def _due(self, owner: str) -> AsyncIterator[ListedResource]:
        until, after = int(self._clock()) - self._due_age, None
        for _ in range(_MOST_PAGES):
            page = await self._registry.list_resources(owner, after=after)
            if page.resources is None:
                _log.warning("an owner's resources can't be listed for renewal", owner=owner, errors=list(page.errors))
                return
            for resource in page.resources:
                if resource.standing is not ResourceStanding.REMOVED and resource.time <= until:
                    yield resource
            after = page.after
            if after is None:
                return

    async def _to_renew(self, resource: ListedResource) -> Key | None:
        """The key to sign anew; None where there is none any more, or another holder did it. Raises RegistryError."""
        found = await self._read(resource.resource_id)
        key = found.key
        if key is None or key.timestamp_created > resource.time:
            return None
        is_unused = resource.standing is ResourceStanding.EXPIRED and not found.slots and not key.revision
        return None if is_unused else key

    async def _read(self, key_id: str) -> ResourceState:
        found = (await self._node_api.read(key_id, ack=1, timeout=DEFAULT_TIMEOUT)).resource
        if found.key is None or not found.key.revision:
            return found
        return (await read_majority(self._node_api, key_id, DEFAULT_TIMEOUT)).resource


def renewal_schedule(keys: OwnerKeys, node: Node, upkeep: UpkeepSettings, names: Callable[[], Names]) -> Schedule:
    """Runs the renewal on a node, as often as it renews what is its own. `names`: how resources are called at the
    moment."""
    parts = node.parts
    renewal = OwnerRenewal(keys, node.registry, parts.node_api, parts.replica.settings, upkeep.renew, time.time, names)
    return Schedule(
        "renew resources of owners",
        renewal.run_in_words,
        delay=min(upkeep.renew, FIRST_AFTER) * random.uniform(0.5, 1.0),  # noqa: S311 - so that holders differ
        period=upkeep.renew,
        jitter=upkeep.jitter,
        clock=time.time,
        randomness=random.Random(),  # noqa: S311
    )
