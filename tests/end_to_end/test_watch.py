"""Watching over real processes: at once, complete, and in spite of whoever dies, drops or lies."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from aqua_compat import AquaClient, connect
from aqua_compat.cli.node_process import NodeProcess
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.errors import RegistryError
from registry.model.values import Record, Slot
from registry.watch.watch import Watch
from registry.watch.watch_event import EventKind, WatchEvent, same_content
from tests.end_to_end.network import Network, Observer, command, eventually, launched, observer
from tests.end_to_end.test_bad_input import UNKNOWN

ISSUERS, CHANGES = 8, 15
PLACES = 5  # that a node has for clients
CROWD = 4 * PLACES  # light clients that watch one resource, through four nodes
LONGEST = 20.0  # seconds until a watcher has seen the last change, after whatever happened


class Watcher:
    """Follows a resource, and checks that no event repeats or goes back."""

    def __init__(self, client: AquaClient, resource_id: str) -> None:
        self.client = client
        self.resource_id = resource_id
        self.seen: dict[Slot, Record] = {}
        self.events: list[WatchEvent] = []
        self.newest: dict[Slot, tuple[int, int]] = {}
        self.started = trio.Event()

    async def run(self) -> None:
        async with self.client.watch(self.resource_id) as events:
            async for event in events:
                self.note(event)
                self.started.set()

    def note(self, event: WatchEvent) -> None:
        self.events.append(event)
        if event.record is None:
            assert len(self.events) == 1
            self.seen = {record.slot: record for record in event.records}
            return
        slot = event.record.slot
        before = self.seen.get(slot)
        if event.kind in (EventKind.REMOVED, EventKind.EXPIRED):
            assert before is not None, "what went was there"
            del self.seen[slot]
        else:
            assert (event.kind is EventKind.ADDED) == (before is None)
            assert before is None or not same_content(before, event.record), "no event twice"
            moment = (event.record.timestamp_issued, event.record.timestamp_created)
            assert moment >= self.newest.get(slot, (0, 0)), "never back"
            self.newest[slot] = moment
            self.seen[slot] = event.record

    def values(self) -> list[str]:
        return sorted(record.metadata.value for record in self.seen.values())


@asynccontextmanager
async def watching(*watchers: Watcher) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        with trio.fail_after(LONGEST):
            for watcher in watchers:
                await watcher.started.wait()
        yield
        nursery.cancel_scope.cancel()


async def resolved(client: AquaClient, resource_id: str) -> list[str]:
    """From a majority, over the network."""
    records, errors = await client.resolveResource(resource_id, 4)
    assert records is not None, errors
    return sorted(record.metadata.value for record in records)


async def test_each_change_is_told_once_in_order_and_soon(network: Network) -> None:
    async with connect(network.relay()) as issuer, connect(network.relay()) as other:
        resource_id, errors = await issuer.createResource("watched")
        assert resource_id is not None, errors
        watcher = Watcher(other, resource_id)
        async with watching(watcher):
            assert [event.kind for event in watcher.events] == [EventKind.SNAPSHOT]
            for value in ("1", "2"):
                assert await issuer.registerService(resource_id, value, issuer.peer_id, "s") == (True, [])
                await eventually(trio.lowlevel.checkpoint, lambda _, v=value: watcher.values() == [v], 2)
            assert await issuer.unregisterService(resource_id, issuer.peer_id) == (True, [])
            await eventually(trio.lowlevel.checkpoint, lambda _: watcher.values() == [], 2)
        assert [event.kind for event in watcher.events[1:]] == [EventKind.ADDED, EventKind.UPDATED, EventKind.REMOVED]


async def test_a_resource_that_does_not_exist_yet_can_be_watched_and_its_removal_is_told(network: Network) -> None:
    async with connect(network.relay()) as issuer, connect(network.relay()) as other:
        resource_id = await issuer.getResourceId("later", issuer.peer_id)
        watcher = Watcher(other, resource_id)
        async with watching(watcher):
            assert watcher.events == [WatchEvent(EventKind.SNAPSHOT)]
            assert (await issuer.createResource("later"))[0] == resource_id
            assert await issuer.registerService(resource_id, "here", issuer.peer_id, "s") == (True, [])
            await eventually(trio.lowlevel.checkpoint, lambda _: watcher.values() == ["here"], LONGEST)
            assert (await issuer.removeResource(resource_id))[0]
            await eventually(trio.lowlevel.checkpoint, lambda _: watcher.values() == [], LONGEST)
        assert watcher.events[-1].kind is EventKind.REMOVED


async def test_a_slow_consumer_gets_the_latest_state_and_is_told_what_it_missed(network: Network) -> None:
    async with connect(network.relay()) as issuer, connect(network.relay()) as other:
        resource_id, _ = await issuer.createResource("too fast")
        assert resource_id is not None
        async with other.watch(resource_id) as events:
            assert (await anext(events)).kind is EventKind.SNAPSHOT
            for number in range(5):
                value = str(number)
                assert await issuer.registerService(resource_id, value, issuer.peer_id, "s") == (True, [])
                await eventually(
                    trio.lowlevel.checkpoint, lambda _, v=value: [r.metadata.value for r in events.records] == [v], 5
                )
            event = await anext(events)
            assert event.kind is EventKind.ADDED
            assert event.record is not None
            assert event.record.metadata.value == "4"
            assert event.coalesced == 4


async def test_a_watched_resource_is_resolved_without_the_network(network: Network) -> None:
    async with connect(network.relay()) as issuer, connect(network.relay()) as other:
        resource_id, _ = await issuer.createResource("at hand")
        assert resource_id is not None
        assert await issuer.registerService(resource_id, "v", issuer.peer_id, "s") == (True, [])
        watcher = Watcher(other, resource_id)
        async with watching(watcher):
            await eventually(trio.lowlevel.checkpoint, lambda _: watcher.values() == ["v"], LONGEST)
            with frozen(network):
                for _ in range(100):
                    records, errors = await other.resolveResource(resource_id, 1)
                    assert errors == []
                    assert records is not None
                    assert [record.metadata.value for record in records] == ["v"]


@contextmanager
def frozen(network: Network) -> Iterator[None]:
    """No node answers anything within the block."""
    process_ids = [node.process_id for node in network.nodes if node.process_id is not None]
    assert len(process_ids) == len(network.nodes)
    try:
        for process_id in process_ids:
            os.kill(process_id, signal.SIGSTOP)
        yield
    finally:
        for process_id in process_ids:
            os.kill(process_id, signal.SIGCONT)


async def test_the_command_prints_events_as_lines_and_as_json(network: Network, tmp_path: Path) -> None:
    async with connect(network.relay()) as issuer:
        resource_id, _ = await issuer.createResource("on the screen")
        assert resource_id is not None
        assert await issuer.registerService(resource_id, "v", issuer.peer_id, "s") == (True, [])
        flags = ("--relay", network.relay(), "-n", "1")
        people = await command("watch", resource_id, *flags, home=tmp_path)
        assert people.code == 0, people.err
        assert "snapshot" in people.out
        assert issuer.peer_id in people.out
        scripts = await command("watch", resource_id, *flags, "--json", home=tmp_path)
        told = json.loads(scripts.out)
        assert told["event"] == "snapshot"
        assert [record["metadata"]["value"] for record in told["records"]] == ["v"]
        unknown = await command("watch", UNKNOWN, *flags, home=tmp_path)
        assert unknown.code == 0
        assert "no services" in unknown.out
        assert f"no resource {UNKNOWN} is known yet" in unknown.err


async def test_the_command_goes_on_while_others_act_as_the_same_user_and_ends_with_ctrl_c(
    network: Network, tmp_path: Path
) -> None:
    flags = ("--relay", network.relay())
    created = await command("resource", "create", "at the same time", *flags, home=tmp_path)
    resource_id = created.out.strip()
    watching_command = (sys.executable, "-m", "aqua_compat", "watch", resource_id, "--json", *flags)
    async with launched(*watching_command, home=tmp_path, log=tmp_path / "log") as process:
        assert process.stdout is not None
        with trio.fail_after(20):
            assert b"snapshot" in await process.stdout.receive_some()
            done = await command("service", "register", resource_id, "--value", "v", *flags, home=tmp_path)
            assert done.code == 0, done.err
            assert b"added" in await process.stdout.receive_some()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0


@pytest.mark.timeout(300)
async def test_watchers_see_everything_while_nodes_are_killed_and_restarted(tmp_path: Path) -> None:
    network = Network(tmp_path, 8, "--config", str(_config(tmp_path)))
    await network.start()
    randomness = random.Random(4)
    try:
        entries = network.nodes[:4]
        addresses = [node.address for node in entries]
        async with connect(addresses) as owner, connect(addresses[::-1]) as one, connect(addresses[1:]) as two:
            resource_id, errors = await owner.createResource(
                "busy",
            )
            assert resource_id is not None, errors
            watchers = [Watcher(client, resource_id) for client in (owner, one, two)]
            async with watching(*watchers):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_churn, network, randomness)
                    async with trio.open_nursery() as issuers:
                        for number in range(ISSUERS):
                            issuers.start_soon(_issue, addresses[number % 4 :] + addresses, resource_id, number)
                    nursery.cancel_scope.cancel()
                await network.restart([node for node in network.nodes if not node.alive])
                expected = [f"{number} {CHANGES - 1}" for number in range(ISSUERS)]
                for watcher in watchers:
                    await eventually(trio.lowlevel.checkpoint, lambda _, w=watcher: w.values() == expected, LONGEST)
                assert await resolved(owner, resource_id) == expected
            for watcher in watchers:
                print(f"{len(watcher.events)} events, {sum(e.coalesced for e in watcher.events)} coalesced")  # noqa: T201
    finally:
        await network.stop()


@pytest.mark.timeout(300)
async def test_more_watchers_than_there_are_places_miss_nothing_while_those_who_serve_them_die(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        "[registry]\nneighbourhood_size = 2\nresponsibility_margin = 0\n"
        f"[watching]\nmax_watchers = 2\nmax_client_watchers = {PLACES}\n"
    )
    network = Network(tmp_path, 7, "--config", str(config))
    await network.start()
    try:
        async with AsyncExitStack() as stack:
            issuer = await stack.enter_async_context(connect(network.nodes[0].address))
            resource_id, errors = await issuer.createResource("crowded")
            assert resource_id is not None, errors
            keepers = await issuer.registry.neighbours(resource_id)
            entries = [node for node in network.nodes[1:] if node.peer_id not in keepers][:4]
            watches: list[Watch] = []
            for number in range(CROWD):
                addresses = [entries[(number + step) % len(entries)].address for step in range(2)]
                client = await stack.enter_async_context(open_light_client(Identity.generate(), addresses))
                watches.append(client.registry.watch(resource_id))
                assert (await anext(watches[-1])).kind is EventKind.SNAPSHOT

            async def all_see(value: str) -> float:
                assert await issuer.registerService(resource_id, value, issuer.peer_id, "s") == (True, [])
                began = trio.current_time()
                await eventually(
                    trio.lowlevel.checkpoint,
                    lambda _: all([r.metadata.value for r in watch.records] == [value] for watch in watches),
                    LONGEST,
                )
                return trio.current_time() - began

            delays = [await all_see(f"before {number}") for number in range(3)]
            observing = await stack.enter_async_context(observer())
            told = await eventually(partial(subscriptions_of, observing, network.running), bool, LONGEST)
            assert max(told.values()) <= PLACES + 2, "clients and nodes, within their places"
            assert sum(told.values()) >= CROWD
            parent = max(entries, key=lambda node: told[node.peer_id])
            await parent.kill()
            delays.append(await all_see("after"))
            running = network.running
            await eventually(
                partial(subscriptions_of, observing, running), lambda told: sum(told.values()) >= CROWD, 30
            )
            delays.append(await all_see("later"))
            print(f"told to all {CROWD} after {', '.join(f'{delay:.2f}' for delay in delays)} s")  # noqa: T201
    finally:
        await network.stop()


async def subscriptions_of(observing: Observer, nodes: Sequence[NodeProcess]) -> dict[str, int]:
    """How many watchers each node tells; empty when one is too busy to say."""
    try:
        return {node.peer_id: (await observing.status(node)).subscriptions for node in nodes}
    except RegistryError:
        return {}


def _config(folder: Path) -> Path:
    path = folder / "config.toml"
    path.write_text("[registry]\nneighbourhood_size = 5\nresponsibility_margin = 2\n")
    return path


async def _issue(addresses: list[str], resource_id: str, number: int) -> None:
    async with connect(list(dict.fromkeys(addresses))) as issuer:
        for change in range(CHANGES):
            done = False
            while not done:
                done, _ = await issuer.registerService(resource_id, f"{number} {change}", issuer.peer_id, "s")


async def _churn(network: Network, randomness: random.Random) -> None:
    while True:
        victim = randomness.choice(network.nodes[4:])
        await victim.kill()
        await trio.sleep(1)  # for as long the network does without it
        await network.restart([victim])
