"""32 and 64 node processes, with 20 replicas of each resource: a tenth dies at once, all die, some freeze, a network
splits. What was acknowledged is found through whoever lives, is on its keepers' disks, and watchers end at it."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from aqua_compat import Constants, connect
from aqua_compat.api.client import AquaClient
from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network
from benchmarks.wide_area import Host, WideArea, wide_area
from overlay.discovery.keyspace import nearest, resource_position
from registry.client.node_status import NodeStatus
from registry.errors import RegistryError
from registry.model.values import Record, Slot
from registry.node import DATABASE
from registry.storage import open_store
from registry.watch.watch_event import EventKind, WatchEvent
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import Network, environment_of, eventually, first_line, observer, ran
from tests.end_to_end.test_churn import Written, kill, replace

NODES = 32
REPLICAS = 20
RESOURCES = 100
WATCHED = 20
MAJORITY = Constants(INITIAL_REPLICATION_FACTOR=REPLICAS // 2 + 1)
QUIET_WITHIN = 120.0  # seconds, with all nodes on two cores

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1200)]


class Watcher:
    """What a watching client was told: the visible records of each resource by their slots."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[Slot, Record]] = {}
        self.last: dict[Slot, int] = {}

    async def follow(self, aqua: AquaClient, resource_id: str) -> None:
        """Watch one resource until cancelled; no slot may go back."""
        async for event in aqua.registry.watch(resource_id):
            self._note(self.seen.setdefault(resource_id, {}), event)

    def value(self, resource_id: str) -> str | None:
        """The value that is visible last; None when there is none."""
        return next((record.metadata.value for record in self.seen.get(resource_id, {}).values()), None)

    def _note(self, seen: dict[Slot, Record], event: WatchEvent) -> None:
        if event.kind is EventKind.SNAPSHOT:
            seen.clear()
            seen.update((record.slot, record) for record in event.records)
            return
        assert event.record is not None
        issued = event.record.metadata.timestamp_issued
        assert issued >= self.last.get(event.record.slot, 0), "a slot went back"
        self.last[event.record.slot] = issued
        if event.kind in (EventKind.ADDED, EventKind.UPDATED):
            seen[event.record.slot] = event.record
        else:
            seen.pop(event.record.slot, None)


@asynccontextmanager
async def watching(addresses: Sequence[str], written: Written) -> AsyncIterator[Watcher]:
    """A client that watches some of what was written."""
    watcher = Watcher()
    async with connect(addresses) as aqua, trio.open_nursery() as nursery:
        for resource_id in sorted(written.values)[:WATCHED]:
            nursery.start_soon(watcher.follow, aqua, resource_id)
        yield watcher
        nursery.cancel_scope.cancel()


async def told(watcher: Watcher, written: Written) -> None:
    """Wait until the watcher knows what was written last."""
    watched = sorted(written.values)[:WATCHED]

    async def differing() -> dict[str, tuple[str | None, str | None]]:
        await trio.lowlevel.checkpoint()
        truth = {key: value for key, value in written.sure().items() if key in watched}
        return {key: (watcher.value(key), value) for key, value in truth.items() if watcher.value(key) != value}

    await eventually(differing, lambda left: not left, 60)


