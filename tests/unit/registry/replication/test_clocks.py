"""Nodes whose clocks are wrong, in virtual time: what they leave undone, and how soon all is well again."""

from __future__ import annotations

from pathlib import Path

import trio

from overlay.clock.comparison import Standing
from registry.codes import Code
from registry.model.merge import ResourceState
from registry.model.values import Record
from registry.protocol.messages import READ, Item, ReadBody, StatePage, build, parse
from tests.simulation.world import START, World, WorldNode
from tests.unit.registry.replication.test_recovery import RECOVERED_WITHIN, update, values_at, wait_for_values
from tests.unit.registry.replication.test_replication import SETTINGS, keepers, known, registered, world

NOTICED_WITHIN = 3.0  # seconds after a jump
RESIGNED_WITHIN = SETTINGS.registry.clock_skew + NOTICED_WITHIN + 2
DAY = 86_400


def standing(node: WorldNode) -> Standing:
    assert node.network is not None
    return node.network.compared_clock.verdict().standing


async def is_caught_up(made: World, asker: WorldNode, node: WorldNode, resource_id: str) -> bool:
    """What a node says of its answers to another."""
    answer = await made.network.peers[asker.peer_id].call(
        node.peer_id, READ, build(ReadBody(key_id=resource_id)), timeout=5
    )
    return parse(answer, StatePage).caught_up


async def wait_until_counted(node: WorldNode, resource_id: str) -> None:
    assert node.parts is not None
    with trio.fail_after(RECOVERED_WITHIN):
        while not node.parts.replica.counts_for(resource_id):  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.1)


async def test_all_clocks_that_differ_little_are_right(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 8) as made:
        for number, node in enumerate(made.nodes):
            node.skew = number - 3.5
        await trio.sleep(NOTICED_WITHIN)
        assert {standing(node) for node in made.nodes} == {Standing.RIGHT}


