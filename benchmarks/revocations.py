"""How soon a member that is revoked has no link left, in a private network made by the commands; for
`benchmarks.permissions`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import trio

from aqua_compat.cli.node_process import NodeProcess, stop_network
from overlay.assembly import open_peer
from overlay.identity import Identity
from overlay.settings import NetworkSettings, OverlaySettings
from registry.client.remote_node import RemoteNode
from registry.errors import RegistryError
from registry.settings import RegistrySettings

LOOK: Final = 0.05  # seconds between two looks at a node's links
STEADY: Final = 5.0  # seconds without another link after which no more is waited for
PATIENCE: Final = 60.0  # seconds


class Cut(NamedTuple):
    """Seconds until nobody was linked to a member that was revoked."""

    since_start: float
    """Of the command."""
    since_end: float
    """0 if it was over before that."""


class Owner:
    """Runs `aqua-registry network` with a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def network(self, *arguments: str) -> str:
        """What the command prints. Raises CalledProcessError."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AQUA_REGISTRY_")}
        ran = await trio.run_process(
            [sys.executable, "-m", "aqua_compat", "network", *arguments],
            capture_stdout=True,
            stderr=subprocess.DEVNULL,
            env={**kept, "XDG_DATA_HOME": str(self._folder)},
        )
        return ran.stdout.decode()

    async def token(self, name: str, *arguments: str) -> str:
        """The path of a new token."""
        path = self._folder / name
        path.write_text(await self.network("invite", *arguments))
        return str(path)


@asynccontextmanager
async def private_network(owner: Owner, folder: Path, count: int) -> AsyncIterator[list[NodeProcess]]:
    """So many members of a new one."""
    nodes = [NodeProcess(folder / f"member{number}", folder / f"member{number}.log") for number in range(count)]
    try:
        await owner.network("create")
        await nodes[0].start("--join", await owner.token("first"), timeout=PATIENCE)
        invitation = await owner.token("others", "--address", nodes[0].address)
        for node in nodes[1:]:
            await node.start("--join", invitation, timeout=PATIENCE)
        yield nodes
    finally:
        await stop_network(nodes)


async def until_linked(views: Sequence[RemoteNode], peer_id: str) -> None:
    """Wait until all nodes are linked to a peer, or, in a network so large that not all link with all, until no more
    have been for a while."""
    linked, since = 0, trio.current_time()

    async def look(view: RemoteNode, seeing: list[RemoteNode]) -> None:
        try:
            sees = peer_id in (await view.status(timeout=5)).members
        except RegistryError:
            return  # busy; it is asked again
        seeing.extend([view] if sees else [])

    with trio.fail_after(PATIENCE):
        while linked < len(views) and not (linked and trio.current_time() > since + STEADY):
            seeing: list[RemoteNode] = []
            async with trio.open_nursery() as nursery:
                for view in views:
                    nursery.start_soon(look, view, seeing)
            if len(seeing) != linked:
                linked, since = len(seeing), trio.current_time()
            await trio.sleep(LOOK)


async def until_gone(views: Sequence[RemoteNode], peer_id: str) -> float:
    """When no node is linked to a peer (seconds, as `time.perf_counter` has them)."""

    async def wait(view: RemoteNode) -> None:
        while True:
            try:
                if peer_id not in (await view.status(timeout=5)).members:
                    return
            except RegistryError:
                pass  # busy; it is asked again
            await trio.sleep(LOOK)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for view in views:
                nursery.start_soon(wait, view)
    return time.perf_counter()


async def revoking(folder: Path, count: int, times: int) -> list[Cut]:
    """Puts out `times` members, one after the other, of whom `count` stay."""
    owner, cuts = Owner(folder / "owner"), list[Cut]()
    (folder / "owner").mkdir(parents=True)
    async with private_network(owner, folder, count + times) as nodes:
        settings = OverlaySettings(
            member=False, listen=(), network=NetworkSettings(token=await owner.token("clients", "--client"))
        )
        async with open_peer(Identity.generate(), settings) as peer:
            views = [RemoteNode(peer, [node.address], RegistrySettings(), time.time) for node in nodes[:count]]
            for node in nodes[count:]:
                await until_linked(views, node.peer_id)
                began, ended = time.perf_counter(), 0.0

                async def revoke(peer_id: str) -> None:
                    nonlocal ended
                    await owner.network("revoke", peer_id)
                    ended = time.perf_counter()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(revoke, node.peer_id)
                    cut = await until_gone(views, node.peer_id)
                cuts.append(Cut(cut - began, max(cut - ended, 0.0)))
    return cuts
