"""Reading from a neighbourhood: ask replicas until enough have answered, merge what verifies.

`registry.quorum.read_machine` decides; here is what waits and asks for it.
"""

from __future__ import annotations

from typing import Final

import trio
from cachetools import LRUCache

from overlay.errors import CallFailed
from overlay.tasks import Wakeup
from registry.errors import InvalidValue, StorageError
from registry.model.merge import ResourceState, merged
from registry.model.values import Key
from registry.model.verification import is_expired
from registry.protocol.address_groups import AddressGroups
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_ERRORS
from registry.protocol.network import Clock, Network
from registry.quorum.doubts import Doubts
from registry.quorum.fetch import Fetcher
from registry.quorum.read_machine import Ask, Finish, ReadMachine, ReadOutcome, parted
from registry.quorum.read_repair import ReadRepair
from registry.quorum.recent_writes import RecentWrites
from registry.quorum.write import NOT_CONNECTED
from registry.replica.replica import Replica

LONGEST_READ: Final = 60.0  # seconds; the deadline of the whole read is nearer
MAX_SEEN: Final = 4096  # keys with a policy that are remembered, the last ones read


class Reader:
    """Reads resources for this node and for the clients that act through it."""

    def __init__(
        self,
        network: Network,
        replica: Replica,
        repair: ReadRepair,
        recent_writes: RecentWrites,
        doubts: Doubts,
        groups: AddressGroups,
        clock: Clock,
    ) -> None:
        """`recent_writes`: what was written through this node; each read merges it in. `doubts`: who is asked last."""
        self._network = network
        self._replica = replica
        self._repair = repair
        self._recent_writes = recent_writes
        self._clock = clock
        self._doubts = doubts
        self._fetcher = Fetcher(network, replica.settings, clock, doubts.note_invented)
        self._groups = groups
        self._seen: LRUCache[str, Key] = LRUCache(MAX_SEEN)

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        """The merged state of a resource once `ack` replicas that hold its key have answered, or none can any more, or
        after `timeout` seconds: see `registry.quorum.read_machine`. With `key_suffices` the key is what is asked for:
        no records aren't looked into further."""
        if ack <= 1 and (mine := await self._own_answer(key_id, key_suffices=key_suffices)) is not None:
            outcome = ReadOutcome()
            outcome.resource, outcome.answered = mine, 1
            return outcome
        began = trio.current_time()
        deadline = began + timeout
        replicas, size = list[str](), self._replica.settings.neighbourhood_size
        with trio.move_on_at(deadline) as lookup:
            replicas = await self._network.neighbourhood(key_id, size)
        if lookup.cancelled_caught:
            outcome = ReadOutcome()
            outcome.timed_out = True
            return outcome
        nearest, drawn = parted(replicas, size)
        here = self._network.peer_id
        # Not all of a large region get each write.
        is_sent_to = here in nearest or self._replica.is_among_nearest(key_id)
        own = here if is_sent_to and self._replica.counts_for(key_id) else None
        machine = ReadMachine(
            key_id,
            nearest,
            self._replica.settings,
            own=own,
            ack=ack,
            key_suffices=key_suffices,
            deadline=deadline,
            written=merged(self._written_of(key_id), self._seen_of(key_id)),
            drawn=drawn,
            group_of=self._groups.of,
            doubted=frozenset(filter(self._doubts.is_doubted, replicas)),
        )
        outcome = await self._run(machine, key_id)
        if not machine.replied and self._network.is_isolated():
            outcome.errors.insert(0, NOT_CONNECTED)
            del outcome.errors[MAX_ERRORS:]
        withheld = outcome.resource.withheld(int(self._clock()))
        self._repair.after_read(outcome.resource, machine.known, machine.replied, began, withheld)
        if outcome.resource.key is not None and outcome.resource.key.revision:
            self._seen[key_id] = outcome.resource.key
        return outcome

    def _written_of(self, key_id: str) -> ResourceState:
        return self._recent_writes.of(key_id, self._clock() + self._replica.settings.clock_skew)

    def _seen_of(self, key_id: str) -> ResourceState:
        """The key that was read of a resource before, if it has a policy: an older one of a liar's, or of a replica
        that is behind, rules no more, and is written over."""
        key = self._seen.get(key_id)
        lifetime = self._replica.settings.key_lifetime
        if key is None or is_expired(key.timestamp_created, lifetime, int(self._clock())):
            return ResourceState()
        return ResourceState(key=key)

    async def _own_answer(self, key_id: str, *, key_suffices: bool) -> ResourceState | None:
        """What is known here, when that alone answers a read with an `ack` of 1."""
        if not (self._replica.is_among_nearest(key_id) and self._replica.counts_for(key_id)):
            return None
        mine = self._replica.resource_at_hand(key_id) or await self._replica.own(key_id)
        if mine is None or mine.key is None:
            return None
        written = self._written_of(key_id)
        mine = mine if written.is_empty() else merged(mine, written)
        seen = self._seen_of(key_id).key
        if mine.key is None or (seen is not None and seen.order() > mine.key.order()):
            return None
        return mine if key_suffices or mine.records(int(self._clock()), self._replica.settings) else None

    async def _run(self, machine: ReadMachine, key_id: str) -> ReadOutcome:
        """Does what the machine says until it is done."""
        progress = Wakeup()

        async def ask(peer_id: str) -> None:
            try:
                if peer_id == self._network.peer_id:
                    caught_up = await self._replica.wait_until_it_counts(key_id)
                    theirs = await self._replica.resource(key_id)
                else:
                    theirs, caught_up = await self._fetcher.fetch(
                        peer_id, key_id, machine.resource, timeout=LONGEST_READ
                    )
            except (CallFailed, InvalidValue, StorageError) as error:
                machine.failed(peer_id, ErrorInfo.of(error))
            else:
                machine.answered(peer_id, theirs, caught_up=caught_up)
            progress.set()

        async with trio.open_nursery() as nursery:
            action = machine.step(trio.current_time(), int(self._clock()))
            while not isinstance(action, Finish):
                if isinstance(action, Ask):
                    for peer_id in action.peer_ids:
                        nursery.start_soon(ask, peer_id)
                else:
                    with trio.move_on_at(action.until):
                        await progress.wait()
                action = machine.step(trio.current_time(), int(self._clock()))
            nursery.cancel_scope.cancel()
        return action.outcome
