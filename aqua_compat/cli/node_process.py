"""A node in a process of its own, started through the command line: for the demo and for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import trio

READY = "ready"

_FOLDER: Final = Path(__file__).parents[2]
"""Where our packages are."""


class NodeFailed(Exception):
    """The node's process ended or took too long before it was ready. The text ends with its last log lines."""


class RunningProcess(Protocol):
    """What is needed of trio.Process."""

    @property
    def pid(self) -> int:
        """The process's id."""
        ...

    @property
    def stdout(self) -> trio.abc.ReceiveStream | None:
        """What it prints, where that is read."""
        ...

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        ...

    async def wait(self) -> int:
        """Wait for its end; its exit code."""
        ...

    def send_signal(self, number: signal.Signals, /) -> None:
        """Send it a signal."""
        ...


def _run_module() -> str:
    """Python's flag for running a module of ours. With `-m` alone files in the current folder would count as modules,
    before Python's own: whatever is called `http.py` there would run."""
    return "-m" if os.path.samefile(os.curdir, _FOLDER) else "-Pm"


class NodeProcess:
    """A running `aqua-registry node`. `addresses` and `peer_id` are known once `start` has returned.

    `open_process` starts it; the tests fork, which spares the imports.
    """

    def __init__(
        self,
        data_dir: Path,
        log_file: Path,
        open_process: Callable[..., Awaitable[RunningProcess]] = trio.lowlevel.open_process,
        *,
        tied: bool = False,
    ) -> None:
        """`tied`: it ends when this process does, however that ends."""
        self.data_dir = data_dir
        self.log_file = log_file
        self.addresses: list[str] = []
        self._open_process = open_process
        self._tied = tied
        self._process: RunningProcess | None = None

    @property
    def address(self) -> str:
        """The first of the node's full multiaddrs."""
        return self.addresses[0]

    @property
    def peer_id(self) -> str:
        """The node's peer id, out of its addresses."""
        return self.address.rpartition("/p2p/")[2]

    @property
    def process_id(self) -> int | None:
        """The id of the process that was started last."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    async def start(self, *flags: str, timeout: float = 20.0) -> None:
        """Start the process and wait for `ready`. Raises NodeFailed, and leaves no process then."""
        command = [sys.executable, _run_module(), "aqua_compat", "node", "--data-dir", str(self.data_dir), *flags]
        command += ["--tied"] if self._tied else []
        with self.log_file.open("ab") as log:
            self._process = await self._open_process(
                command,
                stdin=subprocess.PIPE if self._tied else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        lines: list[str] = []
        try:
            with trio.fail_after(timeout):
                lines = await self._lines_until_ready(self._process)
        except trio.TooSlowError:
            raise NodeFailed(f"no {READY!r} within {timeout:g} s{self._last_log_lines()}") from None
        finally:
            if READY not in lines:
                with trio.CancelScope(shield=True):
                    await self.kill()
        self.addresses = lines[:-1]

    async def kill(self) -> None:
        """End it as a crash would (SIGKILL) and wait until it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self, timeout: float = 6.0) -> int:
        """End it as an operator would (SIGTERM), with SIGKILL after `timeout` seconds; its exit code."""
        with trio.move_on_after(timeout) as patience:
            code = await self._end(signal.SIGTERM)
        return await self._end(signal.SIGKILL) if patience.cancelled_caught else code

    async def _end(self, how: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(how)
        code = await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()
        return code

    async def _lines_until_ready(self, process: RunningProcess) -> list[str]:
        received = b""
        assert process.stdout is not None
        while True:
            lines = received.decode(errors="replace").splitlines()
            if received.endswith(b"\n") and lines[-1] == READY:
                return lines
            piece = await process.stdout.receive_some(4096)
            if not piece:
                raise NodeFailed(f"it ended with exit code {await process.wait()}{self._last_log_lines()}")
            received += piece

    def _last_log_lines(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()[-10:]
        return "; its log ends with:\n" + "\n".join(lines) if lines else "; its log is empty"


async def start_network(
    nodes: Sequence[NodeProcess], *flags: str, of_first: Sequence[str] = (), timeout: float = 20.0
) -> None:
    """Start the first node, then the others at once, each bootstrapping from the first. `of_first`: flags of that
    alone."""
    await nodes[0].start(*flags, *of_first, timeout=timeout)
    async with trio.open_nursery() as nursery:
        for process in nodes[1:]:
            nursery.start_soon(partial(process.start, "--bootstrap", nodes[0].address, *flags, timeout=timeout))


async def stop_network(nodes: Sequence[NodeProcess]) -> None:
    """Stop all nodes at once, also when the caller is cancelled."""
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for process in nodes:
                nursery.start_soon(process.stop)
