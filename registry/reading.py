"""Reading from a neighbourhood: ask replicas until enough have answered, merge what verifies.

One answer doesn't decide that there is nothing: an empty result, or a missing key, waits for a majority of the
replicas or 300 ms more (DESIGN: writing and reading).
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

from overlay.errors import CallFailed
from registry.errors import InvalidValue, KeyNotExists, StorageError
from registry.merging import ResourceState, merged
from registry.messages import MAX_ERRORS, READ, ReadBody, StatePage, build, last_slot, parse
from registry.network import Clock, Network
from registry.replica import Replica
from registry.values import Key, State
from registry.verification import is_good, key_is_good
from registry.writing import NOT_CONNECTED

HEDGE: Final = 0.05  # seconds after which more replicas are asked than are needed
EMPTY_PATIENCE: Final = 0.3  # seconds that an empty result waits for a majority
LONGEST_READ: Final = 60.0  # seconds; the deadline of the whole read is nearer
MAX_PAGES: Final = 64  # of one replica's answer; a liar could go on for ever

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ReadOutcome:
    """What replicas know together of a resource, how many answered for its key, and why others didn't."""

    __slots__ = ("answered", "errors", "resource", "timed_out")

    def __init__(self) -> None:
        self.resource = ResourceState()
        self.answered = 0
        self.errors: list[str] = []
        self.timed_out = False


class Reader:
    """Reads resources for this node and for the clients that act through it."""

    def __init__(self, network: Network, replica: Replica, clock: Clock) -> None:
        self._network = network
        self._replica = replica
        self._clock = clock
        self.is_caught_up = False
        """Whether this node's own state may answer alone; not just after a start, when it may have missed writes."""

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        """The merged state of a resource once `ack` replicas that hold its key have answered, or all did, or after
        `timeout` seconds. With `key_suffices` the key is what is asked for: no records aren't looked into further."""
        outcome = ReadOutcome()
        if ack <= 1 and self.is_caught_up:
            mine = self._replica.resource_at_hand(key_id) or await self._replica.resource(key_id)
            if mine.key is not None and (key_suffices or self._has_records(mine)):
                outcome.resource, outcome.answered = mine, 1
                return outcome
        with trio.move_on_after(timeout) as deadline:
            reading = _Reading(self._network, self._replica, self._clock, key_id, ack, outcome)
            reading.key_suffices = key_suffices
            await reading.run()
        outcome.timed_out = deadline.cancelled_caught
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
        self._replicas: list[str] = []  # the others, nearest first
        self._total = 0
        self._asked = 0
        self._open = 0
        self._replied = 0
        self._progress = trio.Event()
        self.key_suffices = False

    async def run(self) -> None:
        self._replicas = await self._network.neighbourhood(self._key_id, self._replica.settings.neighbourhood_size)
        here = self._network.peer_id
        self._total = len(self._replicas)
        if here in self._replicas:
            await self._ask_here()
            self._replicas.remove(here)
            self._replied = 1
        if not self._replicas and self._network.is_isolated():
            self._outcome.errors.append(NOT_CONNECTED)
        async with trio.open_nursery() as nursery:
            self._ask_more(nursery, self._wanted())
            while not self._is_enough() and self._open:
                patience = trio.CancelScope(deadline=trio.current_time() + self._patience())
                with patience:
                    await self._progress.wait()
                self._progress = trio.Event()
                if patience.cancelled_caught and self._has_ack():
                    break
                self._ask_more(nursery, len(self._replicas) if patience.cancelled_caught else self._wanted())
            nursery.cancel_scope.cancel()

    def _wanted(self) -> int:
        """How many replicas should be under way or have answered by now; more are asked when one is slow."""
        if not self._has_ack():
            missing = self._ack - self._outcome.answered
        elif not self._has_records():
            missing = self._majority() - self._replied
        else:
            missing = 0
        return self._asked + max(missing - self._open, 0)

    def _patience(self) -> float:
        return EMPTY_PATIENCE if self._has_ack() else HEDGE

    def _majority(self) -> int:
        return self._total // 2 + 1

    def _has_ack(self) -> bool:
        return self._outcome.answered >= self._ack

    def _has_records(self) -> bool:
        if self.key_suffices and self._outcome.resource.key is not None:
            return True
        return bool(self._outcome.resource.records(int(self._clock()), self._replica.settings))

    def _is_enough(self) -> bool:
        return self._has_ack() and (self._has_records() or self._replied >= self._majority())

    def _ask_more(self, nursery: trio.Nursery, until: int) -> None:
        while self._asked < min(until, len(self._replicas)):
            nursery.start_soon(self._ask, self._replicas[self._asked])
            self._asked += 1
            self._open += 1

    async def _ask_here(self) -> None:
        try:
            mine = await self._replica.resource(self._key_id)
        except StorageError as error:
            self._outcome.errors.append(f"{error} on {self._network.peer_id}")
            return
        self._take(self._network.peer_id, mine)

    async def _ask(self, peer_id: str) -> None:
        try:
            self._take(peer_id, await self._fetch(peer_id))
        except (CallFailed, InvalidValue) as error:
            self._outcome.errors.append(f"{getattr(error, 'reason', error)} on {peer_id}")
        finally:
            self._open -= 1
            self._replied += 1
            self._progress.set()

    def _take(self, peer_id: str, theirs: ResourceState) -> None:
        if theirs.key is None:
            self._outcome.errors.append(f"{KeyNotExists(self._key_id)} on {peer_id}")
            return
        self._outcome.resource = merged(self._outcome.resource, theirs)
        self._outcome.answered += 1

    async def _fetch(self, peer_id: str) -> ResourceState:
        """What a replica knows, page by page, of it only what verifies (fault 13)."""
        known = self._outcome.resource
        key: Key | None = None
        states: list[State] = []
        after = None
        for _ in range(MAX_PAGES):
            body = ReadBody(key_id=self._key_id, digest=known.digest() if known.key else b"", after=after)
            raw = await self._network.call(
                peer_id, READ, build(body), timeout=60.0
            )  # the read's own deadline is nearer
            page = parse(raw, StatePage)
            if page.same and known.key is not None:
                return known
            page_key, page_states = page.decoded()
            key = key or page_key
            states.extend(page_states)
            following = last_slot(page_states)
            if not page.more or following is None or (after is not None and following <= after):
                break
            after = following
        return self._verified(peer_id, key, states)

    def _verified(self, peer_id: str, key: Key | None, states: list[State]) -> ResourceState:
        now, settings = int(self._clock()), self._replica.settings
        if key is not None and (key.id != self._key_id or not key_is_good(key, now, settings)):
            _log.warning("dropped a key that doesn't verify", peer=peer_id, key_id=self._key_id)
            key = None
        good = [s for s in states if s.slot.key_id == self._key_id and is_good(s, now, settings)]
        if len(good) < len(states):
            _log.warning("dropped states that don't verify", peer=peer_id, count=len(states) - len(good))
        return ResourceState.of(key, good)
