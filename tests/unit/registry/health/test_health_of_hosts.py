"""Reading with presence: hosts are asked for their lists, and resolving shows what is up and passes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.errors import Refusal
from overlay.tasks import background
from registry.health import health_of_hosts as module
from registry.health.exceptions import ExceptionList
from registry.health.health_of_hosts import FOLLOWED_FOR, UNKNOWN_FOR, HealthOfHosts
from registry.health.health_reader import NOT_READ, RecordHealth
from registry.health.host_health import HostHealth
from registry.health.messages import EXCEPTIONS, ExceptionsBody, ExceptionsPage
from registry.health.state import PASSING, HealthState, HostedService
from registry.model.endpoints import Instance, endpoints_in, write_instances
from registry.model.values import Record, Slot
from registry.protocol.messages import build, parse
from registry.settings import NodeSettings, RegistrySettings
from registry.storage import open_store
from registry.watch.watch_event import EventKind
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.simulation.simulated_network import SimulatedNetwork
from tests.unit.registry.builders import HOST, ISSUER, NODE, NOW, STRANGER
from tests.unit.registry.health.builders import CRITICAL, GUEST, WARNING, FakePresence, Standing, a_service, bad

SLOT = Slot(GUEST.key_id, ISSUER.peer_id, HOST.peer_id)


class Hosts:
    """NODE reads of HOST, which serves its list as long as `serves`."""

    def __init__(self, *, has_presence: bool = True) -> None:
        self.has_presence = has_presence
        self.network = SimulatedNetwork()
        self.reader, self.host = self.network.add(NODE.peer_id), self.network.add(HOST.peer_id)
        self.presence = FakePresence()
        self.list = ExceptionList(HOST.peer_id)
        self.serves = True
        self.asked: list[float] = []
        self.told: list[str] = []
        self.host.serve(EXCEPTIONS, self.serve)

    async def serve(self, caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        self.asked.append(trio.current_time())
        if not self.serves:
            raise Refusal("overloaded", "later")
        entries, _ = self.list.page(parse(body, ExceptionsBody).service)
        return build(ExceptionsPage(self.list.digest(), tuple(entries)))

    def fail(self, count: int) -> None:
        for number in range(1, count):
            self.list.put(a_service(number), bad())
        self.list.put(GUEST, bad(WARNING))
        self.presence.becomes(HOST.peer_id, Standing(exceptions=self.list.told()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HealthOfHosts]:
        async with open_store(Path(":memory:"), inline=True) as store, background() as nursery:
            own = HostHealth(self.reader, store, RegistrySettings(), time.time)
            health = HealthOfHosts(self.reader, own, self.presence if self.has_presence else None)
            health.on_change(self.told.append)
            await nursery.start(own.run)
            await nursery.start(health.run)
            yield health


async def test_a_list_of_several_pages_is_fetched_when_presence_tells_of_it(autojump_clock: object) -> None:
    hosts = Hosts()
    async with hosts.running() as health:
        hosts.fail(1500)
        assert health.health_of(SLOT).health == NOT_READ
        await health.settle([HOST.peer_id], 1)
        assert health.health_of(SLOT).health == bad(WARNING)
        assert health.health_of(SLOT._replace(key_id=a_service(9999).key_id)).health == PASSING
        assert len(hosts.asked) == 3
        assert hosts.told == [HOST.peer_id, HOST.peer_id], "unknown, then known"


async def test_what_fits_into_presence_needs_no_call(autojump_clock: object) -> None:
    hosts = Hosts()
    async with hosts.running() as health:
        hosts.fail(3)
        await health.settle([HOST.peer_id], 1)
        assert health.health_of(SLOT).health == bad(WARNING)
        assert hosts.asked == []


async def test_a_host_that_does_not_give_its_list_holds_up_nobody_and_is_asked_again(autojump_clock: object) -> None:
    hosts = Hosts()
    hosts.serves = False
    async with hosts.running() as health:
        hosts.fail(600)
        await health.settle([HOST.peer_id], 1)
        assert health.health_of(SLOT).health == NOT_READ
        await trio.sleep(20)
        assert 3 <= len(hosts.asked) <= 6
        hosts.serves = True
        await trio.sleep(60)
        assert health.health_of(SLOT).health == bad(WARNING)
        assert len(hosts.asked) < 12


async def test_a_host_that_stalls_is_waited_for_no_longer_than_asked(autojump_clock: object) -> None:
    hosts = Hosts()
    hosts.network.stalled.add(HOST.peer_id)
    async with hosts.running() as health:
        hosts.fail(600)
        began = trio.current_time()
        await health.settle([HOST.peer_id], 1)
        assert trio.current_time() - began == pytest.approx(1)


async def test_a_list_that_changes_while_it_is_read_is_read_again(autojump_clock: object) -> None:
    hosts = Hosts()
    async with hosts.running() as health:
        hosts.fail(600)
        hosts.list.put(a_service(5000), bad())  # before the presence tells of it
        await health.settle([HOST.peer_id], 1)
        assert health.health_of(SLOT).health == NOT_READ
        hosts.presence.becomes(HOST.peer_id, Standing(exceptions=hosts.list.told()))
        await trio.sleep(2)
        assert health.health_of(SLOT).health == bad(WARNING)


async def test_without_presence_everything_is_as_before(autojump_clock: object) -> None:
    async with Hosts(has_presence=False).running() as health:
        assert not health.is_there
        began = trio.current_time()
        await health.settle([HOST.peer_id], 1)
        assert trio.current_time() == began
        assert health.health_of(SLOT) == RecordHealth()


async def test_a_host_is_followed_for_as_long_as_somebody_reads_of_it(autojump_clock: object) -> None:
    hosts = Hosts()
    async with hosts.running() as health:
        for _ in range(3):
            health.health_of(SLOT)
            assert hosts.presence.followed == {HOST.peer_id}
            await trio.sleep(FOLLOWED_FOR * 0.9)
        await trio.sleep(FOLLOWED_FOR * 0.3)
        assert hosts.presence.followed == set()


async def test_a_read_waits_a_moment_for_what_presence_has_to_tell_and_no_longer(autojump_clock: object) -> None:
    hosts = Hosts()
    async with hosts.running() as health, background() as nursery:
        began = trio.current_time()
        await health.settle([HOST.peer_id], 1)
        assert trio.current_time() - began == pytest.approx(UNKNOWN_FOR), "it may be of an earlier version"
        await health.settle([HOST.peer_id], 1)
        assert trio.current_time() - began == pytest.approx(UNKNOWN_FOR), "which isn't waited for twice"

        async def tell() -> None:
            await trio.sleep(0.1)
            hosts.presence.becomes(STRANGER.peer_id, Standing(is_up=False))

        nursery.start_soon(tell)
        began = trio.current_time()
        await health.settle([STRANGER.peer_id], 1)
        assert trio.current_time() - began == pytest.approx(0.1)
        assert not health.health_of(SLOT._replace(peer_id=STRANGER.peer_id)).is_up


# Resolving


class Resolving:
    """Three nodes with a service each, and another one that reads, with a presence."""

    def __init__(self, nodes: list[SimulatedNode], presence: FakePresence, resource_id: str) -> None:
        self.nodes = nodes
        self.presence = presence
        self.resource_id = resource_id
        self.peer_ids = [node.peer_id for node in nodes[1:]]

    async def hosts(self, *, include_down: bool = False) -> list[str]:
        resolved = await self.nodes[0].registry.resolve_resource(self.resource_id, 1, include_down=include_down)
        assert resolved.records is not None, resolved.errors
        return sorted((record.metadata.peer_id for record in resolved.records), key=self.peer_ids.index)

    def says(self, number: int, state: HealthState) -> None:
        """A node's presence says how its service is."""
        told = ExceptionList(self.peer_ids[number])
        told.put(HostedService(self.resource_id, self.peer_ids[number]), bad(state))
        self.presence.becomes(self.peer_ids[number], Standing(exceptions=told.told()))


