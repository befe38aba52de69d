"""Everything that a peer watches, on a node and on a light client alike."""

from __future__ import annotations

import random
import weakref
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import outcome
import trio

from overlay.errors import CallFailed, Refusal
from overlay.pubsub.topics import Verdict
from overlay.tasks import TaskStatus, background
from registry.errors import InvalidValue
from registry.model.merge import ResourceState
from registry.protocol.messages import Item, build, parse
from registry.protocol.network import Clock, Network
from registry.quorum.fetch import Fetcher
from registry.quorum.read_machine import ReadOutcome
from registry.settings import RegistrySettings
from registry.storage import Change
from registry.watch.messages import (
    ANNOUNCE,
    MAX_SUBSCRIPTIONS_IN_CALL,
    SUBSCRIBE,
    AnnounceBody,
    SubscribeAnswer,
    SubscribeBody,
    SubscriptionReply,
    SubscriptionRequest,
)
from registry.watch.validator import AnnouncementValidator
from registry.watch.view import RENEW, TIMEOUT, View
from registry.watch.watch import Watch

LINGER: Final = 5.0  # seconds that a resource is watched on after its last watch ended

MAX_ID: Final = 1024  # characters, as in every call

Neighbours = Callable[[str], Awaitable[list[str]]]
Read = Callable[[str], Awaitable[ReadOutcome]]
Own = Callable[[str], Awaitable[ResourceState | None]]


async def keeps_nothing(key_id: str) -> ResourceState | None:  # noqa: ARG001 - as `Own` has it
    """`own` of a peer that is no replica."""
    return None


