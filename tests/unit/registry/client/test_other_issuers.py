"""A node that registers services on itself under another identity than its own, over simulated nodes."""

from __future__ import annotations

import trio

from registry.codes import Code
from registry.health.state import HealthState
from registry.model.values import Record, Slot
from registry.settings import UpkeepSettings
from tests.simulation.nodes import simulated_nodes
from tests.unit.registry.builders import identity
from tests.unit.registry.client.test_certificates import certificate, closed
from tests.unit.registry.client.test_policies import clock as present
from tests.unit.registry.upkeep.test_upkeep import clock, settings, values

OTHER = identity(77)


async def test_what_another_identity_registers_is_hosted_renewed_issued_anew_and_ended(autojump_clock: object) -> None:
    rules = settings(UpkeepSettings(renew=100.0), expired_age=1_000, record_lifetime=4_000, key_lifetime=8_000)
    async with simulated_nodes(3, rules, clock, issuers=[OTHER]) as (_, [node, owner, reader]):
        created = await owner.registry.create_resource("sample", factor=3)
        assert created.resource_id is not None
        resource_id, registry = created.resource_id, node.parts.registries[OTHER.peer_id]
        slot, own = (Slot(resource_id, issuer, node.peer_id) for issuer in (OTHER.peer_id, node.peer_id))
        assert (await node.registry.register_service(resource_id, "own", node.peer_id, None, factor=3)).success
        done = await registry.register_service(resource_id, "theirs", registry.peer_id, None, factor=3, ttl=500)
        assert done.success, done.errors
        assert registry.own_health(resource_id).state is HealthState.CRITICAL, "nobody said yet that it passes"
        assert sorted(await values(reader, resource_id, 3) or ()) == ["own", "theirs"]

        async def states() -> dict[Slot, Record]:
            slots = (await reader.store.resource(resource_id)).slots
            return {each: state for each, state in slots.items() if isinstance(state, Record)}

        first = await states()
        for _ in range(40):
            assert (await registry.report_health(resource_id)).success
            await trio.sleep(250)
        later = await states()
        assert later.keys() == {slot, own}
        for each, state in later.items():
            assert first[each].timestamp_issued < state.timestamp_issued
            assert clock() - state.timestamp_issued < 4_000
            assert clock() - state.timestamp_created < 1_000
        assert registry.own_health(resource_id).state is HealthState.PASSING
        await trio.sleep(600)
        assert registry.own_health(resource_id).state is HealthState.CRITICAL, "its time to live stayed"

        ended = await registry.unregister_service(resource_id, registry.peer_id, factor=3)
        assert (ended.success, ended.was_there) == (True, True), ended.errors
        assert await values(reader, resource_id, 3) == ["own"]
        again = await registry.unregister_service(resource_id, registry.peer_id)
        assert (again.success, again.was_there) == (True, False), "and of the node's own nothing is said"
        await trio.sleep(2_000)
        assert await values(reader, resource_id, 3) == ["own"]


async def test_it_goes_on_under_a_newer_certificate_with_its_time_to_live(autojump_clock: object) -> None:
    async with simulated_nodes(3, clock=present, issuers=[OTHER]) as (_, [node, owner, reader]):
        resource_id, registry = await closed(owner), node.parts.registries[OTHER.peer_id]
        refused = await registry.register_service(resource_id, "v", node.peer_id, None)
        assert refused.code is Code.ISSUER_NOT_ALLOWED
        chains = [[certificate(OTHER, owner.identity, 600)]]
        registry.use_certificates(lambda: chains)
        done = await registry.register_service(resource_id, "v", registry.peer_id, None, factor=3, ttl=5_000)
        assert done.success, done.errors
        assert (await registry.report_health(resource_id)).success
        chains.append([certificate(OTHER, owner.identity, 6_000)])
        await trio.sleep(1_000)
        assert await values(reader, resource_id, 3) == ["v"], "the first certificate has ended"
        assert registry.own_health(resource_id).state is HealthState.PASSING
        await trio.sleep(4_500)
        assert registry.own_health(resource_id).state is HealthState.CRITICAL, "its time to live stayed"


async def test_what_cant_be_ended_in_the_network_is_ended_here(autojump_clock: object) -> None:
    async with simulated_nodes(2, settings(), clock, issuers=[OTHER]) as (network, [node, owner]):
        created = await owner.registry.create_resource("sample", factor=2)
        assert created.resource_id is not None
        registry = node.parts.registries[OTHER.peer_id]
        assert (await registry.register_service(created.resource_id, "v", node.peer_id, None, factor=2)).success
        network.down.add(owner.peer_id)
        await registry.unregister_service(created.resource_id, node.peer_id, factor=2, timeout=1)
        [state] = (await node.store.resource(created.resource_id)).slots.values()
        assert not isinstance(state, Record)
