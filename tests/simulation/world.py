"""Nodes that crash and come back, clocks that differ: what a scenario happens in."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from overlay.identity import Identity
from overlay.peer import OverlayPeer
from overlay.tasks import TaskStatus
from registry.assembly import Parts, assembled
from registry.client.node_status import NodeStatus
from registry.protocol.network import Clock, Network
from registry.settings import NodeSettings
from registry.storage import Store
from tests.simulation.disk import Disk, open_disk
from tests.simulation.simulated_network import SimulatedNetwork

START = 1_700_000_000


class WorldNetwork(Protocol):
    """What nodes are joined by: satisfied by `SimulatedNetwork`, and by `PeerNetwork` with whole peers."""

    sides: dict[str, int]
    """Of a partition; peers on different sides don't reach each other."""

    def joined(
        self, identity: Identity, clock: Clock, randomness: random.Random
    ) -> AbstractAsyncContextManager[Network]:
        """A peer that is new, or back."""
        ...

    def crash(self, peer_id: str) -> None:
        """A peer does nothing any more."""
        ...

    def membership_changed(self) -> None:
        """Peers came, went, or were separated."""
        ...


def identity_of(family: int, number: int) -> Identity:
    """The identity of a node; those of another family lie elsewhere in the keyspace."""
    return Identity.from_seed((family << 64 | number).to_bytes(32, "big"))


class WorldNode:
    """One node through its lives. `image` is its disk while it is down; `budget`: bytes that its next life may use of
    it, None for the usual. `issuers`: under which its next life registers besides its own identity."""

    def __init__(self, number: int, skew: float, family: int = 0) -> None:
        self.number = number
        self.identity = identity_of(family, number)
        self.skew = skew
        self.path = Path()
        self.image: bytes | None = None
        self.budget: int | None = None
        self.issuers: tuple[Identity, ...] = ()
        self.crashes = 0
        self.disk: Disk | None = None
        self.network: Network | None = None
        self.parts: Parts | None = None
        self.store: Store | None = None
        self.scope: trio.CancelScope | None = None
        self.ended = trio.Event()

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    @property
    def is_up(self) -> bool:
        return self.parts is not None

    def clock(self) -> float:
        """Its own idea of the time."""
        return START + trio.current_time() + self.skew


async def _no_status() -> NodeStatus:
    raise NotImplementedError("simulated nodes have no addresses to tell of")


class World:
    """All nodes of a scenario, their network and the one source of randomness."""

    def __init__(
        self,
        nursery: trio.Nursery,
        randomness: random.Random,
        settings: NodeSettings,
        folder: Path,
        note: Callable[[str], None],
        network: WorldNetwork | None = None,
        family: int = 0,
    ) -> None:
        self.random = randomness
        self.network = network if network is not None else _everybody_linked(randomness, note)
        self.nodes: list[WorldNode] = []
        self._nursery = nursery
        self._settings = settings
        self._folder = folder
        self._family = family
        self.follows_presence = True
        """Whether nodes list those hosts alone that are there; not so where they have too few links to follow any."""
        self._lives = 0
        self._note = note

    def up(self) -> list[WorldNode]:
        return [node for node in self.nodes if node.is_up]

    async def add(self, skew: float = 0.0) -> WorldNode:
        """A new node, running."""
        node = WorldNode(len(self.nodes) + 1, skew, self._family)
        self.nodes.append(node)
        await self.start(node)
        return node

    async def start(self, node: WorldNode) -> None:
        """A node's first or next life, from what its last commit left."""
        await self._nursery.start(self._live, node)
        self._note(f"{node.peer_id} started")
        self.network.membership_changed()

    async def crash(self, node: WorldNode) -> None:
        """kill -9: whatever wasn't committed is lost, nobody is told anything any more."""
        assert node.scope is not None
        self._note(f"{node.peer_id} crashed")
        with closing(sqlite3.connect(node.path)) as reader:
            node.image = reader.serialize()
        self.network.crash(node.peer_id)
        node.crashes += 1
        node.parts = None
        node.scope.cancel()
        self.network.membership_changed()
        with trio.CancelScope(shield=True):  # or its next life would begin before this one is over
            await node.ended.wait()

    async def wipe(self, node: WorldNode) -> None:
        """A node that crashes and loses its disk."""
        await self.crash(node)
        node.image = None

    def split(self, sides: dict[str, int]) -> None:
        """Peers on different sides don't reach each other; {} heals."""
        self.network.sides = sides
        self._note(f"split {sorted(sides.items())}")
        self.network.membership_changed()

    async def _live(self, node: WorldNode, *, task_status: TaskStatus[None]) -> None:
        self._lives += 1
        node.path = self._folder / f"{self._lives}.sqlite"
        if node.image is not None:
            node.path.write_bytes(node.image)
        node.ended = trio.Event()
        clock: Clock = node.clock
        try:
            with trio.CancelScope() as node.scope:
                await self._live_once(node, clock, task_status)
        finally:  # however it ends, or a crash would wait for ever
            node.network = node.parts = node.disk = node.store = None
            node.ended.set()

    async def _live_once(self, node: WorldNode, clock: Clock, task_status: TaskStatus[None]) -> None:
        async with open_disk(node.path) as disk:
            store, settings = disk.store, self._settings_of(node)
            randomness = random.Random(self.random.random())
            async with (
                self.network.joined(node.identity, clock, randomness) as peer,
                assembled(
                    peer,
                    node.identity,
                    store,
                    settings,
                    _no_status,
                    clock,
                    presence=peer.presence if self.follows_presence and isinstance(peer, OverlayPeer) else None,
                    randomness=randomness,
                    issuers=node.issuers,
                ) as parts,
            ):
                node.network, node.disk, node.store, node.parts = peer, disk, store, parts
                task_status.started()
                await trio.sleep_forever()

    def _settings_of(self, node: WorldNode) -> NodeSettings:
        if node.budget is None:
            return self._settings
        registry = msgspec.structs.replace(self._settings.registry, max_disk_bytes=node.budget)
        return msgspec.structs.replace(self._settings, registry=registry)


def _everybody_linked(randomness: random.Random, note: Callable[[str], None]) -> SimulatedNetwork:
    network = SimulatedNetwork(randomness)
    network.isolates = True
    network.note = note
    return network
