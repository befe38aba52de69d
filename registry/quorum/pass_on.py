"""Passes on what was put here to those of the other replicas that the writer left to this one, and checks on the rest.

Rules:
1. A put with a `Spread`, once it is on disk here, is sent to its share, without one: what was passed on isn't passed on
   again. Whoever is linked, near enough and missing among the writer's targets gets it too.
2. Nothing is passed on to a peer twice within a minute, whoever asks, unless that failed; nor at all for who asked
   before within that time: a large frame that is put again and again has more pairs of a peer and a write than are
   remembered.
3. One to two seconds later one of the others' shares, at random, is asked whether it has the write, or another when
   that one doesn't answer. If not, somebody didn't pass it on: all that aren't known to have it get it from here.
4. Whoever wrote it may ask how many took it from here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import structlog
import trio
from cachetools import LRUCache, TTLCache

from overlay.discovery.keyspace import nearest, resource_position
from overlay.errors import CallFailed, Refusal
from overlay.limits.time_slices import turn
from overlay.tasks import TaskStatus, Wakeup
from registry.codes import Code
from registry.errors import InvalidValue, StorageError
from registry.model.values import digest_of
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import (
    HOLDS,
    MAX_ITEMS,
    PASSED_ON,
    Form,
    HoldsAnswer,
    HoldsBody,
    Item,
    PassedOnAnswer,
    PassedOnBody,
    Spread,
    build,
    parse,
)
from registry.protocol.network import Network
from registry.quorum.send_queue import LONG_LINGER, SendQueue
from registry.storage import Store
from registry.storage.in_turns import in_parts

REMEMBERED_FOR: Final = 60.0  # seconds
MAX_REMEMBERED: Final = 16_384  # pairs of a peer and a write
MAX_WRITES: Final = 4096  # whose numbers are remembered
CHECKED_AFTER: Final = 1.0  # seconds, and up to twice that
CHECKERS: Final = 3  # replicas that check a write, about
MAX_CHECKED: Final = 4096  # writes that wait for their check; beyond it the oldest isn't checked
CHECK_TIMEOUT: Final = 5.0  # seconds
CHECK_TRIES: Final = 3  # peers that are asked until one answers
MAX_LOOKED_THROUGH: Final = 16_384  # states for one question whether writes are held
PASSED_AT_ONCE: Final = 16  # writes, after which other tasks get their turn; fewer where there are many members
LOOKED_AT_ONCE: Final = 1024  # members, for all of these writes together: some 5 ms
_PER_SPREAD: Final = 4e-4  # seconds for one write to a large region

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def write_id_of(item: Item) -> str:
    """The name of a write, by which its progress is asked for."""
    state = digest_of(item.state) if item.state else b""
    return sha256(digest_of(item.key_or_tombstone) + state).hexdigest()[:32]


class _Check(NamedTuple):
    at: float
    item: Item
    others: tuple[str, ...]
    """Those to whom somebody else is to pass it on, without those asked in vain."""
    tries: int = CHECK_TRIES


class PassOn:
    """Passes on what writers ask this replica to; see the rules above. `run` owns the checks."""

    def __init__(
        self, network: Network, store: Store, send_queue: SendQueue, size: int, randomness: random.Random
    ) -> None:
        """Serves `registry.passed_on` and `registry.holds`. `size`: of a neighbourhood."""
        self._network = network
        self._store = store
        self._send_queue = send_queue
        self._size = size
        self._random = randomness
        self._passed: TTLCache[tuple[str, bytes], None] = TTLCache(
            MAX_REMEMBERED, REMEMBERED_FOR, timer=trio.current_time
        )
        self._asked: TTLCache[tuple[str, bytes], None] = TTLCache(
            MAX_REMEMBERED, REMEMBERED_FOR, timer=trio.current_time
        )  # by whom, for which write
        self._stored: LRUCache[str, int] = LRUCache(MAX_WRITES)  # by write id: how many took it from here
        self._checks: deque[_Check] = deque(maxlen=MAX_CHECKED)
        self._has_checks = Wakeup()
        self.passed = 0
        """How many puts were made for writers, to all peers together."""
        self.found_missing = 0
        """How often a check found that somebody lacked a write."""
        network.serve(PASSED_ON, self._serve_passed_on)
        network.serve(HOLDS, self._serve_holds)

    async def take(self, caller: str, items: Sequence[Item], spreads: Iterable[Spread | None]) -> None:
        """Passes on what a peer put, and what is on disk here; of many a few at a time, in turns with others."""
        at_once = max(min(PASSED_AT_ONCE, LOOKED_AT_ONCE // (len(self._network.members()) + 1)), 1)
        for number, (item, spread) in enumerate(zip(items, spreads, strict=True), start=1):
            if spread is not None:
                self._pass_on(caller, item, spread)
            if spread is not None and number % at_once == 0:
                await turn(at_once * _PER_SPREAD)

    def _pass_on(self, caller: str, item: Item, spread: Spread) -> None:
        here, members = self._network.peer_id, self._network.members()
        asked = caller, item.digest()
        if asked in self._asked:
            return
        self._asked[asked] = None
        near = nearest(resource_position(item.key_id), [here, *members], self._size)
        unknown_to_writer = {*near} - {*spread.targets, caller, here}
        self._send(item, {*spread.share, *unknown_to_writer}.intersection(members))
        others = {*spread.targets}.difference(spread.share, spread.direct, (here, caller)).intersection(members)
        # Whoever passes a large share on knows of few others who do: so three in all check a write, about.
        if others and self._random.random() * len(spread.targets) < CHECKERS * (len(spread.share) + 2):
            self._checks.append(_Check(trio.current_time() + CHECKED_AFTER, item, tuple(sorted(others))))
            self._has_checks.set()

    def _send(self, item: Item, peer_ids: Collection[str]) -> None:
        digest, write_id = item.digest(), write_id_of(item)
        announcers = self._network.topics.peers_in(item.key_id)

        def note(peer_id: str, error: ErrorInfo | None) -> None:
            if error is None:
                self._stored[write_id] = self._stored.get(write_id, 0) + 1
            else:
                self._passed.pop((peer_id, digest), None)
                _log.debug("a write that was passed on wasn't taken", peer_id=peer_id, error=error.text)

        for peer_id in sorted(peer_ids):
            if (peer_id, digest) not in self._passed:
                self._passed[peer_id, digest] = None
                self.passed += 1
                # Who watches hears of it from the replicas that are in the topic.
                self._send_queue.put(peer_id, item, note, urgent=peer_id in announcers, linger=LONG_LINGER)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Checks until cancelled whether what others pass on arrives."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            while True:
                if not self._checks:
                    self._has_checks.clear()
                    await self._has_checks.wait()
                await trio.sleep(CHECKED_AFTER)
                asked: dict[str, list[_Check]] = {}
                order: dict[str, float] = {}
                now = trio.current_time()
                while self._checks and self._checks[0].at <= now:
                    check = self._checks.popleft()
                    # The same order for all that is due: so few are asked, each for much.
                    chosen = min(check.others, key=lambda peer: order.setdefault(peer, self._random.random()))
                    asked.setdefault(chosen, []).append(check)
                for peer_id, checks in asked.items():
                    nursery.start_soon(self._check, peer_id, checks)

    async def _check(self, peer_id: str, checks: Sequence[_Check]) -> None:
        """Asks a peer for what is still the last state here: what a newer one replaced needn't be anywhere."""
        checks = [check for check in checks if await self._is_last(check.item)]
        for start in range(0, len(checks), MAX_ITEMS):
            batch = checks[start : start + MAX_ITEMS]
            body = build(HoldsBody(tuple((check.item.key_id, check.item.digest()) for check in batch)))
            try:
                answer = await self._network.call(peer_id, HOLDS, body, timeout=CHECK_TIMEOUT)
                held = parse(answer, HoldsAnswer).held
            except (CallFailed, InvalidValue) as error:
                _log.debug("a check wasn't answered", peer_id=peer_id, error=str(error))
                self._check_again(peer_id, checks[start:])
                return
            for check, is_held in zip(batch, held, strict=False):
                if not is_held:
                    self.found_missing += 1
                    self._send(check.item, set(check.others).intersection(self._network.members()))

    def _check_again(self, unanswering: str, checks: Sequence[_Check]) -> None:
        for check in checks:
            others = tuple(peer_id for peer_id in check.others if peer_id != unanswering)
            if others and check.tries > 1:
                self._checks.append(_Check(trio.current_time(), check.item, others, check.tries - 1))
                self._has_checks.set()

    async def _serve_passed_on(self, caller: str, body: object) -> object:  # noqa: ARG002 - whoever knows the id
        await trio.lowlevel.checkpoint()
        return build(PassedOnAnswer(self._stored.get(_parsed(body, PassedOnBody).write_id, 0)))

    async def _serve_holds(self, caller: str, body: object) -> object:  # noqa: ARG002 - as above
        entries = _parsed(body, HoldsBody).entries
        wanted: dict[str, set[bytes]] = {}
        for key_id, digest in entries:
            wanted.setdefault(key_id, set()).add(digest)
        left = MAX_LOOKED_THROUGH
        for key_id, digests in wanted.items():
            try:
                resource = await self._store.resource(key_id)
            except StorageError as error:
                _log.error("checking a write that was passed on failed", key_id=key_id, error=str(error))
                raise Refusal(Code.STORAGE, "the disk refused") from error
            left -= len(resource.slots)
            if left < 0:
                raise Refusal(Code.OVERLOADED, "too much is stored there to look through it at once")
            held: set[bytes] = set()
            async for part in in_parts(resource.digests()):
                held.update(digests.intersection(part))
            wanted[key_id] = held
        return build(HoldsAnswer(tuple(digest in wanted[key_id] for key_id, digest in entries)))

    async def _is_last(self, item: Item) -> bool:
        """Whether what was written is still the last state here; False too when the disk refused."""
        try:
            resource = await self._store.resource(item.key_id)
        except StorageError as error:
            _log.error("checking a write that was passed on failed", key_id=item.key_id, error=str(error))
            return False
        if item.state is not None:
            return resource.slots.get(item.state.slot) == item.state
        return item.key_or_tombstone in (resource.key, *resource.key_tombstones)


def _parsed(body: object, form: type[Form]) -> Form:
    try:
        return parse(body, form)
    except InvalidValue as error:
        raise Refusal(Code.INVALID, str(error)) from error
