"""This node as a replica: it takes what others send and tells what it knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import outcome
import structlog
import trio

from overlay.errors import Refusal
from overlay.tasks import TaskOwner, TaskStatus
from registry.codes import Code
from registry.errors import InvalidValue, StorageError
from registry.model.merge import ResourceState, is_spent
from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, Record, Slot
from registry.model.verification import is_expired
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import (
    PUT,
    READ,
    Form,
    Item,
    PutAnswer,
    PutBody,
    ReadBody,
    Spread,
    StatePage,
    build,
    parse,
)
from registry.protocol.network import Clock, Network
from registry.replica.behind import Behind
from registry.replica.catch_up import CatchUp
from registry.replica.ingest import Ingest
from registry.replica.takeover import Takeover
from registry.settings import RegistrySettings
from registry.storage import Store
from registry.storage.in_turns import digest_in_turns, wait_for_turn

NotePut = Callable[[str, Sequence[Item], Iterable[Spread | None]], Awaitable[None]]
"""(peer id, items that it put, to whom each is to be passed on)."""
NoteUnheard = Callable[[Sequence[Item]], None]
"""Is told of what is on disk here, while who put it hasn't heard so."""

MAX_PUTS: Final = 1024  # that go on when their callers leave

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Replica:
    """Serves `registry.put` and `registry.read` over `network`, out of `store`."""

    def __init__(
        self,
        network: Network,
        store: Store,
        ingest: Ingest,
        catch_up: CatchUp,
        takeover: Takeover,
        behind: Behind,
        clock: Clock,
        note_put: NotePut | None = None,
        note_unheard: NoteUnheard | None = None,
    ) -> None:
        """`note_put` is called for what a peer put and this one has now, `note_unheard` where the peer didn't wait for
        the answer: perhaps it is no more, and nobody else has it."""
        self._network = network
        self._store = store
        self._clock = clock
        self.ingest = ingest
        self.catch_up = catch_up
        self.takeover = takeover
        self.behind = behind
        self._note_put = note_put
        self._note_unheard = note_unheard
        self._tasks = TaskOwner()
        network.serve(PUT, self._serve_put)
        network.serve(READ, self._serve_read)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Owns the puts that go on when their callers leave, until cancelled."""
        await self._tasks.run(task_status=task_status)

    @property
    def settings(self) -> RegistrySettings:
        """The settings in force."""
        return self.ingest.settings

    def is_among_nearest(self, key_id: str) -> bool:
        """Whether writes of a resource are sent to this member; one beyond may hold a part only, as a host does."""
        return self.ingest.is_among_nearest(key_id)

    @property
    def is_caught_up(self) -> bool:
        """Whether this node's answers count at all: it wasn't away, and its clock isn't off, nor was it just now."""
        return self.catch_up.is_caught_up and not (self.ingest.clock_guard.is_off or self.behind.lacks_everything)

    def counts_for(self, key_id: str) -> bool:
        """Whether what is here of a resource is as good as another replica's, now."""
        return self.is_caught_up and not self.takeover.is_new_to(key_id) and not self.behind.is_behind(key_id)

    async def wait_until_it_counts(self, key_id: str) -> bool:
        """`counts_for`, after waiting for it for a while."""
        if self.ingest.clock_guard.is_off:  # not over in a moment
            return False
        caught_up = await self.catch_up.wait() and await self.takeover.wait(key_id)
        return caught_up and self.is_caught_up and not self.behind.is_behind(key_id)

    async def resource(self, key_id: str) -> ResourceState:
        """What this replica serves of a resource now: neither expired records nor spent tombstones or keys."""
        return self._served(await self._store.resource(key_id))

    async def own(self, key_id: str) -> ResourceState | None:
        """`resource`, if this is one of the nearest replicas and its answers count."""
        if not (self.is_among_nearest(key_id) and self.counts_for(key_id)):
            return None
        try:
            return await self.resource(key_id)
        except StorageError as error:
            _log.error("the own state can't be read", key_id=key_id, error=str(error))
            return None  # others know it too

    async def take_announced(self, item: Item, source: str) -> bool:
        """Stores a verified update that a peer announced, by the same rules as one that it put; whether it was news for
        others too, which what a policy withholds isn't."""
        if not self.ingest.is_responsible(item.key_id):
            return False
        try:
            known = await self._store.resource(item.key_id)
            if item.state is not None:
                stored = known.slots.get(item.state.slot)
                stale = stored is not None and stored.order() >= item.state.order()
            elif isinstance(item.key_or_tombstone, Key):
                stale = known.key is not None and known.key.order() >= item.key_or_tombstone.order()
            else:
                stale = item.key_or_tombstone in known.key_tombstones
            is_stored = not stale and await self.ingest.store([item], source) == [None]
            return is_stored and self._may_be_passed_on(item)
        except StorageError as error:
            _log.error("an announcement couldn't be stored", key_id=item.key_id, error=str(error))
            return False

    def now(self) -> int:
        """Whole seconds of the wall clock."""
        return int(self._clock())

    def _may_be_passed_on(self, item: Item) -> bool:
        """Whether no policy withholds a record that was stored, as far as memory tells."""
        if not isinstance(item.state, Record):
            return True
        stored = self._store.cached_resource(item.key_id)
        known = item.key_or_tombstone if stored is None else stored.key
        return not isinstance(known, Key) or why_withheld(known, item.state, self.now()) is None

    def resource_at_hand(self, key_id: str) -> ResourceState | None:
        """`resource`, when it is in memory."""
        stored = self._store.cached_resource(key_id)
        return None if stored is None else self._served(stored)

    def _served(self, stored: ResourceState) -> ResourceState:
        now, settings = int(self._clock()), self.settings
        key, siblings = stored.key, stored.siblings
        if key is not None and is_expired(key.timestamp_created, settings.key_lifetime, now):
            key, siblings = None, ()
        key_tombstones = tuple(
            each
            for each in stored.key_tombstones
            if not is_expired(each.timestamp_issued, settings.key_tombstone_lifetime, now)
        )
        kept = [state for state in stored.slots.values() if not is_spent(state, now, settings)]
        is_whole = key is stored.key and len(key_tombstones) == len(stored.key_tombstones)
        if is_whole and len(kept) == len(stored.slots):
            return stored
        return ResourceState.of(key, kept, *key_tombstones, siblings=siblings)

    async def _serve_put(self, caller: str, body: object) -> object:
        """Goes on when the caller leaves: what is on disk then is passed on all the same."""
        put = _parsed(body, PutBody)
        if not self._tasks.is_open or self._tasks.count >= MAX_PUTS:
            return await self.take(caller, put, keyless=False)
        done, answers, is_unheard = trio.Event(), list[outcome.Outcome[object]](), False

        async def take() -> None:
            try:
                taken, answer = await self._take(caller, put, keyless=False)
                answers.append(outcome.Value(answer))
                # Of strangers it isn't: they could have the same sent to all replicas again and again, by this node.
                if is_unheard and self._note_unheard is not None and caller in self._network.members():
                    self._note_unheard(taken)
            except Exception as error:
                answers.append(outcome.Error(error))
            finally:
                done.set()

        self._tasks.start_soon(take)
        try:
            await done.wait()
        except trio.Cancelled:
            is_unheard = True
            raise
        if not answers:
            raise Refusal(Code.STOPPING, "this node is stopping")
        return answers[0].unwrap()

    async def take(self, caller: str, body: PutBody, *, keyless: bool) -> object:
        """Stores what a peer sent; the answer to it. `keyless`: see `Ingest.store`. Raises Refusal."""
        _, answer = await self._take(caller, body, keyless=keyless)
        return answer

    async def _take(self, caller: str, body: PutBody, *, keyless: bool) -> tuple[list[Item], object]:
        """What is on disk here now and may be passed on, and the answer."""
        decoded = body.decoded()
        items = [item for item in decoded if isinstance(item, Item)]
        try:
            stored = await self.ingest.store(items, caller, keyless=keyless)
        except StorageError as error:  # its text names this node's files: for the log, not for peers
            _log.error("a put couldn't be stored", caller=caller, items=len(items), error=str(error))
            raise Refusal(Code.STORAGE, "the disk refused") from error
        verdicts = iter(stored)
        errors = [item if isinstance(item, ErrorInfo) else next(verdicts) for item in decoded]
        numbered = [
            (item, at)
            for at, item in enumerate(decoded)
            if isinstance(item, Item) and errors[at] is None and self._may_be_passed_on(item)
        ]
        taken = [item for item, _ in numbered]
        if self._note_put is not None:
            await self._note_put(caller, taken, (body.spread_of(at) for _, at in numbered))
        if any(errors):
            _log.debug("refused some of a put", caller=caller, refused=sum(map(bool, errors)), items=len(errors))
        return taken, build(PutAnswer(tuple(errors)))

    async def _serve_read(self, caller: str, body: object) -> object:
        request = _parsed(body, ReadBody)
        caught_up = await self.wait_until_it_counts(request.key_id)
        try:
            resource = await self.resource(request.key_id)
        except StorageError as error:
            _log.error("a read failed", caller=caller, error=str(error))
            raise Refusal(Code.STORAGE, "the disk refused") from error
        knows_all = bool(request.digest) and not resource.is_empty() and not resource.has_siblings
        if knows_all and request.digest == await digest_in_turns(resource):
            return build(StatePage.of_same(resource, caught_up=caught_up))
        after = Slot(*request.after) if request.after else None
        await wait_for_turn(resource)
        return build(StatePage.of(resource, after, caught_up=caught_up))


def _parsed(body: object, form: type[Form]) -> Form:
    try:
        return parse(body, form)
    except InvalidValue as error:
        raise Refusal(Code.INVALID, str(error)) from error
