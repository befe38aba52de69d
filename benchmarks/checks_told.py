"""From a check's decision to the event at a watcher on another node.

    python -m benchmarks.checks_told [--nodes 8 32] [--services 33]

Node processes; one is the agent of services with `ttl` checks, which follow each word of their program at once: that
is said here, by the node's socket. This process watches all of them as a light client of another node. A delay is from
when a request begins to the event: what the request takes is in it, and told apart. Each service changes three times
(passing, warning, critical), so that none counts as flapping; and their host has a change to tell each 1.2 s, since
beyond one a second it tells several together.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import time
from functools import partial
from pathlib import Path

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess
from aqua_compat.cli.node_socket import NodeSocket
from benchmarks.network_sizes import take_network_sizes
from benchmarks.registry_operations import NODES, network
from overlay.identity import Identity
from overlay.tasks import in_thread
from registry.client.light import open_light_client
from registry.model.signing import key_id_of
from registry.watch.watch import Watch

PATIENCE = 10.0  # seconds for one event
BETWEEN = 1.2  # seconds between two changes
STATES = ("passing", "warning", "critical")
LISTED = "listed"


class Heard:
    """When the watcher heard that a service is so."""

    def __init__(self) -> None:
        self.at: dict[tuple[int, str], float] = {}
        self._came = trio.Condition()

    async def follow(self, number: int, watch: Watch) -> None:
        """Notes what a watch tells of the health of one service."""
        async for event in watch:
            if event.health is not None:
                self.at.setdefault((number, str(event.health.health.state)), time.perf_counter())
            if event.records or event.record is not None:
                self.at.setdefault((number, LISTED), time.perf_counter())
            async with self._came:
                self._came.notify_all()

    async def wait(self, number: int, state: str) -> float | None:
        """The moment; None when it doesn't come."""
        with trio.move_on_after(PATIENCE):
            async with self._came:
                while (number, state) not in self.at:
                    await self._came.wait()
        return self.at.get((number, state))


async def measure(agent: NodeProcess, watched_through: NodeProcess, services: int) -> None:
    """Changes each service, and prints how soon that was heard."""
    socket, heard = NodeSocket(agent.data_dir, PATIENCE), Heard()
    asked: list[float] = []
    delays: list[float] = []
    failed = 0
    watching = open_light_client(Identity.generate(), [watched_through.address])
    async with watching as watcher, trio.open_nursery() as tasks:
        for number in range(services):
            watch = watcher.registry.watch(key_id_of(f"s{number}", str(agent.peer_id)), include_down=True)
            tasks.start_soon(heard.follow, number, watch)
        for number in range(services):
            await heard.wait(number, LISTED)
        await trio.sleep(5)  # until the watches' topics are formed
        heard.at.clear()
        for state in STATES:
            for number in range(services):
                began = time.perf_counter()
                await in_thread(partial(socket.post, "agent", "checks", f"s{number}", state=state, timeout=None))
                asked.append(time.perf_counter() - began)
                at = await heard.wait(number, state)
                failed += at is None
                delays += [] if at is None else [at - began]
                await trio.sleep(BETWEEN)
        tasks.cancel_scope.cancel()
    print(f"{'said to answered (HTTP, in the delays below)':46} {_percentiles(asked)}")
    print(f"{'said to heard by a watcher on another node':46} {_percentiles(delays)}, {failed} not heard")


def _percentiles(seconds: list[float]) -> str:
    p50, p99 = (sorted(seconds)[int(len(seconds) * share)] * 1000 for share in (0.5, 0.99))
    return f"p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  of {len(seconds)}"


async def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, NODES, least=3, what="node processes besides the agent")
    parser.add_argument("--services", type=int, default=33)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for nodes in arguments.nodes:
        print(f"Python {platform.python_version()}, {nodes} node processes and the agent", flush=True)
        await measure_network(nodes, arguments.services)


async def measure_network(count: int, services: int) -> None:
    """Measures with an agent that joins so many nodes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = folder / "services"
        files.mkdir()
        for number in range(services):
            (files / f"{number}.toml").write_text(f'[[service]]\nname = "s{number}"\n[[service.check]]\nttl = 3600\n')
        async with network(folder, count) as nodes:
            agent = NodeProcess(folder / "agent", folder / "agent.log")
            try:
                await agent.start("--bootstrap", nodes[0].address, "--services", str(files))
                await measure(agent, nodes[2], services)
            finally:
                await agent.kill()


if __name__ == "__main__":
    trio.run(main)
