"""How long each command takes, through the node on this machine and through a relay, and what a node takes of memory.

Usage: python -m benchmarks.commands [TIMES] [--nodes 2 8]

The node is the first of so many processes, two by default, and the relay is the same node. Prints for each command the
least wall time and the least CPU time (user and system) of TIMES runs, 5 by default: on a machine that does other
things, too, the CPU time says more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import trio

from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network
from benchmarks.network_sizes import take_network_sizes

_COMMAND = str(Path(sys.executable).with_name("aqua-registry"))


class Took(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float


def took(arguments: list[str], environment: dict[str, str]) -> Took:
    """One run of a command, which has to succeed."""
    began = time.monotonic()
    process = subprocess.Popen(
        [_COMMAND, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 1), f"{arguments} ended with {process.returncode}"
    return Took(wall, usage.ru_utime + usage.ru_stime)


def memory_of(process_id: int) -> int:
    """What a process has in memory, in MiB."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


def commands(relay: str, services: Path) -> list[list[str]]:
    """What is timed."""
    asked = ["resolve", "echo@me"], ["watch", "echo@me", "-n", "1"], ["peers"], ["resource", "show", "echo@me"]
    written = ["resource", "create", "echo"], ["service", "register", "echo@me", "--value", "http://192.0.2.1:80"]
    through = [*written, *asked, ["resource", "list"]]
    alone = ["--help"], ["--version"], ["key", "show"], ["resource", "id", "echo"], ["completion", "bash"]
    here = ["check", "list"], ["reload"], ["exec", "--service", str(services), "--", "true"], ["doctor"]
    last = ["service", "unregister", "echo@me"], ["resource", "remove", "echo@me"]
    relayed = [[*each, "--relay", relay] for each in through]
    return [*alone, *through, *here, *relayed, *last]


async def main(times: int, sizes: list[int]) -> None:
    """Prints a table for each network."""
    for count in sizes:
        await measure(times, count)


async def measure(times: int, count: int) -> None:
    """Prints a table, of commands through the first of so many nodes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AQUA_REGISTRY_")}
        environment = {**kept, "XDG_DATA_HOME": str(folder), "AQUA_REGISTRY_NODE": str(folder / "node0")}
        service = folder / "services.toml"
        service.write_text('[[service]]\nname = "web"\nport = 8080\n')
        nodes = [NodeProcess(folder / f"node{number}", folder / f"node{number}.log") for number in range(count)]
        try:
            await start_network(nodes, "--services", str(folder), timeout=60)
            assert nodes[0].process_id is not None
            print(f"{count} node processes; the first has {memory_of(nodes[0].process_id)} MiB after its start")
            print(f"{'wall':>6} {'CPU':>6}")
            service.rename(folder / "lent.toml.off")
            lent = folder / "lent" / "web.toml"
            lent.parent.mkdir()
            lent.write_text('[[service]]\nname = "lent"\nport = 8080\n')
            for arguments in commands(nodes[0].address, lent):
                runs = [await trio.to_thread.run_sync(took, arguments, environment) for _ in range(times)]
                wall, cpu = min(run.wall for run in runs), min(run.cpu for run in runs)
                shown = " ".join(arguments).replace(nodes[0].address, "ADDRESS").replace(str(lent), "FILE")
                print(f"{wall:5.2f}s {cpu:5.2f}s  {shown}", flush=True)
        finally:
            await stop_network(nodes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("times", type=int, nargs="?", default=5, help="runs of each command [5]")
    take_network_sizes(parser, 2)
    arguments = parser.parse_args()
    trio.run(main, arguments.times, arguments.nodes)
