"""What a node's storage costs as it fills, side by side, and how long writes wait while much is collected.

    python -m benchmarks.storage [--nodes 1 8] [--records 1000 300000] [--expired 100000]

The records are written straight into the database, unsigned, as rows are believed that are there. Start, status,
register and resolve are then timed on a real node process over that database, by a light client; what it registers and
resolves is new. It is alone by default, or one of so many nodes, all of which keep the same records, since others
couldn't copy what nobody signed. *Comparison*: of all that it keeps, with all others, of which there is one by then at
least. Calls, bytes and CPU are those of all nodes per operation, with what it leaves to the background and without
what they take when idle; of a start, the CPU of the node itself until it is ready.

The reference for the longest wait is the wait of the same writes while nothing is collected. These are made in this
process, whose CPU is printed for all of them together: beside a collection it is mostly what that takes.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network
from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import Observed, observed
from benchmarks.processes import cpu_seconds
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry
from registry.model.signing import key_id_of
from registry.model.values import Key, Record, RecordMetadata
from registry.node import DATABASE
from registry.replica.sender_limits import SenderLimits
from registry.service import RegistryService
from registry.settings import CurrentSettings, RegistrySettings
from registry.storage import Transaction, open_store
from registry.storage.database import open_database
from registry.upkeep.schedules import REPLICATE

LISTEN = ("--listen", "/ip4/127.0.0.1/tcp/0")
PER_RESOURCE = 10
COUNT = 200  # operations per figure
COMPARISONS = 15
AIM, AIMED_AT = 1.5, ("start", "resolve", "register", "status", "comparison")
"""How many times as long a node with 300,000 records may take as one with 1,000."""
COMPARISON_AIM = 0.01
"""Of a core-minute, that the comparison of equal stores may take of all nodes' CPU once an hour."""
SIGNATURE = b"s" * 64
PEERS = [Identity.generate().peer_id for _ in range(2_000)]


class Figure(NamedTuple):
    """Of one operation."""

    milliseconds: float
    costs: str


