"""Twelve node processes of which each resource has five replicas: nodes die, are replaced, and are cut off."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from aqua_compat import Constants, connect
from aqua_compat.api.client import AquaClient
from aqua_compat.cli.node_process import NodeProcess
from overlay.tasks import TaskStatus
from tests.end_to_end.network import Network

NODES = 12
REPLICAS = 5
RESOURCES = 80
CHANGES_BEFORE = 20
ALL = Constants(INITIAL_REPLICATION_FACTOR=REPLICAS)
CONFIGURATION = f"[registry]\nneighbourhood_size = {REPLICAS}\nresponsibility_margin = 2\n"


@asynccontextmanager
async def churning(folder: Path, count: int = NODES) -> AsyncIterator[Network]:
    configuration = folder / "node.toml"
    configuration.write_text(CONFIGURATION)
    network = Network(folder, count, "--config", str(configuration))
    await network.start()
    try:
        yield network
    finally:
        await network.stop()


class Written:
    """What a client wrote: the value per resource id, None for what it unregistered; `unsure` got no answer."""

    def __init__(self) -> None:
        self.values: dict[str, str | None] = {}
        self.unsure: set[str] = set()

    async def register(self, aqua: AquaClient, label: str) -> None:
        resource_id, errors = await aqua.createResource(label)
        assert resource_id is not None, errors
        success, errors = await aqua.registerService(resource_id, label, aqua.peer_id, None)
        assert success, errors
        self.values[resource_id] = label

    async def fill(self, aqua: AquaClient, count: int) -> None:
        labels = iter(range(count))

        async def work() -> None:
            for number in labels:
                await self.register(aqua, f"resource {number}")

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(work)

    async def change(self, aqua: AquaClient, *, task_status: TaskStatus[None]) -> None:
        """Unregisters and registers, for ever; what isn't acknowledged by all five is unsure."""
        count = 0
        while True:
            resource_id = random.choice(list(self.values))
            count += 1
            value = None if self.values[resource_id] is not None else f"again {count}"
            self.unsure.add(resource_id)
            if value is None:
                success, _ = await aqua.unregisterService(resource_id, aqua.peer_id)
            else:
                success, _ = await aqua.registerService(resource_id, value, aqua.peer_id, None)
            if success:
                self.values[resource_id] = value
                self.unsure.discard(resource_id)
            if count == CHANGES_BEFORE:
                task_status.started()

    async def found(self, node: NodeProcess, ack: int = 1) -> dict[str, str | None]:
        """What is resolved through a node, of all that is sure; resources that aren't found are left out."""
        answers: dict[str, str | None] = {}
        sure = iter(sorted(self.values.keys() - self.unsure))

        async def work(reader: AquaClient) -> None:
            for resource_id in sure:
                records, _ = await reader.resolveResource(resource_id, ack)
                if records is not None:
                    answers[resource_id] = records[0].metadata.value if records else None

        limit = Constants(DEFAULT_TIMEOUT=3000)
        async with connect(node.address, constants=limit) as reader, trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(work, reader)
        return answers

    def differences(self, found: dict[str, str | None]) -> dict[str, tuple[str | None, str | None]]:
        """(found, written) per resource that isn't as it was written."""
        sure = self.sure()
        return {key: (found.get(key, "not found"), value) for key, value in sure.items() if found.get(key, "") != value}

    def sure(self) -> dict[str, str | None]:
        return {resource_id: value for resource_id, value in self.values.items() if resource_id not in self.unsure}


async def kill(nodes: list[NodeProcess]) -> None:
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.kill)


async def replace(network: Network, nodes: list[NodeProcess]) -> None:
    """New nodes with empty folders in the place of killed ones."""
    async with trio.open_nursery() as nursery:
        for node in nodes:
            shutil.rmtree(node.data_dir)
            flags = [flag for other in network.running for flag in ("--bootstrap", other.address)]
            nursery.start_soon(partial(node.start, *network.flags, *flags, timeout=60))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_is_lost_is_what_had_every_copy_on_nodes_that_died_between_repairs(tmp_path: Path) -> None:
    """Nothing where they are fewer than replicas; then, of the eight that are left, five die at once."""
    async with churning(tmp_path) as network:
        await fewer_than_replicas_die(network)
        await as_many_as_replicas_die(network)


