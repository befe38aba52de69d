"""Everything that a peer watches, on a node and on a light client alike."""

from __future__ import annotations

import random
import weakref
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import outcome
import trio

from overlay.errors import CallFailed, Refusal
from overlay.topics import Verdict
from registry.announcing.judging import Judging
from registry.announcing.messages import (
    ANNOUNCE,
    LEASE,
    MAX_LEASES_IN_CALL,
    AnnounceBody,
    LeaseAnswer,
    LeaseBody,
    LeaseGrant,
    LeaseWish,
)
from registry.background import background
from registry.errors import InvalidValue
from registry.fetching import Fetching
from registry.merging import ResourceState
from registry.messages import Item, build, parse
from registry.network import Clock, Network
from registry.reading import ReadOutcome
from registry.settings import RegistrySettings
from registry.storage import Change
from registry.watching.watch import Watch
from registry.watching.watched import RENEW, TIMEOUT, Watched

if TYPE_CHECKING:
    from trio_typing import TaskStatus

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
        judging: Judging,
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
        self._judging = judging
        self._fetching = Fetching(network, settings, clock)
        self._watched: dict[str, Watched] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._users: dict[str, weakref.WeakSet[Watch]] = {}
        self._wishes: dict[str, list[_Wish]] = {}
        self._nursery: trio.Nursery | None = None
        judging.add(self._take)
        network.topics.judge_with(judging.judge)
        network.serve(ANNOUNCE, self._serve_announce)
        network.on_membership_change(self._note_change)

    def watch(self, resource_id: str) -> Watch:
        """Watches a resource from now on, existing or not.

        Raises InvalidValue for what no resource has as its id, RuntimeError when this peer has been closed.
        """
        _check_id(resource_id)
        if self._nursery is None:
            raise RuntimeError("this peer isn't open (any more)")
        watched = self._watched.get(resource_id)
        if watched is None:
            watched = self._watched[resource_id] = Watched(resource_id, self)
            self._users[resource_id] = weakref.WeakSet()
            self._nursery.start_soon(self._keep, watched)
        watch = Watch(watched, self._forget)
        self._users[resource_id].add(watch)
        return watch

    def at_hand(self, resource_id: str) -> ResourceState | None:
        """What is known of a watched resource, while that is as good as what a replica would answer."""
        watched = self._watched.get(resource_id)
        return watched.state if watched is not None and watched.is_fresh else None

    def note_own(self, item: Item) -> None:
        """What this peer has just written itself, acknowledged."""
        watched = self._watched.get(item.key_id)
        if watched is not None:
            watched.take(item)

    def note_commit(self, changes: Mapping[str, Change]) -> None:
        """What came into this node's own storage, by whatever way."""
        for key_id in self._watched.keys() & changes.keys():
            change, watched = changes[key_id], self._watched[key_id]
            states = [state for state in change.slots.values() if state is not None]
            watched.merge(ResourceState.of(change.key, states, change.removal))

    def statistics(self) -> Mapping[str, int]:
        """Resources watched, and replicas that hold leases for them."""
        return {"watched": len(self._watched), "sources": sum(len(each.sources) for each in self._watched.values())}

    def is_connected(self, peer_id: str) -> bool:
        return peer_id in self._network.members()

    async def fetch(self, peer_id: str, key_id: str, known: ResourceState) -> ResourceState:
        theirs, _ = await self._fetching.fetch(peer_id, key_id, known, timeout=TIMEOUT)
        return theirs

    async def lease(self, peer_id: str, wish: LeaseWish) -> LeaseGrant:
        """Wishes to one replica that come together travel together."""
        mine = _Wish(wish)
        waiting = self._wishes.get(peer_id)
        if waiting is not None:
            waiting.append(mine)
        elif self._nursery is None:
            raise InvalidValue("this peer isn't open any more")
        else:
            self._wishes[peer_id] = [mine]
            self._nursery.start_soon(self._send_wishes, peer_id)
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

    async def _keep(self, watched: Watched) -> None:
        key_id = watched.key_id
        watched.on_topic = await self._network.topics.join(key_id)
        try:
            async with background() as nursery:
                nursery.start_soon(watched.run)
                while self._users[key_id]:
                    # Watches that were just dropped, without being closed, are noticed here.
                    with trio.move_on_after(LINGER):
                        await watched.changed.wait()
                    if not self._users[key_id]:
                        await trio.sleep(LINGER)
        finally:
            del self._watched[key_id], self._users[key_id]
            if watched.on_topic:
                self._network.topics.leave(key_id)
        for peer_id in watched.sources:
            if key_id in self._watched:
                break  # again, and its leases are those
            try:
                await self.lease(peer_id, LeaseWish(key_id, on_topic=False, ends=True))
            except (CallFailed, InvalidValue):
                continue  # it ends by itself

    def _forget(self, watch: Watch) -> None:
        self._users.get(watch.resource_id, weakref.WeakSet()).discard(watch)

    async def _send_wishes(self, peer_id: str) -> None:
        await trio.lowlevel.checkpoint()  # until all who woke up at the same time have said what they want
        try:
            while self._wishes[peer_id]:
                batch = self._wishes[peer_id][:MAX_LEASES_IN_CALL]
                del self._wishes[peer_id][: len(batch)]
                await self._send_batch(peer_id, batch)
        finally:
            for wish in self._wishes.pop(peer_id):
                wish.settle(outcome.Error(InvalidValue("this peer isn't open any more")))

    async def _send_batch(self, peer_id: str, batch: list[_Wish]) -> None:
        failure: Exception = InvalidValue("cancelled")
        grants: tuple[LeaseGrant, ...] = ()
        try:
            body = build(LeaseBody(tuple(wish.wish for wish in batch)))
            grants = parse(await self._network.call(peer_id, LEASE, body, timeout=TIMEOUT), LeaseAnswer).grants
            failure = InvalidValue(f"{len(grants)} answers to {len(batch)} wishes")
        except (CallFailed, InvalidValue) as error:
            failure = error
        finally:
            complete = len(grants) == len(batch)
            for number, wish in enumerate(batch):
                wish.settle(outcome.Value(grants[number]) if complete else outcome.Error(failure))

    async def _take(self, item: Item, source: str) -> bool:  # noqa: ARG002 - as `Taker` has it
        await trio.lowlevel.checkpoint()
        watched = self._watched.get(item.key_id)
        return watched is not None and watched.take(item)

    async def _serve_announce(self, caller: str, body: object) -> object:
        try:
            items = parse(body, AnnounceBody).items
        except InvalidValue as error:
            raise Refusal("invalid", str(error)) from error
        for key_id, payload in items:
            watched = self._watched.get(key_id)
            if watched is None or caller not in watched.sources:
                continue
            if await self._judging.judge(key_id, payload, caller) is Verdict.INVALID:
                watched.distrust(caller)
                raise Refusal("invalid", "an announcement that isn't valid")
        return None

    def _note_change(self) -> None:
        for watched in list(self._watched.values()):
            watched.poke()


def _check_id(resource_id: str) -> None:
    if not 0 < len(resource_id) <= MAX_ID:
        raise InvalidValue(f"a resource id has 1 to {MAX_ID} characters, not {len(resource_id)}")
    try:
        resource_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"a resource id is text: {error}") from error


class _Wish:
    """A wish under way."""

    def __init__(self, wish: LeaseWish) -> None:
        self.wish = wish
        self.done = trio.Event()
        self.outcome: outcome.Outcome[LeaseGrant] | None = None

    def settle(self, result: outcome.Outcome[LeaseGrant]) -> None:
        self.outcome = result
        self.done.set()


def bound_read(read: Callable[..., Awaitable[ReadOutcome]]) -> Read:
    """A door's or reader's `read`, as a watch uses it."""
    return partial(read, ack=1, timeout=TIMEOUT)
