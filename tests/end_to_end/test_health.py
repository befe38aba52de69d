"""What providers say of their services reaches the hosts, over real links and from one process to another.

Until presence carries it on, a host's list of what doesn't pass is asked for as readers ask when it is long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from aqua_compat import AquaClient, NotReported, connect
from overlay.assembly import open_peer
from overlay.identity import Identity
from overlay.peer import OverlayPeer
from overlay.settings import OverlaySettings
from registry.health.exceptions import entries_in
from registry.health.hosted import NOT_HEARD
from registry.health.messages import EXCEPTIONS, ExceptionsBody, ExceptionsPage
from registry.health.state import HealthState, HostedService
from registry.protocol.messages import build, parse
from tests.end_to_end.network import Network, eventually


@asynccontextmanager
async def observing_all(network: Network) -> AsyncIterator[OverlayPeer]:
    async with open_peer(Identity.generate(), OverlaySettings(member=False, listen=())) as peer:
        for node in network.nodes:
            await peer.connect(node.address, timeout=10)
        yield peer


async def listed(observing: OverlayPeer, host: str) -> dict[HostedService, str]:
    """What doesn't pass on a host, and why."""
    answer = await observing.call(host, EXCEPTIONS, build(ExceptionsBody()), timeout=5)
    page = parse(answer, ExceptionsPage)
    return {service: f"{health.state}: {health.note}" for service, health in entries_in(host, page.entries)}


async def until_listed(observing: OverlayPeer, host: str, service: HostedService, said: str | None) -> None:
    await eventually(lambda: listed(observing, host), lambda seen: seen.get(service) == said, timeout=10)


async def a_resource(client: AquaClient, label: str) -> str:
    resource_id, errors = await client.createResource(label)
    assert resource_id is not None, errors
    return resource_id


async def test_a_light_client_says_through_one_node_how_its_service_on_another_is(network: Network) -> None:
    host = network.nodes[3].peer_id
    async with observing_all(network) as observing, connect(network.nodes[0].address) as client:
        resource_id = await a_resource(client, "health on a host")
        service = HostedService(resource_id, client.peer_id)
        done = await client.registry.register_service(resource_id, "v", host, "web", ttl=2)
        assert done.success, done
        assert (await listed(observing, host))[service] == f"critical: {NOT_HEARD}"
        await client.pass_check(resource_id, peer_id=host)
        assert service not in await listed(observing, host)
        await until_listed(observing, host, service, "critical: its provider hasn't said for 2 s that it passes")
        await client.set_health(resource_id, "warning", "slow", peer_id=host, ttl=60)
        assert (await listed(observing, host))[service] == "warning: slow"
        assert (await client.unregisterService(resource_id, host))[0]
        await until_listed(observing, host, service, None)
        with pytest.raises(NotReported, match="nothing is registered here"):
            await client.pass_check(resource_id, peer_id=host)


async def test_a_provided_service_is_as_its_check_says(network: Network) -> None:
    said: object = None
    async with connect(network.nodes[1].address) as client:
        resource_id = await a_resource(client, "health of what is provided")

        async def own() -> tuple[HealthState, str]:
            await trio.lowlevel.checkpoint()
            health = client.registry.own_health(resource_id)
            return health.state, health.note

        async def until(state: HealthState, note: str) -> None:
            await eventually(own, lambda seen: seen == (state, note), timeout=10)

        async with client.provide(resource_id, "echo", {"echo": lambda: "echo"}, check=lambda: said, every=0.2):
            await until(HealthState.PASSING, "")
            said = ("critical", "no disk")
            await until(HealthState.CRITICAL, "no disk")
            said = True
            await until(HealthState.PASSING, "")


async def test_a_time_to_live_outlives_the_hosts_process(own_network: Network) -> None:
    node = own_network.nodes[4]
    async with observing_all(own_network) as observing, connect(own_network.nodes[0].address) as client:
        resource_id = await a_resource(client, "health across a restart")
        service = HostedService(resource_id, client.peer_id)
        assert (await client.registry.register_service(resource_id, "v", node.peer_id, "web", ttl=600)).success
        await client.pass_check(resource_id, peer_id=node.peer_id)
        assert service not in await listed(observing, node.peer_id)
        await node.kill()
        await own_network.restart([node])
        await observing.connect(node.address, timeout=10)
        assert (await listed(observing, node.peer_id))[service].startswith("critical: its provider hasn't said")
        await client.pass_check(resource_id, peer_id=node.peer_id, timeout=10)
        assert service not in await listed(observing, node.peer_id)
