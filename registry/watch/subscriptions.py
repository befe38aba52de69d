"""Keeps the subscriptions of others to what this node stores or watches, and tells them of changes.

A subscription lasts `SUBSCRIPTION_SECONDS`. While one is live on a resource, this node is in its topic and announces
there what its storage takes in. Watchers with whom no topic is shared, because one side is in too many, are told by
calls.

Watchers form a tree. Replicas serve as many as `WatchSettings` says; whoever finds no place is told of watchers that
serve others in turn: nodes that watch the resource themselves. A node also follows resources for its own clients, so
that however many of them watch one, it is watched once.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import trio

from overlay.errors import Refusal
from overlay.limits.time_slices import turn
from overlay.tasks import TaskStatus
from registry.codes import Code
from registry.errors import InvalidValue, KeyNotExists, StorageError
from registry.model.merge import ResourceState
from registry.model.values import Key, KeyTombstone, Slot
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import ReadBody, StatePage, build, parse
from registry.protocol.network import Network
from registry.replica.replica import Replica
from registry.settings import WatchSettings
from registry.storage import Change, Store
from registry.storage.in_turns import digest_in_turns, wait_for_turn
from registry.watch.announcer import Announcer
from registry.watch.direct_announcements import DirectAnnouncements
from registry.watch.follower import Served
from registry.watch.messages import (
    MAX_ADDRESSES,
    MAX_DEPTH,
    MAX_SERVERS,
    READ_WATCHED,
    SUBSCRIBE,
    SUBSCRIPTION_SECONDS,
    Server,
    SubscribeAnswer,
    SubscribeBody,
    SubscriptionReply,
    SubscriptionRequest,
)
from registry.watch.subscription_table import Subscription, SubscriptionTable
from registry.watch.validator import AnnouncementValidator
from registry.watch.watch import Watch

LONGEST_LAG: Final = 60.0  # seconds since it was as good as a replica's, for which a watcher's knowledge serves others
READY_WAIT: Final = 1.0  # seconds for which a client's request waits until enough is known of the resource
MAX_NAMED_BYTES: Final = 256 * 1024  # of the servers named in one answer, so that it fits into a frame
REPLIES_AT_ONCE: Final = 32  # after which other tasks get their turn
_PER_REPLY: Final = 7e-5  # seconds

_FULL: Final = ErrorInfo(Code.OVERLOADED, "too many watch here")


class WatchedHere(Protocol):
    """What this node watches itself: satisfied by `registry.watch.watches.Watches`."""

    @property
    def validator(self) -> AnnouncementValidator:
        """Decides on announcements of resources, for everything of this node that is in their topics."""
        ...

    def watch(self, resource_id: str) -> Watch:
        """Follows a resource until the watch is closed. Raises InvalidValue, RuntimeError."""
        ...

    def served(self, key_id: str) -> Served | None:
        """What is known of a resource that is watched here; None of any other."""
        ...

    async def wait_ready(self, key_id: str) -> None:
        """Waits until enough is known of a watched resource to be shown."""
        ...


def _size_of(server: Server) -> int:
    return len(server.peer_id) + sum(map(len, server.addresses))


class _Here(NamedTuple):
    """What a subscription here is worth."""

    digest: bytes
    depth: int = 0
    age: float = 0.0
    is_relayed: bool = False
    """Out of what this node watches, not out of its storage."""


class Subscriptions:
    """Serves `registry.subscribe`. `note` has to be told of every commit, from before the first subscription on, and
    `note_news` of what is news in a watched resource."""

    def __init__(
        self,
        network: Network,
        store: Store,
        replica: Replica,
        watches: WatchedHere,
        settings: WatchSettings,
        randomness: random.Random,
    ) -> None:
        self._network = network
        self._replica = replica
        self._watches = watches
        self._table = SubscriptionTable(settings)
        self._topics: set[str] = set()  # joined for subscriptions
        self._digests: dict[str, bytes] = {}  # of what is stored of subscribed resources, until that changes
        self._commits = 0  # that changed any of those
        self._relayed: dict[str, Watch] = {}  # resources that are followed for their subscribers
        self._direct = DirectAnnouncements(network, self._give_up)
        self._announcer = Announcer(
            network,
            store,
            replica,
            watches,
            self._table,
            topics=self._topics,
            relayed=self._relayed,
            direct=self._direct,
        )
        self._random = randomness
        network.serve(SUBSCRIBE, self._serve_subscribe)
        network.serve(READ_WATCHED, self._serve_read_watched)

    def count(self) -> int:
        """Subscriptions that have neither ended nor expired: pairs of a watcher and a resource."""
        return len(self._table)

    def note(self, changes: Mapping[str, Change]) -> None:
        """Has the changes of a commit announced, as far as somebody watches what changed."""
        for key_id in self._table.watched(changes):
            change = changes[key_id]
            self._digests.pop(key_id, None)
            self._commits += 1
            if change.key_tombstones_changed:
                self._note_key_tombstones(key_id, change.key_tombstones)
            if change.key_changed and change.key is not None and change.key.revision:
                self._announcer.note(key_id, Key)
            for slot, state in change.slots.items():
                if state is not None:
                    self._announcer.note(key_id, slot)

    def note_news(self, key_id: str, before: ResourceState, after: ResourceState) -> None:
        """Has what is news in a watched resource announced, as far as it is relayed to others."""
        if key_id not in self._relayed:
            return
        if after.key_tombstones != before.key_tombstones:
            self._note_key_tombstones(key_id, after.key_tombstones)
        if after.key is not None and after.key is not before.key and after.key.revision:
            self._announcer.note(key_id, Key)
        for slot, state in after.slots.items():
            if before.slots.get(slot) is not state:
                self._announcer.note(key_id, slot)

    def _note_key_tombstones(self, key_id: str, key_tombstones: Sequence[KeyTombstone]) -> None:
        """Each of two may end what the other doesn't."""
        for subject in (None, KeyTombstone)[: len(key_tombstones)]:
            self._announcer.note(key_id, subject)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announces until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announcer.run)
            nursery.start_soon(self._direct.run)
            nursery.start_soon(self._expire)
            task_status.started()

    async def _serve_subscribe(self, caller: str, body: object) -> object:
        try:
            requests = parse(body, SubscribeBody).decoded()
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        members = frozenset(self._network.members())
        replies: list[SubscriptionReply] = []
        named = 0
        unready: list[tuple[int, SubscriptionRequest]] = []
        for number, request in enumerate(requests):
            if number % REPLIES_AT_ONCE == 0:
                await turn(REPLIES_AT_ONCE * _PER_REPLY)
            if isinstance(request, ErrorInfo):
                replies.append(SubscriptionReply(error=request))
                continue
            reply = await self._reply(caller, request, members)
            named += sum(map(_size_of, reply.servers))
            if named > MAX_NAMED_BYTES:
                reply = msgspec.structs.replace(reply, servers=())
            if reply.error is None and not reply.digest and not request.ends:
                unready.append((number, request))
            replies.append(reply)
        if unready:
            with trio.move_on_after(READY_WAIT):
                for _, request in unready:
                    await self._watches.wait_ready(request.key_id)
            for number, request in unready:
                replies[number] = await self._reply(caller, request, members)
        return build(SubscribeAnswer(tuple(replies)))

    async def _reply(self, caller: str, request: SubscriptionRequest, members: Collection[str]) -> SubscriptionReply:
        key_id = request.key_id
        if request.ends:
            self._end(key_id, caller)
            return SubscriptionReply()
        is_member = caller in members
        if not self._table.has_place_for(caller, key_id, is_member=is_member):
            return SubscriptionReply(error=_FULL, servers=self._servers(key_id, caller, members))
        here = await self._here(caller, request, is_member=is_member)
        if isinstance(here, ErrorInfo):
            self._end(key_id, caller)
            return SubscriptionReply(error=here)
        if not self._table.has_place_for(caller, key_id, is_member=is_member):  # others came meanwhile
            return SubscriptionReply(error=_FULL, servers=self._servers(key_id, caller, members))
        until = trio.current_time() + SUBSCRIPTION_SECONDS
        serves = request.serves and is_member
        self._table.put(caller, key_id, Subscription(until, request.on_topic, is_member=is_member, serves=serves))
        if here.is_relayed and (error := self._relay(key_id)) is not None:
            self._end(key_id, caller)
            return SubscriptionReply(error=error)
        if request.on_topic and key_id not in self._topics:
            self._topics.add(key_id)
            if not await self._network.topics.join(key_id, self._watches.validator.validate):
                self._topics.discard(key_id)
        return SubscriptionReply(digest=here.digest, depth=here.depth, age=here.age)

    def _servers(self, key_id: str, caller: str, members: Collection[str]) -> tuple[Server, ...]:
        """Some of those that watch by this node and serve others."""
        watchers = self._table.watchers(key_id)
        serving = [each for each, held in watchers.items() if held.serves and each in members and each != caller]
        named = self._random.sample(serving, min(MAX_SERVERS, len(serving)))
        return tuple(Server(each, tuple(self._network.addresses_of(each)[:MAX_ADDRESSES])) for each in named)

    async def _here(self, caller: str, request: SubscriptionRequest, *, is_member: bool) -> _Here | ErrorInfo:
        """What this node can tell of a resource, or why a watcher should turn to another one."""
        key_id = request.key_id
        refusal = ErrorInfo(Code.NOT_RESPONSIBLE, "not responsible any more")
        if self._replica.is_among_nearest(key_id):
            if self._replica.counts_for(key_id):
                return await self._stored(key_id)
            refusal = ErrorInfo(Code.CATCHING_UP, "catching up")
        if request.through and not is_member:
            return self._followed(key_id)
        served = self._watches.served(key_id)
        if (
            served is None
            or served.state is None
            or served.depth > MAX_DEPTH
            or served.age > LONGEST_LAG
            or caller in served.sources
            or not self._is_watched_anyway(key_id, served)
        ):
            return refusal
        return _Here(served.state.digest(), served.depth, served.age, is_relayed=True)

    async def _stored(self, key_id: str) -> _Here | ErrorInfo:
        if key_id in self._digests:  # thousands are asked for at each renewal
            return _Here(self._digests[key_id])
        commits = self._commits
        try:
            resource = await self._replica.resource(key_id)
        except StorageError:
            return ErrorInfo(Code.STORAGE, "the disk refused")
        if resource.key is None and resource.key_tombstone is None:
            return ErrorInfo.of(KeyNotExists(key_id))
        digest = await digest_in_turns(resource)
        if key_id in self._table and commits == self._commits:  # else `note` may not have told
            self._digests[key_id] = digest
        return _Here(digest)

    def _followed(self, key_id: str) -> _Here | ErrorInfo:
        """For a client, for whom this node follows what it doesn't keep."""
        if (error := self._relay(key_id)) is not None:
            return error
        served = self._watches.served(key_id)
        if served is None or served.state is None:
            return _Here(b"", is_relayed=True)
        return _Here(served.state.digest(), served.depth, served.age, is_relayed=True)

    def _relay(self, key_id: str) -> ErrorInfo | None:
        """Watches for those who subscribe here, unless that is done; why it can't."""
        if key_id not in self._relayed:
            try:
                self._relayed[key_id] = self._watches.watch(key_id)
            except InvalidValue as error:
                return ErrorInfo.of(error)
            except RuntimeError:
                return ErrorInfo(Code.STOPPING, "this node is stopping")
        return None

    def _is_watched_anyway(self, key_id: str, served: Served) -> bool:
        """Whether somebody watches here, not only other nodes by this one: those are to move on when nobody does."""
        others = any(not each.is_member for each in self._table.watchers(key_id).values())
        return others or served.users > (key_id in self._relayed)

    def _end(self, key_id: str, watcher: str) -> None:
        if not self._table.end(watcher, key_id):
            return
        self._digests.pop(key_id, None)
        if key_id in self._topics:
            self._topics.discard(key_id)
            self._network.topics.leave(key_id)
        watch = self._relayed.pop(key_id, None)
        if watch is not None:
            watch.close()

    def _give_up(self, watcher: str) -> None:
        for key_id in self._table.keys_of(watcher):
            self._end(key_id, watcher)

    async def _expire(self) -> None:
        while True:
            await trio.sleep(SUBSCRIPTION_SECONDS / 3)
            for watcher, key_id in self._table.expired(trio.current_time()):
                self._end(key_id, watcher)

    async def _serve_read_watched(self, caller: str, body: object) -> object:
        try:
            request = parse(body, ReadBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        if caller not in self._table.watchers(request.key_id):
            raise Refusal(Code.NOT_RESPONSIBLE, "there is no subscription of yours")
        try:
            resource = await self._announcer.known(request.key_id)
        except StorageError as error:
            raise Refusal(Code.STORAGE, "the disk refused") from error
        if request.digest and request.digest == await digest_in_turns(resource):
            return build(StatePage.of_same(resource))
        await wait_for_turn(resource)
        return build(StatePage.of(resource, Slot(*request.after) if request.after else None))
