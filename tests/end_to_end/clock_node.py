"""A node whose clock is wrong, as a process of its own: prints its address; each line on its stdin sets its clock.

Usage: python clock_node.py FOLDER SECONDS_AHEAD BOOTSTRAP [BOOTSTRAP ...]
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import structlog
import trio

from overlay.identity import load_or_create_identity
from overlay.settings import OverlaySettings
from registry.node import open_node
from registry.settings import NodeSettings


async def main(data_dir: str, ahead: str, *bootstrap: str) -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    skew, folder, identity = float(ahead), Path(data_dir), load_or_create_identity(Path(data_dir) / "identity.json")
    settings = NodeSettings(overlay=OverlaySettings(bootstrap=bootstrap))
    async with open_node(identity, settings, folder, clock=lambda: time.time() + skew) as node:
        await node.peer.wait_joined()
        print(node.peer.addresses()[0], flush=True)  # noqa: T201
        async with trio.lowlevel.FdStream(0) as lines:
            async for line in lines:
                skew = float(line)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    trio.run(main, *sys.argv[1:])
