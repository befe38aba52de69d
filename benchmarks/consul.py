"""Measures Consul's API on a node: `python -m benchmarks.consul`.

How long `GET /v1/health/service/web?passing` takes for one client and how many 16 clients get a second; how long after
a change a blocked query returns; and what 1,000 blocked queries cost while nothing changes. One node in a process of
its own, asked over loopback; the clients' own work is on the same machine, so it counts too.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

from benchmarks.timing import timed

INSTANCES = 8
BLOCKED = 1_000


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
        assert length is not None, told
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


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    match = re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert match is not None
    return int(match[1]) / 1024


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A node, and the port on which it answers."""
    environment = os.environ | {
        "AQUA_REGISTRY_HTTP_MAX_CONNECTIONS": str(BLOCKED + 100),
        "AQUA_REGISTRY_HTTP_MAX_WATCHES": str(BLOCKED + 50),
    }
    command = ["aqua_compat", "node", "--data-dir", str(folder), "--http", "127.0.0.1:0", "--log-format", "json"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    port = 0
    assert process.stdout is not None
    for line in process.stdout:
        if b"answering HTTP" in line:
            found = re.search(rb"127\.0\.0\.1:(\d+)", line)
            assert found is not None, line
            port = int(found[1])
        if line.strip() == b"ready":
            return process, port
    raise SystemExit("the node didn't start")


async def _register(client: Client, revision: int) -> None:
    import json

    instances = [
        {"id": f"web-{number}", "address": "10.0.0.1", "port": 8000 + number, "metadata": {"revision": str(revision)}}
        for number in range(INSTANCES)
    ]
    value = json.dumps({"schema": "aqua-registry.endpoints/1", "instances": instances})
    await client.ask("/v1/aqua/resources/web@me/records", "POST", json.dumps({"value": value}).encode())


async def _reads(port: int, seconds: float) -> None:
    target = "/v1/health/service/web?passing"
    client = await Client.open(port)
    _, body = await client.ask(target)

    async def call(_: int) -> bool:
        await client.ask(target)
        return True

    print(f"one client, {len(body)} bytes with {INSTANCES} instances: {await timed(call, int(200 * seconds), 1)}")


def _load(port: int, seconds: float, clients: int) -> None:
    """Runs in a process of its own; prints how many answers came."""

    async def main() -> None:
        count = 0

        async def one() -> None:
            nonlocal count
            client = await Client.open(port)
            until = trio.current_time() + seconds
            while trio.current_time() < until:
                await client.ask("/v1/health/service/web?passing")
                count += 1

        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(one)
        print(count)

    trio.run(main)


async def _changes(port: int, changes: int) -> None:
    watcher, writer = await Client.open(port), await Client.open(port)
    index, _ = await watcher.ask("/v1/health/service/web")
    since_written: list[float] = []
    since_sent: list[float] = []
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
            await _register(writer, revision + 1)
            written = time.perf_counter()
        since_written.append(max(returned - written, 0.0))
        since_sent.append(returned - sent)
        index, _ = await watcher.ask("/v1/health/service/web")
        await trio.sleep(1.0)  # an issuer changes a record once a second
    for since, taken in (("the write's answer", since_written), ("the write's request", since_sent)):
        taken.sort()
        p50, p99 = statistics.median(taken) * 1e3, taken[int(len(taken) * 0.99)] * 1e3
        print(f"{changes} changes, from {since} to the blocked query's: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


async def _idle(port: int, pid: int, seconds: float) -> None:
    client = await Client.open(port)
    index, _ = await client.ask("/v1/health/service/web")
    before, ahead = _memory(pid), _cpu(pid)
    await trio.sleep(seconds)
    without = (_cpu(pid) - ahead) / seconds
    async with trio.open_nursery() as nursery:
        for _ in range(BLOCKED):
            blocked = await Client.open(port)
            nursery.start_soon(blocked.ask, f"/v1/health/service/web?index={index}&wait=10m")
        await trio.sleep(5.0)  # all of them wait by then
        began = _cpu(pid)
        await trio.sleep(seconds)
        used = (_cpu(pid) - began) / seconds
        print(
            f"{BLOCKED} blocked queries: {(used - without) * 100:.2f} % of a core more than {without * 100:.2f} %;",
            end=" ",
        )
        print(f"{_memory(pid) - before:.0f} MiB more than {before:.0f} MiB")
        nursery.cancel_scope.cancel()


async def _measure(port: int, pid: int, seconds: float, changes: int) -> None:
    client = await Client.open(port)
    await client.ask("/v1/aqua/resources", "POST", b'{"label": "web"}')
    await _register(client, 0)
    await _reads(port, seconds)
    load = [sys.executable, "-m", "benchmarks.consul", "--load", str(port), "--seconds", str(seconds)]
    began = _cpu(pid)
    ran = await trio.run_process(load, capture_stdout=True)
    count, used = int(ran.stdout), _cpu(pid) - began
    print(f"16 clients: {count / seconds:.0f} a second; the node used {used / count * 1e6:.0f} us of a core for each")
    await _changes(port, changes)
    await _idle(port, pid, max(seconds, 10.0))


def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load is not None:
        _load(options.load, options.seconds, 16)
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        process, port = _started(Path(folder))
        try:
            trio.run(_measure, port, process.pid, options.seconds, options.changes)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
