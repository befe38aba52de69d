"""The door for Aqua on a running node: everything of this package put together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from aqua_compat.builtins.kad import Kad
from aqua_compat.builtins.math import Cmp, Math
from aqua_compat.builtins.op import Op
from aqua_compat.builtins.peer import Peer
from aqua_compat.builtins.trust_graph import TrustGraph
from aqua_compat.particles.engine.actor import ActorEnvironment, Calls, Context, Steps
from aqua_compat.particles.engine.installation import VERSION, load_module
from aqua_compat.particles.engine.pool import Pool
from aqua_compat.particles.errors import CallError
from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.fairness.time_slices import TimeSlices
from aqua_compat.particles.host_calls.host_calls import HostCalls, HostFunction, Tetraplets, in_time_slices, native
from aqua_compat.particles.host_calls.registry_calls import RegistryCalls
from aqua_compat.particles.host_calls.signing_calls import SigningCalls, countersigning
from aqua_compat.particles.inbound.dispatcher import Dispatcher
from aqua_compat.particles.inbound.receiver import Receiver
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.outbound.forwarding import LINK_METHOD, Forwarding, Reach
from aqua_compat.particles.particle import PROTOCOL
from aqua_compat.particles.settings import AquaSettings
from overlay.identity import Identity
from overlay.peer import OverlayPeer
from overlay.rpc.transport import ByteStream
from overlay.tasks import background
from registry.node import Node
from registry.replica.weights import Weights

Clock = Callable[[], float]


@asynccontextmanager
async def open_particle_server(
    node: Node, identity: Identity, weights: Weights, settings: AquaSettings, folder: Path
) -> AsyncIterator[Metrics]:
    """Serves particles on a node while the context is open. `folder`: where the interpreter is installed.

    Raises NotInstalled.
    """
    module, engine = await trio.to_thread.run_sync(load_module, folder)  # before the import: it tells what is missing
    from aqua_compat.particles.engine.interpreter import Interpreter  # noqa: PLC0415 - of the extra

    metrics = Metrics()

    def start() -> Interpreter:
        return Interpreter(module, engine, identity.seed, settings.max_memory)

    pool = Pool(start, engine.increment_epoch, settings, metrics)
    time_slices = TimeSlices()
    lookups = _lookups(settings)
    services = host_services(node, identity, weights, settings, time_slices, lookups)
    calls = HostCalls(services, settings.max_result, time_slices)
    reach = _OverOverlay(node.peer)
    async with (
        particles(identity.peer_id, settings, pool, calls, reach, metrics, time.time, lookups) as receiving,
        background() as nursery,
    ):
        await nursery.start(pool.run)
        node.peer.set_stream_handler(PROTOCOL, receiving.handle_stream)
        node.peer.serve(LINK_METHOD, receiving.handle_call)
        node.particles = metrics.snapshot
        yield metrics


@asynccontextmanager
async def particles(
    host_peer_id: str,
    settings: AquaSettings,
    steps: Steps,
    calls: Calls,
    reach: Reach,
    metrics: Metrics,
    clock: Clock,
    lookups: FairSemaphore | None = None,
) -> AsyncIterator[Receiver]:
    """What receives, runs and sends particles, over any network. `lookups`: where calls take these places too."""
    forwarding = Forwarding(reach, settings, metrics, lookups or _lookups(settings))
    async with background() as nursery:
        around = ActorEnvironment(host_peer_id, settings, steps, calls, forwarding.send_on, nursery, metrics)
        dispatcher = Dispatcher(around, clock)
        await nursery.start(forwarding.run)
        await nursery.start(dispatcher.run)
        try:
            yield Receiver(dispatcher, settings, metrics, forwarding.note_protocol_peer)
        finally:
            dispatcher.end()  # streams and links are served a little longer


def _lookups(settings: AquaSettings) -> FairSemaphore:
    return FairSemaphore(settings.max_lookups, settings.max_lookups_per_peer)


def host_services(
    node: Node,
    identity: Identity,
    weights: Weights,
    settings: AquaSettings,
    time_slices: TimeSlices,
    lookups: FairSemaphore,
) -> dict[str, dict[str, HostFunction]]:
    """All that scripts can call, by service and function. What asks other peers takes a place of `lookups`."""
    parts = node.parts
    vouch = countersigning(parts.registry, parts.host, parts.service.settings.hosting, lookups, time.time)
    peer, kad = native(Peer(node.peer, VERSION)), native(Kad(node.peer))
    merge = in_time_slices({"merge": kad["merge"]}, time_slices)
    sig = SigningCalls(identity, vouch, as_original=settings.sign_as_original).functions()
    registry = RegistryCalls(
        parts.service, node.store, parts.replica.ingest, parts.rumors, identity.peer_id, time_slices
    )
    return {
        "op": in_time_slices(native(Op()), time_slices),
        "math": in_time_slices(native(Math()), time_slices),
        "cmp": in_time_slices(native(Cmp()), time_slices),
        "peer": {**peer, "timeout": _timeout, "connect": _waiting(peer["connect"], lookups)},
        "kad": {**kad, "neighborhood": _waiting(kad["neighborhood"], lookups), **merge},
        "trust-graph": native(TrustGraph(weights)),
        "sig": {**sig, **in_time_slices({"verify": sig["verify"]}, time_slices)},
        "registry": registry.functions(),
    }


def _waiting(function: HostFunction, lookups: FairSemaphore) -> HostFunction:
    async def call(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:
        async with lookups.place(context.source):
            return await function(context, arguments, tetraplets)

    return call


async def _timeout(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:  # noqa: ARG001
    """`peer.timeout`; whatever it is asked for, its particle's end is its own."""
    if len(arguments) != 2 or type(arguments[0]) is not int or arguments[0] < 0 or not isinstance(arguments[1], str):
        raise CallError("peer.timeout takes a number of milliseconds and a message")
    await trio.sleep_until(min(trio.current_time() + arguments[0] / 1000, context.deadline))
    return arguments[1]


class _OverOverlay:
    """`Reach` by a peer of ours."""

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
