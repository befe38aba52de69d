"""What the processes of nodes use, and networks of them for benchmarks."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import trio

from aqua_compat.cli.node_process import NodeProcess, stop_network

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class RunningNode(Protocol):
    """What is needed of a node's process to tell what it uses, and to ask the node: NodeProcess has it."""

    @property
    def address(self) -> str:
        """The node's first multiaddr."""
        ...

    @property
    def peer_id(self) -> str:
        """The node's peer id."""
        ...

    @property
    def process_id(self) -> int | None:
        """The process's id; None before its start."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        ...


class NodeOfAnother(NamedTuple):
    """A node that another process started."""

    process_id: int
    address: str

    @property
    def peer_id(self) -> str:
        """The node's peer id, out of its address."""
        return self.address.rpartition("/p2p/")[2]

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return Path(f"/proc/{self.process_id}").exists()


@asynccontextmanager
async def node_network(folder: Path, count: int, *first: str) -> AsyncIterator[list[NodeProcess]]:
    """`count` node processes on loopback, each of which joins through the first, which has the flags `first`; stopped
    in the end."""
    nodes = [NodeProcess(folder / f"node{number}", folder / f"node{number}.log") for number in range(count)]
    try:
        for number, node in enumerate(nodes):
            flags = ("--bootstrap", nodes[0].address) if number else first
            await node.start("--listen", "/ip4/127.0.0.1/tcp/0", *flags, timeout=60)
        yield nodes
    finally:
        await stop_network(nodes)


def cpu_seconds(process_id: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def age(process_id: int) -> float:
    """Seconds since a process began."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS_PER_SECOND


def cpu_of_all(nodes: Sequence[RunningNode]) -> float:
    """The same for all nodes that run."""
    return sum(cpu_seconds(node.process_id) for node in nodes if node.process_id and node.alive)


def resident_megabytes(process_id: int) -> float:
    """Memory of a process that is in RAM."""
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def idle_share(nodes: Sequence[RunningNode], seconds: float) -> float:
    """Share of a core that a node takes on average while nobody does anything."""
    before = cpu_of_all(nodes)
    await trio.sleep(seconds)
    return (cpu_of_all(nodes) - before) / seconds / len(nodes)


def open_files(process_id: int) -> int:
    """File descriptors of a process, sockets among them."""
    return sum(1 for _ in Path(f"/proc/{process_id}/fd").iterdir())


def threads(process_id: int) -> int:
    """Threads of a process."""
    return sum(1 for _ in Path(f"/proc/{process_id}/task").iterdir())
