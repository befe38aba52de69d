"""Four nodes that original clients use as relays."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aqua_compat.cli.node_process import NodeProcess
from tests.aqua.npm import Tools
from tests.end_to_end.network import Network, command

LISTEN = ("--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/tcp/0/ws")
FOLDER = "AQUA_REGISTRY_AQUA_FOLDER"
NODES = 4  # on each of which a script of the original runs that writes to all neighbours


class AquaNetwork(Network):
    """Nodes with `--aqua` that listen on TCP and on WebSocket; the interpreter is installed in the network's folder."""

    def __init__(self, folder: Path, count: int = NODES, *flags: str) -> None:
        super().__init__(folder, count, "--aqua", *LISTEN, *flags)
        self.interpreter_folder = folder / "interpreter"

    async def start_with(self, tools: Tools, compiled: Path) -> None:
        """Install the interpreter, as an operator would, then start. `compiled`: a folder with its compiled form, which
        would take ten seconds of CPU."""
        shutil.copytree(compiled, self.interpreter_folder, ignore=shutil.ignore_patterns("*.wasm", ".*"))
        tarball = self.interpreter_folder.with_suffix(".tgz")
        with tarfile.open(tarball, "w:gz", compresslevel=1) as archive:
            archive.add(tools.interpreter, "package/dist/avm.wasm")
        folder = str(self.interpreter_folder)
        installed = await command("aqua", "install", "--from", str(tarball), "--folder", folder, home=tarball.parent)
        assert installed.code == 0, installed
        with self._installed():
            await self.start()

    async def revive(self, node: NodeProcess) -> None:
        """Start a node again that was killed."""
        with self._installed():
            await self.restart([node])

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """Nodes started meanwhile find the interpreter."""
        os.environ[FOLDER] = str(self.interpreter_folder)
        try:
            yield
        finally:
            del os.environ[FOLDER]


def websocket(node: NodeProcess) -> str:
    """The address that original clients dial."""
    return next(address for address in node.addresses if "/ws/" in address)
