"""A machine: a host with a small disk and a clock, and the node that runs on it through its lives."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from overlay.identity import Identity, load_or_create_identity
from registry.node import DATABASE
from tests.end_to_end.forked import ForkedProcess, fork_server
from tests.end_to_end.network import environment_of
from tests.faults.namespaces import address_of, mount_small
from tests.faults.node import PORT

DISK: Final = 24 * 2**20  # bytes
_NODE: Final = Path(__file__).with_name("node.py")


class Machine:
    """Number `number`, counted from 1."""

    def __init__(self, number: int, folder: Path, configuration: Path) -> None:
        self.number = number
        self.log = folder / f"node-{number}.log"
        self.data_dir = folder / f"node-{number}"
        self.data_dir.mkdir()
        mount_small(self.data_dir, DISK)
        self.identity: Identity = load_or_create_identity(self.data_dir / "identity.json")
        self.skew = 0.0
        self.is_ready = False
        """Whether it runs and has said that it has joined."""
        self.is_paused = False
        self.is_full = False
        self._configuration = configuration
        self._process: ForkedProcess | None = None

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    @property
    def address(self) -> str:
        return f"/ip4/{address_of(self.number)}/tcp/{PORT}/p2p/{self.peer_id}"

    @property
    def database(self) -> Path:
        return self.data_dir / DATABASE

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self, bootstrap: Sequence[str]) -> None:
        """The node's next life. Raises AssertionError when it ends before it is ready."""
        # Shielded: a process that began, and nobody knows of, would keep the address and the folder.
        with self.log.open("ab") as log, trio.CancelScope(shield=True):
            self._process = await fork_server().open_process(
                [
                    *(sys.executable, str(_NODE), str(self.number), str(self.data_dir), str(self.skew)),
                    *(str(self._configuration), *bootstrap),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment_of(self.data_dir, PYTHONPATH=":".join(sys.path)),
                start_new_session=True,
            )
        stdout, said = self._process.stdout, b""
        assert stdout is not None
        while not said.endswith(b"ready\n"):
            piece = await stdout.receive_some(4096)
            assert piece, f"node {self.number} ended with {await self._process.wait()} after {said!r}"
            said += piece
        self.is_ready = True

    async def kill(self) -> None:
        """kill -9."""
        process = self._process
        assert process is not None
        self.is_ready = self.is_paused = False
        with trio.CancelScope(shield=True):  # half killed it would count as up, and nobody would start it again
            process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                await stream.aclose()

    def pause(self) -> None:
        """Nothing runs until `resume`: as of a virtual machine that is moved."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        if self.is_paused and self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self.is_paused = False

    async def set_clock(self, skew: float) -> None:
        """Set it so many seconds ahead, also for lives to come."""
        self.skew = skew
        if self.is_up:
            assert self._process is not None
            assert self._process.stdin is not None
            try:
                await self._process.stdin.send_all(b"%f\n" % skew)
            except (trio.BrokenResourceError, trio.ClosedResourceError):  # it has just been killed
                return

    def fill(self) -> None:
        """Something else takes the rest of its disk."""
        self.is_full = True
        with self._ballast.open("wb", buffering=0) as file:
            for piece in (65_536, 4096):
                with suppress(OSError):  # there is no room left
                    while file.write(bytes(piece)) == piece:
                        pass

    def empty(self) -> None:
        """There is room again."""
        self.is_full = False
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.data_dir / "ballast"
