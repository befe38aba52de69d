"""Keeps the subscriptions of others to what this replica stores, and tells them of changes.

A subscription lasts `SUBSCRIPTION_SECONDS`. While one is live on a resource, this replica is in its topic and announces
there what its storage takes in. Watchers with whom no topic is shared, because one side is in too many, are told by
calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog
import trio

from overlay.errors import CallFailed, Refusal
from overlay.tasks import TaskStatus, Wakeup, background
from registry.codes import Code
from registry.errors import InvalidValue, KeyNotExists, StorageError
from registry.model.values import Slot
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_PAGE, Item, build, parse
from registry.protocol.network import Network
from registry.replica.replica import Replica
from registry.storage import Change, Store
from registry.watch.announcement import announcement_of
from registry.watch.messages import (
    ANNOUNCE,
    SUBSCRIBE,
    SUBSCRIPTION_SECONDS,
    AnnounceBody,
    SubscribeAnswer,
    SubscribeBody,
    SubscriptionReply,
    SubscriptionRequest,
)

MAX_SUBSCRIPTIONS_OF_PEER: Final = 1024
MAX_SUBSCRIPTIONS_ON_KEY: Final = 64  # more watchers than that turn to the next replica
MAX_SUBSCRIBED_KEYS: Final = 16_384
MAX_UNTOLD: Final = 16_384  # slots that changed and weren't announced yet
TELL_TIMEOUT: Final = 5.0  # seconds for a watcher to take what it is told by call

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _Subscription:
    __slots__ = ("on_topic", "until")

    def __init__(self, until: float, on_topic: bool) -> None:
        self.until = until
        self.on_topic = on_topic


class Subscriptions:
    """Serves `registry.subscribe`. `note` has to be told of every commit, from before the first subscription on."""

    def __init__(self, network: Network, store: Store, replica: Replica) -> None:
        self._network = network
        self._store = store
        self._replica = replica
        self._subscriptions: dict[str, dict[str, _Subscription]] = {}  # by resource, then watcher
        self._of_peer: dict[str, set[str]] = {}
        self._topics: set[str] = set()  # joined for subscriptions
        self._untold: dict[tuple[str, Slot | None], None] = {}
        self._changed = Wakeup()
        self._direct: dict[str, dict[tuple[str, Slot | None], bytes]] = {}  # by watcher: what it is to be told by call
        self._direct_changed = Wakeup()
        network.serve(SUBSCRIBE, self._serve_subscribe)

    def count(self) -> int:
        """Subscriptions that have neither ended nor expired: pairs of a watcher and a resource."""
        return sum(map(len, self._subscriptions.values()))

    def note(self, changes: Mapping[str, Change]) -> None:
        """Has the changes of a commit announced, as far as somebody watches what changed."""
        for key_id in self._subscriptions.keys() & changes.keys():
            change = changes[key_id]
            if change.key_tombstone_changed and change.key_tombstone is not None:
                self._untold[key_id, None] = None
            for slot, state in change.slots.items():
                if state is not None and len(self._untold) < MAX_UNTOLD:
                    self._untold[key_id, slot] = None
        if self._untold:
            self._changed.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announces until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            nursery.start_soon(self._tell)
            nursery.start_soon(self._expire)
            task_status.started()

    async def _serve_subscribe(self, caller: str, body: object) -> object:
        try:
            requests = parse(body, SubscribeBody).decoded()
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        return build(SubscribeAnswer(tuple([await self._reply(caller, request) for request in requests])))

    async def _reply(self, caller: str, request: SubscriptionRequest | ErrorInfo) -> SubscriptionReply:
        if isinstance(request, ErrorInfo):
            return SubscriptionReply(error=request)
        if request.ends:
            self._end(request.key_id, caller)
            return SubscriptionReply()
        refusal = self._refusal(caller, request.key_id)
        if refusal:
            return SubscriptionReply(error=refusal)
        try:
            resource = await self._replica.resource(request.key_id)
        except StorageError:
            return SubscriptionReply(error=ErrorInfo(Code.STORAGE, "the disk refused"))
        if resource.key is None and resource.key_tombstone is None:
            return SubscriptionReply(error=ErrorInfo.of(KeyNotExists(request.key_id)))
        subscription = _Subscription(trio.current_time() + SUBSCRIPTION_SECONDS, request.on_topic)
        self._subscriptions.setdefault(request.key_id, {})[caller] = subscription
        self._of_peer.setdefault(caller, set()).add(request.key_id)
        if request.on_topic and request.key_id not in self._topics:
            self._topics.add(request.key_id)
            if not await self._network.topics.join(request.key_id):
                self._topics.discard(request.key_id)
        return SubscriptionReply(digest=resource.digest())

    def _refusal(self, caller: str, key_id: str) -> ErrorInfo | None:
        """Why a watcher should turn to another replica; None if it may subscribe here."""
        if not self._replica.is_among_nearest(key_id):
            return ErrorInfo(Code.NOT_RESPONSIBLE, "not responsible any more")
        if not self._replica.counts_for(key_id):
            return ErrorInfo(Code.CATCHING_UP, "catching up")
        holders = self._subscriptions.get(key_id, {})
        if caller in holders:
            return None
        of_caller = len(self._of_peer.get(caller, ()))
        if (
            of_caller >= MAX_SUBSCRIPTIONS_OF_PEER
            or len(holders) >= MAX_SUBSCRIPTIONS_ON_KEY
            or len(self._subscriptions) >= MAX_SUBSCRIBED_KEYS
        ):
            return ErrorInfo(Code.OVERLOADED, "too many watch here")
        return None

    def _end(self, key_id: str, watcher: str) -> None:
        holders = self._subscriptions.get(key_id, {})
        if holders.pop(watcher, None) is None:
            return
        keys = self._of_peer.get(watcher, set())
        keys.discard(key_id)
        if not keys:
            self._of_peer.pop(watcher, None)
        if not holders:
            del self._subscriptions[key_id]
            if key_id in self._topics:
                self._topics.discard(key_id)
                self._network.topics.leave(key_id)

    async def _expire(self) -> None:
        while True:
            await trio.sleep(SUBSCRIPTION_SECONDS / 3)
            now = trio.current_time()
            for key_id, holders in list(self._subscriptions.items()):
                for watcher in [watcher for watcher, subscription in holders.items() if subscription.until <= now]:
                    self._end(key_id, watcher)

    async def _announce(self) -> None:
        """Announces one change after the other, each slot in its newest state: nobody misses those in between."""
        while True:
            await self._changed.wait()
            while self._untold:
                key_id, slot = next(iter(self._untold))
                del self._untold[key_id, slot]
                item = await self._item(key_id, slot)
                if item is not None:
                    await self._announce_one(item, slot)

    async def _item(self, key_id: str, slot: Slot | None) -> Item | None:
        try:
            resource = await self._store.resource(key_id)
        except StorageError as error:
            _log.error("a change can't be announced", key_id=key_id, error=str(error))
            return None
        if slot is None:
            return Item(resource.key_tombstone) if resource.key_tombstone else None
        state = resource.slots.get(slot)
        return Item(resource.key, state) if state is not None and resource.key is not None else None

    async def _announce_one(self, item: Item, slot: Slot | None) -> None:
        key_id, payload = item.key_id, announcement_of(item)
        holders = self._subscriptions.get(key_id, {})
        shared = key_id in self._topics
        for watcher, subscription in holders.items():
            if not (shared and subscription.on_topic):
                self._direct.setdefault(watcher, {})[key_id, slot] = payload
                self._direct_changed.set()
        if shared and any(subscription.on_topic for subscription in holders.values()):
            await self._network.topics.announce(key_id, payload)

    async def _tell(self) -> None:
        """Runs a task per watcher while there is something to tell it, so that a slow one delays nobody else."""
        busy: set[str] = set()

        async def tell(watcher: str) -> None:
            try:
                while self._direct.get(watcher):
                    await self._tell_some(watcher)
            finally:
                busy.discard(watcher)
                self._direct.pop(watcher, None)

        async with background() as nursery:
            while True:
                await self._direct_changed.wait()
                for watcher in [watcher for watcher in self._direct if watcher not in busy]:
                    busy.add(watcher)
                    nursery.start_soon(tell, watcher)

    async def _tell_some(self, watcher: str) -> None:
        waiting = self._direct[watcher]
        items: list[tuple[str, bytes]] = []
        size = 0
        while waiting and len(items) < 512:
            change = next(iter(waiting))
            size += len(waiting[change])
            if items and size > MAX_PAGE:
                break
            items.append((change[0], waiting.pop(change)))
        try:
            await self._network.call(watcher, ANNOUNCE, build(AnnounceBody(tuple(items))), timeout=TELL_TIMEOUT)
        except CallFailed as error:
            _log.debug("a watcher is given up", watcher=watcher, error=error.reason)
            waiting.clear()
            for key_id in list(self._of_peer.get(watcher, ())):
                self._end(key_id, watcher)