def resources(count: int, signed: int) -> Iterator[tuple[Key, list[Record]]]:
    """`count` records, ten to a resource, signed at `signed` (seconds)."""
    for number in range(count // PER_RESOURCE):
        owner, label = PEERS[number % len(PEERS)], f"filling {number}"
        key_id = key_id_of(label, owner)
        records = []
        for place in range(PER_RESOURCE):
            host = PEERS[(number * 7 + place) % len(PEERS)]
            metadata = RecordMetadata(key_id, host, host, signed, b"", "10.0.0.1:80", (), ("service",), SIGNATURE)
            records.append(Record(metadata, signed, SIGNATURE))
        yield Key(label, owner, signed, b"", "", SIGNATURE), records


def fill(path: Path, count: int, signed: int) -> None:
    """Writes so many records into a database, in a folder that is made for it."""
    path.parent.mkdir(parents=True)
    with closing(open_database(path)) as connection:
        transaction = Transaction(connection)
        connection.execute("BEGIN")
        for number, (key, records) in enumerate(resources(count, signed)):
            transaction.put_key(key, signed, 0)
            for record in records:
                transaction.put_state(record, 0)
            if number % 100 == 99:
                transaction.settle()
                connection.execute("COMMIT")
                connection.execute("BEGIN")
        transaction.settle()
        connection.execute("COMMIT")


async def node_figures(folder: Path, nodes: int, count: int) -> dict[str, Figure]:
    """Each operation of a node that keeps `count` records, one of so many nodes."""
    node, *others = [
        NodeProcess(folder / f"node{number}", folder / f"node{number}.log") for number in range(max(nodes, 2))
    ]
    signed = int(time.time())
    fill(node.data_dir / DATABASE, count, signed)
    for other in others:
        other.data_dir.mkdir()
        shutil.copy(node.data_dir / DATABASE, other.data_dir)
    identity, config = Identity.generate(), folder / "node.toml"
    config.write_text(f"operators = ['{identity.peer_id}']\n")
    try:
        flags: tuple[str, ...] = LISTEN
        if nodes > 1:
            await start_network(others, *LISTEN, timeout=120)
            flags += ("--bootstrap", others[0].address)
        starts, cpu_of_starts = [], []
        for _ in range(3):
            began = time.perf_counter()
            await node.start(*flags, timeout=120)
            starts.append(1000 * (time.perf_counter() - began))
            assert node.process_id is not None
            cpu_of_starts.append(1000 * cpu_seconds(node.process_id))
            await node.stop()
        await node.start(*flags, "--config", str(config), timeout=120)
        found = {"start": Figure(min(starts), f"CPU {min(cpu_of_starts):.1f} ms of the node itself")}
        if nodes > 1:
            await settled([node, *others])
        async with open_light_client(identity, [node.address]) as client:
            registry, ids = client.registry, []
            running = [node, *others] if nodes > 1 else [node]

            async def create(number: int) -> bool:
                created = await registry.create_resource(f"new {number}", factor=1)
                ids.append(created.resource_id or "")
                return created.resource_id is not None

            async def register(number: int) -> bool:
                return (await registry.register_service(ids[number], "v", identity.peer_id, "s", factor=1)).success

            async def resolve(number: int) -> bool:
                return len((await registry.resolve_resource(ids[number], 1)).records or ()) == 1

            async def status(number: int) -> bool:  # noqa: ARG001 - each time the same
                return (await registry.status()).records >= count

            calls: tuple[tuple[str, Callable[[int], Awaitable[bool]]], ...] = (
                ("create", create),
                ("register", register),
                ("resolve", resolve),
                ("status", status),
            )
            async with observed(running) as askers:
                all_nodes = await askers.knowing_idle()
                for name, call in calls:
                    timing, costs = await all_nodes.figures(call, COUNT)
                    assert timing.failed == 0, name
                    found[name] = Figure(timing.p50, str(costs))
            if nodes == 1:
                await others[0].start(*LISTEN, "--bootstrap", node.address, timeout=120)
            await settled([node, *others])
            async with observed([node, *others]) as askers:
                found["comparison"] = await comparison(registry, await askers.knowing_idle())
        return found
    finally:
        await stop_network([node, *others])


async def comparison(registry: Registry, all_nodes: Observed) -> Figure:
    """Of all that a node keeps with all others, of all nodes; the status is that of the node that begins it."""

    async def compare(number: int) -> bool:  # noqa: ARG001 - each time the same
        await registry.run_schedule(REPLICATE)
        return True

    before = (await registry.status()).replication
    timing, costs = await all_nodes.figures(compare, COMPARISONS)
    after = (await registry.status()).replication
    assert before is not None
    assert after is not None
    assert after.compared >= before.compared + COMPARISONS, "nothing was compared"
    part = f"{costs.cpu / 60_000:.2%} of a core-minute (aim {COMPARISON_AIM:.0%})"
    return Figure(timing.p50, f"{costs}, {part}")


async def settled(nodes: list[NodeProcess]) -> None:
    """Wait until all are linked as they want to be and have nothing left to compare."""
    async with observed(nodes) as askers:
        await askers.whole()
        await askers.settled()


async def longest_wait(folder: Path, expired: int) -> None:
    """Prints how long the slowest of many writes waited, before and during a collection."""
    path, peer_id, now = folder / DATABASE, PEERS[0], int(time.time())
    fill(path, expired, now - 100 * 86_400)
    rules = RegistrySettings()
    async with open_store(path) as store:
        service = RegistryService(store, peer_id, CurrentSettings(rules), SenderLimits(peer_id, rules))
        for name in ("nothing", f"{expired} records and their {expired // PER_RESOURCE} keys"):
            waits: list[float] = []
            began, cpu = time.perf_counter(), time.process_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_always, store.write, waits)
                if name == "nothing":
                    await trio.sleep(5)
                else:
                    result = await service.clear_expired(now)
                    assert result.success, result.error
                    assert result.count_records == expired
                    await store.vacuum()
                nursery.cancel_scope.cancel()
            seconds, cpu, waits = time.perf_counter() - began, time.process_time() - cpu, sorted(waits)
            what = f"{len(waits)} writes"
            what += f", {1000 * cpu / len(waits):.1f} ms each" if name == "nothing" else " and the collection"
            print(
                f"while {name} is collected, for {seconds:.1f} s: writes wait {1000 * waits[len(waits) // 2]:.1f} ms,"
                f" p99 {1000 * waits[int(len(waits) * 0.99)]:.1f} ms, the longest {1000 * waits[-1]:.1f} ms\n"
                f"  {cpu:.1f} s of CPU for {what}"
            )


async def write_always(write: Callable[[Callable[[Transaction], None]], Awaitable[None]], waits: list[float]) -> None:
    """Puts one small row after the other, until cancelled."""
    number = 0
    while True:
        number += 1
        before = time.perf_counter()
        await write(partial(_note_issued, number))
        waits.append(time.perf_counter() - before)
        await trio.sleep(0.002)


def _note_issued(number: int, transaction: Transaction) -> None:
    transaction.issued.record(f"key {number}", "peer", 2**40)


async def main(sizes: list[int], counts: list[int], expired: int) -> None:
    """Prints all figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for nodes in sizes:
            found = {count: await node_figures(folder / f"{count} on {nodes}", nodes, count) for count in counts}
            print(f"{f'records, {nodes} nodes':18}" + "".join(f"{count:>12}" for count in counts))
            for operation in found[counts[0]]:
                times = [found[count][operation].milliseconds for count in counts]
                figures = "".join(f"{each:9.2f} ms" for each in times)
                growth = ", ".join(f"{each / times[0]:.2f}" for each in times[1:])
                aim = f"  (aim {AIM:g})" if operation in AIMED_AT else ""
                print(f"{operation:18}{figures}   times {growth}{aim}")
                for count in counts:
                    print(f"{count:>16}: {found[count][operation].costs}", flush=True)
        if expired:
            await longest_wait(folder / "expired", expired)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, 1)
    parser.add_argument("--records", type=int, nargs="+", default=[1_000, 300_000])
    parser.add_argument("--expired", type=int, default=100_000, help="0 leaves this part out")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    trio.run(main, arguments.nodes, arguments.records, arguments.expired)
