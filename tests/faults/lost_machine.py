"""Nodes on hosts of their own, of which one that runs a service is cut off without a word.

Usage: `python -m tests.faults.lost_machine`.

Prints after how many seconds each of the others lists its service no more.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

import trio

from aqua_compat.cli.node_process import NodeProcess, stop_network
from tests.end_to_end.network import eventually
from tests.faults.namespaces import Namespaces, address_of, are_possible, command_inside, reexecuted

INSIDE: Final = "TESTS_LOST_MACHINE_INSIDE"
HOSTS: Final = 5
BOUND: Final = 7.0  # seconds


async def on_host(number: int, command: list[str], **options: object) -> trio.Process:
    """Starts a process on a host."""
    return await trio.lowlevel.open_process(command_inside(number, command), **options)  # type: ignore[arg-type]


async def listed(node: NodeProcess, name: str) -> bool:
    """Whether a node lists the service."""
    command = [sys.executable, "-m", "aqua_compat", "resolve", name, "--node", str(node.data_dir)]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return address_of(HOSTS).encode() in done.stdout


async def main(folder: Path, namespaces: Namespaces) -> None:
    """Starts the nodes, and loses the last one's host."""
    (folder / "services").mkdir()
    (folder / "services" / "web.toml").write_text('[[service]]\nname = "web"\nport = 8080\n')
    nodes = [
        NodeProcess(folder / str(number), folder / f"{number}.log", partial(on_host, number))
        for number in range(1, HOSTS + 1)
    ]
    try:
        for number, node in enumerate(nodes, 1):
            flags = ["--listen", f"/ip4/{address_of(number)}/tcp/4001"]
            flags += ["--bootstrap", nodes[0].address] if number > 1 else []
            flags += ["--services", str(folder / "services")] if number == HOSTS else []
            await node.start(*flags, timeout=90)
        name, others = f"web@{nodes[-1].peer_id}", nodes[:-1]
        for node in others:
            await eventually(partial(listed, node, name), bool, timeout=60)
        began = time.monotonic()
        namespaces.split({number: int(number == HOSTS) for number in range(1, HOSTS + 1)})
        took: dict[int, float] = {}

        async def until_gone(number: int, node: NodeProcess) -> None:
            await eventually(partial(listed, node, name), lambda found: not found, timeout=30)
            took[number] = time.monotonic() - began

        async with trio.open_nursery() as nursery:
            for number, node in enumerate(others, 1):
                nursery.start_soon(until_gone, number, node)
        print(", ".join(f"host {number}: {seconds:.1f} s" for number, seconds in sorted(took.items())))
        assert max(took.values()) < BOUND, f"it is to be gone within {BOUND:g} s"
    finally:
        namespaces.split({})
        await stop_network(nodes)


if __name__ == "__main__":
    if INSIDE not in os.environ:
        if not are_possible():
            sys.exit("this takes `ip` and `unshare`, and the right to make network namespaces")
        os.environ[INSIDE] = "yes"
        sys.exit(reexecuted("tests.faults.lost_machine", sys.argv[1:]))
    with tempfile.TemporaryDirectory() as temporary:
        trio.run(main, Path(temporary), Namespaces(HOSTS))