@asynccontextmanager
async def resolving() -> AsyncIterator[Resolving]:
    presence, settings = FakePresence(), NodeSettings(registry=RegistrySettings(neighbourhood_size=4))
    async with simulated_nodes(4, settings, time.time, lambda _: presence) as (_, nodes):
        resource_id = (await nodes[0].registry.create_resource("web", factor=4)).resource_id
        assert resource_id is not None
        for node in nodes[1:]:
            assert (await node.registry.register_service(resource_id, "", node.peer_id, None, factor=4)).success
        yield Resolving(nodes, presence, resource_id)


async def test_resolving_leaves_out_who_is_down_or_does_not_pass_and_nobody_else(autojump_clock: object) -> None:
    async with resolving() as world:
        zero, one, two = world.peer_ids
        assert await world.hosts() == [zero, one, two], "hosts that say nothing of their presence"
        world.presence.becomes(zero, Standing(is_up=False))
        world.says(1, CRITICAL)
        world.says(2, WARNING)
        assert await world.hosts() == [two]
        assert await world.hosts(include_down=True) == [zero, one, two]
        world.presence.becomes(zero, Standing())
        world.presence.becomes(one, Standing())
        assert await world.hosts() == [zero, one, two], "the records come back with their hosts"


async def test_an_instance_that_does_not_pass_is_left_out_and_its_record_only_with_the_last(
    autojump_clock: object,
) -> None:
    async with resolving() as world:
        two, host = world.nodes[3], world.peer_ids[2]
        value = write_instances([Instance(id=each, address="203.0.113.5", port=80) for each in ("a", "b")])
        assert (await two.registry.register_service(world.resource_id, value, host, None, factor=4)).success

        async def endpoints(failing: str) -> list[str]:
            told = ExceptionList(host)
            for instance in failing:
                told.put(HostedService(world.resource_id, host, instance), bad(note=f"{instance} is full"))
            world.presence.becomes(host, Standing(exceptions=told.told()))
            resolved = await world.nodes[0].registry.resolve_resource(world.resource_id, 1)
            known = resolved.health[Slot(world.resource_id, host, host)]
            assert {each for each, health in known.instances.items() if health.state is CRITICAL} == {*failing}
            found = endpoints_in(resolved.records or (), left_out=resolved.left_out)
            return [endpoint.instance.id for endpoint in found]

        assert await endpoints("") == ["a", "b"]
        assert await endpoints("a") == ["b"]
        assert await endpoints("ab") == []
        assert host not in await world.hosts()
        assert await endpoints("b") == ["a"]
        told = (await world.nodes[0].registry.explain(world.resource_id))[-1]
        assert (told.what, told.detail) == ("critical", "instance b: b is full")