class Watches:
    """Use `watch`; owns all tasks behind it once `run` runs."""

    def __init__(
        self,
        network: Network,
        neighbours: Neighbours,
        read: Read,
        own: Own,
        validator: AnnouncementValidator,
        settings: RegistrySettings,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.peer_id = network.peer_id
        self.phase = random.uniform(0, RENEW)  # noqa: S311 - so that peers don't renew all at once
        self.neighbours = neighbours
        self.read = read
        self.own = own
        self._network = network
        self._validator = validator
        self._fetcher = Fetcher(network, settings, clock)
        self._views: dict[str, View] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._users: dict[str, weakref.WeakSet[Watch]] = {}
        self._requests: dict[str, list[_PendingRequest]] = {}
        self._nursery: trio.Nursery | None = None
        validator.add(self._take)
        network.topics.validate_with(validator.validate)
        network.serve(ANNOUNCE, self._serve_announce)
        network.on_membership_change(self._note_change)

    def watch(self, resource_id: str) -> Watch:
        """Watches a resource from now on, existing or not.

        Raises InvalidValue for what no resource has as its id, RuntimeError when this peer has been closed.
        """
        _check_id(resource_id)
        if self._nursery is None:
            raise RuntimeError("this peer isn't open (any more)")
        view = self._views.get(resource_id)
        if view is None:
            view = self._views[resource_id] = View(resource_id, self)
            self._users[resource_id] = weakref.WeakSet()
            self._nursery.start_soon(self._keep, view)
        watch = Watch(view, self._forget)
        self._users[resource_id].add(watch)
        return watch

    def at_hand(self, resource_id: str) -> ResourceState | None:
        """What is known of a watched resource, while that is as good as what a replica would answer."""
        view = self._views.get(resource_id)
        return view.state if view is not None and view.is_fresh else None

    def note_own(self, item: Item) -> None:
        """What this peer has just written itself, acknowledged."""
        view = self._views.get(item.key_id)
        if view is not None:
            view.take(item)

    def note_commit(self, changes: Mapping[str, Change]) -> None:
        """What came into this node's own storage, by whatever way."""
        for key_id in self._views.keys() & changes.keys():
            change, view = changes[key_id], self._views[key_id]
            states = [state for state in change.slots.values() if state is not None]
            view.merge(ResourceState.of(change.key, states, change.key_tombstone))

    def statistics(self) -> Mapping[str, int]:
        """Resources watched, and replicas that hold leases for them."""
        return {"watched": len(self._views), "sources": sum(len(each.sources) for each in self._views.values())}

    def is_connected(self, peer_id: str) -> bool:
        return peer_id in self._network.members()

    async def fetch(self, peer_id: str, key_id: str, known: ResourceState) -> ResourceState:
        theirs, _ = await self._fetcher.fetch(peer_id, key_id, known, timeout=TIMEOUT)
        return theirs

    async def subscribe(self, peer_id: str, request: SubscriptionRequest) -> SubscriptionReply:
        """Wishes to one replica that come together travel together."""
        mine = _PendingRequest(request)
        waiting = self._requests.get(peer_id)
        if waiting is not None:
            waiting.append(mine)
        elif self._nursery is None:
            raise InvalidValue("this peer isn't open any more")
        else:
            self._requests[peer_id] = [mine]
            self._nursery.start_soon(self._send_requests, peer_id)
        await mine.done.wait()
        assert mine.outcome is not None
        return mine.outcome.unwrap()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves watches until cancelled; then they end."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None
                for watch in [watch for users in self._users.values() for watch in users]:
                    watch.close()

    async def _keep(self, view: View) -> None:
        key_id = view.key_id
        view.on_topic = await self._network.topics.join(key_id)
        try:
            async with background() as nursery:
                nursery.start_soon(view.run)
                while self._users[key_id]:
                    # Watches that were just dropped, without being closed, are noticed here.
                    with trio.move_on_after(LINGER):
                        await view.changed.wait()
                    if not self._users[key_id]:
                        await trio.sleep(LINGER)
        finally:
            del self._views[key_id], self._users[key_id]
            if view.on_topic:
                self._network.topics.leave(key_id)
        for peer_id in view.sources:
            if key_id in self._views:
                break  # again, and its leases are those
            try:
                await self.subscribe(peer_id, SubscriptionRequest(key_id, on_topic=False, ends=True))
            except (CallFailed, InvalidValue):
                continue  # it ends by itself

    def _forget(self, watch: Watch) -> None:
        self._users.get(watch.resource_id, weakref.WeakSet()).discard(watch)

    async def _send_requests(self, peer_id: str) -> None:
        await trio.lowlevel.checkpoint()  # until all who woke up at the same time have said what they want
        try:
            while self._requests[peer_id]:
                batch = self._requests[peer_id][:MAX_SUBSCRIPTIONS_IN_CALL]
                del self._requests[peer_id][: len(batch)]
                await self._send_batch(peer_id, batch)
        finally:
            for request in self._requests.pop(peer_id):
                request.settle(outcome.Error(InvalidValue("this peer isn't open any more")))

    async def _send_batch(self, peer_id: str, batch: list[_PendingRequest]) -> None:
        failure: Exception = InvalidValue("cancelled")
        replies: tuple[SubscriptionReply, ...] = ()
        try:
            body = build(SubscribeBody(tuple(request.request for request in batch)))
            replies = parse(
                await self._network.call(peer_id, SUBSCRIBE, body, timeout=TIMEOUT), SubscribeAnswer
            ).replies
            failure = InvalidValue(f"{len(replies)} answers to {len(batch)} wishes")
        except (CallFailed, InvalidValue) as error:
            failure = error
        finally:
            complete = len(replies) == len(batch)
            for number, request in enumerate(batch):
                request.settle(outcome.Value(replies[number]) if complete else outcome.Error(failure))

    async def _take(self, item: Item, source: str) -> bool:  # noqa: ARG002 - as `Taker` has it
        await trio.lowlevel.checkpoint()
        view = self._views.get(item.key_id)
        return view is not None and view.take(item)

    async def _serve_announce(self, caller: str, body: object) -> object:
        try:
            items = parse(body, AnnounceBody).items
        except InvalidValue as error:
            raise Refusal("invalid", str(error)) from error
        for key_id, payload in items:
            view = self._views.get(key_id)
            if view is None or caller not in view.sources:
                continue
            if await self._validator.validate(key_id, payload, caller) is Verdict.REJECT:
                view.distrust(caller)
                raise Refusal("invalid", "an announcement that isn't valid")
        return None

    def _note_change(self) -> None:
        for view in list(self._views.values()):
            view.poke()


def _check_id(resource_id: str) -> None:
    if not 0 < len(resource_id) <= MAX_ID:
        raise InvalidValue(f"a resource id has 1 to {MAX_ID} characters, not {len(resource_id)}")
    try:
        resource_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"a resource id is text: {error}") from error


class _PendingRequest:
    """A wish under way."""

    def __init__(self, request: SubscriptionRequest) -> None:
        self.request = request
        self.done = trio.Event()
        self.outcome: outcome.Outcome[SubscriptionReply] | None = None

    def settle(self, result: outcome.Outcome[SubscriptionReply]) -> None:
        self.outcome = result
        self.done.set()


def bound_read(read: Callable[..., Awaitable[ReadOutcome]]) -> Read:
    """A door's or reader's `read`, as a watch uses it."""
    return partial(read, ack=1, timeout=TIMEOUT)
