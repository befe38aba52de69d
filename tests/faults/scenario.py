"""One run over real processes: users write, read and watch while machines fall sick; then all must be well again.

The seed decides what goes wrong when, and what users do; how processes and the kernel take turns it doesn't. Faults:
kill -9 and restart, partitions, disks that fill and empty, clocks that are set wrong and right again, processes that
are stopped for a while, callers who are killed or leave in the middle of a write.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from overlay.assembly import open_peer
from overlay.discovery.keyspace import nearest, resource_position
from overlay.identity import Identity
from registry.client.node_status import NodeStatus
from registry.client.remote_node import RemoteNode
from registry.errors import RegistryError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState
from registry.model.values import Record
from registry.settings import RegistrySettings
from registry.storage import open_store
from registry.storage.database_check import examine
from tests.end_to_end.network import eventually
from tests.faults.machine import Machine
from tests.faults.namespaces import Namespaces
from tests.faults.users import SETTINGS, Users, values
from tests.simulation.watcher import Told

CALM: Final = 12  # writes that are acknowledged before anything goes wrong
REPLICAS: Final = 5
RESOURCES: Final = 6
START: Final = 300.0  # seconds that all nodes may take to start
SETTLED_WITHIN: Final = 90.0  # seconds after the last fault
FOUND_WITHIN: Final = 20.0  # seconds: a read has three to be answered, and the machine may be slow
TOLD_WITHIN: Final = 30.0  # seconds after that, as far as renewals of subscriptions have to tell
WRONG_CLOCKS: Final = (-86_400.0, -600.0, -20.0, 20.0, 45.0, 172_800.0)


class Outcome(msgspec.Struct):
    """What a run did."""

    acknowledged: int
    attempted: int
    killed: int
    """Commands that were killed in the middle of a write."""
    reads: int
    events: int
    faults: dict[str, int]
    settled: float
    """Seconds after the last fault."""


class Scenario:
    """Use `run`."""

    def __init__(self, seed: int, folder: Path, namespaces: Namespaces, nodes: int, faults: float) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.namespaces = namespaces
        self.faults = faults
        self.rules = RegistrySettings(neighbourhood_size=REPLICAS, responsibility_margin=3)
        configuration = folder / "node.toml"
        configuration.write_text(
            f"[registry]\nneighbourhood_size = {REPLICAS}\nresponsibility_margin = 3\n"
            '[overlay.links]\nunlimited_networks = ["10.0.0.0/8"]\n'
        )
        self.machines = [Machine(number, folder, configuration) for number in range(1, nodes + 1)]
        self.counts: dict[str, int] = {}
        addresses, hosts = zip(*((machine.address, machine.peer_id) for machine in self.machines), strict=True)
        self.users = Users(self.random, folder, addresses, hosts, REPLICAS // 2 + 1)

    async def run(self) -> Outcome:
        """Raises AssertionError, perhaps in a group, when something didn't hold; then a file tells what each node had
        stored and said of itself."""
        try:
            return await self._run()
        except Exception:
            with trio.CancelScope(shield=True), suppress(Exception):  # it mustn't hide what happened
                await self._write_down()
            raise
        finally:
            with trio.CancelScope(shield=True):
                for machine in self.machines:
                    if machine.is_up:
                        await machine.kill()
            self.namespaces.split({})

    async def _run(self) -> Outcome:
        with trio.fail_after(START):
            await self.machines[0].start([])
            async with trio.open_nursery() as nursery:
                for machine in self.machines[1:]:
                    nursery.start_soon(self._start, machine)
            await self._settled()
        users, book = self.users, self.users.book
        await users.create_resources(RESOURCES)
        async with trio.open_nursery() as watching:
            for _ in range(3):
                watching.start_soon(users.watch)
            async with trio.open_nursery() as nursery:
                for task in (users.write, users.write, users.write, users.write_and_be_killed, users.read, users.read):
                    nursery.start_soon(task)
                await eventually(users.acknowledged, lambda count: count >= CALM, timeout=START)
                async with trio.open_nursery() as trouble:
                    for fault in (self._crash, self._split, self._set_clocks, self._fill, self._pause):
                        trouble.start_soon(fault)
                    await trio.sleep(self.faults)
                    trouble.cancel_scope.cancel()
                began = trio.current_time()
                await self._heal()
                nursery.cancel_scope.cancel()
            await self._settled()
            await self._agreed()
            settled = trio.current_time() - began
            for resource_id in book.resources:
                ask = partial(users.found, resource_id)
                records = await eventually(ask, lambda answer: answer is not None, timeout=FOUND_WITHIN)
                assert records is not None
                book.check_end(resource_id, records)
                await eventually(partial(users.listed, resource_id), len(records).__eq__, timeout=SETTLED_WITHIN)
                await self._watchers_told(resource_id, records)
            watching.cancel_scope.cancel()
        for machine in self.machines:
            await machine.kill()
        await self._check_databases()
        attempts = [attempt for attempts in book.attempts.values() for attempt in attempts]
        return Outcome(
            sum(attempt.acknowledged for attempt in attempts),
            len(attempts),
            book.killed,
            book.reads,
            book.events,
            self.counts,
            round(settled, 1),
        )

    async def _write_down(self) -> None:
        """Must not hold up what comes after: what can't be had is left out."""
        lines = []
        for machine in self.machines:
            lines.append(f"node {machine.number}, {machine.peer_id}, at {machine.skew:+} s")
            if machine.is_ready and not machine.is_paused:
                async with open_peer(Identity.generate(), SETTINGS) as peer:
                    node = RemoteNode(peer, [machine.address], RegistrySettings(), time.time)
                    lines.append(f"  status: {await _status(node)}")
            async with open_store(machine.database) as store:
                for resource_id in self.users.book.resources:
                    state = await store.resource(resource_id)
                    lines.append(f"  {resource_id}: {state.digest().hex()[:8]}, key tombstones {state.key_tombstones}")
                    lines += (f"    {slot}: {state.slots[slot]}" for slot in sorted(state.slots))
        (self.folder / "stored.txt").write_text("\n".join(lines) + "\n")

    async def _start(self, machine: Machine) -> None:
        await machine.start([other.address for other in self.machines if other is not machine][:8])

    # What goes wrong

    def _count(self, fault: str) -> None:
        self.counts[fault] = self.counts.get(fault, 0) + 1

    def _majority_stays(self) -> bool:
        """Whether one more may be out of order: more than half of the replicas that a resource may have aren't."""
        out = sum(not machine.is_ready or machine.is_paused for machine in self.machines)
        return out < (REPLICAS - 1) // 2

    async def _crash(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self.random.uniform(0.5, 4))
                up = [machine for machine in self.machines if machine.is_ready and not machine.is_paused]
                if up and self._majority_stays():
                    self._count("crash")
                    machine = self.random.choice(up)
                    await machine.kill()
                    nursery.start_soon(self._restart, machine, self.random.uniform(0.1, 4))

    async def _restart(self, machine: Machine, after: float) -> None:
        await trio.sleep(after)
        try:
            await self._start(machine)
        except AssertionError:
            assert machine.is_full, f"node {machine.number} doesn't start; see {machine.log}"
            self._count("start refused for a full disk")
            await machine.kill()  # `_heal` starts it

    async def _split(self) -> None:
        while True:
            await trio.sleep(self.random.uniform(2, 6))
            self._count("partition")
            self.namespaces.split({machine.number: self.random.randrange(2) for machine in self.machines})
            try:
                await trio.sleep(self.random.uniform(0.5, 6))
            finally:
                self.namespaces.split({})

    async def _set_clocks(self) -> None:
        while True:
            await trio.sleep(self.random.uniform(0.5, 5))
            self._count("wrong clock")
            machine = self.random.choice(self.machines)
            await machine.set_clock(self.random.choice(WRONG_CLOCKS))
            try:
                await trio.sleep(self.random.uniform(1, 8))
            finally:
                with trio.CancelScope(shield=True):
                    await machine.set_clock(0.0)

    async def _fill(self) -> None:
        while True:
            await trio.sleep(self.random.uniform(0.5, 4))
            self._count("full disk")
            machine = self.random.choice(self.machines)
            machine.fill()
            try:
                await trio.sleep(self.random.uniform(0.5, 6))
            finally:
                machine.empty()

    async def _pause(self) -> None:
        while True:
            await trio.sleep(self.random.uniform(0.5, 5))
            up = [machine for machine in self.machines if machine.is_ready]
            if self._majority_stays() and up:
                self._count("pause")
                machine = self.random.choice(up)
                machine.pause()
                try:
                    await trio.sleep(self.random.uniform(0.2, 5))
                finally:
                    machine.resume()

    async def _heal(self) -> None:
        async with trio.open_nursery() as nursery:
            for machine in self.machines:
                if not machine.is_up:
                    nursery.start_soon(self._start, machine)

    # What must always hold

    async def _settled(self) -> None:
        """Wait until every node is linked to others, counts, and says that its neighbours have what it has."""
        wanted = min(len(self.machines) - 1, REPLICAS + 3)
        async with open_peer(Identity.generate(), SETTINGS) as peer:
            for machine in self.machines:
                node = RemoteNode(peer, [machine.address], RegistrySettings(), time.time)
                is_well = partial(_is_well, members=wanted)
                await eventually(partial(_status, node), is_well, timeout=SETTLED_WITHIN)

    async def _agreed(self) -> None:
        """Wait until all replicas of each resource hold the same, as their databases tell."""
        await eventually(self._differences, lambda found: not found, timeout=SETTLED_WITHIN)

    async def _differences(self) -> list[str]:
        known = {machine.peer_id: await self._stored(machine) for machine in self.machines}
        found = []
        for number, resource_id in enumerate(self.users.book.resources):
            keepers = nearest(resource_position(resource_id), list(known), REPLICAS)
            digests = {peer_id[-6:]: known[peer_id][number].digest().hex()[:8] for peer_id in keepers}
            if len(set(digests.values())) > 1:
                found.append(f"replicas of {resource_id} differ: {digests}")
        return found

    async def _stored(self, machine: Machine) -> list[ResourceState]:
        """What a node's database has of each resource, of what isn't too old."""
        horizon = ExpiryHorizon.at(int(time.time()), self.rules)
        async with open_store(machine.database) as store:
            return [horizon.alive(await store.resource(resource_id)) for resource_id in self.users.book.resources]

    async def _check_databases(self) -> None:
        for machine in self.machines:
            examination = await trio.to_thread.run_sync(partial(examine, machine.database))
            assert examination.is_whole, f"the database of node {machine.number}: {examination}"
        assert not await self._differences()
        for number, resource_id in enumerate(self.users.book.resources):
            keepers = nearest(resource_position(resource_id), [each.peer_id for each in self.machines], REPLICAS)
            for machine in self.machines:
                if machine.peer_id in keepers:
                    slots = (await self._stored(machine))[number].slots
                    self.users.book.check_end(
                        resource_id, [state for state in slots.values() if isinstance(state, Record)]
                    )

    async def _watchers_told(self, resource_id: str, records: list[Record]) -> None:
        """Wait until watchers were told what is there."""
        for watched, told in self.users.told:
            if watched == resource_id:

                async def seen(told: Told = told) -> dict[tuple[str, str], str]:
                    await trio.lowlevel.checkpoint()
                    return values(told.visible.values())

                await eventually(seen, lambda found: found == values(records), timeout=TOLD_WITHIN)


async def _status(node: RemoteNode) -> NodeStatus | None:
    try:
        return await node.status(timeout=5)
    except RegistryError:
        return None


def _is_well(status: NodeStatus | None, members: int) -> bool:
    return (
        status is not None
        and len(status.members) >= members
        and status.caught_up
        and not status.lacking
        and status.replication is not None
        and status.replication.settled
    )
