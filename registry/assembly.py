"""The parts of a node over any network: the real one and a simulated one are put together here alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from overlay.identity import Identity
from registry.background import background
from registry.door import LocalDoor
from registry.doorway import open_doorway
from registry.hosting import Host
from registry.issuing import IssueLog
from registry.network import Clock, Network
from registry.outbox import Outbox
from registry.reading import Reader
from registry.registry import Registry
from registry.replica import Replica
from registry.service import RegistryService
from registry.service.invocation import Invocation
from registry.settings import NodeSettings
from registry.shelf import StoreShelf
from registry.status import StatusSource
from registry.storage import Store
from registry.weights import Weights
from registry.writing import Writer


class Parts(msgspec.Struct, frozen=True):
    """What a running node is made of, as far as others use it."""

    registry: Registry
    service: RegistryService
    reader: Reader
    replica: Replica
    writer: Writer
    outbox: Outbox


@asynccontextmanager
async def assembled(
    network: Network,
    identity: Identity,
    store: Store,
    settings: NodeSettings,
    status: StatusSource,
    clock: Clock,
) -> AsyncIterator[Parts]:
    """Serves the registry over `network` and runs its tasks while the context is open."""
    rules = settings.registry
    service = RegistryService(store, identity.peer_id, rules)
    weights = Weights(settings.weights)
    replica = Replica(network, store, service, weights, clock)
    outbox = Outbox(network)
    writer = Writer(network, replica, outbox)
    reader = Reader(network, replica, clock)
    host = Host(network, identity, StoreShelf(store, replica, identity.peer_id), rules, clock)
    invocation = Invocation(service, identity.peer_id, weights, clock, replica.is_responsible)
    door = LocalDoor(network, writer, reader, host, invocation, rules.neighbourhood_size, status)
    open_doorway(network, door)
    registry = Registry(identity, door, host, IssueLog(store), rules, clock)
    async with background() as nursery:
        await nursery.start(outbox.run)
        await nursery.start(writer.run)
        yield Parts(registry, service, reader, replica, writer, outbox)