async def test_a_node_that_starts_with_a_slow_clock_signs_nothing_and_counts_for_nothing_until_it_is_set(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        slow = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        await made.crash(slow)
        slow.skew = -45.0
        await made.start(slow)
        assert slow.parts is not None
        created = await slow.parts.registry.create_resource("its own")
        assert created.resource_id is None
        assert created.errors[0] == "this machine's clock is 45 s behind 7 peers'; set it"
        done = await slow.parts.registry.register_service(resource_id, "v", slow.peer_id, None)
        assert not done.success
        assert "45 s behind" in done.errors[0]
        await trio.sleep(20)
        assert standing(slow) is Standing.OFF
        assert not await is_caught_up(made, made.nodes[0], slow, resource_id)
        await update(made.nodes[0], resource_id, "newer", factor=2)
        slow.skew = 0.0
        await wait_for_values(slow, resource_id, {"newer"})
        await wait_until_counted(slow, resource_id)
        assert await is_caught_up(made, made.nodes[0], slow, resource_id)
        assert (await slow.parts.registry.create_resource("its own")).resource_id is not None


async def test_a_node_whose_clock_was_ten_minutes_slow_is_behind_for_everything_until_it_was_compared_with(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        slow = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        slow.skew = -600.0
        assert slow.parts is not None
        assert not slow.parts.replica.counts_for(resource_id), "at once, before anybody was asked"
        await trio.sleep(NOTICED_WITHIN)
        await update(made.nodes[0], resource_id, "newer", factor=2)
        await trio.sleep(25)
        assert await values_at(slow, resource_id) == {"v"}
        slow.skew = 0.0
        await wait_until_counted(slow, resource_id)
        assert await values_at(slow, resource_id) == {"newer"}, "it counts no sooner"


async def test_majority_reads_are_fresh_where_clocks_are_half_a_minute_slow_and_fast(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        others = [node for node in made.nodes if node is not made.nodes[0]]
        slow = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        fast = next(node for node in others if node is not slow)
        slow.skew, fast.skew = -29.0, 29.0
        await trio.sleep(NOTICED_WITHIN)
        assert fast.parts is not None
        done = await fast.parts.registry.register_service(resource_id, "too fast", fast.peer_id, None)
        assert not done.success
        assert "29 s ahead" in done.errors[0]
        for number in range(3):
            await update(made.nodes[0], resource_id, f"newer {number}", factor=2)
            for reader in made.nodes:
                assert reader.parts is not None
                resolved = await reader.parts.registry.resolve_resource(resource_id, 2)
                assert [record.metadata.value for record in resolved.records or ()] == [f"newer {number}"]


async def test_nothing_is_collected_by_a_wrong_clock_nor_refused_for_good(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        fast = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        fast.skew = 400.0 * DAY
        assert fast.parts is not None
        for _ in range(2):  # at once, and when others were asked
            ran = await fast.parts.upkeep.run_now("clearExpired_86400")
            assert ran.did.startswith("failed: "), ran.did
            await trio.sleep(NOTICED_WITHIN)
        assert await values_at(fast, resource_id) == {"v"}
        await update(made.nodes[0], resource_id, "newer", factor=2)
        record = next(
            state for state in (await known(made.nodes[0], resource_id)).slots.values() if isinstance(state, Record)
        )
        key = (await known(made.nodes[0], resource_id)).key
        assert key is not None
        [error] = await fast.parts.replica.ingest.store([Item(key, record)], made.nodes[0].peer_id)
        assert error is not None
        assert error.code is Code.CLOCK
        assert error.kind.is_temporary
        resolved = await fast.parts.registry.resolve_resource(resource_id, 2)
        assert [record.metadata.value for record in resolved.records or ()] == ["newer"], "it reads by others' time"
        fast.skew = 0.0
        await wait_for_values(fast, resource_id, {"newer"})
        ran = await fast.parts.upkeep.run_now("clearExpired_86400")
        assert ran.did.startswith("keys 0, records 0"), ran.did
        assert [node.parts.replication.status().refused for node in made.nodes if node.parts] == [0] * 8


async def test_nothing_is_collected_before_anybody_was_asked(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        fast = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        await made.crash(fast)
        fast.skew = 400.0 * DAY
        made.network.muted.add(fast.peer_id)  # nobody hears it, so nobody tells it the time
        await made.start(fast)
        await trio.sleep(100)
        assert fast.parts is not None
        assert await values_at(fast, resource_id) == {"v"}


async def test_what_a_host_signed_two_days_ahead_is_signed_anew_once_its_clock_is_right(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        host = next(node for node in made.nodes if node not in keepers(made, resource_id))
        await made.crash(host)
        host.skew = 2.0 * DAY
        made.split({host.peer_id: 1})  # alone, so that nobody tells it the time
        made.network.isolates = False
        await made.start(host)
        await trio.sleep(5)
        assert host.parts is not None
        assert standing(host) is Standing.UNKNOWN
        created = await host.parts.registry.create_resource("its own")
        assert created.resource_id is not None, created.errors
        done = await host.parts.registry.register_service(created.resource_id, "early", host.peer_id, None)
        assert done.success, done.errors
        ahead = [*(await known(host, created.resource_id)).slots.values()]
        assert ahead[0].timestamp_issued > START + trio.current_time() + DAY
        made.split({})
        await trio.sleep(60)
        assert standing(host) is Standing.OFF
        assert not await made_known(made, host, created.resource_id)
        host.skew = 0.0
        await trio.sleep(RESIGNED_WITHIN)
        assert await made_known(made, host, created.resource_id)
        reader = next(node for node in made.nodes if node is not host)
        assert reader.parts is not None
        resolved = await reader.parts.registry.resolve_resource(created.resource_id, 2)
        assert [record.metadata.value for record in resolved.records or ()] == ["early"], resolved.errors
        times = set[int]()
        for value in ("next", "last"):
            done = await host.parts.registry.register_service(created.resource_id, value, host.peer_id, None, factor=2)
            assert done.success, done.errors
            [state] = (await known(host, created.resource_id)).slots.values()
            assert abs(state.timestamp_issued - host.clock()) <= SETTINGS.registry.clock_skew
            times.add(state.timestamp_issued)
        assert len(times) == 2
        assert ahead[0].timestamp_issued not in times


async def made_known(made: World, host: WorldNode, resource_id: str) -> bool:
    """Whether all of a resource's keepers have the same of it, and something."""
    states = {(await known(node, resource_id)).digest() for node in keepers(made, resource_id) if node is not host}
    return len(states) == 1 and ResourceState().digest() not in states


async def test_a_refusal_of_a_host_whose_clock_is_off_has_the_code_of_clocks(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        host = made.nodes[3]
        host.skew = -60.0
        await trio.sleep(NOTICED_WITHIN)
        issuer = made.nodes[0].parts
        assert issuer is not None
        done = await issuer.registry.register_service(resource_id, "hosted", host.peer_id, None)
        assert not done.success
        assert "this machine's clock is 60 s behind 7 peers'; set it" in done.errors[0]
