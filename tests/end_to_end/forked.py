"""Processes that start at once, forked from one that has imported everything (see fork_server.py)."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

import msgspec
import trio

from tests.end_to_end.fork_server import Request
from tests.paths import ROOT


class ForkedProcess:
    """What the tests need of trio.Process, of a process that is no child of this one."""

    def __init__(self, process_id: int, told: int, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        self.pid = process_id
        self.returncode: int | None = None
        self.stdin = None if stdin is None else trio.lowlevel.FdStream(stdin)
        self.stdout = None if stdout is None else trio.lowlevel.FdStream(stdout)
        self.stderr = None if stderr is None else trio.lowlevel.FdStream(stderr)
        self._told = told
        self._waiting = trio.Lock()

    def poll(self) -> int | None:
        """The exit code, once the process has ended; of a signal, its number below zero."""
        if self.returncode is None:
            try:
                line = os.read(self._told, 100)
            except BlockingIOError:
                return None
            os.close(self._told)
            self.returncode = int(line) if line else -signal.SIGKILL  # no line: the server has ended
        return self.returncode

    async def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        async with self._waiting:
            while (code := self.poll()) is None:
                await trio.lowlevel.wait_readable(self._told)
            return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class ForkServer:
    """A process that forks on demand; it ends with this one."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.end_to_end.fork_server"]
            self._process = subprocess.Popen(command, stdin=theirs, cwd=ROOT, start_new_session=True)

    def close(self) -> None:
        """End the server, and leave alone what it started."""
        self._control.close()
        self._process.wait()

    async def open_process(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        start_new_session: bool = False,
    ) -> ForkedProcess:
        """As trio.lowlevel.open_process, of commands that run this Python."""
        python, *arguments = command
        assert python == sys.executable, f"{python} can't be forked"
        environment = dict(os.environ if env is None else env)
        request = Request(arguments, environment, str(cwd or Path.cwd()), start_new_session)
        ours: list[int | None] = []
        given: list[int] = []  # to be closed here
        theirs: list[int] = []
        try:
            for number, stream in enumerate((stdin, stdout, stderr)):
                kept = None
                if stream == subprocess.PIPE:
                    reading, writing = os.pipe()
                    kept, handed = (writing, reading) if number == 0 else (reading, writing)
                    given.append(handed)
                elif stream == subprocess.DEVNULL:
                    handed = os.open(os.devnull, os.O_RDWR)
                    given.append(handed)
                else:
                    handed = number if stream is None else stream if isinstance(stream, int) else stream.fileno()
                ours.append(kept)
                theirs.append(handed)
            told, telling = os.pipe()
            given.append(telling)
            socket.send_fds(self._control, [msgspec.json.encode(request)], [*theirs, telling])
        finally:
            for file in given:
                os.close(file)
        await trio.lowlevel.wait_readable(told)  # the server may still be importing
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(told, 1)
            assert piece, "the fork server has ended"
            line += piece
        os.set_blocking(told, False)
        return ForkedProcess(int(line), told, *ours)


@cache
def fork_server() -> ForkServer:
    """The one of this process, started when it is first needed."""
    server = ForkServer()
    atexit.register(server.close)
    return server
