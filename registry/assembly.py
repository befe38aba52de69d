"""The parts of a node over any network: the real one and a simulated one are put together here alike."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from overlay.identity import Identity
from registry.announcing.judging import Judging
from registry.announcing.leases import Leases
from registry.background import background
from registry.door import LocalDoor
from registry.doorway import open_doorway
from registry.history import Event
from registry.hosting import Host
from registry.inheritance import Inheritance
from registry.intake import Intake
from registry.issuing import IssueLog
from registry.messages import Item
from registry.network import Clock, Network
from registry.offering import Offering
from registry.outbox import Outbox
from registry.readiness import Readiness
from registry.reading import Reader
from registry.registry import Registry
from registry.repair import Repair
from registry.replica import Replica
from registry.replication import Replication
from registry.replication.comparing import Comparing
from registry.service import RegistryService
from registry.service.invocation import Invocation
from registry.settings import NodeSettings
from registry.shelf import StoreShelf
from registry.status import StatusSource
from registry.storage import Store
from registry.upkeep.renewal import Renewal
from registry.upkeep.upkeep import Upkeep
from registry.watching.watches import Watches, bound_read
from registry.weights import Weights
from registry.writing import Writer

EVENTS_TOLD: Final = 500  # of one resource's history, the last ones


class Parts(msgspec.Struct, frozen=True):
    """What a running node is made of, as far as others use it."""

    registry: Registry
    service: RegistryService
    reader: Reader
    replica: Replica
    writer: Writer
    outbox: Outbox
    replication: Replication
    upkeep: Upkeep
    leases: Leases
    watches: Watches
    host: Host
    offering: Offering


@asynccontextmanager
async def assembled(
    network: Network,
    identity: Identity,
    store: Store,
    settings: NodeSettings,
    status: StatusSource,
    clock: Clock,
    *,
    starts_network: bool = False,
    randomness: random.Random | None = None,
) -> AsyncIterator[Parts]:
    """Serves the registry over `network` and runs its tasks while the context is open.

    `starts_network`: this node was told of no other one, so there is nobody from whom it could have missed anything.
    """
    rules = settings.registry
    service = RegistryService(store, identity.peer_id, rules)
    weights = Weights(settings.weights)
    randomness = randomness or random.Random()  # noqa: S311 - jitter, not secrets
    intake = Intake(network, store, service, weights, clock)
    readiness = Readiness()
    if starts_network and not any(await store.read(lambda transaction: transaction.counts())):
        readiness.set()
    inheritance = Inheritance(network, rules.neighbourhood_size)
    replica = Replica(network, store, intake, readiness, inheritance, clock)
    comparing = Comparing(network, store, replica, clock)
    replication = Replication(network, store, comparing, settings.upkeep, rules.neighbourhood_size, randomness)

    async def store_here(items: Sequence[Item]) -> list[str]:
        return await intake.store(items, network.peer_id)

    outbox = Outbox(network, store_here, replication.note_failure)
    writer = Writer(network, replica, outbox)
    reader = Reader(network, replica, Repair(network, outbox), clock)
    host = Host(network, identity, StoreShelf(store, replica, identity.peer_id), rules, clock)
    invocation = Invocation(service, identity.peer_id, weights, clock, intake.is_responsible)

    async def history(key_id: str) -> list[Event]:
        return await store.read(lambda transaction: transaction.history(key_id, EVENTS_TOLD))

    door = LocalDoor(
        network, writer, reader, host, invocation, rules.neighbourhood_size, status, history, settings.operators
    )
    open_doorway(network, door)

    judging = Judging(rules, clock)
    judging.add(replica.take_announced)
    leases = Leases(network, store, replica)

    async def neighbours(key_id: str) -> list[str]:
        return await network.neighbourhood(key_id, rules.neighbourhood_size)

    watches = Watches(network, neighbours, bound_read(reader.read), replica.own, judging, rules, clock)
    store.on_commit(watches.note_commit)
    registry = Registry(identity, door, host, IssueLog(store), watches, rules, clock)
    renewal = Renewal(identity, door, host, registry, store, rules, settings.upkeep.renew, clock)
    upkeep = Upkeep(service, store, replication, renewal, settings.upkeep, clock, randomness)
    door.run_by_hand = upkeep.run_now
    offering = Offering(network, outbox, rules.neighbourhood_size, randomness)
    replica.on_put(offering.heard)
    async with background() as nursery:
        await nursery.start(outbox.run)
        await nursery.start(writer.run)
        nursery.start_soon(readiness.run, network)
        await nursery.start(replication.run)
        await nursery.start(upkeep.run)
        await nursery.start(leases.run)
        await nursery.start(watches.run)
        await nursery.start(offering.run)
        yield Parts(
            registry,
            service,
            reader,
            replica,
            writer,
            outbox,
            replication,
            upkeep,
            leases,
            watches,
            host,
            offering,
        )
