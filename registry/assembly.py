"""Puts the parts of a node together, over the real network and a simulated one alike.

Objects get what they need when they are made. Three of them need what is made later, and get it here by a function that
calls it: the replica tells rumors of puts, the node API runs schedules, and the store, which was open before, tells of
commits.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from overlay.identity import Identity
from overlay.tasks import background
from registry.client.abandoned_writes import AbandonedWrites
from registry.client.certified_records import MAX_FOLLOWED, CertifiedRecords
from registry.client.local_node import LocalNode
from registry.client.node_api_server import serve_node_api
from registry.client.node_status import StatusSource
from registry.client.record_renewal import Renewal
from registry.client.registry import Registry
from registry.client.reissuing import Resigning
from registry.client.timestamps import TimestampLog
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.host_health import HostHealth
from registry.health.hosts_for_clients import HostsForClients
from registry.model.history import HistoryEvent, withheld_in
from registry.model.merge import ResourceState
from registry.model.values import Record
from registry.protocol.address_groups import AddressGroups
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item, Spread
from registry.protocol.network import Clock, Network
from registry.protocol.presence import PresenceNetwork
from registry.quorum.doubts import Doubts
from registry.quorum.listing import IndexReader
from registry.quorum.pass_on import PassOn
from registry.quorum.read import Reader
from registry.quorum.read_machine import in_turn, parted
from registry.quorum.read_repair import ReadRepair
from registry.quorum.recent_writes import RecentWrites
from registry.quorum.send_queue import SendQueue
from registry.quorum.write import Writer
from registry.replica.catch_up import CatchUp
from registry.replica.countersign import Countersigner
from registry.replica.ingest import Ingest
from registry.replica.listing import IndexKeeper
from registry.replica.replica import Replica
from registry.replica.sender_limits import SenderLimits
from registry.replica.takeover import Takeover
from registry.replica.trust_keeper import TrustKeeper, loaded_trust
from registry.replica.weights import Weights
from registry.replication import ReplicationScheduler
from registry.replication.anti_entropy import AntiEntropy
from registry.replication.entering import Entering
from registry.replication.recovery import Recovery
from registry.replication.rumor import Rumors
from registry.service import RegistryService
from registry.service.remote_invocation import Invocation
from registry.settings import CurrentSettings, NodeSettings, RegistrySettings
from registry.storage import Store
from registry.upkeep.schedule import ScheduleStatus
from registry.upkeep.schedules import RENEW, Schedules
from registry.watch.subscriptions import Subscriptions
from registry.watch.watches import SETTLES_WITHIN, Watches, bound_read

EVENTS_TOLD: Final = 500  # of one resource's history, the last ones


class Parts(msgspec.Struct, frozen=True):
    """What a running node is made of, as far as others use it."""

    registry: Registry
    registries: Mapping[str, Registry]
    """By peer id: of the node's own identity, and of the others that issue here."""
    service: RegistryService
    reader: Reader
    replica: Replica
    writer: Writer
    send_queue: SendQueue
    replication: ReplicationScheduler
    entering: Entering
    upkeep: Schedules
    subscriptions: Subscriptions
    watches: Watches
    host: Countersigner
    health: HostHealth
    health_of_hosts: HealthOfHosts
    rumors: Rumors
    pass_on: PassOn
    node_api: LocalNode
    abandoned: AbandonedWrites
    trust: TrustKeeper
    weights: Weights


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
    presence: PresenceNetwork | None = None,
    randomness: random.Random | None = None,
    issuers: Sequence[Identity] = (),
) -> AsyncIterator[Parts]:
    """Serves the registry over `network` and runs its tasks while the context is open.

    `starts_network`: this node was told of no other one, so there is nobody from whom it could have missed anything.
    `presence`: who is alive; None where the network has none, and everybody counts as up.
    `issuers`: identities under which services are registered here besides the node's own; no quota binds them here.
    """
    rules, randomness = _trusting(settings.registry, issuers), randomness or random.Random()  # noqa: S311 - jitter, not secrets
    current, sender_limits = CurrentSettings(rules), SenderLimits(identity.peer_id, rules)
    service = RegistryService(store, identity.peer_id, current, sender_limits)
    trust = await loaded_trust(clock, settings.trust_roots, store, rules.clock_skew)
    weights, groups = Weights(settings.weights, trust), AddressGroups(network)
    recovery = Recovery(network, groups, rules.neighbourhood_size, rules.responsibility_margin)
    ingest = Ingest(network, store, current, sender_limits, weights, clock, recovery.note)
    store.collect_while(lambda: ingest.clock_guard.is_trusted)
    time = ingest.clock_guard.time  # to judge by what others tell; what this node takes and signs its own clock judges
    is_first = starts_network and not any(await store.read(lambda transaction: transaction.counts.totals()))
    catch_up = CatchUp(groups, is_caught_up=is_first)
    takeover = Takeover(network, rules.neighbourhood_size)

    async def note_put(peer_id: str, items: Sequence[Item], spreads: Iterable[Spread | None]) -> None:
        rumors.heard(peer_id, items)  # made below, as the next: they send through what asks the replica
        abandoned.settle(items)
        await pass_on.take(peer_id, items, spreads)

    replica = Replica(
        network,
        store,
        ingest,
        catch_up,
        takeover,
        recovery.behind,
        clock,
        note_put,
        lambda items: rumors.note_again(items),  # noqa: PLW0108 - rumors are made below
    )
    anti_entropy = AntiEntropy(network, store, replica, clock)
    replication = ReplicationScheduler(
        network, store, anti_entropy, settings.upkeep, rules.neighbourhood_size, randomness
    )

    async def store_here(items: Sequence[Item]) -> list[ErrorInfo | None]:
        return await ingest.store(items, network.peer_id)

    send_queue = SendQueue(network, store_here, replication.note_failure)
    pass_on = PassOn(network, store, send_queue, rules.neighbourhood_size, randomness)
    recent_writes, doubts = RecentWrites(), Doubts()
    writer = Writer(
        network,
        replica,
        send_queue,
        recent_writes,
        doubts,
        groups,
        randomness,
        lambda item: watches.note_own(item),  # noqa: PLW0108 - watches are made below
    )
    reader = Reader(network, replica, ReadRepair(send_queue, doubts), recent_writes, doubts, groups, time)
    entering, index_reader = (
        Entering(network, store, replica, settings.upkeep.replicate, randomness),
        IndexReader(network, replica, IndexKeeper(network, store, replica), doubts, groups, time),
    )
    abandoned = AbandonedWrites(store, reader.read, writer.write, ingest.is_among_nearest)
    host = Countersigner(network, identity, store, ingest, rules, clock, abandoned)
    health, health_of_hosts, hosts_for_clients = _health(network, store, rules, time, presence)

    async def history(key_id: str, reader_id: str, timeout: float) -> list[HistoryEvent]:
        return await _history(store, watches, health_of_hosts, time, key_id, reader_id, timeout)

    async def run_schedule(name: str) -> ScheduleStatus:
        return await upkeep.run_now(name)  # made below: what it runs acts through the node

    node_api = LocalNode(
        network,
        writer,
        reader,
        index_reader,
        entering,
        host,
        health,
        health_of_hosts,
        hosts_for_clients,
        Invocation(service, identity.peer_id, weights, clock, ingest.is_responsible),
        rules.neighbourhood_size,
        status,
        history,
        run_schedule,
        settings.operators,
    )
    serve_node_api(network, node_api)

    async def neighbours(key_id: str, avoided: Collection[str]) -> list[str]:  # noqa: ARG001 - they are told apart
        return in_turn(*parted(await network.neighbourhood(key_id, rules.neighbourhood_size), rules.neighbourhood_size))

    def note_news(key_id: str, before: ResourceState, after: ResourceState) -> None:
        subscriptions.note_news(key_id, before, after)  # made below: it serves what is watched

    watches = Watches(
        network,
        neighbours,
        bound_read(reader.read),
        replica.own,
        rules,
        time,
        [replica.take_announced],
        note_news=note_news,
        health=health_of_hosts,
        randomness=randomness,
    )
    subscriptions = Subscriptions(network, store, replica, watches, settings.watching, randomness)
    for note_commit in (subscriptions.note, watches.note_commit, entering.note):  # the store was open before
        store.on_commit(note_commit)
    store.on_damage(recovery.note_lost)
    store.on_room(recovery.room_again)
    registry, *others = registries = [
        Registry(
            each,
            node_api,
            host,
            health,
            health_of_hosts,
            TimestampLog(store, ingest, identity.peer_id),
            watches,
            rules,
            clock,
        )
        for each in (identity, *issuers)
    ]
    renewal = Renewal(identity, node_api, host, registry, store, rules, settings.upkeep.renew, clock, others)
    upkeep = Schedules(service, store, replication, renewal.run_in_words, settings.upkeep, clock, randomness)
    rumors = Rumors(network, send_queue, rules.neighbourhood_size, randomness)
    async with background() as nursery:
        nursery.start_soon(catch_up.run, network)
        for run in (
            *(
                part.run
                for part in (
                    *(health, health_of_hosts, hosts_for_clients),
                    *(ingest, send_queue, replica, writer, pass_on, abandoned, replication, entering, recovery, upkeep),
                    *(subscriptions, watches, rumors),
                    Resigning(network, registries, node_api, store, lambda: upkeep.run_now(RENEW), rules, clock),
                )
            ),
            *(
                CertifiedRecords(
                    each.identity, node_api, each, store, rules, clock, MAX_FOLLOWED // len(registries)
                ).run
                for each in registries
            ),
        ):
            await nursery.start(run)
        yield Parts(
            registry,
            {each.identity.peer_id: each for each in registries},
            service,
            reader,
            replica,
            writer,
            send_queue,
            replication,
            entering,
            upkeep,
            subscriptions,
            watches,
            host,
            health,
            health_of_hosts,
            rumors,
            pass_on,
            node_api,
            abandoned,
            trust,
            weights,
        )


