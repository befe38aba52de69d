"""DNS: how long an SRV answer takes, and how many a second a node gives.

    python -m benchmarks.dns_answers [--nodes 8 32] [--count 20000]

Every node is a process of its own, and the first one answers. The service has five instances, each on a node of its own
as far as there are so many. One query at a time, then 16 in flight, over a plain socket of this process; the case of
the name varies, as it does with many resolvers. Each answer is looked at: its id, its rcode, and that it has all
records.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import dns.message
import structlog
import trio

from aqua_compat.dns.peer_names import label_of_peer
from benchmarks.network_sizes import take_network_sizes
from benchmarks.processes import cpu_seconds, idle_share, node_network
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.model.endpoints import Instance, write_instances
from tests.ports import free_port

INSTANCES: Final = 5
IN_FLIGHT: Final = 16
WITHIN: Final = 2.0  # seconds for an answer
IDLE_TIME: Final = 20.0
NAMES: Final = 64  # ways to write the name
QUERIES: Final = 1_000_000
"""A second that the node may look at: by default it leaves what is beyond 10,000, which it outruns."""

Server = tuple[str, int]


class Measured(NamedTuple):
    """Milliseconds of an answer, answers per second, and seconds of the node's CPU for each."""

    p50: float
    p99: float
    per_second: float
    cpu: float

    def __str__(self) -> str:
        return (
            f"p50 {self.p50:6.2f} ms  p99 {self.p99:6.2f} ms  {self.per_second:7.0f} /s"
            f"  {self.cpu * 1e6:4.0f} us of the node's CPU each"
        )


def queries(name: str) -> Iterator[bytes]:
    """The query without its id, again and again, written in several ways."""
    ways = [
        dns.message.make_query("".join(random.choice((each, each.upper())) for each in name), "SRV", use_edns=0)
        for _ in range(NAMES)
    ]
    wires = [each.to_wire()[2:] for each in ways]
    while True:
        yield from wires


def check(answer: bytes, number: int) -> None:
    """Raises RuntimeError for an answer that isn't the one."""
    if answer[:2] != number.to_bytes(2, "big") or answer[3] & 15 or answer[7] != INSTANCES:
        raise RuntimeError(f"not the answer: {answer!r}")


def one_by_one(server: Server, name: str, count: int, process_id: int) -> Measured:
    """One query at a time."""
    took: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(WITHIN)
        client.connect(server)
        cpu, started = cpu_seconds(process_id), time.perf_counter()
        for number, wire in zip(range(count), queries(name), strict=False):
            before = time.perf_counter()
            client.send((number & 0xFFFF).to_bytes(2, "big") + wire)
            answer = client.recv(4096)
            took.append(time.perf_counter() - before)
            check(answer, number & 0xFFFF)
    return measured(took, time.perf_counter() - started, cpu_seconds(process_id) - cpu)


def many_at_once(server: Server, name: str, count: int, process_id: int) -> Measured:
    """So many in flight: the next one goes out as an answer comes."""
    took: list[float] = []
    sent: dict[int, float] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(WITHIN)
        client.connect(server)
        cpu, started = cpu_seconds(process_id), time.perf_counter()
        asking = zip(range(count), queries(name), strict=False)
        for number, wire in asking:
            sent[number & 0xFFFF] = time.perf_counter()
            client.send((number & 0xFFFF).to_bytes(2, "big") + wire)
            if len(sent) == IN_FLIGHT:
                break
        while sent:
            answer = client.recv(4096)
            number = int.from_bytes(answer[:2], "big")
            took.append(time.perf_counter() - sent.pop(number))
            check(answer, number)
            following = next(asking, None)
            if following is not None:
                number, wire = following[0] & 0xFFFF, following[1]
                sent[number] = time.perf_counter()
                client.send(number.to_bytes(2, "big") + wire)
    return measured(took, time.perf_counter() - started, cpu_seconds(process_id) - cpu)


def measured(took: list[float], elapsed: float, cpu: float) -> Measured:
    """What the answers took, together."""
    took.sort()
    return Measured(
        took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000, len(took) / elapsed, cpu / len(took)
    )


async def main(sizes: list[int], count: int) -> None:
    """Measures, and prints what was measured."""
    for nodes in sizes:
        first, single, many, idle = await measure(nodes, count)
        print(f"{nodes} node processes")
        print(f"the first answer, for which the name is resolved: {first * 1000:.1f} ms")
        print("one by one    ", single)
        print(f"{IN_FLIGHT} in flight  ", many)
        print(f"idle, with the name watched: {idle:.2%} of a core", flush=True)


async def measure(nodes: int, count: int) -> tuple[float, Measured, Measured, float]:
    """Seconds until the first answer, answers one by one, many at once, and the idle node's share of a core."""
    os.environ["AQUA_REGISTRY_DNS_QUERIES"] = str(QUERIES)
    server = ("127.0.0.1", free_port())
    with tempfile.TemporaryDirectory() as folder:
        async with (
            node_network(Path(folder), nodes, "--dns", f"{server[0]}:{server[1]}") as network,
            open_light_client(Identity.generate(), [network[0].address]) as client,
        ):
            created = await client.registry.create_resource("web")
            assert created.resource_id is not None, created
            hosts = network[-INSTANCES:]
            for lowest, node in enumerate(hosts, 1):
                numbers = range(lowest, INSTANCES + 1, len(hosts))
                instances = [Instance(id=str(number), address=f"192.0.2.{number}", port=8000) for number in numbers]
                value = write_instances(instances)
                done = await client.registry.register_service(
                    created.resource_id, value, node.peer_id, None, factor=min(nodes, 3)
                )
                assert done.success, done
            name = f"_web._tcp.{label_of_peer(client.registry.identity.peer_id)}.aqua."
            process_id = network[0].process_id
            assert process_id is not None
            first = await trio.to_thread.run_sync(first_answer, server, name)
            single = one_by_one(server, name, count, process_id)
            many = many_at_once(server, name, count, process_id)
            return first, single, many, await idle_share(network[:1], IDLE_TIME)


def first_answer(server: Server, name: str) -> float:
    """Seconds until the first answer; then all are at hand once the name is watched."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(WITHIN)
        client.connect(server)
        began, asking = time.perf_counter(), queries(name)
        client.send(b"\0\0" + next(asking))
        check(client.recv(4096), 0)
        took = time.perf_counter() - began
        until = time.perf_counter() + WITHIN
        while time.perf_counter() < until:
            client.send(b"\0\0" + next(asking))
            check(client.recv(4096), 0)
    return took


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.dns_answers", description=__doc__)
    take_network_sizes(arguments, 8)
    arguments.add_argument("--count", type=int, default=20_000)
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    trio.run(main, given.nodes, given.count)
