"""Has other replicas compare with this node when it lacks something: it refused it for a while, or lost it.

`registry.replica.behind` says what is lacking and when to ask; here is whom, and what waits for it. While this node's
clock is wrong it asks nobody: it would refuse it again.

One replica's word that all was compared isn't believed where others may give theirs: it takes two, of two address
groups where there are so many, be it at different times. Who refuses, or doesn't answer, is waited for half a minute,
not for ever; and who did so more often than others since it last compared is asked after them.

Who keeps a resource in reserve alone (`responsibility_margin`) is read from by nobody, and its replicas may not know
it: after half a minute in which none compared it waits for the hourly comparison, or for becoming a replica, when it is
behind anyway until one has compared with it (`registry.replica.takeover`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog
import trio
from cachetools import TTLCache

from overlay.discovery.keyspace import nearest, peer_position
from overlay.errors import CallFailed
from overlay.tasks import TaskStatus, Wakeup
from registry.codes import Code
from registry.protocol.address_groups import AddressGroups
from registry.protocol.messages import build
from registry.protocol.network import Network
from registry.replica.behind import Behind
from registry.replication.messages import PULL, PullBody
from registry.replication.pull_round import PullRound

ASKED: Final = 4  # replicas at most, each time
KEYS_AT_ONCE: Final = 256  # whose keepers are looked up
MOST_FAILED: Final = 256  # peers that are remembered, since they didn't compare when they were asked
FORGOTTEN: Final = 60.0  # seconds without another failure, after which they are asked as soon as others
PULL_TIMEOUT: Final = 30.0  # seconds for a whole comparison
OFF_AT_LEAST: Final = 2.0
"""Seconds until it is looked again whether the clock is right: of one that was wrong for a moment nobody is told."""
OTHERS: Final = 3.0  # seconds that other replicas have to compare, once one has

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Recovery:
    """Asks until nothing is lacking. `note` has to be told of what was refused or lost."""

    def __init__(
        self, network: Network, groups: AddressGroups, neighbourhood_size: int, responsibility_margin: int
    ) -> None:
        self._network = network
        self._groups = groups
        self._size = neighbourhood_size
        self._margin = responsibility_margin
        self._changed = Wakeup()
        self.behind = Behind()
        self._failures: TTLCache[str, int] = TTLCache(MOST_FAILED, FORGOTTEN, timer=trio.current_time)

    def note(self, key_id: str, code: Code) -> None:
        """Something of a resource was refused."""
        if self.behind.note(key_id, code, trio.current_time()):
            self._changed.set()

    def note_lost(self, key_ids: Iterable[str]) -> None:
        """The disk lost something of these resources."""
        for key_id in key_ids:
            if self._network.is_responsible(key_id, self._size, self._margin):
                self.note(key_id, Code.STORAGE)

    def room_again(self) -> None:
        """The database has room again."""
        self.behind.room_again(trio.current_time())
        self._changed.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Asks for what is missing until cancelled."""
        self._network.compared_clock.on_change(self._note_clock)
        task_status.started()
        while True:
            is_off = self._network.compared_clock.verdict().is_off
            with trio.move_on_at(trio.current_time() + OFF_AT_LEAST if is_off else self.behind.wakes_at()):
                await self._changed.wait()
            if self._network.compared_clock.verdict().is_off:
                continue
            if self.behind.is_everything_due(trio.current_time()):
                await self._pull_everything()
            due = self.behind.due(trio.current_time(), KEYS_AT_ONCE)
            if due:
                await self._pull(set(due))

    def _note_clock(self) -> None:
        if self._network.compared_clock.verdict().is_off:
            self.behind.note_everything(trio.current_time())
        else:
            self.behind.clock_is_right(trio.current_time())
        self._changed.set()

    async def _pull_everything(self) -> None:
        """Asks the nearest neighbours, who keep most of what this node keeps, and others of another address group; the
        slowest have a moment, once enough have compared."""
        began, neighbours = trio.current_time(), self._network.neighbours()
        near = nearest(peer_position(self._network.peer_id), neighbours, len(neighbours))
        asked = near[:ASKED]
        others = [peer_id for peer_id in near if self._groups.of(peer_id) not in set(map(self._groups.of, asked))]
        asked = [*asked, *others[:ASKED]]
        if not asked and not self._network.is_isolated():
            self.behind.compared_everything(began)  # nobody else has any of it
        compared, words = trio.Event(), set[str]()

        async def ask(peer_id: str) -> None:
            try:
                await self._network.call(peer_id, PULL, build(PullBody()), timeout=PULL_TIMEOUT)
            except CallFailed as error:
                _log.debug("a neighbour doesn't compare now", peer_id=peer_id, error=str(error))
            else:
                _log.info("compared everything after the clock was wrong", peer_id=peer_id)
                words.add(peer_id)
                if self._groups.suffices(words, asked):
                    compared.set()

        async def ask_all(done: trio.CancelScope) -> None:
            async with trio.open_nursery() as nursery:
                for peer_id in asked:
                    nursery.start_soon(ask, peer_id)
            done.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_all, nursery.cancel_scope)
            await compared.wait()
            await trio.sleep(OTHERS)
            nursery.cancel_scope.cancel()
        if words:  # enough, or all that answered
            self.behind.compared_everything(began)

    async def _keepers_of(self, key_ids: set[str]) -> dict[str, set[str]]:
        """Which of these resources each other replica keeps."""
        keepers: dict[str, set[str]] = {}
        for key_id in sorted(key_ids):
            for peer_id in await self._network.neighbourhood(key_id, self._size):
                if peer_id != self._network.peer_id:
                    keepers.setdefault(peer_id, set()).add(key_id)
        return keepers

    async def _pull(self, key_ids: set[str]) -> None:
        """Asks those who keep most of these resources, until each was compared. Who is silent for `OTHERS` seconds is
        left to compare while others are asked, and as long again once one of them has."""
        keepers = await self._keepers_of(key_ids)
        if not keepers and not self._network.is_isolated():
            self.behind.compared(key_ids, trio.current_time())  # nobody else has any of it
            return
        asking, began, progress = (
            PullRound(keepers, self._groups, self.behind.is_patient, self.behind.words),
            trio.current_time(),
            Wakeup(),
        )

        async def ask(peer_id: str) -> None:
            try:
                await self._network.call(peer_id, PULL, build(PullBody()), timeout=PULL_TIMEOUT)
            except CallFailed as error:
                _log.debug("a replica doesn't compare now", peer_id=peer_id, error=str(error))
                asking.didnt_compare(peer_id)
            else:
                counted = asking.compared(peer_id)
                self.behind.note_word(peer_id, counted, began)
                self._failures.pop(peer_id, None)
                _log.info("got what was lacking", peer_id=peer_id, resources=len(counted))
            progress.set()

        async with trio.open_nursery() as nursery:
            for _ in range(ASKED):
                asked = asking.next_one(self._failures)
                if asked is None:
                    break
                nursery.start_soon(ask, asked)
                with trio.move_on_after(OTHERS):
                    while asked in asking.under_way:
                        await progress.wait()
            with trio.move_on_after(PULL_TIMEOUT) as waiting:
                while asking.under_way and asking.left:
                    if asking.any_compared:
                        waiting.deadline = min(waiting.deadline, trio.current_time() + OTHERS)
                    await progress.wait()
            asking.didnt_compare(*asking.under_way)
            nursery.cancel_scope.cancel()
        for peer_id in asking.failed:
            self._failures[peer_id] = self._failures.get(peer_id, 0) + 1
        in_reserve = {key_id for key_id in asking.left if not self._network.is_responsible(key_id, self._size)}
        given_up = {key_id for key_id in in_reserve if not self.behind.is_patient(key_id)}
        self.behind.compared(asking.done | given_up, began)