def _trusting(rules: RegistrySettings, issuers: Sequence[Identity]) -> RegistrySettings:
    trusted = (*rules.hosting.issuers, *(each.peer_id for each in issuers))
    return msgspec.structs.replace(rules, hosting=msgspec.structs.replace(rules.hosting, issuers=trusted))


def _health(
    network: Network, store: Store, rules: RegistrySettings, time: Clock, presence: PresenceNetwork | None
) -> tuple[HostHealth, HealthOfHosts, HostsForClients]:
    own = HostHealth(network, store, rules, time, presence)
    of_hosts = HealthOfHosts(network, own, presence)
    return own, of_hosts, HostsForClients(network, of_hosts)


async def _history(
    store: Store, watches: Watches, health: HealthOfHosts, time: Clock, key_id: str, reader_id: str, timeout: float
) -> list[HistoryEvent]:
    """What happened to a resource here and to its hosts; then what now its policy withholds, is down or doesn't pass.
    `reader_id`, `timeout`: as of `HistorySource`."""
    events = await store.read(lambda transaction: transaction.history.last(key_id, EVENTS_TOLD))
    resource = await store.resource(key_id)
    if not resource.slots:  # nothing of it is kept here, but it may be watched
        resource = watches.at_hand(key_id) or resource
    hosts = dict.fromkeys(slot.peer_id for slot, state in resource.slots.items() if isinstance(state, Record))
    await health.settle(hosts, min(SETTLES_WITHIN, timeout / 2), client=reader_id)
    moment = time()
    present = health.events_of(resource, moment)
    changes = health.changes_of(key_id, resource, moment, present)[-EVENTS_TOLD:]
    happened = heapq.merge(events, changes, key=lambda event: event.time)
    return [*happened, *withheld_in(resource, int(moment))[:EVENTS_TOLD], *present[:EVENTS_TOLD]]
