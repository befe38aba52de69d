"""One resource watched by many light clients: how long until all were told of a change, and after its replicas died.

    python -m benchmarks.watchers [--nodes 8 32] [--watchers 2000]

Every node is a process of its own; the watchers share others, 250 in each, and act through the nodes in turn. A watcher
has heard when it was told of the change's value, whatever came before. In the end a tenth of the nodes is killed, and
one more change made. Calls, bytes and CPU are those of all nodes that live for one change, telling all watchers
included, until a few seconds after, without what they took when idle; after the kill also what the others do to make up
for the dead and for watchers that come to them.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
import trio

from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import Observed, Spent, observed
from benchmarks.processes import idle_share, node_network
from overlay.identity import Identity
from registry.client.light import open_light_client

PER_PROCESS: Final = 250
AT_ONCE: Final = 4  # watchers of one process that connect at the same time
CONNECTED_WITHIN: Final = 60.0
TOLD_WITHIN: Final = 60.0
CHANGES: Final = 5
IDLE_TIME: Final = 30.0


async def be_watchers(count: int) -> None:
    """Be so many watchers of the resource that the first line of stdin names, through the addresses beside it.

    Says "watching" on stdout, then for each value in a line of stdin when each watcher was told of it (seconds since
    1970), as a JSON list.
    """
    resource_id, *addresses = json.loads(sys.stdin.readline())
    places = trio.Semaphore(AT_ONCE)
    told: dict[str, list[float]] = {}
    watching, heard = 0, trio.Condition()

    async def be_watcher(number: int) -> None:
        nonlocal watching
        await places.acquire()
        mine = addresses[number % len(addresses) :] + addresses[: number % len(addresses)]
        async with (
            open_light_client(Identity.generate(), mine[:3], timeout=CONNECTED_WITHIN) as client,
            client.registry.watch(resource_id) as events,
        ):
            await anext(events)
            places.release()
            watching += 1
            async with heard:
                heard.notify_all()
            async for event in events:
                if event.record is not None:
                    told.setdefault(event.record.metadata.value, []).append(time.time())
                    async with heard:
                        heard.notify_all()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(be_watcher, number)
        async with heard:
            while watching < count:
                await heard.wait()
        print("watching", flush=True)
        while value := (await trio.to_thread.run_sync(sys.stdin.readline)).strip():
            with trio.move_on_after(TOLD_WITHIN):
                async with heard:
                    while len(told.get(value, ())) < count:
                        await heard.wait()
            print(json.dumps(told.get(value, [])), flush=True)
        nursery.cancel_scope.cancel()


class Watchers:
    """Processes that watch."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    async def told(self, value: str) -> list[float]:
        """When each was told of a value, sorted; those that weren't are missing."""
        await self.say(value)
        answers = [json.loads(await trio.to_thread.run_sync(self._line, each)) for each in self._processes]
        return sorted(moment for answer in answers for moment in answer)

    async def say(self, line: str) -> None:
        """Tells all processes something."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
        await trio.lowlevel.checkpoint()

    async def ready(self) -> None:
        """Waits until all processes watch."""
        for process in self._processes:
            line = await trio.to_thread.run_sync(self._line, process)
            if line.strip() != "watching":
                raise RuntimeError("not all watchers could be served")

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()


def started(count: int) -> subprocess.Popen[str]:
    """A process for so many watchers."""
    command = [sys.executable, "-m", "benchmarks.watchers", "--be", str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@asynccontextmanager
async def watchers(count: int, resource_id: str, addresses: list[str]) -> AsyncIterator[Watchers]:
    """So many watchers, that have seen the resource."""
    processes = [started(min(PER_PROCESS, count - start)) for start in range(0, count, PER_PROCESS)]
    try:
        crowd = Watchers(processes)
        await crowd.say(json.dumps([resource_id, *addresses]))
        await crowd.ready()
        yield crowd
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def main(sizes: list[int], count: int) -> None:
    """Measures, as the command line says."""
    for nodes in sizes:
        await measure(nodes, count)


async def measure(nodes: int, count: int) -> None:
    """Measures with so many watchers of a network of so many nodes."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            node_network(Path(folder), nodes) as network,
            open_light_client(Identity.generate(), [network[0].address], timeout=CONNECTED_WITHIN) as issuer,
            observed(network, CONNECTED_WITHIN) as askers,
        ):
            created = await issuer.registry.create_resource("watched by all")
            assert created.resource_id is not None, created.errors
            resource_id = created.resource_id

            async def change(crowd: Watchers, living: Observed, before: Spent, value: str) -> str:
                done = await issuer.registry.register_service(resource_id, value, issuer.peer.peer_id, "s", timeout=30)
                assert done.success, done.errors
                acknowledged = time.time()
                told = await crowd.told(value)
                costs = await living.costs(before, 1)
                if not told:
                    return f"0 of {count}  {costs}"
                half, most = told[len(told) // 2] - acknowledged, told[-1] - acknowledged
                return f"{len(told)} of {count}, half after {half:.2f} s, all after {most:.2f} s  {costs}"

            began = time.monotonic()
            addresses = [node.address for node in network[1:]] + [network[0].address]
            async with watchers(count, resource_id, addresses) as crowd:
                print(f"{nodes} nodes, {count} watchers; all watch after {time.monotonic() - began:.0f} s", flush=True)
                all_nodes = await askers.knowing_idle()
                for number in range(CHANGES):
                    told = await change(crowd, all_nodes, await all_nodes.spent(), f"value {number}")
                    print(f"  told of a change:  {told}", flush=True)
                share = await idle_share(network, IDLE_TIME)
                print(f"  idle:              {share:.2%} of a core a node", flush=True)
                killed = network[-max(nodes // 10, 1) :]
                others = all_nodes.without(killed)
                before = await others.spent()
                for node in killed:
                    await node.kill()
                told = await change(crowd, others, before, "after the kill")
                print(f"  {len(killed)} nodes killed:    {told}", flush=True)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, 32, least=2)
    parser.add_argument("--watchers", type=int, default=2000)
    parser.add_argument("--be", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be:
        trio.run(be_watchers, arguments.be)
    else:
        trio.run(main, arguments.nodes, arguments.watchers)