async def test_a_watcher_is_told_of_each_instance(autojump_clock: object) -> None:
    async with resolving() as world:
        two, host = world.nodes[3], world.peer_ids[2]
        value = write_instances([Instance(id=each, address="203.0.113.5", port=80) for each in ("a", "b")])
        assert (await two.registry.register_service(world.resource_id, value, host, None, factor=4)).success
        async with world.nodes[0].registry.watch(world.resource_id) as events:
            assert (await anext(events)).kind is EventKind.SNAPSHOT
            told = ExceptionList(host)
            told.put(HostedService(world.resource_id, host, "b"), bad())
            world.presence.becomes(host, Standing(exceptions=told.told()))
            with trio.fail_after(5):
                event = await anext(events)
            assert event.kind is EventKind.HEALTH
            assert event.health is not None
            assert event.health.is_usable
            assert {name: health.state for name, health in event.health.instances.items()} == {
                "a": HealthState.PASSING,
                "b": CRITICAL,
            }


async def test_each_read_has_hosts_looked_for(autojump_clock: object) -> None:
    hosts = Hosts()
    async with hosts.running() as health:
        for _ in range(2):
            await health.settle([HOST.peer_id], 0.1)
    assert hosts.presence.looked_for == [HOST.peer_id] * 2


async def test_of_its_own_services_a_node_knows_first_hand(autojump_clock: object) -> None:
    async with resolving() as world:
        node, two = world.nodes[1], world.peer_ids[1]
        assert (await node.registry.report_health(world.resource_id, CRITICAL, "no disk")).success
        world.presence.becomes(world.peer_ids[2], Standing(is_up=False))
        resolved = await node.registry.resolve_resource(world.resource_id, 1)
        assert [record.metadata.peer_id for record in resolved.records or ()] == [two]
        own = resolved.health[Slot(world.resource_id, node.peer_id, node.peer_id)]
        assert (own.is_up, own.health.state, own.health.note) == (True, CRITICAL, "no disk")