async def found_everywhere(network: Network, written: Written, through: int = 3) -> None:
    """What was acknowledged by a majority is found by a majority, through nodes chosen at random."""
    for node in random.sample(network.running, through):

        async def differing(node: NodeProcess = node) -> dict[str, tuple[str | None, str | None]]:
            return written.differences(await written.found(node, REPLICAS // 2 + 1))

        await eventually(differing, lambda left: not left, QUIET_WITHIN)


def acknowledged(written: Written) -> dict[str, set[str]]:
    """The values per resource id that keepers must have."""
    return {resource_id: set() if value is None else {value} for resource_id, value in written.sure().items()}


async def on_disk(nodes: Sequence[NodeProcess], expected: Mapping[str, set[str]]) -> None:
    """Every database is whole, and every keeper's has these values of each resource, and no others.

    The nodes have stopped, and are all that their network had in the end.
    """
    held: dict[str, dict[str, set[str]]] = {}
    for node in nodes:
        with sqlite3.connect(node.data_dir / DATABASE) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        async with open_store(node.data_dir / DATABASE) as store:
            for resource_id in expected:
                states = (await store.resource(resource_id)).slots.values()
                values = {state.metadata.value for state in states if isinstance(state, Record)}
                held.setdefault(resource_id, {})[node.peer_id] = values
    everyone = [node.peer_id for node in nodes]
    for resource_id, values in expected.items():
        keepers = nearest(resource_position(resource_id), everyone, REPLICAS)
        differing = {keeper: held[resource_id][keeper] for keeper in keepers if held[resource_id][keeper] != values}
        assert not differing, (resource_id, values, differing)


async def test_nothing_is_lost_among_32(tmp_path: Path) -> None:
    network = Network(tmp_path, NODES)
    await network.start()
    try:
        written = Written()
        steady = [node.address for node in network.nodes[-4:]]
        async with connect(steady, constants=MAJORITY) as aqua:
            await written.fill(aqua, RESOURCES)
            async with watching(steady, written) as watcher:
                await told(watcher, written)
                async with trio.open_nursery() as nursery:
                    await nursery.start(written.change, aqua)
                    tenth = network.nodes[1:4]
                    await kill(tenth)
                    await replace(network, tenth)
                    frozen = network.nodes[4:7]
                    signalled(frozen, signal.SIGSTOP)
                    await trio.sleep(15)
                    signalled(frozen, signal.SIGCONT)
                    nursery.cancel_scope.cancel()
                await network.replicated(QUIET_WITHIN)
                await found_everywhere(network, written)
                await told(watcher, written)
        await kill(network.nodes)
        await network.restart(network.nodes)
        await found_everywhere(network, written)
        await network.replicated(QUIET_WITHIN)
    finally:
        await network.stop()
    await on_disk(network.nodes, acknowledged(written))


def signalled(nodes: Sequence[NodeProcess], number: signal.Signals) -> None:
    """Freeze processes, or let them go on."""
    for node in nodes:
        assert node.process_id is not None
        os.kill(node.process_id, number)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
async def test_32_that_lose_packets_and_split_converge(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        area = await stack.enter_async_context(wide_area(NODES, round_trip=0.02, loss=0.01))
        nodes = [
            NodeProcess(tmp_path / h.namespace, tmp_path / f"{h.namespace}.log", h.open_process) for h in area.hosts
        ]
        stack.push_async_callback(stop_network, nodes)
        await nodes[0].start("--listen", f"/ip4/{area.hosts[0].address}/tcp/4001", timeout=60)
        async with trio.open_nursery() as nursery:
            for node, host in list(zip(nodes, area.hosts, strict=True))[1:]:
                nursery.start_soon(started, node, f"/ip4/{host.address}/tcp/4001", nodes[0].address)
        expected = await split_and_healed(area, nodes, tmp_path / "home")
        await stop_network(nodes)
        await on_disk(nodes, expected)


async def started(node: NodeProcess, listen: str, bootstrap: str) -> None:
    await node.start("--listen", listen, "--bootstrap", bootstrap, timeout=120)


class DistantWatcher:
    """What `aqua-registry watch --json` on one of the hosts was told: the values of a resource."""

    def __init__(self) -> None:
        self.values: set[str] = set()

    async def follow(self, host: Host, resource_id: str, relay: str, home: Path) -> None:
        """Watch until cancelled."""
        command = [sys.executable, "-m", "aqua_compat", "watch", resource_id, "--json", "--relay", relay]
        process = await host.open_process(command, stdout=subprocess.PIPE, env=environment_of(home))
        try:
            while True:
                self._note(json.loads(await first_line(process, timeout=QUIET_WITHIN * 4)))
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "snapshot":
            self.values = {record["metadata"]["value"] for record in event["records"]}
        elif event["event"] in ("added", "updated"):
            self.values.add(event["record"]["metadata"]["value"])
        elif event["event"] in ("removed", "expired"):
            self.values.discard(event["record"]["metadata"]["value"])


async def split_and_healed(area: WideArea, nodes: Sequence[NodeProcess], home: Path) -> dict[str, set[str]]:
    """Both halves take writes while they are apart; afterwards everybody has both, and watchers of both were told.

    Returns the values per resource id.
    """
    left, right = list(range(0, NODES, 2)), list(range(1, NODES, 2))

    async def run(host: int, *arguments: str) -> str:
        command = [sys.executable, "-m", "aqua_compat", *arguments, "--relay", nodes[host].address, "--timeout", "20"]
        finished = await ran(*area.hosts[host].command(command), home=home, fresh=True)
        assert finished.code == 0, finished
        return finished.out.strip()

    async def registered(host: int, resource_id: str, value: str) -> None:
        await run(host, "service", "register", resource_id, "--value", value, "-k", value)

    async def values(host: int, resource_id: str) -> set[str]:
        found = json.loads(await run(host, "resolve", resource_id, "--ack", "3", "--json"))
        return {record["metadata"]["value"] for record in found}

    ids = [await run(host, "resource", "create", f"split {host}", "-k", "owner") for host in (0, 1)]
    for resource_id in ids:
        await registered(2, resource_id, "before")
    everything = {"before", "left", "right"}
    watchers = {(host, resource_id): DistantWatcher() for host in (left[3], right[3]) for resource_id in ids}
    async with trio.open_nursery() as nursery:
        for (host, resource_id), watcher in watchers.items():
            nursery.start_soon(watcher.follow, area.hosts[host], resource_id, nodes[host].address, home)
        await told_all(watchers, {key: {"before"} for key in watchers})
        await area.split([area.hosts[number] for number in left])
        await trio.sleep(30)  # both sides give the other up
        for resource_id in ids:
            await registered(left[1], resource_id, "left")
            await registered(right[1], resource_id, "right")
        await told_all(watchers, {key: {"before", "left" if key[0] in left else "right"} for key in watchers})
        await area.heal()
        for resource_id in ids:
            for host in (left[2], right[2], *random.sample(range(NODES), 4)):
                await eventually(partial(values, host, resource_id), lambda found: found == everything, QUIET_WITHIN)
        await told_all(watchers, dict.fromkeys(watchers, everything))
        nursery.cancel_scope.cancel()
    return dict.fromkeys(ids, everything)


async def told_all(
    watchers: Mapping[tuple[int, str], DistantWatcher], expected: Mapping[tuple[int, str], set[str]]
) -> None:
    """Wait until each watcher knows these values."""

    async def known() -> dict[tuple[int, str], set[str]]:
        await trio.lowlevel.checkpoint()
        return {key: watcher.values for key, watcher in watchers.items()}

    await eventually(known, lambda values: values == expected, QUIET_WITHIN)


async def settled(nodes: Sequence[NodeProcess]) -> None:
    """Wait until these have compared what they keep."""
    async with observer() as observing:

        async def status_of(node: NodeProcess) -> NodeStatus | None:
            with suppress(RegistryError):  # while all join it may have no time to answer
                return await observing.status(node)
            return None

        for node in nodes:
            await eventually(
                partial(status_of, node),
                lambda status: status is not None and status.replication is not None and status.replication.settled,
                QUIET_WITHIN,
            )


async def test_64_are_used_and_a_tenth_of_them_dies(tmp_path: Path) -> None:
    nodes = [
        NodeProcess(tmp_path / f"node-{number}", tmp_path / f"node-{number}.log", fork_server().open_process)
        for number in range(64)
    ]
    try:
        await start_network(nodes, timeout=240)
        await settled(nodes)  # else their joining has both cores when the first writes come
        written = Written()
        steady = [node.address for node in nodes[-4:]]
        async with connect(steady, constants=MAJORITY) as aqua:
            await written.fill(aqua, RESOURCES)
            async with watching(steady, written) as watcher:
                await told(watcher, written)
                await kill(nodes[1:7])
                for node in random.sample(nodes[7:], 4):

                    async def differing(node: NodeProcess = node) -> dict[str, tuple[str | None, str | None]]:
                        return written.differences(await written.found(node))

                    await eventually(differing, lambda left: not left, QUIET_WITHIN)
                again = Written()
                await again.fill(aqua, 20)
                assert again.differences(await again.found(nodes[8])) == {}
                async with trio.open_nursery() as nursery:
                    await nursery.start(written.change, aqua)
                    nursery.cancel_scope.cancel()
                await told(watcher, written)
            survivors = [node for node in nodes if node.alive]
            await settled(survivors)
    finally:
        await stop_network(nodes)
    await on_disk(survivors, acknowledged(written))
