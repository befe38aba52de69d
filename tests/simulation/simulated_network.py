"""A network in one process that satisfies `registry.protocol.network.Network`: real neighbourhoods, simulated calls.

Faults: peers that are down or muted, messages that are lost or late, partitions. Everything random comes from one
source, so a scenario can be repeated exactly.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import cbor2
import trio

from overlay.clock.comparison import ClockVerdict, Standing
from overlay.clock.watch import ClockWatch
from overlay.discovery.density import BEGINS, MOST_OTHERS, TAKEN, Density, drawn, estimated_size, keepers
from overlay.discovery.keyspace import POSITION_BITS, nearest, peer_position, resource_position
from overlay.errors import CallRefused, CallTimeout, NoSuchMethod, Refusal, Unreachable
from overlay.identity import Identity
from overlay.limits.decoder import decode
from overlay.tasks import background
from registry.protocol.network import Clock, ComparedClock, Handler

Rewrite = Callable[[str, object, bool], object]
"""(method, body, whether that is an answer) -> the body that is sent in its place."""


class SimulatedNetwork:
    """All peers of one simulation. Bodies pass through CBOR, as on the wire."""

    def __init__(self, randomness: random.Random | None = None) -> None:
        self.peers: dict[str, SimulatedPeer] = {}
        self.addresses: dict[str, list[str]] = {}  # of peers for which they matter
        self.clients: set[str] = set()  # peers that aren't members
        self.down: set[str] = set()
        self.muted: set[str] = set()  # whose own calls don't get through
        self.stalled: set[str] = set()
        self.calls: list[tuple[str, str, str]] = []
        self.random = randomness or random.Random(0)
        self.loss = 0.0  # of requests and of answers, each
        self.delay = 0.0  # seconds at most, each way
        self.sides: dict[str, int] = {}  # of a partition; peers on different sides don't reach each other
        self.rewrites: dict[str, Rewrite] = {}  # of what peers say, by who says it: other versions, say
        self.isolates = False  # whether a peer without others counts as isolated
        self.crowds = False  # whether resources can be dense
        self.size: float | None = None  # of the network, as all peers estimate it where resources can be dense
        self.note: Callable[[str], None] = lambda event: None

    def add(self, peer_id: str) -> SimulatedPeer:
        """A peer that is new, or back."""
        peer = self.peers[peer_id] = SimulatedPeer(self, peer_id)
        return peer

    @asynccontextmanager
    async def joined(
        self,
        identity: Identity,
        clock: Clock,
        randomness: random.Random,
    ) -> AsyncIterator[SimulatedPeer]:
        """A peer that is new, or back, until it is said to have crashed."""
        peer = self.add(identity.peer_id)
        watch = peer.compared_clock = ClockWatch(peer, clock, randomness)
        peer.on_membership_change(watch.note_change)
        async with background() as nursery:
            nursery.start_soon(watch.run)
            yield peer

    def crash(self, peer_id: str) -> None:
        """A peer does nothing any more."""
        del self.peers[peer_id]

    def alive(self) -> list[str]:
        if not self.down and not self.clients:
            return list(self.peers)
        return [peer_id for peer_id in self.peers if peer_id not in self.down and peer_id not in self.clients]

    def connected(self, one: str, other: str) -> bool:
        return self.sides.get(one, 0) == self.sides.get(other, 0)

    def said(self, peer_id: str, method: str, body: object, *, is_answer: bool) -> object:
        """A body of this peer's as others get it."""
        rewrite = self.rewrites.get(peer_id)
        return decode(cbor2.dumps(rewrite(method, body, is_answer) if rewrite is not None else body))

    def membership_changed(self) -> None:
        """Everybody notices."""
        for peer in list(self.peers.values()):
            for callback in peer.callbacks:
                callback()


class RightClock:
    """Of peers whose clocks nobody compares."""

    def verdict(self) -> ClockVerdict:
        return ClockVerdict(Standing.RIGHT)

    def on_change(self, callback: Callable[[], None]) -> None:
        pass

    async def settle(self) -> ClockVerdict:
        await trio.lowlevel.checkpoint()
        return self.verdict()


class NoTopics:
    """Nobody can be in a topic here: announcements travel by calls."""

    async def join(self, topic: str, validate: object) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    def leave(self, topic: str) -> None:
        pass

    def peers_in(self, topic: str) -> list[str]:
        return []

    async def announce(self, topic: str, payload: bytes) -> None:
        raise AssertionError(f"{topic} was announced to, {len(payload)} bytes, and never joined")