async def test_who_waits_for_news_of_a_host_hears_them_of_the_node_itself(autojump_clock: object) -> None:
    async with resolving() as world:
        node, told = world.nodes[1], []
        node.parts.health_of_hosts.on_change(told.append)
        assert (await node.registry.report_health(world.resource_id, CRITICAL, "no disk")).success
        await trio.testing.wait_all_tasks_blocked()
        assert set(told) == {node.peer_id}


async def test_hosts_that_are_down_are_counted_while_somebody_reads_of_them(autojump_clock: object) -> None:
    async with resolving() as world:
        health = world.nodes[0].parts.health_of_hosts
        await world.hosts()
        assert (health.followed, health.down) == (3, 0)
        world.presence.becomes(world.peer_ids[0], Standing(is_up=False))
        world.presence.becomes(STRANGER.peer_id, Standing(is_up=False))
        assert health.down == 1
        world.presence.becomes(world.peer_ids[0], Standing())
        assert health.down == 0
        world.presence.becomes(world.peer_ids[0], Standing(is_up=False))
        await trio.sleep(1.2 * FOLLOWED_FOR)
        assert (health.followed, health.down) == (0, 0)


async def test_resolving_tells_how_all_are_and_whom_to_try_last(autojump_clock: object) -> None:
    async with resolving() as world:
        zero, one, two = world.peer_ids
        world.presence.becomes(zero, Standing(is_up=False, since=5.0))
        world.says(1, CRITICAL)
        resolved = await world.nodes[0].registry.resolve_resource(world.resource_id, 1)
        health = {slot.peer_id: each for slot, each in resolved.health.items()}
        assert (health[zero].is_up, health[zero].up_or_down_for) == (False, 5.0)
        assert health[one].health == bad()
        assert health[two] == RecordHealth()
        everything = await world.nodes[0].registry.resolve_resource(world.resource_id, 1, include_down=True)

        def hosts(records: list[Record]) -> list[str]:
            return [record.metadata.peer_id for record in records]

        assert (hosts(everything.usable), hosts(everything.doubtful)) == ([two], [zero])


async def test_explaining_tells_who_is_down_and_what_does_not_pass(autojump_clock: object) -> None:
    async with resolving() as world:
        zero, one, _ = world.peer_ids
        before = len(await world.nodes[0].registry.explain(world.resource_id))
        world.presence.becomes(zero, Standing(is_up=False, since=5.0, accusers=("A", "B")))
        world.says(1, CRITICAL)
        now = (await world.nodes[0].registry.explain(world.resource_id))[before:]
        assert [(event.peer_id, event.what, event.detail) for event in now] == [
            (peer_id, what, detail)
            for peer_id, what, detail in sorted(
                [(zero, "down", "the host isn't there, as A and B say"), (one, "critical", "no answer")]
            )
        ]
        assert {event.time for event in now if event.what == "critical"} == {NOW}
        assert all(abs(event.time - time.time() + 5) < 5 for event in now if event.what == "down")


async def test_explaining_tells_what_changed_before(autojump_clock: object) -> None:
    async with resolving() as world:
        node, (zero, one, two) = world.nodes[0].registry, world.peer_ids
        await world.hosts()
        world.presence.becomes(zero, Standing(is_up=False, since=0.5, accusers=("A", "B")))
        world.says(1, CRITICAL)
        await trio.sleep(10)
        world.presence.becomes(zero, Standing(since=0.0))
        world.presence.becomes(one, Standing())
        world.presence.becomes(two, Standing(is_up=False, since=0.0, has_left=True))
        await trio.sleep(10)
        events = [event for event in await node.explain(world.resource_id) if event.what != "stored"]
        assert sorted((event.peer_id, event.issued_by, event.what, event.detail) for event in events) == sorted(
            [
                (zero, "", "down", "the host isn't there, as A and B say"),
                (zero, "", "up", "the host is there again"),
                (one, one, "critical", "no answer"),
                (one, one, "passing", ""),
                (two, two, "down", "the host stopped by its own word"),
            ]
        )
        assert events[-1].peer_id == two, "what is so now comes last"


