"""Keeps all resources that a peer watches up to date, on a node and on a light client alike."""

from __future__ import annotations

import random
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from overlay.errors import CallFailed, Refusal
from overlay.pubsub.topics import Verdict
from overlay.tasks import Broadcast, TaskOwner, TaskStatus
from registry.codes import Code
from registry.errors import InvalidValue
from registry.health.health_of_hosts import HealthOfHosts
from registry.model.merge import ResourceState
from registry.model.trusted_issuers import TrustRule
from registry.protocol.messages import READ, Item, parse
from registry.protocol.network import Clock, Network
from registry.quorum.fetch import Fetcher
from registry.quorum.read_machine import ReadOutcome
from registry.settings import RegistrySettings
from registry.storage import Change
from registry.watch.follower import Follower, Served
from registry.watch.messages import (
    ANNOUNCE,
    READ_WATCHED,
    AnnounceBody,
    SubscriptionReply,
    SubscriptionRequest,
)
from registry.watch.source_machine import RENEW, SOURCES, TIMEOUT, next_renewal
from registry.watch.subscription_client import SubscriptionClient
from registry.watch.validator import AnnouncementValidator, Taker
from registry.watch.watch import Watch

LINGER: Final = 5.0  # seconds that a resource is followed on after its last watch ended

SETTLES_WITHIN: Final = 1.0  # seconds that a snapshot waits for what is yet to be learnt of hosts, as reads do
FETCHES: Final = 32  # of what sources know, and lookups, at the same time: a peer serves only so many calls at once

MAX_ID: Final = 1024  # characters, as in every call

Neighbours = Callable[[str, Collection[str]], Awaitable[list[str]]]
"""Tells who keeps a resource, nearest first, ready to be called; those who are avoided may be left out."""
Read = Callable[[str], Awaitable[ReadOutcome]]
"""Reads a resource from its neighbourhood. Raises RegistryError."""
Own = Callable[[str], Awaitable[ResourceState | None]]
"""Tells what this peer itself keeps of a resource, as a replica whose answers count; None if it is none."""
NoteNews = Callable[[str, ResourceState, ResourceState], None]
"""Is told what was known of a watched resource, and what is."""


async def keeps_nothing(key_id: str) -> ResourceState | None:  # noqa: ARG001 - as `Own` has it
    """The `own` of a peer that is no replica: nothing is kept there."""
    return None


class WatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer watches, now."""

    resources: int
    sources: dict[str, int]
    """Subscriptions of this peer's, by who holds them."""


