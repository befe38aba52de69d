"""Follows one watched resource: does what its `SourceMachine` says, and wakes the watchers when their view changes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Collection
from typing import NamedTuple, Protocol

import structlog
import trio

from overlay.errors import CallFailed
from overlay.tasks import Broadcast, Wakeup
from registry.codes import Code
from registry.errors import InvalidValue, RegistryError
from registry.model.merge import ResourceState
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.protocol.network import Clock
from registry.quorum.read_machine import ReadOutcome
from registry.settings import RegistrySettings
from registry.watch.messages import MAX_DEPTH, SubscriptionReply
from registry.watch.source_machine import SourceMachine
from registry.watch.source_states import LookUp, Read, ReadOwn, Subscribe
from registry.watch.view import View

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Served(NamedTuple):
    """What is known of a watched resource, for whom this peer may tell of it."""

    state: ResourceState | None
    """None while that isn't enough to be shown."""
    depth: int
    """How many watchers, this one included, a change passes from a replica to whoever is told by this peer."""
    age: float
    """Seconds since it was as good as what a replica knows."""
    sources: Collection[str]
    """Whom this peer is told by."""
    users: int
    """How many watch it here."""


class WatchingPeer(Protocol):
    """What following a resource needs of the peer that watches it."""

    settings: RegistrySettings
    clock: Clock
    peer_id: str
    wanted: int
    randomness: random.Random
    """For jitter."""

    def neighbours(self, key_id: str, avoided: Collection[str], /) -> Awaitable[list[str]]:
        """Who keeps a resource, nearest first, ready to be called; those who are avoided may be left out."""
        ...

    def read(self, key_id: str, /) -> Awaitable[ReadOutcome]:
        """A read through the node acted through, for what no replica gives a subscription on. Raises RegistryError."""
        ...

    def own(self, key_id: str, /) -> Awaitable[ResourceState | None]:
        """What this peer itself keeps as a replica whose answers count."""
        ...

    async def subscribe(self, peer_id: str, follower: Follower, /) -> SubscriptionReply:
        """Asks for a subscription. Raises CallFailed, InvalidValue."""
        ...

    async def fetch(self, peer_id: str, key_id: str, known: ResourceState, /, *, is_replica: bool) -> ResourceState:
        """What a replica, or another watcher, knows of a resource. Raises CallFailed, InvalidValue."""
        ...

    def hold(self, peer_id: str, /) -> None:
        """Keeps the link to a source open until `release`."""
        ...

    def release(self, peer_id: str, /) -> None:
        """Undoes one `hold`."""
        ...

    def note_news(self, key_id: str, before: ResourceState, after: ResourceState, /) -> None:
        """Is told what was known of a resource, and what is."""
        ...

    def is_connected(self, peer_id: str) -> bool:
        """Whether this peer is linked to that member."""
        ...


