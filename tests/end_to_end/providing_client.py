"""A light client in a process of its own that provides a service until its input ends.

`python -m tests.end_to_end.providing_client NODE RESOURCE_ID KEY_FILE SICK_FILE`; while SICK_FILE exists, its check
says that it doesn't work. It prints its peer id once it is registered.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from aqua_compat import connect
from overlay.identity import load_or_create_identity


async def provide(node: str, resource_id: str, key_file: Path, sick: Path) -> None:
    """See the module."""

    def check() -> object:
        return ("critical", "it is sick") if sick.exists() else None

    identity = load_or_create_identity(key_file)
    async with (
        connect(node.split(","), identity=identity) as aqua,
        aqua.provide(resource_id, "echo", {"hello": lambda: "hello"}, check=check, every=0.5),
    ):
        print(aqua.peer_id, flush=True)  # noqa: T201 - that it is ready
        await trio.lowlevel.wait_readable(0)


if __name__ == "__main__":
    trio.run(provide, sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
