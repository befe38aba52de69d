"""Reading from a neighbourhood: ask replicas until enough have answered, merge what verifies.

One answer doesn't decide that there is nothing: an empty result, or a missing key, waits for a majority of the
replicas or 300 ms more (DESIGN: writing and reading).
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

from overlay.errors import CallFailed
from registry.codes import Code
from registry.errors import InvalidValue, KeyNotExists, KeyRemoved, StorageError
from registry.model.merge import ResourceState, merged
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_ERRORS
from registry.protocol.network import Clock, Network
from registry.quorum.fetch import Fetcher
from registry.quorum.read_repair import ReadRepair
from registry.quorum.write import NOT_CONNECTED
from registry.replica.replica import Replica

HEDGE: Final = 0.05  # seconds after which more replicas are asked than are needed
EMPTY_PATIENCE: Final = 0.3  # seconds that an empty result waits for a majority
LONGEST_READ: Final = 60.0  # seconds; the deadline of the whole read is nearer

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ReadOutcome:
    """What replicas know together of a resource, how many answered for its key, and why others didn't."""

    __slots__ = ("answered", "errors", "resource", "timed_out")

    def __init__(self) -> None:
        self.resource = ResourceState()
        self.answered = 0
        self.errors: list[ErrorInfo] = []
        self.timed_out = False


class Reader:
    """Reads resources for this node and for the clients that act through it."""

    def __init__(self, network: Network, replica: Replica, repair: ReadRepair, clock: Clock) -> None:
        self._network = network
        self._replica = replica
        self._repair = repair
        self._clock = clock

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        """The merged state of a resource once `ack` replicas that hold its key have answered, or all did, or after
        `timeout` seconds. With `key_suffices` the key is what is asked for: no records aren't looked into further."""
        outcome = ReadOutcome()
        if ack <= 1 and self._replica.is_among_nearest(key_id) and self._replica.counts_for(key_id):
            mine = self._replica.resource_at_hand(key_id) or await self._replica.own(key_id)
            if mine is not None and mine.key is not None and (key_suffices or self._has_records(mine)):
                outcome.resource, outcome.answered = mine, 1
                return outcome
        reading = _Reading(self._network, self._replica, self._clock, key_id, ack, outcome)
        reading.key_suffices = key_suffices
        with trio.move_on_after(timeout) as deadline:
            await reading.run()
        outcome.timed_out = deadline.cancelled_caught
        self._repair.after_read(outcome.resource, reading.known)
        if outcome.resource.key is None and outcome.resource.key_tombstone is not None:
            outcome.answered = 0  # whoever still served the key is behind
            outcome.errors.insert(0, ErrorInfo.of(KeyRemoved(key_id)))
        del outcome.errors[MAX_ERRORS:]
        return outcome

    def _has_records(self, resource: ResourceState) -> bool:
        return bool(resource.records(int(self._clock()), self._replica.settings))


class _Reading:
    """One read under way."""

    def __init__(
        self, network: Network, replica: Replica, clock: Clock, key_id: str, ack: int, outcome: ReadOutcome
    ) -> None:
        self._network = network
        self._replica = replica
        self._clock = clock
        self._key_id = key_id
        self._ack = max(ack, 1)
        self._outcome = outcome
        self._fetcher = Fetcher(network, replica.settings, clock)
        self._replicas: list[str] = []  # the others, nearest first
        self._majority = 1
        self._asked = 0
        self._open = 0
        self._replied = 0  # with an answer, be it that they don't hold the key
        self._patient_until: float | None = None
        self._progress = trio.Event()
        self.key_suffices = False
        self.known: dict[str, ResourceState] = {}
        """What each replica knew."""

    async def run(self) -> None:
        self._replicas = await self._network.neighbourhood(self._key_id, self._replica.settings.neighbourhood_size)
        here = self._network.peer_id
        self._majority = len(self._replicas) // 2 + 1
        if here in self._replicas and self._replica.counts_for(self._key_id):
            self._open += 1
            await self._ask(here)
            self._replicas.remove(here)
        if not self._replicas and self._network.is_isolated():
            self._outcome.errors.append(NOT_CONNECTED)
        async with trio.open_nursery() as nursery:
            self._ask_more(nursery, self._wanted())
            while not self._is_enough() and self._open:
                patience = trio.CancelScope(deadline=self._patience())
                with patience:
                    await self._progress.wait()
                self._progress = trio.Event()
                if patience.cancelled_caught and self._patient_until is not None:
                    break
                self._ask_more(nursery, len(self._replicas) if patience.cancelled_caught else self._wanted())
            nursery.cancel_scope.cancel()

    def _wanted(self) -> int:
        """How many replicas should be under way or have answered by now; more are asked when one is slow."""
        if not self._has_ack():
            missing = self._ack - self._outcome.answered
        elif not self._has_records():
            missing = self._majority - self._replied
        else:
            missing = 0
        return self._asked + max(missing - self._open, 0)

    def _patience(self) -> float:
        """Until when to wait for the next answer. What may be nothing gets 300 ms more, once, however answers trickle
        in: an empty result, and a key that a majority doesn't hold."""
        now = trio.current_time()
        if self._patient_until is None and (
            self._has_ack() or (self._outcome.answered == 0 and self._replied >= self._majority)
        ):
            self._patient_until = now + EMPTY_PATIENCE
        elif self._patient_until is not None and not self._has_ack() and self._outcome.answered:
            self._patient_until = None  # somebody does hold the key
        return now + HEDGE if self._patient_until is None else self._patient_until

    def _has_ack(self) -> bool:
        return self._outcome.answered >= self._ack

    def _has_records(self) -> bool:
        if self.key_suffices and self._outcome.resource.key is not None:
            return True
        return bool(self._outcome.resource.records(int(self._clock()), self._replica.settings))

    def _is_enough(self) -> bool:
        return self._has_ack() and (self._has_records() or self._replied >= self._majority)

    def _ask_more(self, nursery: trio.Nursery, until: int) -> None:
        while self._asked < min(until, len(self._replicas)):
            nursery.start_soon(self._ask, self._replicas[self._asked])
            self._asked += 1
            self._open += 1

    async def _ask(self, peer_id: str) -> None:
        try:
            if peer_id == self._network.peer_id:
                caught_up = await self._replica.wait_until_it_counts(self._key_id)
                self._take(peer_id, await self._replica.resource(self._key_id), caught_up=caught_up)
            else:
                theirs, caught_up = await self._fetcher.fetch(
                    peer_id, self._key_id, self._outcome.resource, timeout=LONGEST_READ
                )
                self._take(peer_id, theirs, caught_up=caught_up)
        except (CallFailed, InvalidValue, StorageError) as error:
            self._outcome.errors.append(ErrorInfo.of(error).on(peer_id))
        finally:
            self._open -= 1
            self._progress.set()

    def _take(self, peer_id: str, theirs: ResourceState, *, caught_up: bool) -> None:
        self.known[peer_id] = theirs
        if not theirs.is_empty():  # a key tombstone counts even where it left no key
            self._outcome.resource = merged(self._outcome.resource, theirs)
        if not caught_up:
            self._outcome.errors.append(ErrorInfo(Code.CATCHING_UP, "the replica is catching up").on(peer_id))
            return
        self._replied += 1
        if theirs.key is None:
            self._outcome.errors.append(ErrorInfo.of(KeyNotExists(self._key_id)).on(peer_id))
            return
        self._outcome.answered += 1
