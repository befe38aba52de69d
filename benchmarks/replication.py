"""What keeping replicas alike costs, over real node processes.

    python -m benchmarks.replication [--nodes 12 32] [--records N]

Prints the time to full replication after one of the nodes dies, and after its empty replacement comes; bytes and
messages per repaired record; what an hour of replication costs a converged node; memory and disk per record. The
reference, measured in the same run, is sending all that a replica holds instead of digests.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import msgspec
import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network
from benchmarks.network_sizes import take_network_sizes
from benchmarks.processes import cpu_seconds, resident_megabytes
from overlay.identity import Identity
from registry.client.light import LightClient, open_light_client
from registry.client.node_status import NodeStatus
from registry.codes import Code
from registry.model.values import Key, Record, RecordMetadata
from registry.protocol.messages import PUT, Item, PutAnswer, PutBody, build, parse
from registry.replication import ReplicationStatus
from registry.upkeep.schedules import REPLICATE

NODES = 12
REPLICAS = 5
PER_RESOURCE = 10  # records
OPERATOR = Identity.from_seed(b"o" * 32)
OBSERVER = Identity.from_seed(b"v" * 32)  # one identity has one link to a node


def items(count: int) -> list[Item]:
    """`count` signed records under `count / PER_RESOURCE` resources of one owner."""
    owner, now = Identity.from_seed(b"k" * 32), int(time.time())
    hosts = [Identity.from_seed(bytes([50 + number]) * 32) for number in range(PER_RESOURCE)]
    made: list[Item] = []
    for number in range(count // PER_RESOURCE):
        unsigned = Key(f"resource {number}", owner.peer_id, now, b"", "", b"")
        key = msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))
        for host in hosts:
            bare = RecordMetadata(key.id, host.peer_id, host.peer_id, now, b"", "10.0.0.1:80", (), ("service",), b"")
            metadata = msgspec.structs.replace(bare, issuer_signature=host.sign(bare.signed_bytes()))
            record = Record(metadata, now, b"")
            made.append(Item(key, msgspec.structs.replace(record, signature=host.sign(record.signed_bytes()))))
    return made


async def put(client: LightClient, peer_id: str, batch: list[Item]) -> None:
    """Straight into one node, which refuses what it isn't responsible for."""
    for start in range(0, len(batch), 250):
        body = build(PutBody.of(batch[start : start + 250]))
        errors = parse(await client.peer.call(peer_id, PUT, body, timeout=60), PutAnswer).errors
        unexpected = [error for error in errors if error and error.code != Code.NOT_RESPONSIBLE]
        assert not unexpected, unexpected[:3]


async def status_of(node: NodeProcess) -> NodeStatus:
    """What a node says of itself."""
    async with open_light_client(OBSERVER, [node.address]) as client:
        return await client.registry.status()


async def until_settled(nodes: list[NodeProcess]) -> float:
    """Seconds until every node knows all others and has nothing left to compare."""
    before = time.perf_counter()
    for node in nodes:
        async with open_light_client(OBSERVER, [node.address]) as client:
            while True:
                status = await client.registry.status()
                settled = status.replication is not None and status.replication.settled
                if settled and len(status.members) == len(nodes) - 1:
                    break
                await trio.sleep(0.05)
    return time.perf_counter() - before


async def replication_of(nodes: list[NodeProcess]) -> list[ReplicationStatus]:
    """How replication stands on each node."""
    return [status.replication for node in nodes if (status := await status_of(node)).replication is not None]


async def repair(folder: Path, count: int, records: int, flags: tuple[str, ...]) -> None:
    """Measures, and prints, how soon all is replicated again when a node dies, and when an empty one replaces it."""
    nodes = [NodeProcess(folder / f"node{number}", folder / f"node{number}.log") for number in range(count)]
    batch = items(records)
    try:
        await start_network(nodes, *flags)
        async with open_light_client(OPERATOR, [nodes[0].address]) as client:
            for node in nodes:
                await client.peer.connect(node.address, timeout=10)
                await put(client, node.peer_id, batch)
        await until_settled(nodes)
        before = await replication_of(nodes[1:])
        began = time.perf_counter()
        await nodes[0].kill()
        settled = await until_settled(nodes[1:])
        print(f"one of {count} nodes dies, {records} records     full replication after {settled:6.2f} s")
        print_repair(before, await replication_of(nodes[1:]))
        shutil.rmtree(nodes[0].data_dir)
        before = await replication_of(nodes[1:])
        began = time.perf_counter()
        await nodes[0].start("--bootstrap", nodes[1].address, *flags)
        await until_settled(nodes)
        replaced = time.perf_counter() - began
        print(f"an empty node takes its place            full replication after {replaced:6.2f} s (its start included)")
        print_repair(before, await replication_of(nodes[1:]))
    finally:
        await stop_network(nodes)