class SimulatedPeer:
    """One peer's view of the simulated network."""

    def __init__(self, network: SimulatedNetwork, peer_id: str) -> None:
        self.peer_id = peer_id
        self._network = network
        self._handlers: dict[str, Handler] = {}
        self.isolated = False
        self.addresses: list[str] = []  # told of everybody
        self.topics = NoTopics()
        self.compared_clock: ComparedClock = RightClock()
        self.callbacks: list[Callable[[], None]] = []
        self.held: Counter[str] = Counter()

    async def neighbourhood(self, resource_id: str, count: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        found = self._keepers(resource_id, count, BEGINS)
        others = {peer_id: peer_position(peer_id) for peer_id in found[count:]}
        position, height = resource_position(resource_id), self.density().height
        return found[:count] + drawn(others, position, height, MOST_OTHERS, self._network.random)

    def is_responsible(self, resource_id: str, count: int, margin: int = 0) -> bool:
        found = self._keepers(resource_id, count + margin, TAKEN if margin else BEGINS)
        if not margin and len(found) > count + MOST_OTHERS:
            del found[count:]  # of so many not all are written to
        return self.peer_id in found

    def density(self) -> Density:
        if not self._network.crowds:
            return Density(2.0**POSITION_BITS)
        estimated = estimated_size([*map(peer_position, self._seen())], [POSITION_BITS])
        return Density(estimated if self._network.size is None else self._network.size)

    def _keepers(self, resource_id: str, count: int, part: float) -> list[str]:
        position = resource_position(resource_id)
        if not self._network.crowds:
            return nearest(position, self._seen(), count)
        members = {peer_id: peer_position(peer_id) for peer_id in self._seen()}
        return keepers(position, members, count, self.density(), part)

    def members(self) -> list[str]:
        return [peer_id for peer_id in self._seen() if peer_id != self.peer_id]

    def neighbours(self) -> list[str]:
        return self.members()

    def chosen_members(self) -> list[str]:
        return self.members()

    async def wait_joined(self) -> None:
        await trio.lowlevel.checkpoint()

    def hold(self, peer_id: str) -> None:
        self.held[peer_id] += 1

    def release(self, peer_id: str) -> None:
        self.held[peer_id] -= 1

    def addresses_of(self, peer_id: str) -> list[str]:
        return self._network.addresses.get(peer_id, self.addresses)

    def add_addresses(self, peer_id: str, addresses: list[str], *, teller: str = "") -> None:
        pass

    def on_membership_change(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def is_isolated(self) -> bool:
        return self.isolated or (self._network.isolates and not self.members())

    def serve(self, method: str, handler: Handler, *, relayed: bool = False) -> None:
        self._handlers[method] = handler

    def intercept(self, method: str, handler: Handler) -> Handler:
        """Replaces a handler (a lying peer); returns the honest one."""
        honest = self._handlers[method]
        self._handlers[method] = handler
        return honest

    async def handle(self, method: str, caller: str, body: object) -> object:
        """The answer to a call of another's. Raises what the handler raises, and NoSuchMethod."""
        handler = self._handlers.get(method)
        if handler is None:
            raise NoSuchMethod(self.peer_id, method)
        return await handler(caller, body)

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        network = self._network
        network.calls.append((self.peer_id, peer_id, method))
        with trio.move_on_after(timeout):
            answer = await self._call(peer_id, method, network.said(self.peer_id, method, body, is_answer=False))
            network.note(f"{self.peer_id} {peer_id} {method} answered")
            return answer
        network.note(f"{self.peer_id} {peer_id} {method} timed out")
        raise CallTimeout(peer_id, method)

    async def call_anywhere(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        return await self.call(peer_id, method, body, timeout=timeout)

    async def _call(self, peer_id: str, method: str, body: object) -> object:
        network = self._network
        await self._travel()
        target = network.peers.get(peer_id)
        if target is None or peer_id in network.down or self.peer_id in network.muted:
            raise Unreachable(peer_id, method)
        if not network.connected(self.peer_id, peer_id):
            raise Unreachable(peer_id, method)
        if peer_id in network.stalled:
            await trio.sleep_forever()
        try:
            answer = await target.handle(method, self.peer_id, body)
            answer = network.said(peer_id, method, answer, is_answer=True)
        except Refusal as refusal:
            if network.peers.get(peer_id) is target:
                raise CallRefused(peer_id, method, refusal.code, refusal.message, refusal.retry_after) from refusal
        if network.peers.get(peer_id) is not target:  # it crashed meanwhile, whatever it had to say
            raise Unreachable(peer_id, method)
        await self._travel()
        return answer

    async def _travel(self) -> None:
        network = self._network
        if network.loss and network.random.random() < network.loss:
            await trio.sleep_forever()
        if network.delay:
            await trio.sleep(network.random.uniform(0, network.delay))
        else:
            await trio.lowlevel.checkpoint()

    def _seen(self) -> list[str]:
        alive, sides = self._network.alive(), self._network.sides
        mine = sides.get(self.peer_id, 0)
        return [peer_id for peer_id in alive if sides.get(peer_id, 0) == mine] if sides else alive
