"""Measures Consul's API: `python -m benchmarks.consul [--nodes 8 32] [--consul /usr/bin/consul]`.

How long `GET /v1/health/service/web?passing` takes for one client and how many 16 clients get a second; how long after
a change a blocked query returns; and what 1,000 blocked queries cost while nothing changes. On one of 8 nodes, each a
process of its own, and on Consul (`consul agent -dev`) in the same run where that is found. Asked over loopback; the
clients' own work is on the same machine, so it counts too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from benchmarks.network_sizes import take_network_sizes
from benchmarks.processes import cpu_seconds, node_network
from benchmarks.timing import timed
from tests.ports import free_port

NODES = 8
INSTANCES = 8
BLOCKED = 1_000
CLIENTS = 16
LAST_CHUNK = b"\r\n0\r\n\r\n"
QUERY = "/v1/health/service/web?passing"


class Client:
    """Asks on one connection, and reads no more than it must."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    @classmethod
    async def open(cls, port: int) -> Client:
        """Connects to an agent on this machine."""
        return cls(await trio.open_tcp_stream("127.0.0.1", port))

    async def ask(self, target: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
        """The index, 0 without one, and the body."""
        kind = b"Content-Type: application/json\r\n" if body else b""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
        await self._stream.send_all(head + kind + b"\r\n" + body)
        while b"\r\n\r\n" not in self._rest:
            await self._more()
        told, _, self._rest = self._rest.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", told, re.IGNORECASE)
        if length is None:  # in chunks, as Consul sends what is longer
            while not self._rest.endswith(LAST_CHUNK):
                await self._more()
            content, self._rest = self._rest, b""
        else:
            while len(self._rest) < int(length[1]):
                await self._more()
            content, self._rest = self._rest[: int(length[1])], self._rest[int(length[1]) :]
        assert told.split(b" ", 2)[1] in (b"200", b"201"), (told, content)
        index = re.search(rb"x-consul-index: (\d+)", told, re.IGNORECASE)
        return int(index[1]) if index else 0, content

    async def _more(self) -> None:
        received = bytes(await self._stream.receive_some(65536))
        assert received, "the node closed the connection"
        self._rest += received


class Target(NamedTuple):
    """What is measured. `register` writes the service's instances, which carry a number that changes them; so seldom
    that it is `pause` seconds between two writes."""

    name: str
    port: int
    pid: int
    register: Callable[[Client, int], Awaitable[None]]
    pause: float


class Measured(NamedTuple):
    """Milliseconds, answers a second, seconds of the process's CPU for each; of blocked queries per cent of a core, and
    MiB."""

    p50: float
    p99: float
    per_second: float
    cpu: float
    change_p50: float
    change_p99: float
    blocked_cpu: float
    blocked_memory: float

    def __str__(self) -> str:
        return (
            f"one client p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms\n"
            f"{CLIENTS} clients {self.per_second:.0f} a second, {self.cpu * 1e6:.0f} us of its CPU for each\n"
            f"from a write's request to the blocked query's return: p50 {self.change_p50:.1f} ms,"
            f" p99 {self.change_p99:.1f} ms\n"
            f"{BLOCKED} blocked queries: {self.blocked_cpu:.2f} % of a core, {self.blocked_memory:.0f} MiB"
        )


def memory(pid: int) -> float:
    """MiB that a process has to itself."""
    match = re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert match is not None
    return int(match[1]) / 1024


@asynccontextmanager
async def our_node(folder: Path, *flags: str, count: int = NODES) -> AsyncIterator[Target]:
    """The first of so many nodes, which answers HTTP, and has a resource `web`."""
    os.environ["AQUA_REGISTRY_HTTP_MAX_CONNECTIONS"] = str(BLOCKED + 100)
    os.environ["AQUA_REGISTRY_HTTP_MAX_WATCHES"] = str(BLOCKED + 50)
    port = free_port()
    async with node_network(folder, count, "--http", f"127.0.0.1:{port}", *flags) as nodes:
        await (await Client.open(port)).ask("/v1/aqua/resources", "POST", b'{"label": "web"}')
        pid = nodes[0].process_id
        assert pid is not None
        yield Target("aqua-registry", port, pid, _register_here, 1.0)  # an issuer changes a record once a second


async def _register_here(client: Client, revision: int) -> None:
    instances = [
        {"id": f"web-{number}", "address": "10.0.0.1", "port": 8000 + number, "metadata": {"revision": str(revision)}}
        for number in range(INSTANCES)
    ]
    value = json.dumps({"schema": "aqua-registry.endpoints/1", "instances": instances})
    await client.ask("/v1/aqua/resources/web@me/records", "POST", json.dumps({"value": value}).encode())


@asynccontextmanager
async def consul(program: str) -> AsyncIterator[Target]:
    """A server of Consul's in its development mode: in memory, with nobody to agree with."""
    port, *others = {free_port() for _ in range(5)}
    options = [f"-http-port={port}", "-dns-port=-1", "-grpc-port=-1", "-https-port=-1", "-log-level=err"]
    names = ("serf-lan", "serf-wan", "server")
    options += [f"-{name}-port={number}" for name, number in zip(names, others, strict=False)]
    options += ["-hcl", f"limits {{ http_max_conns_per_client = {2 * BLOCKED} }}"]
    process = await trio.lowlevel.open_process(
        [program, "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-disable-host-node-id", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with trio.fail_after(30):
            while True:
                try:
                    client = await Client.open(port)
                    if len((await client.ask("/v1/status/leader"))[1]) > 4:
                        break
                except OSError:
                    pass
                await trio.sleep(0.1)
        await trio.sleep(3.0)  # the agent has registered itself by then
        yield Target("Consul", port, process.pid, _register_there, 0.1)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _register_there(client: Client, revision: int) -> None:
    """All instances at first; later the first of them anew, which is what changes there."""
    for number in range(1 if revision else INSTANCES):
        body = {"ID": f"web-{number}", "Name": "web", "Address": "10.0.0.1", "Port": 8000 + number}
        body |= {"Meta": {"revision": str(revision)}}
        await client.ask("/v1/agent/service/register", "PUT", json.dumps(body).encode())


async def _one_client(target: Target, seconds: float) -> tuple[float, float]:
    client = await Client.open(target.port)

    async def call(_: int) -> bool:
        await client.ask(QUERY)
        return True

    found = await timed(call, int(200 * seconds), 1)
    return found.p50, found.p99


def _load(port: int, seconds: float) -> None:
    """Runs in a process of its own; prints how many answers came. On plain sockets: its own work counts, too."""
    request = f"GET {QUERY} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    count = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(CLIENTS):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(request)
            selector.register(client, selectors.EVENT_READ, bytearray())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for key, _ in selector.select(1.0):
                peer, received = key.fileobj, key.data
                assert isinstance(peer, socket.socket)
                received += peer.recv(65_536)
                head = received.find(b"\r\n\r\n")
                if head < 0:
                    continue
                length = re.search(rb"content-length: (\d+)", received[:head], re.IGNORECASE)
                assert received.startswith(b"HTTP/1.1 200"), received[:200]
                is_whole = (
                    received.endswith(LAST_CHUNK) if length is None else len(received) >= head + 4 + int(length[1])
                )
                if is_whole:
                    received.clear()
                    count += 1
                    peer.sendall(request)
    print(count)


async def _changes(target: Target, changes: int) -> tuple[float, float]:
    watcher, writer = await Client.open(target.port), await Client.open(target.port)
    index, _ = await watcher.ask("/v1/health/service/web")
    taken: list[float] = []
    for revision in range(changes):
        returned = 0.0

        async def wait(index: int = index) -> None:
            nonlocal returned
            await watcher.ask(f"/v1/health/service/web?index={index}&wait=60s")
            returned = time.perf_counter()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.05)  # it is waiting by then
            sent = time.perf_counter()
            await target.register(writer, revision + 1)
        taken.append(returned - sent)
        index, _ = await watcher.ask("/v1/health/service/web")
        await trio.sleep(target.pause)
    taken.sort()
    return statistics.median(taken) * 1e3, taken[int(len(taken) * 0.99)] * 1e3


async def _blocked(target: Target, seconds: float) -> tuple[float, float]:
    client = await Client.open(target.port)
    index, _ = await client.ask("/v1/health/service/web")
    before, ahead = memory(target.pid), cpu_seconds(target.pid)
    await trio.sleep(seconds)
    without = (cpu_seconds(target.pid) - ahead) / seconds
    async with trio.open_nursery() as nursery:
        for _ in range(BLOCKED):
            blocked = await Client.open(target.port)
            nursery.start_soon(blocked.ask, f"/v1/health/service/web?index={index}&wait=10m")
        await trio.sleep(5.0)  # all of them wait by then
        began = cpu_seconds(target.pid)
        await trio.sleep(seconds)
        used = (cpu_seconds(target.pid) - began) / seconds
        more = memory(target.pid) - before
        nursery.cancel_scope.cancel()
    return (used - without) * 100, more


async def measured(target: Target, seconds: float, changes: int) -> Measured:
    """All of it, of one server."""
    client = await Client.open(target.port)
    await target.register(client, 0)
    await client.ask(QUERY)
    p50, p99 = await _one_client(target, seconds)
    load = [sys.executable, "-m", "benchmarks.consul", "--load", str(target.port), "--seconds", str(seconds)]
    began = cpu_seconds(target.pid)
    ran = await trio.run_process(load, capture_stdout=True)
    count, used = int(ran.stdout), cpu_seconds(target.pid) - began
    changed = await _changes(target, changes)
    return Measured(p50, p99, count / seconds, used / count, *changed, *await _blocked(target, max(seconds, 10.0)))


async def measure(counts: list[int], seconds: float, changes: int, program: str | None) -> None:
    """Measures, and prints what was measured."""
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            async with our_node(Path(folder), count=count) as target:
                print(f"-- {target.name}, {count} nodes\n{await measured(target, seconds, changes)}")
    if program is not None:
        async with consul(program) as target:
            print(f"-- {target.name}\n{await measured(target, seconds, changes)}")


def more_files() -> None:
    """Lets this process have as many sockets as blocked queries need."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    take_network_sizes(parser, NODES)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--consul", default=shutil.which("consul"), help="Consul's program; it is left out without")
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load is not None:
        _load(options.load, options.seconds)
        return
    more_files()
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    trio.run(measure, options.nodes, options.seconds, options.changes, options.consul)


if __name__ == "__main__":
    main()
