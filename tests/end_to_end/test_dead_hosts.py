"""Whoever died is off the list within seconds, and back when it is: real processes, killed and frozen."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from aqua_compat import connect
from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network
from overlay.identity import Identity
from overlay.settings import OverlaySettings
from registry.client.registry import Registry
from registry.node import Node, open_node
from registry.settings import NodeSettings
from registry.watch.watch import Watch
from registry.watch.watch_event import EventKind, WatchEvent
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import eventually

OTHERS = 6
KILLED_WITHIN = 3.0  # seconds; 1.5 on a machine that has nothing else to do
FROZEN_WITHIN = 12.0
BACK_WITHIN = 5.0


class Listed(NamedTuple):
    """A node that reads, and who is registered on a resource: hosts in processes of their own."""

    reader: Node
    resource_id: str
    hosts: list[NodeProcess]

    async def found(self) -> set[str]:
        resolved = await self.reader.registry.resolve_resource(self.resource_id, 1)
        assert resolved.records is not None, resolved.errors
        return {record.metadata.peer_id for record in resolved.records}


@asynccontextmanager
async def listed(folder: Path) -> AsyncIterator[Listed]:
    hosts = [
        NodeProcess(folder / f"node{n}", folder / f"node{n}.log", fork_server().open_process) for n in range(OTHERS)
    ]
    try:
        await start_network(hosts)
        settings = NodeSettings(overlay=OverlaySettings(bootstrap=(hosts[0].address,)))
        async with open_node(Identity.generate(), settings, folder / "reader") as reader:
            await reader.peer.wait_joined()
            async with connect(hosts[0].address) as aqua:
                resource_id, errors = await aqua.createResource("alive")
                assert resource_id is not None, errors
                for host in hosts:
                    assert await aqua.registerService(resource_id, "v", host.peer_id, None) == (True, [])
            everybody = Listed(reader, resource_id, hosts)
            await eventually(everybody.found, {host.peer_id for host in hosts}.__eq__, 20)
            await trio.sleep(1)  # who is read is followed by now
            yield everybody
    finally:
        await stop_network(hosts)


async def took(ask: Callable[[], Awaitable[set[str]]], wanted: Callable[[set[str]], bool], at_most: float) -> float:
    began = trio.current_time()
    await eventually(ask, wanted, at_most)
    return trio.current_time() - began


async def until_told(events: Watch, kind: EventKind) -> WatchEvent:
    """The next event, which is of this kind."""
    with trio.fail_after(KILLED_WITHIN + BACK_WITHIN):
        event = await anext(events)
    assert event.kind is kind, event
    return event


async def came_and_went(registry: Registry, resource_id: str, host: str) -> list[tuple[str, str]]:
    """What `explain` tells of a host that went down and came up."""
    explained = await registry.explain(resource_id)
    return [(each.what, each.detail) for each in explained if each.peer_id == host and each.what in ("down", "up")]


async def test_a_killed_host_is_gone_within_seconds_and_back_with_its_process(tmp_path: Path) -> None:
    async with listed(tmp_path) as there, connect(there.hosts[1].address) as client:
        victim = there.hosts[3]

        async def found_by_client() -> set[str]:
            return {record.metadata.peer_id for record in await client.resolve(there.resource_id)}

        async with there.reader.registry.watch(there.resource_id) as on_node, client.watch(there.resource_id) as events:
            for watch in (on_node, events):
                snapshot = await until_told(watch, EventKind.SNAPSHOT)
                assert victim.peer_id in {record.metadata.peer_id for record in snapshot.records}
            assert victim.peer_id in await found_by_client()
            await victim.kill()
            gone = await took(there.found, lambda found: victim.peer_id not in found, KILLED_WITHIN)
            gone_there = await took(found_by_client, lambda found: victim.peer_id not in found, KILLED_WITHIN)
            for watch in (on_node, events):
                event = await until_told(watch, EventKind.DOWN)
                assert event.record is not None
                assert event.record.metadata.peer_id == victim.peer_id
                assert event.health is not None
                assert event.health.accusers
            shown = await there.reader.registry.resolve_resource(there.resource_id, 1, include_down=True)
            assert victim.peer_id in {record.metadata.peer_id for record in shown.records or ()}
            shown_there = await client.resolve(there.resource_id, include_down=True)
            assert victim.peer_id in {record.metadata.peer_id for record in shown_there}
            for registry in (there.reader.registry, client.registry):
                [(what, why)] = await came_and_went(registry, there.resource_id, victim.peer_id)
                assert what == "down"
                assert why.startswith("the host isn't there, as 12D3KooW")
            await victim.start("--bootstrap", there.hosts[0].address)
            back = await took(there.found, lambda found: victim.peer_id in found, BACK_WITHIN)
            back_there = await took(found_by_client, lambda found: victim.peer_id in found, BACK_WITHIN)
            for watch in (on_node, events):
                await until_told(watch, EventKind.UP)
            for registry in (there.reader.registry, client.registry):
                explained = await came_and_went(registry, there.resource_id, victim.peer_id)
                assert [what for what, _ in explained] == ["down", "up"]
        told = f"gone {gone:.2f} s, {gone_there:.2f} more for a client, back {back:.2f} s, {back_there:.2f} more"
        print(told)  # noqa: T201 - shown beside a failure


async def test_a_host_that_stops_says_so(tmp_path: Path) -> None:
    async with listed(tmp_path) as there, connect(there.hosts[1].address) as client:
        leaver = there.hosts[4]
        assert await client.resolve(there.resource_id)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaver.stop)
            await took(there.found, lambda found: leaver.peer_id not in found, KILLED_WITHIN)
            gone = trio.current_time() - began
        for reader in (there.reader.registry, client.registry):
            shown = await reader.resolve_resource(there.resource_id, 1, include_down=True)
            stopped = {slot.peer_id for slot, health in shown.health.items() if health.has_left}
            assert stopped == {leaver.peer_id}
        print(f"gone {gone:.2f} s")  # noqa: T201 - shown beside a failure


@pytest.mark.timeout(120)
async def test_a_frozen_host_is_gone_and_back_when_it_goes_on(tmp_path: Path) -> None:
    async with listed(tmp_path) as there:
        victim = there.hosts[2]
        assert victim.process_id is not None
        os.kill(victim.process_id, signal.SIGSTOP)
        try:
            gone = await took(there.found, lambda found: victim.peer_id not in found, FROZEN_WITHIN)
        finally:
            os.kill(victim.process_id, signal.SIGCONT)
        back = await took(there.found, lambda found: victim.peer_id in found, BACK_WITHIN)
        print(f"gone {gone:.2f} s, back {back:.2f} s")  # noqa: T201 - shown beside a failure
