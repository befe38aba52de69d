"""`aqua-registry` and `python3` for a shell's PATH, which fork instead of starting Python anew (see fork_server.py).

Each is a small program that hands its arguments, environment, folder and streams to this process, over a socket, and
ends as what is forked for it does. When it is ended itself, so is that, by SIGTERM.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import trio

from tests.end_to_end.forked import fork_server

MAX_ASKED: Final = 200_000  # bytes; mostly the environment
PROGRAM: Final = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
    asked.connect({path!r})
    what = json.dumps([{first!r} + sys.argv[1:], dict(os.environ), os.getcwd()])
    socket.send_fds(asked, [what.encode()], [0, 1, 2])
    for stream in 0, 1, 2:
        os.close(stream)
    os._exit(int(asked.recv(16)))
"""
PROGRAMS: Final = {"aqua-registry": ["-m", "aqua_compat"], "python3": list[str]()}


class Asked(msgspec.Struct, array_like=True):
    """What one of the programs was started with."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str


@asynccontextmanager
async def forking_commands(folder: Path) -> AsyncIterator[None]:
    """Puts the programs into `folder`; they work while the block runs, which waits in the end for what they started."""
    path = f"\0aqua-registry-tests/{os.urandom(8).hex()}"  # an abstract one: paths may be too long
    for name, first in PROGRAMS.items():
        (folder / name).write_text(PROGRAM.format(python=sys.executable, path=path, first=first))
        (folder / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        async with trio.open_nursery() as started, trio.open_nursery() as nursery:
            nursery.start_soon(_serve, listening, started)
            yield
            nursery.cancel_scope.cancel()


async def _serve(listening: socket.socket, started: trio.Nursery) -> None:
    while True:
        await trio.lowlevel.wait_readable(listening)
        started.start_soon(_run, listening.accept()[0])


async def _run(connection: socket.socket) -> None:
    """Forks what is asked for, and tells its exit code; ends it when whoever asked has ended."""
    with connection:
        await trio.lowlevel.wait_readable(connection)
        message, streams, _, _ = socket.recv_fds(connection, MAX_ASKED, 3)
        if not message:
            return
        asked = msgspec.json.decode(message, type=Asked)
        process = await fork_server().open_process(
            [sys.executable, *asked.arguments],
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            env=asked.environment,
            cwd=asked.folder,
        )
        for stream in streams:
            os.close(stream)
        async with trio.open_nursery() as nursery:

            async def end_with_who_asked() -> None:
                await trio.lowlevel.wait_readable(connection)
                process.terminate()

            nursery.start_soon(end_with_who_asked)
            try:
                code = await process.wait()
            finally:
                process.kill()  # where this is cancelled
            nursery.cancel_scope.cancel()
        with suppress(OSError):  # it has ended
            connection.send(str(code if code >= 0 else 128 - code).encode())
