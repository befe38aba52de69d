"""A network under honest load and all attacks of the corpus in turns, for an hour: nothing that it takes may grow.

The first ten minutes go through the whole corpus once, in a random order, each attack against all nodes at once: so
each node has met all of them by then, and holds what it may hold for good. From then on an attack is drawn at random,
each time against a random node. After ten minutes, and in the end, the attackers rest for a while, and what the nodes
take then is compared. The nodes' databases have a small budget, so that they are full by then.

Usage: python -m tests.attacks.soak [--minutes 60] [--seed 1] [--nodes 3] [--rate 0.5]; exits with 1 if something grew.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import trio

from aqua_compat import connect
from aqua_compat.cli.node_process import NodeProcess
from benchmarks.processes import node_network, open_files, resident_megabytes, threads
from tests.attacks.corpus import ATTACKS
from tests.attacks.honest import HonestClients, honest_clients
from tests.attacks.running_attack import attacking

ROUNDS_PER_SECOND: Final = 1.0
SAMPLED_EACH: Final = 10.0  # seconds
FIRST: Final = 600.0  # seconds for all attacks once
REST: Final = 90.0  # seconds without attacks, before what is taken is compared
COMPARED: Final = 6  # the last samples of a rest, of which the median counts; the lag is of the last minute anyway
LONGEST_TURN: Final = 40.0  # seconds of one attack
DISK: Final = 8 * 2**20
MORE_MEMORY: Final = 0.10, 20.0  # a tenth, or so many MiB: what a node may have grown
MORE_FILES: Final = 5
MORE_THREADS: Final = 3
MORE_LAG: Final = 2.0, 0.1  # twice as much, and so many seconds


class Sample(NamedTuple):
    """What a node took at one moment, or the median of several."""

    memory: float
    """MiB in RAM."""
    files: float
    threads: float
    lag: float
    """Seconds by which its loop was late at worst, in the last minute."""
    connections: float
    database: float
    """MiB."""
    log: float
    """MiB."""

    @classmethod
    def median(cls, samples: Sequence[Sample]) -> Sample:
        """The median of each figure."""
        return cls(*map(statistics.median, zip(*samples, strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.memory:.0f} MiB {self.files:.0f} files {self.threads:.0f} threads {self.connections:.0f} conns "
            f"{self.lag * 1000:.0f} ms {self.database:.0f} MiB db {self.log:.1f} MiB log"
        )


class Soak:
    """The nodes, what was sampled of them, and which attack goes on."""

    def __init__(self, nodes: Sequence[NodeProcess], clients: Sequence[HonestClients], seed: int, rate: float) -> None:
        self._nodes = nodes
        self._clients = clients
        self._random = random.Random(seed)
        self._rate = rate
        self._began = trio.current_time()
        self._samples: list[list[Sample]] = [[] for _ in nodes]
        self.attack = ""

    async def run(self, seconds: float) -> bool:
        """All of it; whether nothing grew."""
        first = min(FIRST, seconds / 4)
        async with trio.open_nursery() as nursery:
            for clients in self._clients:
                nursery.start_soon(clients.work, ROUNDS_PER_SECOND / len(self._clients))
            nursery.start_soon(self._come_and_go)
            nursery.start_soon(self._sample)
            names = self._random.sample(sorted(ATTACKS), len(ATTACKS))
            for name in names:
                await self._turn(name, first / len(names), range(len(self._nodes)))
            before = await self._rest("the first medians")
            end = self._began + seconds - REST
            for name in self._drawn():
                left = end - trio.current_time()
                if left < 1:
                    break
                seconds = min(left, LONGEST_TURN * self._random.uniform(0.3, 1))
                await self._turn(name, seconds, [self._random.randrange(len(self._nodes))])
            after = await self._rest("the last medians")
            nursery.cancel_scope.cancel()
        pairs = enumerate(zip(before, after, strict=True))
        return not any([self._tell_growth(number, *medians) for number, medians in pairs])  # noqa: C419 - tell all

    def _drawn(self) -> Iterator[str]:
        while True:
            yield self._random.choice(sorted(ATTACKS))

    async def _turn(self, name: str, seconds: float, numbers: Sequence[int]) -> None:
        """One attack, against some of the nodes at once."""
        self.attack = name
        for clients in self._clients:
            clients.take()
        async with AsyncExitStack() as stack:
            running = [
                await stack.enter_async_context(
                    attacking(
                        name,
                        self._nodes[number].address,
                        seconds,
                        seed=self._random.randrange(2**32),
                        rate=self._rate,
                    )
                )
                for number in numbers
            ]
            await trio.sleep(seconds)
        self.attack = ""
        for number, attack in zip(numbers, running, strict=True):
            of = self._clients[number].take()
            done = " ".join(f"{what}={count}" for what, count in attack.done.items())
            went = f"{len(of.durations)} done, {of.failed} failed, p50 {of.p50:.0f} ms, p99 {of.p99:.0f} ms"
            self._say(f"{name} on {number}: {went}; {done[:150] or 'it did nothing'}")

    async def _rest(self, what: str) -> list[Sample]:
        await trio.sleep(REST)
        medians = [Sample.median(samples[-COMPARED:]) for samples in self._samples]
        self._say(f"{what}: {' | '.join(map(str, medians))}")
        return medians

    async def _come_and_go(self) -> None:
        """Honest clients that come, do something, and go."""
        while True:
            await trio.sleep(5)
            node = self._random.choice(self._nodes)
            try:
                async with connect(node.address) as client:
                    await client.resolveResource(await client.getResourceId("honest 1", client.peer_id), 1)
            except Exception as error:  # what a client gets to see of a busy node
                self._say(f"a client couldn't act: {error!r}"[:150])

    async def _sample(self) -> None:
        due = trio.current_time()
        while True:
            due += SAMPLED_EACH
            await trio.sleep_until(due)
            line: list[str] = []
            for node, clients, samples in zip(self._nodes, self._clients, self._samples, strict=True):
                assert node.process_id is not None
                if not node.alive:
                    raise RuntimeError(f"a node has ended under {self.attack}")
                status = await clients.status()
                if status is None or status.overlay is None:
                    line.append("no answer")
                    continue
                samples.append(
                    Sample(
                        memory=resident_megabytes(node.process_id),
                        files=open_files(node.process_id),
                        threads=threads(node.process_id),
                        lag=status.overlay.loop_lag_max,
                        connections=status.overlay.connections,
                        database=sum(file.stat().st_size for file in node.data_dir.glob("registry.sqlite*")) / 2**20,
                        log=node.log_file.stat().st_size / 2**20,
                    )
                )
                line.append(str(samples[-1]))
            self._say(f"{' | '.join(line)} | {self.attack}")

    def _tell_growth(self, number: int, before: Sample, after: Sample) -> bool:
        """Print what grew on a node, and what didn't; whether anything did."""
        part, most = MORE_MEMORY
        times, seconds = MORE_LAG
        grew = {
            "memory": after.memory > before.memory + max(before.memory * part, most),
            "files": after.files > before.files + MORE_FILES,
            "threads": after.threads > before.threads + MORE_THREADS,
            "lag": after.lag > before.lag * times + seconds,
        }
        for what, is_more in grew.items():
            verdict = "GREW" if is_more else "as before"
            self._say(f"node {number}: {what} {getattr(before, what):.3g} -> {getattr(after, what):.3g} {verdict}")
        return any(grew.values())

    def _say(self, text: str) -> None:
        minutes, seconds = divmod(int(trio.current_time() - self._began), 60)
        print(f"{minutes:3}:{seconds:02} {text}", flush=True)  # noqa: T201 - what whoever runs this reads


async def main(minutes: float, seed: int, count: int, rate: float) -> bool:
    """Run it; whether nothing grew."""
    os.environ["AQUA_REGISTRY_REGISTRY_MAX_DISK_BYTES"] = str(DISK)
    with tempfile.TemporaryDirectory() as folder:
        async with node_network(Path(folder), count) as nodes, trio.open_nursery() as nursery:
            clients: list[HonestClients] = []

            async def be_clients(
                address: str, *, task_status: trio.TaskStatus[HonestClients] = trio.TASK_STATUS_IGNORED
            ) -> None:
                async with honest_clients(address) as those:
                    task_status.started(those)
                    await trio.sleep_forever()

            for node in nodes:
                clients.append(await nursery.start(be_clients, node.address))
            succeeded = await Soak(nodes, clients, seed, rate).run(minutes * 60)
            nursery.cancel_scope.cancel()
    return succeeded


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.5, help="by which the attacks' own rates are multiplied")
    arguments = parser.parse_args()
    sys.exit(0 if trio.run(main, arguments.minutes, arguments.seed, arguments.nodes, arguments.rate) else 1)
