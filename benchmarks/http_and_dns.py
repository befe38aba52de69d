"""The figures of HTTP and DNS in one table: `python -m benchmarks.http_and_dns [--nodes 8 32] [--consul PROGRAM]`.

What benchmarks.consul and benchmarks.dns_answers measure, on the first of so many nodes, and what both servers cost
while nobody asks: a node with HTTP and DNS on addresses beside the others of its network, which have none. A table for
each number of nodes, in ten minutes; to be run on an idle machine. Consul is one server, measured once.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import structlog
import trio

from benchmarks import consul, dns_answers
from benchmarks.network_sizes import take_network_sizes
from benchmarks.processes import cpu_seconds, node_network
from tests.ports import free_port

SETTLED_AFTER = 30.0  # seconds


async def idle(count: int, seconds: float) -> tuple[float, float]:
    """Per cent of a core and MiB that idle servers cost the first of so many nodes, two at least: compared with what
    the others take on average, which have none."""
    servers = ("--http", f"127.0.0.1:{free_port()}", "--dns", f"127.0.0.1:{free_port()}")
    with tempfile.TemporaryDirectory() as folder:
        async with node_network(Path(folder), max(count, 2), *servers) as nodes:
            pids = [node.process_id for node in nodes if node.process_id is not None]
            await trio.sleep(SETTLED_AFTER)
            before = [cpu_seconds(pid) for pid in pids]
            await trio.sleep(seconds)
            used = [cpu_seconds(pid) - began for pid, began in zip(pids, before, strict=True)]
            held = [consul.memory(pid) for pid in pids]
    return (used[0] - statistics.mean(used[1:])) / seconds * 100, held[0] - statistics.mean(held[1:])


async def main(sizes: list[int], seconds: float, changes: int, count: int, program: str | None) -> None:
    """Measures Consul, where there is its program, then each network."""
    theirs = None
    if program is not None:
        async with consul.consul(program) as target:
            theirs = await consul.measured(target, seconds, changes)
        print(f"-- Consul\n{theirs}", flush=True)  # as they come, in case that something later fails
    for nodes in sizes:
        await measure(nodes, seconds, changes, count, theirs)


async def measure(nodes: int, seconds: float, changes: int, count: int, theirs: consul.Measured | None) -> None:
    """Measures all of one network, and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        async with consul.our_node(Path(folder), count=nodes) as target:
            ours = await consul.measured(target, seconds, changes)
    print(f"-- {nodes} nodes\n{ours}", flush=True)
    first, single, many, watching = await dns_answers.measure(nodes, count)
    cpu, memory = await idle(nodes, seconds * 12)

    def beside(text: str) -> str:
        return text if theirs is not None else ""

    other = theirs or ours
    rows = [
        ("GET /v1/health/service/web?passing, p50", f"{ours.p50:.2f} ms", "1 ms", beside(f"{other.p50:.2f} ms")),
        ("the same, p99", f"{ours.p99:.2f} ms", "", beside(f"{other.p99:.2f} ms")),
        ("per second, 16 clients", f"{ours.per_second:.0f}", "2,500", beside(f"{other.per_second:.0f}")),
        ("CPU of the server for each", f"{ours.cpu * 1e6:.0f} us", "", beside(f"{other.cpu * 1e6:.0f} us")),
        (
            "change to the return of a blocked query, p50 / p99",
            f"{ours.change_p50:.1f} / {ours.change_p99:.1f} ms",
            "5 / 15 ms",
            beside(f"{other.change_p50:.1f} / {other.change_p99:.1f} ms"),
        ),
        (
            "1,000 blocked queries idle",
            f"{ours.blocked_cpu:.2f} % of a core, {ours.blocked_memory:.0f} MiB",
            "2 %, 60 MiB",
            beside(f"{other.blocked_cpu:.2f} %, {other.blocked_memory:.0f} MiB"),
        ),
        ("DNS SRV answer p50 / p99", f"{single.p50:.2f} / {single.p99:.2f} ms", "0.5 ms", ""),
        ("per second, 16 in flight", f"{many.per_second:.0f}", "4,000", ""),
        ("CPU of the node for each", f"{many.cpu * 1e6:.0f} us", "", ""),
        ("first answer of a name", f"{first * 1000:.0f} ms", "", ""),
        ("idle node with a watched name", f"{watching:.2%} of a core", "", ""),
        ("HTTP and DNS, idle", f"{cpu:.3f} % of a core, {memory:.1f} MiB", "0.05 %, 8 MiB", ""),
    ]
    print(f"{f'{nodes} nodes':52} {'measured':28} {'aim':14} Consul")
    for what, measured, aim, consuls in rows:
        print(f"{what:52} {measured:28} {aim:14} {consuls}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.http_and_dns", description=__doc__)
    take_network_sizes(arguments, consul.NODES)
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--changes", type=int, default=100)
    arguments.add_argument("--count", type=int, default=20_000)
    arguments.add_argument("--consul", default=shutil.which("consul"), help="Consul's program; it is left out without")
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    consul.more_files()
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    trio.run(main, given.nodes, given.seconds, given.changes, given.count, given.consul)