async def fewer_than_replicas_die(network: Network) -> None:
    """Four nodes and then four others: what all five replicas acknowledged is found through whoever lives."""
    first, second = network.nodes[:4], network.nodes[4:8]
    survivors = [node.address for node in network.nodes[8:]]
    written = Written()
    async with connect(survivors, constants=ALL) as aqua:
        await written.fill(aqua, RESOURCES)
        async with trio.open_nursery() as nursery:
            await nursery.start(written.change, aqua)
            await kill(first)
            await replace(network, first)
            nursery.cancel_scope.cancel()
    assert len(written.unsure) < RESOURCES / 4
    await network.replicated()
    await kill(second)
    for node in random.sample(network.running, 3):
        assert written.differences(await written.found(node)) == {}


async def as_many_as_replicas_die(network: Network) -> None:
    """Exactly what had every copy on those killed is lost."""
    written = Written()
    async with connect([node.address for node in network.running[-REPLICAS:]], constants=ALL) as aqua:
        await written.fill(aqua, RESOURCES)
    await network.replicated()
    victims, survivors = network.running[:REPLICAS], network.running[REPLICAS:]
    kept = [await copies(node, written) for node in survivors]
    lost = written.values.keys() - set().union(*kept)
    await kill(victims)
    found = await written.found(random.choice(network.running))
    assert found == {resource_id: value for resource_id, value in written.values.items() if resource_id not in lost}
    print(f"{len(lost)} of {RESOURCES} resources had every copy on the killed nodes: {sorted(lost)}")  # noqa: T201


async def copies(node: NodeProcess, written: Written) -> set[str]:
    """The resources of which a node has a copy."""
    async with connect(node.address) as aqua:
        return {
            resource_id
            for resource_id in written.values
            if (await aqua.registry.on_host("get_key_metadata", resource_id)).success
        }


@pytest.mark.timeout(300)
async def test_two_halves_that_wrote_apart_converge_when_they_meet(tmp_path: Path) -> None:
    async with churning(tmp_path, 8) as network:
        left, right = network.nodes[:4], network.nodes[4:]
        addresses = {node: node.address for node in network.nodes}
        together, apart = Written(), {}
        async with connect(left[0].address, constants=ALL) as aqua:
            await together.fill(aqua, 20)
        await network.replicated()
        # The right half comes back on other ports and knows only itself: every dial between the halves is refused.
        await kill(right)
        await right[0].start(*network.flags, timeout=60)
        async with trio.open_nursery() as nursery:
            for node in right[1:]:
                nursery.start_soon(partial(node.start, *network.flags, "--bootstrap", right[0].address, timeout=60))
        three = Constants(INITIAL_REPLICATION_FACTOR=3)
        for side, half in (("left", left), ("right", right)):
            async with connect([node.address for node in half], constants=three) as aqua:
                for resource_id in together.values:
                    success, errors = await aqua.registerService(resource_id, side, aqua.peer_id, None)
                    assert success, errors
                apart[side] = aqua.peer_id
        # They meet through one node.
        await right[0].kill()
        listen = addresses[right[0]].partition("/p2p/")[0]
        others = [flag for node in (left[0], right[1]) for flag in ("--bootstrap", node.address)]
        await right[0].start("--listen", listen, *others, *network.flags, timeout=60)
        await network.replicated()
        for node in (left[3], right[3]):
            async with connect(node.address) as reader:
                for resource_id in together.values:
                    records, errors = await reader.resolveResource(resource_id, REPLICAS)
                    hosts = {record.metadata.peer_id for record in records or []}
                    assert hosts >= set(apart.values()), errors
