"""A node on a host of its own, whose clock can be set: prints its addresses and `ready`.

Each line on its stdin is a number of seconds by which its clock is ahead from then on.
Usage: python node.py HOST FOLDER SECONDS_AHEAD CONFIGURATION BOOTSTRAP [BOOTSTRAP ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from aqua_compat.cli.config import load_settings
from aqua_compat.cli.logs import configure_logs
from overlay.identity import load_or_create_identity
from registry.node import open_node
from registry.settings import NodeSettings
from tests.faults.namespaces import address_of, enter

PORT = 4001


async def main(folder: Path, ahead: float, settings: NodeSettings) -> None:
    skew = ahead
    identity = load_or_create_identity(folder / "identity.json")
    async with open_node(identity, settings, folder, clock=lambda: time.time() + skew) as node:
        for address in node.peer.addresses():
            print(address, flush=True)  # noqa: T201
        await node.peer.wait_joined()
        print("ready", flush=True)  # noqa: T201
        async with trio.lowlevel.FdStream(0) as lines:
            async for line in lines:
                skew = float(line.split()[-1])


def run(host: str, folder: str, ahead: str, configuration: str, bootstrap: Sequence[str]) -> None:
    """Be that node until killed."""
    enter(int(host))
    configure_logs("info", "human")
    flags: dict[tuple[str, ...], object] = {
        ("overlay", "listen"): [f"/ip4/{address_of(int(host))}/tcp/{PORT}"],
        ("overlay", "bootstrap"): list(bootstrap),
    }
    trio.run(main, Path(folder), float(ahead), load_settings(Path(configuration), {}, flags))


if __name__ == "__main__":
    run(*sys.argv[1:5], sys.argv[5:])