async def test_explaining_waits_a_moment_for_what_is_yet_to_be_learnt_as_reads_do(autojump_clock: object) -> None:
    async with resolving() as world, trio.open_nursery() as nursery:

        async def learn() -> None:
            await trio.sleep(UNKNOWN_FOR / 2)
            world.presence.becomes(world.peer_ids[0], Standing(is_up=False))

        nursery.start_soon(learn)
        (*_, last) = await world.nodes[0].registry.explain(world.resource_id)
        assert (last.peer_id, last.what, last.detail) == (
            world.peer_ids[0],
            "down",
            "the host isn't there, as this node found",
        )


async def test_a_snapshot_waits_a_moment_for_what_is_yet_to_be_learnt_as_reads_do(autojump_clock: object) -> None:
    async with resolving() as world, world.nodes[0].registry.watch(world.resource_id) as events:
        zero, one, two = world.peer_ids
        async with trio.open_nursery() as nursery:

            async def learn() -> None:
                await trio.sleep(UNKNOWN_FOR / 2)
                world.presence.becomes(zero, Standing(is_up=False))

            nursery.start_soon(learn)
            snapshot = await anext(events)
        assert {record.metadata.peer_id for record in snapshot.records} == {one, two}
        async with world.nodes[0].registry.watch(world.resource_id, include_down=True) as everything:
            assert len((await anext(everything)).records) == 3


async def test_a_watched_resource_is_resolved_by_the_same_rule(autojump_clock: object) -> None:
    async with resolving() as world, world.nodes[0].registry.watch(world.resource_id) as events:
        async for _ in events:
            break
        world.presence.becomes(world.peer_ids[1], Standing(is_up=False))
        assert await world.hosts() == [world.peer_ids[0], world.peer_ids[2]]


async def test_hosts_that_light_clients_read_of_give_way_to_those_of_this_peer(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_READ", 6)
    hosts = Hosts()
    async with hosts.running() as health:
        for client in ("a", "b"):
            health.follow([f"{client} {number}" for number in range(3)], client=client)
        health.follow(["a 2"])
        health.follow([f"own {number}" for number in range(4)])
        assert hosts.presence.followed == {"a 2", "b 2", *(f"own {number}" for number in range(4))}
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(hosts.told) == ["a 0", "a 1", "b 0", "b 1"], "nothing is known of them any more"
        health.follow(["own 4", "own 5"])
        assert hosts.presence.followed == {"a 2", *(f"own {number}" for number in range(5))}
        health.follow(["late"], client="c")
        assert not health.follows("late")
        assert health.followed == 6


async def test_a_client_that_has_more_followed_than_others_gives_way_to_them(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_READ", 6)
    hosts = Hosts()
    async with hosts.running() as health:
        health.follow([f"much {number}" for number in range(9)], client="much")
        assert health.followed == 6
        health.follow([f"little {number}" for number in range(9)], client="little")
        assert hosts.presence.followed == {
            *(f"much {number}" for number in range(3, 6)),
            *(f"little {number}" for number in range(3)),
        }
        health.follow(["much 9"], client="much")
        assert not health.follows("much 9")


async def test_what_this_peer_reads_no_more_counts_to_the_client_that_still_does(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_READ", 1)
    hosts = Hosts()
    async with hosts.running() as health:
        health.follow([HOST.peer_id])
        for _ in range(3):
            health.follow([HOST.peer_id], client="a client")
            health.follow(["own"])
            assert health.follows(HOST.peer_id)
            await trio.sleep(FOLLOWED_FOR / 3)
        health.follow([HOST.peer_id], client="a client")
        health.follow(["own"])
        assert hosts.presence.followed == {"own"}
