"""A network in one process that satisfies `registry.network.Network`: real neighbourhoods, simulated calls."""

from __future__ import annotations

from collections.abc import Callable

import cbor2
import trio

from overlay.errors import CallRefused, CallTimeout, NoSuchMethod, Refusal, Unreachable
from overlay.keyspace import nearest
from registry.network import Handler


class SimulatedNetwork:
    """All peers of one simulation. Bodies pass through CBOR, as on the wire."""

    def __init__(self) -> None:
        self.peers: dict[str, SimulatedPeer] = {}
        self.down: set[str] = set()
        self.muted: set[str] = set()  # whose own calls don't get through
        self.stalled: set[str] = set()
        self.calls: list[tuple[str, str, str]] = []

    def add(self, peer_id: str) -> SimulatedPeer:
        peer = self.peers[peer_id] = SimulatedPeer(self, peer_id)
        return peer

    def alive(self) -> list[str]:
        return [peer_id for peer_id in self.peers if peer_id not in self.down]


class SimulatedPeer:
    """One peer's view of the simulated network."""

    def __init__(self, network: SimulatedNetwork, peer_id: str) -> None:
        self.peer_id = peer_id
        self._network = network
        self._handlers: dict[str, Handler] = {}
        self.isolated = False
        self._callbacks: list[Callable[[], None]] = []

    async def neighbourhood(self, resource_id: str, count: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        return nearest_to(resource_id, self._network.alive(), count)

    def is_responsible(self, resource_id: str, count: int) -> bool:
        return self.peer_id in nearest_to(resource_id, self._network.alive(), count)

    def members(self) -> list[str]:
        return [peer_id for peer_id in self._network.alive() if peer_id != self.peer_id]

    def on_membership_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def is_isolated(self) -> bool:
        return self.isolated

    def serve(self, method: str, handler: Handler) -> None:
        self._handlers[method] = handler

    def intercept(self, method: str, handler: Handler) -> Handler:
        """Replaces a handler (a lying peer); returns the honest one."""
        honest = self._handlers[method]
        self._handlers[method] = handler
        return honest

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        network = self._network
        network.calls.append((self.peer_id, peer_id, method))
        await trio.lowlevel.checkpoint()
        if peer_id in network.down or peer_id not in network.peers or self.peer_id in network.muted:
            raise Unreachable(peer_id, method)
        with trio.move_on_after(timeout):
            if peer_id in network.stalled:
                await trio.sleep_forever()
            handler = network.peers[peer_id]._handlers.get(method)  # the network's own part
            if handler is None:
                raise NoSuchMethod(peer_id, method)
            try:
                answer = await handler(self.peer_id, cbor2.loads(cbor2.dumps(body)))
            except Refusal as refusal:
                raise CallRefused(peer_id, method, refusal.code, refusal.message) from refusal
            return cbor2.loads(cbor2.dumps(answer))
        raise CallTimeout(peer_id, method)


def nearest_to(resource_id: str, peer_ids: list[str], count: int) -> list[str]:
    from overlay.keyspace import resource_position

    return nearest(resource_position(resource_id), peer_ids, count)
