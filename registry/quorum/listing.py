"""Lists an owner's resources: asks several of those who keep its index, a page at a time, and merges what verifies.

Two answers at least are merged, of different address groups where there are such, this node's own counted: an index is
told by several, so that one that withholds something is outvoted. Replicas that haven't caught up are merged and don't
count. One that says nothing for `HEDGE` seconds is made up for by another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
import structlog
import trio

from overlay.errors import CallFailed
from overlay.tasks import Wakeup
from registry.errors import InvalidValue, StorageError
from registry.model.owner_index import IndexEntry, ToldPage, merged_page
from registry.model.values import Key, KeyOrTombstone
from registry.model.verification import (
    VERIFIED_AT_ONCE,
    key_is_genuine,
    key_is_good,
    key_tombstone_is_genuine,
    key_tombstone_is_good,
)
from registry.protocol.address_groups import WORDS, AddressGroups
from registry.protocol.error_info import ErrorInfo
from registry.protocol.index_messages import LIST, MOST_LISTED, IndexPage, ListBody, is_full
from registry.protocol.messages import MAX_ERRORS, Item, build, parse
from registry.protocol.network import Clock, Network
from registry.quorum.doubts import Doubts
from registry.quorum.recent_writes import RecentEntries
from registry.quorum.write import NOT_CONNECTED
from registry.replica.listing import IndexKeeper
from registry.replica.replica import Replica
from registry.settings import RegistrySettings

HEDGE: Final = 0.5  # seconds until another one is asked as well

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ListOutcome(msgspec.Struct, frozen=True):
    """A page of an owner's index. `after`: the label after which the next page begins, None at the end. `answered`:
    replicas whose answers counted."""

    entries: tuple[IndexEntry, ...] = ()
    after: str | None = None
    answered: int = 0
    errors: tuple[ErrorInfo, ...] = ()
    timed_out: bool = False


class IndexReader:
    """Lists resources for this node and for the clients that act through it."""

    def __init__(
        self,
        network: Network,
        replica: Replica,
        keeper: IndexKeeper,
        doubts: Doubts,
        groups: AddressGroups,
        clock: Clock,
    ) -> None:
        """`doubts`: who is asked last."""
        self._network = network
        self._replica = replica
        self._keeper = keeper
        self._doubts = doubts
        self._groups = groups
        self._clock = clock
        self._recent = RecentEntries()

    def remember(self, item: Item) -> None:
        """Has a key or key tombstone that was just written through this node be listed by it for a minute, whoever of
        those who keep the index has it by then."""
        self._recent.remember(item)

    async def page(self, owner_peer_id: str, after: str | None, *, limit: int, ack: int, timeout: float) -> ListOutcome:
        """The entries of an owner's index that follow a label, `limit` at most, once `ack` replicas, and two of
        different address groups, have answered, none can any more, or `timeout` seconds have passed."""
        limit, here = min(max(limit, 1), MOST_LISTED), self._network.peer_id
        asking = _Asking(self._groups, ack)
        with trio.move_on_after(timeout) as waiting:
            keepers = await self._network.neighbourhood(owner_peer_id, self._replica.settings.neighbourhood_size)
            ranked = sorted(keepers, key=lambda peer_id: (peer_id != here, self._doubts.is_doubted(peer_id)))
            asking.begin(ranked)
            progress = Wakeup()

            async def ask(peer_id: str) -> None:
                try:
                    page, counts = await self._ask(peer_id, ListBody(owner_peer_id, after, limit), timeout)
                except (CallFailed, InvalidValue, StorageError) as error:
                    asking.failed(peer_id, ErrorInfo.of(error).on(peer_id))
                else:
                    asking.answered(peer_id, page, counts=counts)
                progress.set()

            async with trio.open_nursery() as nursery:
                while not asking.is_done:
                    for peer_id in asking.next_ones():
                        nursery.start_soon(ask, peer_id)
                    with trio.move_on_after(HEDGE) as silent:
                        await progress.wait()
                    if silent.cancelled_caught:
                        asking.hedge()
                nursery.cancel_scope.cancel()
        errors = asking.errors
        if not asking.pages and self._network.is_isolated():
            errors = [NOT_CONNECTED, *errors]
        pages = [*asking.pages.values(), self._recent.after(owner_peer_id, after)] if asking.pages else []
        entries, following = merged_page(pages, limit)
        counted = len(asking.counted)
        return ListOutcome(tuple(entries), following, counted, tuple(errors[:MAX_ERRORS]), waiting.cancelled_caught)

    async def _ask(self, peer_id: str, body: ListBody, timeout: float) -> tuple[ToldPage, bool]:
        if peer_id == self._network.peer_id:
            counts = await self._replica.wait_until_it_counts(body.owner_peer_id)
            return await self._keeper.page(body.owner_peer_id, body.after, body.limit), counts
        answer = parse(await self._network.call(peer_id, LIST, build(body), timeout=timeout), IndexPage)
        told = [entry for entry in answer.decoded() if entry.owner_peer_id == body.owner_peer_id]
        if not all(map(_is_genuine, (value for entry in told for value in entry.values()))):
            self._doubts.note_invented(peer_id)
        return await page_of(told, answer.last, body, int(self._clock()), self._replica.settings), answer.caught_up


class _Asking:
    """Whom to ask next, and whether those that answered suffice."""

    def __init__(self, groups: AddressGroups, ack: int) -> None:
        self._groups = groups
        self._ack = ack
        self._left: list[str] = []
        self._asked: set[str] = set()
        self._under_way: set[str] = set()
        self._spare = 0
        self.possible: set[str] = set()
        self.pages: dict[str, ToldPage] = {}
        self.counted: set[str] = set()
        self.errors: list[ErrorInfo] = []

    def begin(self, keepers: Sequence[str]) -> None:
        """These may be asked, best first."""
        self._left, self.possible = list(keepers), set(keepers)

    def answered(self, peer_id: str, page: ToldPage, *, counts: bool) -> None:
        """One told its page."""
        self._under_way.discard(peer_id)
        self.pages[peer_id] = page
        if counts:
            self.counted.add(peer_id)
        else:
            self.possible.discard(peer_id)

    def failed(self, peer_id: str, error: ErrorInfo) -> None:
        """One won't answer."""
        self._under_way.discard(peer_id)
        self.possible.discard(peer_id)
        self.errors.append(error)

    def hedge(self) -> None:
        """Those that were asked are slow."""
        self._spare += 1

    @property
    def is_done(self) -> bool:
        """Whether enough answers are there, or no others can come."""
        if not self._left and not self._under_way:
            return True
        return self._suffices(self.counted)

    def next_ones(self) -> list[str]:
        """Whom to ask now, so that the answers would suffice if all came."""
        found: list[str] = []
        while self._left and not self._suffices(self.counted | self._under_way, self._spare):
            groups = set(map(self._groups.of, self.counted | self._under_way))
            chosen = next((peer for peer in self._left if self._groups.of(peer) not in groups), self._left[0])
            self._left.remove(chosen)
            self._under_way.add(chosen)
            found.append(chosen)
        return found

    def _suffices(self, words: Collection[str], spare: int = 0) -> bool:
        if len(words) < max(self._ack, WORDS) + spare:
            return False
        return self._groups.suffices(words, self.possible)


async def page_of(
    told: Sequence[IndexEntry], last: str | None, body: ListBody, now: int, settings: RegistrySettings
) -> ToldPage:
    """What of a replica's answer verifies and was asked for. One that ends a page after too little isn't waited for:
    what it tells is merged, as if it had nothing more."""
    good: dict[str, IndexEntry] = {}
    for number, entry in enumerate(told, start=1):
        values = [value for value in entry.values() if _is_good(value, now, settings)]
        is_ahead = body.after is None or entry.label > body.after
        if values and is_ahead and (last is None or entry.label <= last):
            good[entry.label] = IndexEntry.of(*values)
        if number % VERIFIED_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    entries = [good[label] for label in sorted(good)]
    is_ended = last is not None and not is_full(entries, body.limit)
    return ToldPage(entries, None if is_ended else last)


def _is_good(value: KeyOrTombstone, now: int, settings: RegistrySettings) -> bool:
    if isinstance(value, Key):
        return key_is_good(value, now, settings)
    return key_tombstone_is_good(value, now, settings)


def _is_genuine(value: KeyOrTombstone) -> bool:
    return key_is_genuine(value) if isinstance(value, Key) else key_tombstone_is_genuine(value)