class Watches:
    """Follows each resource as long as somebody watches it. `run` owns the tasks; until it runs, `watch` refuses."""

    def __init__(
        self,
        network: Network,
        neighbours: Neighbours,
        read: Read,
        own: Own,
        settings: RegistrySettings,
        clock: Clock,
        takers: Sequence[Taker] = (),
        *,
        wanted: int = SOURCES,
        note_news: NoteNews | None = None,
        health: HealthOfHosts | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        """`takers`: who else gets the good announcements, before this peer's watchers do. `wanted`: how many sources a
        resource should have. `note_news`: of a node, which tells others in turn; None for a light client, which has its
        node follow resources for it. `health`: what is known of records' health, where there is presence."""
        self.settings = settings
        self.clock = clock
        self.peer_id = network.peer_id
        self.wanted = wanted
        self.read = read
        self.own = own
        self.hold = network.hold
        self.release = network.release
        self._neighbours = neighbours
        self._network = network
        self._note_news = note_news
        self.randomness = randomness or random.Random()  # noqa: S311 - jitter, not secrets
        self._phase = self.randomness.uniform(0, RENEW)  # so that peers don't renew all at once
        self._fetcher = Fetcher(network, settings, clock)
        self._fetching = trio.CapacityLimiter(FETCHES)
        self._followers: dict[str, Follower] = {}
        self._follows = Broadcast()
        self._users: dict[str, weakref.WeakSet[Watch]] = {}
        self._unused: dict[str, float] = {}  # since when nobody watches it
        self._tasks = TaskOwner()
        self._client = SubscriptionClient(network, self._tasks)
        self.validator = AnnouncementValidator(settings, clock, (*takers, self._take))
        network.serve(ANNOUNCE, self._serve_announce)
        network.on_membership_change(self._note_change)
        self._health = health if health is not None and health.is_there else None
        if self._health is not None:
            self._health.on_change(self._note_health)

    def watch(self, resource_id: str, trust: TrustRule | None = None, *, include_down: bool = False) -> Watch:
        """Watches a resource from now on, existing or not; with `trust`, what is believed by it; with `include_down`,
        also records that are down or don't pass.

        Raises InvalidValue for what no resource has as its id, RuntimeError when this peer has been closed.
        """
        _check_id(resource_id)
        if not self._tasks.is_open:
            raise RuntimeError("this peer isn't open (any more)")
        follower = self._followers.get(resource_id)
        if follower is None:
            follower = self._followers[resource_id] = Follower(resource_id, self)
            self._follows.send()
            self._users[resource_id] = weakref.WeakSet()
            self._tasks.start_soon(self._follow, follower)
        health_of = self._health.health_of_record if self._health is not None else None
        watch = Watch(
            follower.view,
            follower.changed,
            self._forget,
            self.clock,
            trust,
            health_of,
            include_down=include_down,
            settle=self._settle if self._health is not None else None,
        )
        self._users[resource_id].add(watch)
        return watch

    def at_hand(self, resource_id: str) -> ResourceState | None:
        """What is known of a watched resource, if that is as good as what a replica would answer; None otherwise."""
        follower = self._followers.get(resource_id)
        return follower.view.state if follower is not None and follower.is_fresh else None

    def note_own(self, item: Item) -> None:
        """Shows what was written through this peer, once it is on a replica's disk."""
        follower = self._followers.get(item.key_id)
        if follower is not None:
            follower.take(item)

    def note_commit(self, changes: Mapping[str, Change]) -> None:
        """Shows what came into this node's own storage, by whatever way."""
        for key_id in [key_id for key_id in changes if key_id in self._followers]:
            change = changes[key_id]
            states = [state for state in change.slots.values() if state is not None]
            self._followers[key_id].merge(ResourceState.of(change.key, states, *change.key_tombstones))

    def statistics(self) -> WatchStatistics:
        """What is watched, and who holds subscriptions for it."""
        sources = Counter(source for follower in self._followers.values() for source in follower.sources)
        return WatchStatistics(resources=len(self._followers), sources=dict(sources))

    def served(self, key_id: str) -> Served | None:
        """What is known of a resource that is watched here; None of any other."""
        follower = self._followers.get(key_id)
        return follower.served(len(self._users[key_id])) if follower is not None else None

    async def wait_ready(self, key_id: str) -> None:
        """Waits until enough is known of a watched resource to be shown."""
        await trio.lowlevel.checkpoint()
        while (follower := self._followers.get(key_id)) is not None and not follower.view.is_ready:
            await follower.changed.wait()

    def note_news(self, key_id: str, before: ResourceState, after: ResourceState) -> None:
        """Tells what is new to whoever tells others."""
        if self._note_news is not None:
            self._note_news(key_id, before, after)

    def is_connected(self, peer_id: str) -> bool:
        """Whether this peer is linked to that member."""
        return peer_id in self._network.members()

    async def neighbours(self, key_id: str, avoided: Collection[str]) -> list[str]:
        """Who keeps a resource, nearest first, ready to be called."""
        async with self._fetching:
            return await self._neighbours(key_id, avoided)

    async def fetch(self, peer_id: str, key_id: str, known: ResourceState, *, is_replica: bool) -> ResourceState:
        """What a replica, or another watcher, knows of a resource, less what doesn't verify.

        Raises CallFailed, InvalidValue.
        """
        method = READ if is_replica else READ_WATCHED
        async with self._fetching:
            theirs, _ = await self._fetcher.fetch(peer_id, key_id, known, timeout=TIMEOUT, method=method)
        return theirs

    async def subscribe(self, peer_id: str, follower: Follower) -> SubscriptionReply:
        """Asks a replica, or another watcher, for a subscription; requests to one peer that come together travel
        together. Raises CallFailed, InvalidValue.
        """
        reply = await self._client.subscribe(peer_id, self._request(follower))
        for server in reply.servers:
            self._network.add_addresses(server.peer_id, list(server.addresses), teller=peer_id)
        return reply

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves watches until cancelled; then they end."""
        async with self._tasks.opened():
            self._tasks.start_soon(self._renew)
            self._tasks.start_soon(self._forget_unused)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                for watch in [watch for users in self._users.values() for watch in users]:
                    watch.close()

    async def _follow(self, follower: Follower) -> None:
        key_id = follower.key_id
        try:
            follower.on_topic = await self._network.topics.join(key_id, self.validator.validate)
            with follower.scope:
                await follower.run()
        finally:
            follower.ended()
            if self._followers.get(key_id) is follower:
                self._let_go(key_id)
            if follower.on_topic:
                self._network.topics.leave(key_id)
        for peer_id in follower.sources:
            if key_id in self._followers:
                break  # it is watched again, and needs these subscriptions
            try:
                await self._client.subscribe(peer_id, SubscriptionRequest(key_id, on_topic=False, ends=True))
            except (CallFailed, InvalidValue):
                continue  # it ends by itself

    async def _forget_unused(self) -> None:
        """Ends following what nobody watches any more. One task for all: watches that were just dropped, without being
        closed, are noticed here, too."""
        while True:
            await self._wait_for_followers()
            await trio.sleep(LINGER)
            now = trio.current_time()
            for key_id, users in list(self._users.items()):
                if users:
                    self._unused.pop(key_id, None)
                elif now - self._unused.setdefault(key_id, now) >= LINGER:
                    self._let_go(key_id)

    async def _wait_for_followers(self) -> None:
        """Returns when any resource is watched: who watches nothing, has nothing to do."""
        while not self._followers:
            await self._follows.wait()

    def _let_go(self, key_id: str) -> None:
        """From now on whoever watches it follows it anew."""
        follower = self._followers.pop(key_id)
        del self._users[key_id]
        self._unused.pop(key_id, None)
        follower.scope.cancel()
        follower.changed.send()

    def _forget(self, watch: Watch) -> None:
        users = self._users.get(watch.resource_id)
        if users is not None:
            users.discard(watch)
            if not users:
                self._unused.setdefault(watch.resource_id, trio.current_time())

    def _request(self, follower: Follower) -> SubscriptionRequest:
        is_node = self._note_news is not None
        return SubscriptionRequest(follower.key_id, follower.on_topic, serves=is_node, through=not is_node)

    async def _renew(self) -> None:
        """Renews the subscriptions of all resources at the same time, by one call per peer that holds some of them."""
        while True:
            await self._wait_for_followers()
            await trio.sleep_until(next_renewal(trio.current_time(), self._phase))
            if self._health is not None:
                for follower in self._followers.values():
                    self._health.follow(follower.view.hosts)
            by_source: dict[str, list[Follower]] = {}
            for follower in self._followers.values():
                for peer_id in follower.sources:
                    by_source.setdefault(peer_id, []).append(follower)
            async with trio.open_nursery() as nursery:
                for peer_id, followers in by_source.items():
                    nursery.start_soon(self._renew_at, peer_id, followers)

    async def _renew_at(self, peer_id: str, followers: list[Follower]) -> None:
        def renewed(number: int, reply: SubscriptionReply | None) -> None:
            followers[number].renewed(peer_id, reply)

        await self._client.renew(peer_id, [self._request(follower) for follower in followers], renewed)

    async def _take(self, item: Item, source: str) -> bool:  # noqa: ARG002 - as `Taker` has it
        await trio.lowlevel.checkpoint()
        follower = self._followers.get(item.key_id)
        return follower is not None and follower.take(item)

    async def _serve_announce(self, caller: str, body: object) -> object:
        try:
            items = parse(body, AnnounceBody).decoded()
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        for key_id, payload in items:
            follower = self._followers.get(key_id)
            if follower is None or caller not in follower.sources:
                continue
            if await self.validator.validate(key_id, payload, caller) is Verdict.REJECT:
                follower.distrust(caller)
                raise Refusal(Code.INVALID, "an announcement that isn't valid")
        return None

    async def _settle(self, hosts: Collection[str]) -> None:
        if self._health is not None:
            await self._health.settle(hosts, SETTLES_WITHIN)

    def _note_health(self, host: str) -> None:
        for follower in self._followers.values():
            if host in follower.view.hosts:
                follower.changed.send()

    def _note_change(self) -> None:
        members = frozenset(self._network.members())
        for follower in list(self._followers.values()):
            follower.note_members(members)


def _check_id(resource_id: str) -> None:
    if not 0 < len(resource_id) <= MAX_ID:
        raise InvalidValue(f"a resource id has 1 to {MAX_ID} characters, not {len(resource_id)}")
    try:
        resource_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"a resource id is text: {error}") from error


def bound_read(read: Callable[..., Awaitable[ReadOutcome]]) -> Read:
    """The `read` of a node API or of a `Reader`, as watches use it."""
    return partial(read, ack=1, timeout=TIMEOUT)
