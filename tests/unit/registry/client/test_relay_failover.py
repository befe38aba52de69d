"""A light client always has a node to be reached through, and its records name it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
import trio
import trio.testing

from registry.client.relay_failover import RelayFailover
from registry.client.results import Done
from registry.errors import NodeUnavailable
from registry.model.values import Record
from registry.settings import RegistrySettings
from tests.unit.registry.builders import HOST, ISSUER, NOW, a_record

ME = HOST


class World:
    """The network, node API, registry and storage of one light client."""

    def __init__(self, *records: Record) -> None:
        self.peer_id = ME.peer_id
        self.hosted = list(records)
        self.nodes = ["first", "second"]
        self.callbacks: list[Callable[[], None]] = []
        self.found = False
        self.is_there = False
        self.fail_times = 0
        self.calls: list[str] = []
        self.linked = "first"
        self.keeping = RelayFailover(
            self, cast("Any", _NodeApi(self)), cast("Any", self), cast("Any", self), RegistrySettings(), lambda: NOW
        )

    # The network.

    def members(self) -> list[str]:
        return [self.linked] if self.linked in self.nodes else []

    def on_membership_change(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def advertise(self, *, is_there: bool) -> None:
        self.found = True
        self.is_there = self.is_there or is_there

    def kill(self, node: str) -> None:
        self.nodes.remove(node)
        for callback in self.callbacks:
            callback()

    # The registry.

    async def status(self) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append("status")
        if not self.nodes:
            raise NodeUnavailable("no node could be reached")
        self.linked = self.nodes[0]

    async def reissue(self, record: Record) -> Done:
        await trio.lowlevel.checkpoint()
        self.calls.append("reissue")
        # As the registry does: the host keeps what it signed, whether or not a replica takes it.
        metadata = msgspec.structs.replace(record.metadata, relay_id=(self.linked,))
        self.hosted[self.hosted.index(record)] = msgspec.structs.replace(record, metadata=metadata)
        if self.fail_times:
            self.fail_times -= 1
            return Done(False, ("nobody took it",))
        return Done(True, ())

    # The storage.

    async def read(self, ask: object) -> list[Record]:
        await trio.lowlevel.checkpoint()
        return list(self.hosted)

    def relays(self) -> list[tuple[str, ...]]:
        return [tuple(record.metadata.relay_id) for record in self.hosted]


class _NodeApi:
    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def peer_id(self) -> str:
        return self._world.linked


def own(relay: str = "first") -> Record:
    return a_record("key", issuer=ME, relay_id=(relay,))


async def after(world: World, seconds: float, *, then: Callable[[], None] = lambda: None, more: float = 0.0) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeping.run)
        await trio.sleep(seconds)
        then()
        await trio.sleep(more)
        nursery.cancel_scope.cancel()


async def test_records_of_its_own_name_the_next_node_when_the_first_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(own())
    await after(world, 10, then=lambda: world.kill("first"), more=1)
    assert world.relays() == [("second",)]
    assert world.found


async def test_the_network_is_told_that_a_client_is_there_at_once_when_it_serves_and_not_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(own())
    await after(world, 60)
    assert world.found
    assert not world.is_there, "it may be a command, and the service elsewhere"
    await after(world, 60, then=world.keeping.serve, more=0.1)
    assert world.is_there


async def test_records_that_others_issued_stay_as_they_are(autojump_clock: trio.testing.MockClock) -> None:
    world = World(a_record("key", issuer=ISSUER))
    await after(world, 10, then=lambda: world.kill("first"), more=1)
    assert world.calls == ["status"]
    assert world.found


async def test_what_no_replica_took_is_issued_again_though_the_host_keeps_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(own())
    world.fail_times = 3
    await after(world, 10, then=lambda: world.kill("first"), more=60)
    assert world.calls.count("reissue") == 4


async def test_what_was_ended_meanwhile_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    world = World(own())
    world.fail_times = 1000
    await after(world, 10, then=lambda: world.kill("first"), more=10)
    tried = world.calls.count("reissue")
    world.hosted.clear()
    await after(world, 100)
    assert world.calls.count("reissue") == tried


async def test_it_waits_for_a_node_when_none_is_left(autojump_clock: trio.testing.MockClock) -> None:
    world = World(own())

    def all_die() -> None:
        world.kill("first")
        world.kill("second")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeping.run)
        await trio.sleep(10)
        all_die()
        await trio.sleep(100)
        assert world.relays() == [("first",)]
        assert 5 < world.calls.count("status") < 30
        world.nodes.append("third")
        await trio.sleep(20)
        assert world.relays() == [("third",)]
        nursery.cancel_scope.cancel()


async def test_a_client_that_serves_nothing_looks_for_no_node(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    await after(world, 10, then=lambda: world.kill("first"), more=100)
    assert world.calls == []
    assert not world.found
    world.keeping.serve()
    await after(world, 1)
    assert world.calls == ["status"]
    assert world.found


async def test_a_client_that_ends_at_once_moves_no_records(autojump_clock: trio.testing.MockClock) -> None:
    world = World(own("another"))
    await after(world, 4)
    assert world.calls == []
