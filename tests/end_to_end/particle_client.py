"""A client of the particle protocol over real sockets, as the original's: WebSocket, streams, its own interpreter."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.engine.installation import load_module
from aqua_compat.particles.engine.interpreter import Interpreter
from aqua_compat.particles.engine.pool import Pool
from aqua_compat.particles.engine.steps import CallRequest, CallResult
from aqua_compat.particles.inbound.receiver import Receiver
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.particle import PROTOCOL, Particle, encode, framed, sign
from aqua_compat.particles.server import open_particles
from aqua_compat.particles.settings import AquaSettings
from overlay.errors import NoSuchMethod
from overlay.identity import Identity
from overlay.libp2p.host import Host, open_host
from overlay.rpc.transport import ByteStream
from overlay.settings import OverlaySettings


class ParticleClient:
    """Runs scripts through its relay. A call of ("test" "answer") on it is an answer."""

    def __init__(self, host: Host, identity: Identity, relay: str) -> None:
        self.host = host
        self.identity = identity
        self.relay = relay
        self.receiving: Receiver
        self._answers: dict[str, tuple[trio.Event, list[Any]]] = {}

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    def particle(self, script: str, ttl: float = 10.0) -> Particle:
        return sign(
            self.identity,
            particle_id=str(uuid.uuid4()),
            timestamp=int(time.time() * 1000),
            ttl=int(ttl * 1000),
            script=script,
        )

    async def run(self, script: str, ttl: float = 10.0) -> list[Any]:
        """The arguments of the script's answer. Raises trio.TooSlowError when none comes in the particle's time."""
        particle = self.particle(script, ttl)
        answered, arguments = self._answers[particle.id] = trio.Event(), []
        await self.receiving.handle_call(self.peer_id, encode(particle))
        with trio.fail_after(ttl):
            await answered.wait()
        del self._answers[particle.id]
        return arguments

    async def send_raw(self, message: bytes) -> None:
        """Any bytes on a stream of the protocol."""
        stream = await self.host.open_stream(self.relay, PROTOCOL)
        await stream.write(message)
        await stream.close()

    async def send(self, particle: Particle) -> None:
        """A particle, without taking part in it."""
        await self.send_raw(framed(encode(particle)))

    async def call(self, context: Context, request: CallRequest) -> CallResult:
        await trio.lowlevel.checkpoint()
        if context.particle_id in self._answers:
            answered, arguments = self._answers[context.particle_id]
            arguments[:] = request.arguments
            answered.set()
        return CallResult(0, "null")

    # `Reach`, of somebody who knows its relay only

    def is_connected(self, peer_id: str) -> bool:
        return self.host.is_connected(peer_id)

    def is_linked(self, peer_id: str) -> bool:
        return False

    def has_address(self, peer_id: str) -> bool:
        return peer_id == self.relay

    async def find(self, peer_id: str, timeout: float) -> bool:
        return False

    async def open_stream(self, peer_id: str, protocol_id: str) -> ByteStream:
        return await self.host.open_stream(peer_id, protocol_id)

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> ByteStream:
        return await self.host.open_stream_with(peer_id, protocol_id, message)


class _Reach(ParticleClient):
    async def call(self, peer_id: str, method: str, body: object, timeout: float) -> object:  # type: ignore[override]
        raise NoSuchMethod(peer_id, method)


@asynccontextmanager
async def particle_client(address: str, folder: Path) -> AsyncIterator[ParticleClient]:
    """A client of the node at `address`, a WebSocket multiaddr; `folder`: of the interpreter."""
    identity, metrics = Identity.generate(), Metrics()
    settings = AquaSettings(interpreters=1)
    module, engine = load_module(folder)
    pool = Pool(
        lambda: Interpreter(module, engine, identity.seed, settings.max_memory),
        engine.increment_epoch,
        settings,
        metrics,
    )
    async with open_host(identity, OverlaySettings(listen=())) as host, trio.open_nursery() as nursery:
        relay = await host.connect(address, timeout=5)
        client, reach = ParticleClient(host, identity, relay), _Reach(host, identity, relay)
        await nursery.start(pool.run)
        async with open_particles(identity.peer_id, settings, pool, client, reach, metrics, time.time) as receiving:
            client.receiving = receiving
            host.set_stream_handler(PROTOCOL, receiving.handle_stream)
            yield client
        nursery.cancel_scope.cancel()
