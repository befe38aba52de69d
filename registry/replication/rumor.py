"""Spreads what was written to this node alone to the rest of the neighbourhood, within a second.

Unmodified scripts write to whom they please: not to the node that they act through, and not to who was away a moment.
And a node that dies in the middle of a write has perhaps reached nobody else; its last words may even come after its
next life has begun, when a partition ends. Rules:
1. What was news here is sent on after a random delay to the members of the neighbourhood that aren't known to have it.
2. Who puts the same to this node has it; and once two other members sent it to everyone, as their puts show, this
   node needn't: what got lost all the same, the hourly comparison finds. Puts of others don't count: peer ids are
   free, and whoever wants a tombstone held back could take two. Nor do those of the nearest, where members crowd.
3. Puts share frames with others to the same peer (`registry.quorum.send_queue`).
4. What a member put here that went within `LATELY` seconds after it is news again, and so is what one put that
   didn't wait for the answer (`registry.replica.replica` tells). Each once within that time, whoever repeats it.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import structlog
import trio
from cachetools import TTLCache

from overlay.tasks import TaskStatus, Wakeup
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.protocol.network import Network
from registry.quorum.send_queue import SendQueue

DELAYS: Final = (0.1, 0.6)  # seconds until an update is sent on, at random between these
BATCHED: Final = 0.1  # seconds between looks at what is due
ENOUGH: Final = 2  # other members that sent the same on
MOST_HEARD: Final = 64  # peers whose puts of one update are remembered
MAX_DUE: Final = 4096  # beyond it, what is oldest is sent on at once
LATELY: Final = 30.0  # seconds, in which the silent death of a peer is noticed
MAX_LATELY: Final = 2048  # puts of others that are remembered
MAX_LATELY_BYTES: Final = 4 * 2**20  # of these


_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _DueRumor:
    __slots__ = ("at", "item", "known_by")

    def __init__(self, item: Item, at: float) -> None:
        self.item = item
        self.at = at
        self.known_by: set[str] = set()


class _RumorPut(NamedTuple):
    at: float
    peer_id: str
    item: Item
    size: int


class Rumors:
    """Sends on what was written to this node alone; see the rules above. `run` owns the tasks."""

    def __init__(self, network: Network, send_queue: SendQueue, size: int, randomness: random.Random) -> None:
        """`size`: of a neighbourhood."""
        self._network = network
        self._send_queue = send_queue
        self._size = size
        self._random = randomness
        self._due: OrderedDict[bytes, _DueRumor] = OrderedDict()
        self._overdue: list[_DueRumor] = []
        self._any_due = Wakeup()
        self._lately: deque[_RumorPut] = deque()
        self._lately_bytes = 0
        self._again: TTLCache[bytes, None] = TTLCache(MAX_LATELY, LATELY, timer=trio.current_time)
        self._members = frozenset(network.members())
        self.offered = 0
        """How many puts were made, to all peers together."""
        network.on_membership_change(self._note_members)

    def note(self, item: Item) -> None:
        """Has `item` sent on: it was written here, was news, and is on the disk."""
        digest = item.digest()
        if digest in self._due:
            return
        self._due[digest] = _DueRumor(item, trio.current_time() + self._random.uniform(*DELAYS))
        if len(self._due) > MAX_DUE:
            self._overdue.append(self._due.popitem(last=False)[1])
        self._any_due.set()

    def note_again(self, items: Iterable[Item]) -> None:
        """Has these sent on as `note` does, unless that was asked for lately (rule 4)."""
        for item in items:
            digest = item.digest()
            if digest not in self._again:
                self._again[digest] = None
                self.note(item)

    def heard(self, peer_id: str, items: Sequence[Item]) -> None:
        """Notes that a peer has these items, since it put them here."""
        self._remember(peer_id, items)
        for item in items if self._due else ():
            due = self._due.get(item.digest())
            if due is not None and len(due.known_by) < MOST_HEARD:
                due.known_by.add(peer_id)

    def _remember(self, peer_id: str, items: Sequence[Item]) -> None:
        now = trio.current_time()
        for item in items:
            self._lately.append(_RumorPut(now, peer_id, item, item.size()))
            self._lately_bytes += self._lately[-1].size
        while self._lately and (
            self._lately[0].at < now - LATELY or len(self._lately) > MAX_LATELY or self._lately_bytes > MAX_LATELY_BYTES
        ):
            self._lately_bytes -= self._lately.popleft().size

    def _note_members(self) -> None:
        before, self._members = self._members, frozenset(self._network.members())
        if gone := before - self._members:
            since = trio.current_time() - LATELY
            self.note_again(put.item for put in self._lately if put.peer_id in gone and put.at >= since)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sends on what is due until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await self._any_due.wait()
                while self._due:
                    await trio.sleep(BATCHED)
                    for due in self._take_due(trio.current_time()):
                        nursery.start_soon(self._send_on, due)

    def _take_due(self, now: float) -> list[_DueRumor]:
        ripe = [digest for digest, due in self._due.items() if due.at <= now]
        overdue, self._overdue = self._overdue, []
        return [*overdue, *map(self._due.pop, ripe)]

    async def _send_on(self, due: _DueRumor) -> None:
        members = await self._network.neighbourhood(due.item.key_id, self._size)
        if len(due.known_by.intersection(members[self._size :] or members)) >= ENOUGH:
            return
        for peer_id in members:
            if peer_id != self._network.peer_id and peer_id not in due.known_by:
                self.offered += 1
                self._send_queue.put(peer_id, due.item, _note_report, urgent=False)


def _note_report(peer_id: str, error: ErrorInfo | None) -> None:
    if error:
        _log.debug("a rumor wasn't taken", peer_id=peer_id, error=error.text)
