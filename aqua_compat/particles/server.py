"""Serves particles on a running node: everything of this package put together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from aqua_compat.builtins.trust_graph import TrustGraph
from aqua_compat.particles.engine.actor import ActorEnvironment, ScriptCalls, Steps
from aqua_compat.particles.engine.installation import load_module
from aqua_compat.particles.engine.pool import Pool
from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.host_calls.host_calls import HostCalls
from aqua_compat.particles.host_calls.host_services import host_services
from aqua_compat.particles.inbound.dispatcher import Dispatcher
from aqua_compat.particles.inbound.receiver import Receiver
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.outbound.forwarding import LINK_METHOD, Forwarding, Reach
from aqua_compat.particles.particle import PROTOCOL
from aqua_compat.particles.settings import AquaSettings
from overlay.identity import Identity
from overlay.limits.time_slices import TimeSlices
from overlay.peer import OverlayPeer
from overlay.rpc.transport import ByteStream
from overlay.tasks import background
from registry.node import Node

Clock = Callable[[], float]


@asynccontextmanager
async def open_particle_server(
    node: Node, identity: Identity, trust_graph: TrustGraph, settings: AquaSettings, folder: Path, metrics: Metrics
) -> AsyncIterator[None]:
    """Serves particles on a node while the context is open, and counts in `metrics` what it does.

    `folder`: where the interpreter is installed. Raises NotInstalled.
    """
    module, engine = await trio.to_thread.run_sync(load_module, folder)  # before the import: it tells what is missing
    from aqua_compat.particles.engine.interpreter import Interpreter  # noqa: PLC0415 - of the extra

    def start() -> Interpreter:
        return Interpreter(module, engine, identity.seed, settings.max_memory)

    pool = Pool(start, engine.increment_epoch, settings, metrics)
    time_slices = TimeSlices()
    lookups = _lookups(settings)
    services = host_services(node, identity, trust_graph, settings, time_slices, lookups)
    calls = HostCalls(services, settings.max_result, time_slices)
    reach = _OverlayReach(node.peer)
    async with (
        open_particles(identity.peer_id, settings, pool, calls, reach, metrics, time.time, lookups) as receiving,
        background() as nursery,
    ):
        await nursery.start(pool.run)
        node.peer.set_stream_handler(PROTOCOL, receiving.handle_stream)
        node.peer.serve(LINK_METHOD, receiving.handle_call)
        yield


@asynccontextmanager
async def open_particles(
    host_peer_id: str,
    settings: AquaSettings,
    steps: Steps,
    calls: ScriptCalls,
    reach: Reach,
    metrics: Metrics,
    clock: Clock,
    lookups: FairSemaphore | None = None,
) -> AsyncIterator[Receiver]:
    """Receives, runs and sends particles over any network while the context is open.

    `lookups`: the places for asking other peers, where calls take such places too.
    """
    forwarding = Forwarding(reach, settings, metrics, lookups or _lookups(settings))
    async with background() as nursery:
        environment = ActorEnvironment(host_peer_id, settings, steps, calls, forwarding.send_on, nursery, metrics)
        dispatcher = Dispatcher(environment, clock)
        await nursery.start(forwarding.run)
        await nursery.start(dispatcher.run)
        try:
            yield Receiver(dispatcher, settings, metrics, forwarding.note_protocol_peer)
        finally:
            dispatcher.end()  # streams and links are served a little longer


def _lookups(settings: AquaSettings) -> FairSemaphore:
    return FairSemaphore(settings.max_lookups, settings.max_lookups_per_peer)


class _OverlayReach:
    """`Reach` over a peer of the overlay."""

    def __init__(self, peer: OverlayPeer) -> None:
        self._peer = peer

    def is_connected(self, peer_id: str) -> bool:
        return self._peer.is_connected(peer_id)

    def is_linked(self, peer_id: str) -> bool:
        return self._peer.is_linked(peer_id)

    def has_address(self, peer_id: str) -> bool:
        return bool(self._peer.addresses_of(peer_id))

    async def find(self, peer_id: str, timeout: float) -> bool:
        return bool(await self._peer.find(peer_id, timeout=timeout))

    async def call(self, peer_id: str, method: str, body: object, timeout: float) -> object:
        return await self._peer.call(peer_id, method, body, timeout=timeout)

    async def open_stream(self, peer_id: str, protocol_id: str) -> ByteStream:
        return await self._peer.open_stream(peer_id, protocol_id)

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> ByteStream:
        return await self._peer.open_stream_with(peer_id, protocol_id, message)
