"""Runs a light client: a process with its own key that acts through a node, and turns to the next when that fails.

It signs and verifies by itself: its node looks up, fans out and can withhold, but never forge.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from overlay.assembly import open_peer
from overlay.errors import AddressError, OverlayError
from overlay.identity import Identity
from overlay.peer import OverlayPeer
from overlay.settings import OverlaySettings
from overlay.tasks import background
from registry.client.abandoned_writes import AbandonedWrites
from registry.client.certified_records import CertifiedRecords
from registry.client.presence_through_node import PresenceThroughNode
from registry.client.record_renewal import Renewal
from registry.client.registry import Registry
from registry.client.reissuing import Resigning
from registry.client.relay_failover import RelayFailover
from registry.client.remote_node import RemoteNode
from registry.client.timestamps import TimestampLog
from registry.errors import InvalidValue, NodeUnavailable, RegistryError
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.host_health import HostHealth
from registry.protocol.address_groups import AddressGroups
from registry.protocol.network import Clock
from registry.replica.behind import Behind
from registry.replica.catch_up import CatchUp
from registry.replica.clock_guard import ClockGuard
from registry.replica.countersign import Countersigner
from registry.replica.ingest import Ingest
from registry.replica.replica import Replica
from registry.replica.sender_limits import SenderLimits
from registry.replica.takeover import Takeover
from registry.replica.weights import Weights
from registry.settings import CurrentSettings, RegistrySettings, UpkeepSettings
from registry.storage import Store, open_store
from registry.storage.data_folder import claimed
from registry.storage.database import IN_MEMORY
from registry.upkeep.schedule import Schedule
from registry.upkeep.schedules import FIRST_AFTER, RENEW
from registry.watch.source_machine import TIMEOUT
from registry.watch.watches import Watches, bound_read, keeps_nothing

DATABASE: Final = "client.sqlite"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LightClient:
    """A running light client; made by `open_light_client`."""

    def __init__(self, peer: OverlayPeer, registry: Registry, relay: RelayFailover) -> None:
        self.peer = peer
        self.registry = registry
        self.relay = relay


@asynccontextmanager
async def open_light_client(
    identity: Identity,
    addresses: Sequence[str],
    *,
    settings: OverlaySettings | None = None,
    registry_settings: RegistrySettings | None = None,
    data_dir: Path | None = None,
    timeout: float = 6.0,
    clock: Clock = time.time,
) -> AsyncIterator[LightClient]:
    """Acts for `identity` through the nodes at `addresses` (multiaddrs with /p2p/), while the context is open.

    With `data_dir` it remembers what it issued and hosts; one process at a time may use that. Raises NodeUnavailable
    when no node can be reached within `timeout` seconds, InvalidValue without addresses or for what is none.
    """
    if not addresses:
        raise InvalidValue("a light client needs the address of a node at least")
    rules = registry_settings or RegistrySettings()
    overlay = settings or OverlaySettings()
    overlay = msgspec.structs.replace(overlay, member=False, listen=(), announce=(), bootstrap=())
    async with AsyncExitStack() as stack:
        path = IN_MEMORY
        if data_dir is not None:
            path = stack.enter_context(claimed(data_dir)) / DATABASE
        store = await stack.enter_async_context(open_store(path, inline=data_dir is None))
        try:
            peer = await stack.enter_async_context(open_peer(identity, overlay, clock=clock))
            time_of_peers = ClockGuard(peer, clock).time  # to judge by what the node tells
            node_api = RemoteNode(peer, addresses, rules, time_of_peers)
        except AddressError as error:
            raise InvalidValue(str(error)) from error
        except OverlayError as error:
            raise NodeUnavailable(str(error)) from error
        limit = SenderLimits(identity.peer_id, rules)
        # Takes only what this client owns or hosts.
        ingest = Ingest(peer, store, CurrentSettings(rules), limit, Weights({}), clock)
        takeover = Takeover(peer, rules.neighbourhood_size)
        # Served, too: whoever issued what this client hosts ends it here.
        Replica(peer, store, ingest, CatchUp(AddressGroups(peer), is_caught_up=True), takeover, Behind(), clock)
        abandoned = AbandonedWrites(store, node_api.read, node_api.write, gets_writes_of=lambda _: False)
        countersigner = Countersigner(peer, identity, store, ingest, rules, clock, abandoned)
        presence = PresenceThroughNode(peer, node_api, peer.presence.note_exceptions)
        health = HostHealth(peer, store, rules, time_of_peers, presence)
        health_of_hosts = HealthOfHosts(peer, health, presence)
        await node_api.open(timeout=timeout)

        async def neighbours(key_id: str, avoided: Collection[str]) -> list[str]:
            if node_api.peer_id not in avoided:
                return [node_api.peer_id]  # it keeps the resource, or follows it for all its clients
            try:
                infos = await node_api.peer_infos(key_id, timeout=TIMEOUT)
            except RegistryError as error:
                _log.debug("the node doesn't tell who keeps a resource", key_id=key_id, error=str(error))
                return []
            for info in infos:
                peer.add_addresses(info.peer_id, list(info.addresses), teller=node_api.peer_id)
            return [node_api.peer_id, *(info.peer_id for info in infos)]  # perhaps another node by now

        watches = Watches(
            peer,
            neighbours,
            bound_read(node_api.read),
            keeps_nothing,
            rules,
            time_of_peers,
            wanted=1,
            health=health_of_hosts,
        )
        registry = Registry(
            identity,
            node_api,
            countersigner,
            health,
            health_of_hosts,
            TimestampLog(store, ingest, peer.peer_id),
            watches,
            rules,
            clock,
        )
        nursery = await stack.enter_async_context(background())
        renewal = _renewal(identity, node_api, countersigner, registry, store, rules, clock)
        resigning = Resigning(peer, [registry], node_api, store, renewal.run_now, rules, clock)
        for part in (presence, health, health_of_hosts, watches, abandoned, resigning):
            await nursery.start(part.run)
        certified = CertifiedRecords(identity, node_api, registry, store, rules, clock)
        relay = RelayFailover(peer, node_api, registry, store, rules, clock)
        for run in (renewal.run, certified.run, relay.run):
            nursery.start_soon(run)
        yield LightClient(peer, registry, relay)


def _renewal(
    identity: Identity,
    node_api: RemoteNode,
    countersigner: Countersigner,
    registry: Registry,
    store: Store,
    settings: RegistrySettings,
    clock: Clock,
) -> Schedule:
    """Makes the schedule by which a light client renews what it hosts and owns while it runs, and, with a data folder,
    what it hosted and owned before."""
    upkeep = UpkeepSettings()
    period = min(upkeep.renew, settings.expired_age / 2)
    renewal = Renewal(identity, node_api, countersigner, registry, store, settings, period, clock)

    return Schedule(
        RENEW,
        renewal.run_in_words,
        delay=min(period, FIRST_AFTER),
        period=period,
        jitter=upkeep.jitter,
        clock=clock,
        randomness=random.Random(),  # noqa: S311 - jitter, not secrets
    )
