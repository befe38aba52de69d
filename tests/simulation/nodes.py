"""Whole nodes over the simulated network, with real storage in memory."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from overlay.identity import Identity
from registry.assembly import Parts, assembled
from registry.client.node_status import NodeStatus
from registry.client.registry import Registry
from registry.protocol.presence import PresenceNetwork
from registry.settings import NodeSettings
from registry.storage import Store, open_store
from tests.simulation.simulated_network import SimulatedNetwork, SimulatedPeer


class SimulatedNode(NamedTuple):
    identity: Identity
    peer: SimulatedPeer
    store: Store
    parts: Parts

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    @property
    def registry(self) -> Registry:
        return self.parts.registry


async def _no_status() -> NodeStatus:
    raise NotImplementedError("simulated nodes have no addresses to tell of")


async def compared(nodes: Iterable[SimulatedNode]) -> None:
    """Until the comparisons of the start are over, which would bring others what a test means to hand on by itself."""
    nodes = list(nodes)
    while not all(node.parts.replication.status().settled for node in nodes):  # noqa: ASYNC110 - virtual time
        await trio.sleep(0.1)


@asynccontextmanager
async def simulated_nodes(
    count: int,
    settings: NodeSettings | None = None,
    clock: Callable[[], float] = time.time,
    presence_of: Callable[[str], PresenceNetwork | None] = lambda _: None,
    issuers: Sequence[Identity] = (),
) -> AsyncIterator[tuple[SimulatedNetwork, list[SimulatedNode]]]:
    """`count` nodes that all know each other, with the identities of seeds 1, 2, ...

    `presence_of`: what each of them, by its peer id, knows of who is alive. `issuers`: under which the first of them
    registers, too."""
    network = SimulatedNetwork()
    nodes: list[SimulatedNode] = []
    async with AsyncExitStack() as stack:
        for number in range(1, count + 1):
            identity = Identity.from_seed(number.to_bytes(32, "big"))
            peer = network.add(identity.peer_id)
            store = await stack.enter_async_context(open_store(Path(":memory:"), inline=True))
            parts = await stack.enter_async_context(
                assembled(
                    peer,
                    identity,
                    store,
                    settings or NodeSettings(),
                    _no_status,
                    clock,
                    starts_network=True,
                    presence=presence_of(identity.peer_id),
                    randomness=random.Random(number),
                    issuers=issuers if number == 1 else (),
                )
            )
            nodes.append(SimulatedNode(identity, peer, store, parts))
        yield network, nodes
