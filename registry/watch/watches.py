"""Keeps all resources that a peer watches up to date, on a node and on a light client alike."""

from __future__ import annotations

import random
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import outcome
import trio

from overlay.errors import CallFailed, Refusal
from overlay.pubsub.topics import Verdict
from overlay.tasks import TaskOwner, TaskStatus, background
from registry.codes import Code
from registry.errors import InvalidValue
from registry.model.merge import ResourceState
from registry.protocol.messages import Item, build, parse
from registry.protocol.network import Clock, Network
from registry.quorum.fetch import Fetcher
from registry.quorum.read_machine import ReadOutcome
from registry.settings import RegistrySettings
from registry.storage import Change
from registry.watch.follower import Follower
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
from registry.watch.source_machine import RENEW, TIMEOUT
from registry.watch.validator import AnnouncementValidator, Taker
from registry.watch.watch import Watch

LINGER: Final = 5.0  # seconds that a resource is followed on after its last watch ended

MAX_ID: Final = 1024  # characters, as in every call

Neighbours = Callable[[str], Awaitable[list[str]]]
"""Tells who keeps a resource, nearest first, ready to be called."""
Read = Callable[[str], Awaitable[ReadOutcome]]
"""Reads a resource from its neighbourhood. Raises RegistryError."""
Own = Callable[[str], Awaitable[ResourceState | None]]
"""Tells what this peer itself keeps of a resource, as a replica whose answers count; None if it is none."""


async def keeps_nothing(key_id: str) -> ResourceState | None:  # noqa: ARG001 - as `Own` has it
    """The `own` of a peer that is no replica: nothing is kept there."""
    return None


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
    ) -> None:
        """`takers`: who else gets the good announcements, before this peer's watchers do."""
        self.settings = settings
        self.clock = clock
        self.peer_id = network.peer_id
        self.phase = random.uniform(0, RENEW)  # noqa: S311 - so that peers don't renew all at once
        self.neighbours = neighbours
        self.read = read
        self.own = own
        self._network = network
        self._fetcher = Fetcher(network, settings, clock)
        self._followers: dict[str, Follower] = {}
        self._users: dict[str, weakref.WeakSet[Watch]] = {}
        self._requests: dict[str, list[_PendingRequest]] = {}
        self._tasks = TaskOwner()
        self._validator = AnnouncementValidator(settings, clock, (*takers, self._take))
        network.topics.validate_with(self._validator.validate)
        network.serve(ANNOUNCE, self._serve_announce)
        network.on_membership_change(self._note_change)

    def watch(self, resource_id: str) -> Watch:
        """Watches a resource from now on, existing or not.

        Raises InvalidValue for what no resource has as its id, RuntimeError when this peer has been closed.
        """
        _check_id(resource_id)
        if not self._tasks.is_open:
            raise RuntimeError("this peer isn't open (any more)")
        follower = self._followers.get(resource_id)
        if follower is None:
            follower = self._followers[resource_id] = Follower(resource_id, self)
            self._users[resource_id] = weakref.WeakSet()
            self._tasks.start_soon(self._follow, follower)
        watch = Watch(follower.view, follower.changed, self._forget)
        self._users[resource_id].add(watch)
        return watch

    def at_hand(self, resource_id: str) -> ResourceState | None:
        """What is known of a watched resource, if that is as good as what a replica would answer; None otherwise."""
        follower = self._followers.get(resource_id)
        return follower.view.state if follower is not None and follower.is_fresh else None

    def note_own(self, item: Item) -> None:
        """Shows what this peer has just written itself, once it was acknowledged."""
        follower = self._followers.get(item.key_id)
        if follower is not None:
            follower.take(item)

    def note_commit(self, changes: Mapping[str, Change]) -> None:
        """Shows what came into this node's own storage, by whatever way."""
        for key_id in self._followers.keys() & changes.keys():
            change = changes[key_id]
            states = [state for state in change.slots.values() if state is not None]
            self._followers[key_id].merge(ResourceState.of(change.key, states, change.key_tombstone))

    def sources_of(self, resource_id: str) -> list[str]:
        """The replicas that hold subscriptions of ours on a resource."""
        follower = self._followers.get(resource_id)
        return follower.sources if follower is not None else []

    def statistics(self) -> Mapping[str, int]:
        """Resources watched, and replicas that hold subscriptions for them."""
        sources = sum(len(follower.sources) for follower in self._followers.values())
        return {"watched": len(self._followers), "sources": sources}

    def is_connected(self, peer_id: str) -> bool:
        """Whether this peer is linked to that member."""
        return peer_id in self._network.members()

    async def fetch(self, peer_id: str, key_id: str, known: ResourceState) -> ResourceState:
        """What a replica knows of a resource, less what doesn't verify. Raises CallFailed, InvalidValue."""
        theirs, _ = await self._fetcher.fetch(peer_id, key_id, known, timeout=TIMEOUT)
        return theirs

    async def subscribe(self, peer_id: str, request: SubscriptionRequest) -> SubscriptionReply:
        """Asks a replica for a subscription, or ends it; requests to one replica that come together travel together.

        Raises CallFailed, InvalidValue.
        """
        mine = _PendingRequest(request)
        waiting = self._requests.get(peer_id)
        if waiting is not None:
            waiting.append(mine)
        elif not self._tasks.is_open:
            raise InvalidValue("this peer isn't open any more")
        else:
            self._requests[peer_id] = [mine]
            self._tasks.start_soon(self._send_requests, peer_id)
        await mine.done.wait()
        assert mine.outcome is not None
        return mine.outcome.unwrap()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves watches until cancelled; then they end."""
        async with self._tasks.opened():
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                for watch in [watch for users in self._users.values() for watch in users]:
                    watch.close()

    async def _follow(self, follower: Follower) -> None:
        key_id = follower.key_id
        follower.on_topic = await self._network.topics.join(key_id)
        try:
            async with background() as nursery:
                nursery.start_soon(follower.run)
                while self._users[key_id]:
                    # Watches that were just dropped, without being closed, are noticed here.
                    with trio.move_on_after(LINGER):
                        await follower.changed.wait()
                    if not self._users[key_id]:
                        await trio.sleep(LINGER)
        finally:
            del self._followers[key_id], self._users[key_id]
            if follower.on_topic:
                self._network.topics.leave(key_id)
        for peer_id in follower.sources:
            if key_id in self._followers:
                break  # it is watched again, and needs these subscriptions
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
            failure = InvalidValue(f"{len(replies)} answers to {len(batch)} requests")
        except (CallFailed, InvalidValue) as error:
            failure = error
        finally:
            complete = len(replies) == len(batch)
            for number, request in enumerate(batch):
                request.settle(outcome.Value(replies[number]) if complete else outcome.Error(failure))

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
            if await self._validator.validate(key_id, payload, caller) is Verdict.REJECT:
                follower.distrust(caller)
                raise Refusal(Code.INVALID, "an announcement that isn't valid")
        return None

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


class _PendingRequest:
    """A request for a subscription that is under way."""

    def __init__(self, request: SubscriptionRequest) -> None:
        self.request = request
        self.done = trio.Event()
        self.outcome: outcome.Outcome[SubscriptionReply] | None = None

    def settle(self, result: outcome.Outcome[SubscriptionReply]) -> None:
        self.outcome = result
        self.done.set()


def bound_read(read: Callable[..., Awaitable[ReadOutcome]]) -> Read:
    """The `read` of a node API or of a `Reader`, as watches use it."""
    return partial(read, ack=1, timeout=TIMEOUT)
