"""Has this node compare with others: hourly, as in the original, and at once when a neighbourhood changes.

`registry.replication.comparison_plan` decides when, with whom, and over what, by rules that it tells; here is what does
it and waits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec
import structlog
import trio

from overlay.errors import CallFailed, Refusal
from overlay.tasks import Broadcast, TaskStatus, Wakeup
from registry.codes import Code
from registry.errors import InvalidValue, StorageError
from registry.protocol.messages import build
from registry.protocol.network import Network
from registry.replication.anti_entropy import AntiEntropy
from registry.replication.comparison_plan import CompareRanges, CompareResources, ComparisonPlan, FindChanges
from registry.replication.due import due_after_change
from registry.replication.messages import PULL, PullAnswer
from registry.replication.ranges import intersection
from registry.replication.surplus import Surplus
from registry.replication.view import in_turns
from registry.settings import UpkeepSettings
from registry.storage import Store

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ReplicationStatus(msgspec.Struct, frozen=True):
    """Tells how far replication has come.

    `pending`: comparisons of a resource, or of a range of the keyspace, with a peer that are due. `settled`: none is,
    and the members are those that they were made for. `refused`: what others refused to take lately, and is left out
    when they are compared with. The rest is counted since the node's start; `bytes` roughly.
    """

    settled: bool
    pending: int
    compared: int
    repaired: int
    messages: int
    bytes: int
    refused: int = 0


class ReplicationScheduler:
    """Has resources compared with the peers that may lack something of them."""

    def __init__(
        self,
        network: Network,
        store: Store,
        anti_entropy: AntiEntropy,
        settings: UpkeepSettings,
        neighbourhood_size: int,
        randomness: random.Random,
    ) -> None:
        self._network = network
        self._anti_entropy = anti_entropy
        self._size = neighbourhood_size
        self._surplus = Surplus(store, anti_entropy.view)
        self._plan = ComparisonPlan(
            network.peer_id,
            settings,
            neighbours=network.neighbours,
            crowding=lambda: anti_entropy.view.crowding,
            uniform=randomness.uniform,
        )
        self._planned = Wakeup()
        self._done = Broadcast()
        network.serve(PULL, self._serve_pull)

    def status(self) -> ReplicationStatus:
        """How replication stands now."""
        counters = self._anti_entropy.counters
        return ReplicationStatus(
            self._plan.is_settled,
            self._plan.pending,
            counters.resources,
            counters.repaired,
            counters.messages,
            counters.bytes,
            len(self._anti_entropy.refusals),
        )

    async def _serve_pull(self, caller: str, body: object) -> object:  # noqa: ARG002 - it says nothing
        if caller not in self._network.neighbours():
            raise Refusal(Code.NOT_RESPONSIBLE, "this peer compares with its neighbours alone")
        if not self._plan.begin_pull(caller, trio.current_time()):
            raise Refusal(Code.OVERLOADED, "this peer compares with others at present; ask again in some seconds")
        self._planned.set()
        try:
            while self._plan.is_waiting(caller):
                if self._plan.is_postponed(caller, trio.current_time()):
                    raise Refusal(Code.FAILED, "the comparison failed; it is tried again later")
                await self._done.wait()
        finally:
            self._plan.end_pull(caller)
        return build(PullAnswer())

    def note_failure(self, peer_id: str, key_ids: Iterable[str]) -> None:
        """Has these resources compared with a peer that their writes didn't reach."""
        self._plan.note_failure(peer_id, key_ids, trio.current_time())
        self._planned.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compares until cancelled."""
        self._network.on_membership_change(self._note_change)
        self._note_change()  # those who came before this
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                for action in self._plan.step(trio.current_time()):
                    if isinstance(action, FindChanges):
                        nursery.start_soon(self._find_changes, action)
                    else:
                        nursery.start_soon(self._compare, action)
                with trio.move_on_at(self._plan.wake_at):
                    await self._planned.wait()

    async def replicate(self) -> int:
        """Compares all that this node keeps with everyone who keeps it too; with how many peers that was."""
        peers = set(self._network.neighbours())
        self._plan.add_everything(sorted(peers))
        for key_id in await self._surplus.next_few():
            for peer_id in await self._network.neighbourhood(key_id, self._size):
                if peer_id != self._network.peer_id:
                    self._plan.add_resource(peer_id, key_id)
                    peers.add(peer_id)
        self._planned.set()
        while self._plan.has_work(trio.current_time()):
            await self._done.wait()
        return len(peers)

    def _note_change(self) -> None:
        self._plan.note_change(trio.current_time())
        self._planned.set()

    async def _find_changes(self, change: FindChanges) -> None:
        view = self._anti_entropy.view
        steps = due_after_change(
            self._network.peer_id,
            view.with_us(change.before),
            view.with_us(change.after),
            self._size,
            reach=view.reach,
            crowdings=change.crowdings,
        )
        self._plan.changes_found(change, *await in_turns(steps))
        self._planned.set()
        _log.info("neighbours changed", came=len(change.came), went=len(change.went), due=self._plan.due_now)

    async def _compare(self, comparison: CompareRanges | CompareResources) -> None:
        try:
            await self._compare_in_time(comparison)
        finally:
            self._plan.ended(comparison.peer_id, trio.current_time())
            self._done.send()
            self._planned.set()

    async def _compare_in_time(self, comparison: CompareRanges | CompareResources) -> None:
        try:
            with trio.move_on_after(comparison.timeout) as turn:
                if isinstance(comparison, CompareRanges):
                    await self._compare_ranges(comparison)
                else:
                    await self._compare_resources(comparison)
        except (CallFailed, InvalidValue, StorageError) as error:
            self._failed(comparison, str(error))
        except Exception:  # of one comparison; raised on, it would end the node
            _log.exception("a comparison failed", peer_id=comparison.peer_id)
        else:
            if turn.cancelled_caught:
                self._failed(comparison, f"it took longer than {comparison.timeout:g} s")

    def _failed(self, comparison: CompareRanges | CompareResources, why: str) -> None:
        if self._plan.failed(comparison, trio.current_time()):
            _log.info("a comparison failed", peer_id=comparison.peer_id, error=why)

    async def _compare_ranges(self, comparison: CompareRanges) -> None:
        peer_id = comparison.peer_id
        shared = await self._anti_entropy.view.shared_with(peer_id) if comparison.due.everything else ()
        batch, rest = comparison.batch(shared)
        compared = await self._anti_entropy.over_ranges(peer_id, batch, last=comparison.is_last(rest))
        if self._plan.ranges_compared(comparison, rest, compared.differing, compared.unwanted):
            await self._finish(peer_id, [], is_all=True)

    async def _compare_resources(self, comparison: CompareResources) -> None:
        peer_id = comparison.peer_id
        unwanted = await self._anti_entropy.with_peer(peer_id, comparison.key_ids, last=comparison.is_last)
        await self._finish(peer_id, unwanted, is_all=comparison.is_last)

    async def _finish(self, peer_id: str, unwanted: Sequence[str], *, is_all: bool) -> None:
        """Tells what is left of what the peer said it isn't responsible for: that for which it is, as we see it."""
        kept = [key_id for key_id in unwanted if peer_id in await self._network.neighbourhood(key_id, self._size)]
        ranges = self._plan.take_unwanted(peer_id) if is_all else ()
        if ranges and peer_id in self._network.neighbours():
            ranges = intersection(ranges, await self._anti_entropy.view.kept_by(peer_id))
        self._plan.finished(peer_id, kept, ranges, trio.current_time())