class Follower:
    """Owned by `Watches`, which runs `run`."""

    def __init__(self, key_id: str, peer: WatchingPeer) -> None:
        self.view = View(key_id, peer.settings)
        self.changed = Broadcast()
        """Sent when something is visible, or ready, that wasn't, and when there is another key."""
        self.scope = trio.CancelScope()
        """Ends `run`."""
        self.on_topic = False
        """Whether this peer is in the resource's topic, so that announcements there reach it."""
        self._peer = peer
        self._machine = SourceMachine(
            self.view,
            peer.peer_id,
            peer.randomness,
            trio.current_time(),
            wanted=peer.wanted,
        )
        self._poked = Wakeup()
        self._told_revision = 0
        self._told = self.view.state
        self._held: frozenset[str] = frozenset()  # the sources whose links are kept open

    @property
    def key_id(self) -> str:
        """The resource's id."""
        return self.view.key_id

    @property
    def is_fresh(self) -> bool:
        """Whether a replica was compared with lately, and lives."""
        return self._machine.is_fresh(trio.current_time())

    @property
    def sources(self) -> list[str]:
        """The replicas, and other watchers, that hold subscriptions of ours."""
        return self._machine.sources

    def served(self, users: int) -> Served:
        """What this peer can tell others of the resource; `users`: how many watch it here."""
        state = self.view.state if self.view.is_ready else None
        machine = self._machine
        return Served(state, machine.depth + 1, machine.age(trio.current_time()), machine.sources, users)

    def take(self, item: Item) -> bool:
        """Merges one verified update; whether it was news."""
        return self._telling(self.view.take(item, self._wall_clock()))

    def merge(self, other: ResourceState) -> bool:
        """Merges verified states; whether anything was news."""
        return self._telling(self.view.merge(other, self._wall_clock()))

    def note_members(self, members: Collection[str]) -> None:
        """Somebody came or went: these are the members that this peer is linked to now."""
        for peer_id in self._machine.members_changed(members, trio.current_time()):
            self._log_loss(peer_id, "lost")
        self._hold_sources()
        self._poked.set()

    def distrust(self, peer_id: str) -> None:
        """A source told what can't be true."""
        self._machine.distrust(peer_id, trio.current_time())
        self._log_loss(peer_id, "told what isn't signed")
        self._hold_sources()
        self._poked.set()

    def renewed(self, peer_id: str, reply: SubscriptionReply | None) -> None:
        """A source's answer to a renewal of all subscriptions there; None when it failed."""
        if reply is None:
            self._machine.unrenewed(peer_id, trio.current_time())
        else:
            self._machine.renewed(peer_id, reply, trio.current_time())
        self._hold_sources()
        if self._machine.is_poked:
            self._poked.set()

    async def run(self) -> None:
        """Keeps the view up to date until cancelled."""
        machine, key_id = self._machine, self.key_id
        while True:
            action = machine.step(trio.current_time(), self._peer.clock())
            self._telling(news=True)
            self._hold_sources()
            if isinstance(action, Subscribe):
                async with trio.open_nursery() as nursery:
                    for peer_id in action.peer_ids:
                        nursery.start_soon(self._subscribe, peer_id)
            elif isinstance(action, ReadOwn):
                own = await self._peer.own(key_id)
                machine.own_read(own, trio.current_time(), self._peer.clock())
            elif isinstance(action, LookUp):
                machine.looked_up(await self._peer.neighbours(key_id, action.avoided), trio.current_time())
            elif isinstance(action, Read):
                await self._read()
            else:
                with trio.move_on_at(action.until):
                    await self._poked.wait()

    def ended(self) -> None:
        """To be called when the resource isn't followed any more."""
        self._hold_sources(ended=True)

    async def _subscribe(self, peer_id: str) -> None:
        """Takes or renews a subscription, and fetches what we lack."""
        machine = self._machine
        theirs: ResourceState | None = None
        servers: list[str] = []
        try:
            reply = await self._peer.subscribe(peer_id, self)
            why = reply.error
            servers = [server.peer_id for server in reply.servers]
            if not why and reply.depth > MAX_DEPTH:
                why = ErrorInfo(Code.OVERLOADED, "too far from a replica")
            if not why and machine.agreed(peer_id, reply, trio.current_time()):
                is_replica = reply.depth == 0
                theirs = await self._peer.fetch(peer_id, self.key_id, self.view.state, is_replica=is_replica)
        except (CallFailed, InvalidValue) as error:
            why = ErrorInfo.of(error)
        if why:
            machine.refused(peer_id, trio.current_time(), servers)
            self._log_loss(peer_id, why.text)
            return
        machine.compared(
            peer_id,
            reply,
            theirs,
            is_connected=self._peer.is_connected(peer_id),
            now=trio.current_time(),
            wall_clock=self._peer.clock(),
        )
        self._telling(news=True)

    async def _read(self) -> None:
        try:
            outcome = await self._peer.read(self.key_id)
        except RegistryError as error:
            _log.debug("a watched resource can't be read", key_id=self.key_id, error=str(error))
            return
        self._machine.read(outcome.resource, is_complete=not outcome.timed_out, wall_clock=self._peer.clock())

    def _telling(self, news: bool) -> bool:
        """`news`, after waking the watchers if something visible has changed, and telling others what is new."""
        if self.view.state is not self._told:
            before, self._told = self._told, self.view.state
            self._peer.note_news(self.key_id, before, self._told)
            if self._told.key is not before.key:
                self.changed.send()
            self._machine.known_changed(trio.current_time(), self._peer.clock())
            if self._machine.is_poked:
                self._poked.set()
        if self.view.revision != self._told_revision:
            self._told_revision = self.view.revision
            self.changed.send()
        return news

    def _hold_sources(self, *, ended: bool = False) -> None:
        """Keep the links open over which news comes: nobody calls there between two renewals."""
        sources = frozenset() if ended else frozenset(self._machine.sources)
        if sources != self._held:
            for peer_id in sources - self._held:
                self._peer.hold(peer_id)
            for peer_id in self._held - sources:
                self._peer.release(peer_id)
            self._held = sources

    def _wall_clock(self) -> int:
        return int(self._peer.clock())

    def _log_loss(self, peer_id: str, why: str) -> None:
        _log.debug("a watched replica is replaced", key_id=self.key_id, peer_id=peer_id, reason=why)