def print_repair(before: list[ReplicationStatus], after: list[ReplicationStatus]) -> None:
    """Prints what the repair has cost all nodes together."""

    def grown(name: str) -> int:
        return sum(int(getattr(status, name)) for status in after) - sum(
            int(getattr(status, name)) for status in before
        )

    repaired = max(grown("repaired"), 1)
    print(
        f"  records sent {grown('repaired')}; per record {grown('bytes') / repaired:.0f} bytes,"
        f" {grown('messages') / repaired:.2f} messages, digests included"
    )


async def idle(folder: Path, records: int, flags: tuple[str, ...]) -> None:
    """Three nodes that all keep everything."""
    nodes = [NodeProcess(folder / f"node{number}", folder / f"node{number}.log") for number in range(3)]
    batch = items(records)
    try:
        await start_network(nodes, *flags)
        empty = resident_megabytes(process_id(nodes[1]))
        async with open_light_client(OPERATOR, [nodes[0].address]) as client:
            for node in nodes:
                await client.peer.connect(node.address, timeout=10)
                await put(client, node.peer_id, batch)
            await until_settled(nodes)
            full = resident_megabytes(process_id(nodes[1]))
            disk = sum(file.stat().st_size for file in nodes[1].data_dir.iterdir())
            print(f"{records} records on a node: {(full - empty) * 1e6 / records:.0f} bytes of memory per record")
            print(f"  ({empty:.0f} MB before, {full:.0f} after), {disk / records:.0f} bytes of disk per record")
            cold = await replicated_once(client, nodes)
            [before] = await replication_of([nodes[0]])
            spent = await replicated_once(client, nodes)
            [after] = await replication_of([nodes[0]])
        assert after.repaired == before.repaired, "the network wasn't converged"
        sent = after.bytes - before.bytes
        # A node asks every neighbour once an hour, and is asked as often: here by two, in a network by k - 1.
        for name, cpu in (("just filled, no digest known", cold), ("an hour later, nothing changed", spent)):
            pair = cpu / 2
            print(f"replication of {records} converged records with two neighbours, {name}: {cpu:.2f} s of CPU")
            print(f"  per 1,000 records and neighbour {pair * 1000 / records:.4f} s of CPU,", end=" ")
            print(f"{sent / 2 * 1000 / records:.0f} bytes;", end=" ")
            print(f"hourly with 19 neighbours that is {100 * pair * 19 / 3600:.2f} % of a core")
        everything = 2 * sum(item.size() for item in batch)
        print(f"  reference: sending them all takes {everything} bytes, {everything / max(sent, 1):.0f} times as many")
    finally:
        await stop_network(nodes)


async def replicated_once(client: LightClient, nodes: list[NodeProcess]) -> float:
    """Seconds of CPU that all nodes spend while the first compares everything with everyone."""
    before = sum(cpu_seconds(process_id(node)) for node in nodes)
    await client.registry.run_schedule(REPLICATE)
    return sum(cpu_seconds(process_id(node)) for node in nodes) - before


def process_id(node: NodeProcess) -> int:
    """The id of a running node's process."""
    assert node.process_id is not None
    return node.process_id


async def main(counts: list[int], records: int) -> None:
    """Measures, as the command line says."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (*(f"repair {count}" for count in counts), "idle"):
            (folder / part).mkdir()
        rules = f"operators = ['{OPERATOR.peer_id}']\n[registry]\nkeys_per_owner = 100000\n"
        (folder / "all.toml").write_text(rules)
        (folder / "five.toml").write_text(rules + f"neighbourhood_size = {REPLICAS}\nresponsibility_margin = 0\n")
        for count in counts:
            await repair(folder / f"repair {count}", count, 1_000, ("--config", str(folder / "five.toml")))
        await idle(folder / "idle", records, ("--config", str(folder / "all.toml")))


if __name__ == "__main__":
    import logging

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__.splitlines()[0])
    take_network_sizes(parser, NODES, least=3, what="node processes of which one dies")
    parser.add_argument("--records", type=int, default=10_000, help="records of the idle network [10000]")
    given = parser.parse_args()
    trio.run(main, given.nodes, given.records)
