"""The node's storage: writes in group commits, reads of whole resources from a bounded cache.

A write is a function of a `Transaction`, run on a worker thread. All writes that wait while one commit is under way
form the next, so that many share one fsync; each is answered when that transaction is on disk. A write that refuses
(raises RegistryError) or fails leaves no trace and doesn't touch its companions.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import outcome
import structlog
import trio

from overlay.tasks import background
from registry.errors import RegistryError, StorageError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.history import GONE, HistoryEvent
from registry.model.merge import ResourceState
from registry.storage.change import Change
from registry.storage.checked_rows import DamagedRow, Place, shown
from registry.storage.database import open_database
from registry.storage.digest_cache import DigestCache
from registry.storage.in_turns import digest_in_turns
from registry.storage.resource_cache import ResourceCache
from registry.storage.space import Space
from registry.storage.transaction import Transaction

Result = TypeVar("Result")

MAX_QUEUED: Final = 4096  # writes; beyond it writers wait for the disk
MAX_COMMIT: Final = 512  # writes in one transaction: a bound on what one failure or one fsync delays
NOTHING: Final = ResourceState().digest()  # of a resource of which nothing is known
VACUUMED_AT_ONCE: Final = 64  # pages, while writes wait

_OWN_FAULTS: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What one write's own values provoke. Any other error of SQLite's is the disk's, and all in the transaction fail."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _Write:
    __slots__ = ("decide", "done", "outcome")

    def __init__(self, decide: Callable[[Transaction], Any]) -> None:
        self.decide = decide
        self.done = trio.Event()
        self.outcome: outcome.Outcome[Any] | None = None


class Store:
    """Use `open_store`. All methods belong to the Trio thread; only `decide` functions run on the worker thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, inline: bool = False) -> None:
        self._connection = connection
        self._path = path
        self._inline = inline
        self._send, self._receive = trio.open_memory_channel[_Write](MAX_QUEUED)
        self._disk = trio.Lock()  # one thread at a time uses the connection
        self._cache = ResourceCache()
        self._digests = DigestCache()
        self._callbacks: list[Callable[[Mapping[str, Change]], None]] = []
        self._listed_callbacks: list[Callable[[Collection[str]], None]] = []
        self._room_callbacks: list[Callable[[], None]] = []
        self._damage_callbacks: list[Callable[[Collection[str]], None]] = []
        self._told_full = False
        self._may_collect: Callable[[], bool] = lambda: True
        self.space = Space()
        """How full the database is; changed by the worker thread."""
        self.commits = 0
        self.writes = 0
        self.damaged = 0
        """Rows that were dropped since the start because they weren't what had been stored there."""

    def on_commit(self, callback: Callable[[Mapping[str, Change]], None]) -> None:
        """Has `callback` called, synchronously, with what each write changed, by key id, once that is on disk."""
        self._callbacks.append(callback)

    def on_listed(self, callback: Callable[[Collection[str]], None]) -> None:
        """Has `callback` called, synchronously, with the owners in whose indexes a write changed something, once that
        is on disk; spoilt names of owners, too, where a disk changed them."""
        self._listed_callbacks.append(callback)

    def on_damage(self, callback: Callable[[Collection[str]], None]) -> None:
        """Has `callback` called with the resources of which damaged rows were dropped, once that is on disk."""
        self._damage_callbacks.append(callback)

    def on_room(self, callback: Callable[[], None]) -> None:
        """Has `callback` called when a database that was full has room again."""
        self._room_callbacks.append(callback)

    def collect_while(self, may_collect: Callable[[], bool]) -> None:
        """Has writes delete nothing for its age while `may_collect()` is false."""
        self._may_collect = may_collect

    async def write(self, decide: Callable[[Transaction], Result]) -> Result:
        """Runs `decide` in the next transaction; returns its result when that is on disk.

        Raises what `decide` raised, having written nothing of it; StorageError when the disk failed. When cancelled
        the write may or may not happen.
        """
        write = _Write(decide)
        try:
            await self._send.send(write)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StorageError(f"the database {self._path} is closed") from error
        await write.done.wait()
        assert write.outcome is not None
        result: Result = write.outcome.unwrap()
        return result

    async def resource(self, key_id: str) -> ResourceState:
        """Everything that is stored under a key id, as of the last commit. Raises StorageError."""
        cached = self._cache.get(key_id)
        if cached is not None:
            return cached
        async with self._disk:  # no commit is under way, so what is read is what the last one left
            state, size, is_damaged = await self._query(partial(_loaded, key_id))
            if not is_damaged:  # else, if what is damaged can't be deleted now, nobody would meet it again
                self._cache.remember(key_id, state, size)
        return state

    async def digests(self, key_ids: Sequence[str], horizon: ExpiryHorizon) -> dict[str, bytes]:
        """The digests of what lives under these key ids, as of the last commit. Raises StorageError."""
        places = await self.read(lambda transaction: transaction.positions.digests(key_ids, horizon))
        found = dict.fromkeys(key_ids, NOTHING)
        found.update({place.key_id: await self.digest_at(place, horizon) for place in places})
        return found

    async def digest_at(self, place: Place, horizon: ExpiryHorizon) -> bytes:
        """The digest of what lives at a place as it was read, `NOTHING` when nothing does. Raises StorageError."""
        if place.is_alive:
            return place.digest
        known = self._digests.get(place.key_id, horizon)
        if known is not None:
            return known
        commits, alive = self.commits, horizon.alive(await self.resource(place.key_id))
        digest = await digest_in_turns(alive)
        if commits == self.commits:  # else it may have changed meanwhile
            self._digests.remember(place.key_id, horizon, alive, digest)
        return digest

    def cached_resource(self, key_id: str) -> ResourceState | None:
        """`resource`, when that needs no disk."""
        return self._cache.get(key_id)

    async def read(self, query: Callable[[Transaction], Result]) -> Result:
        """Runs `query`, which mustn't write, between two commits. Raises StorageError."""
        async with self._disk:
            return await self._query(query)

    async def vacuum(self) -> int:
        """Gives what deletions freed back to the file system, in small steps; how many bytes. Raises StorageError."""
        given_back = 0
        while freed := await self.read(lambda transaction: transaction.vacuum(VACUUMED_AT_ONCE)):
            given_back += freed
        return given_back

    async def _query(self, query: Callable[[Transaction], Result]) -> Result:
        transaction = Transaction(self._connection)
        try:
            found = await self._in_thread(query, transaction)
        except sqlite3.Error as error:
            raise StorageError(f"the database {self._path} can't be read: {error}") from error
        self._drop(transaction.damaged)
        self._drop_listed(transaction.index.damaged)
        return found

    def _drop(self, damaged: Collection[DamagedRow]) -> None:
        """Has damaged rows deleted with the next commit. What doesn't come about is met again."""
        if not damaged:
            return

        def decide(transaction: Transaction) -> None:
            for row in damaged:
                transaction.drop_damaged(row)

        with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._send.send_nowait(_Write(decide))

    def _drop_listed(self, damaged: Collection[tuple[str, str]]) -> None:
        """`_drop`, of entries of owners' indexes."""
        if not damaged:
            return

        def decide(transaction: Transaction) -> None:
            for owner, label in dict.fromkeys(damaged):
                if transaction.index.drop_damaged(owner, label):
                    self.damaged += 1
                    _log.error(
                        "dropped a damaged entry of an index: is the disk failing?",
                        database=str(self._path),
                        owner=shown(owner),
                        label=shown(label),
                    )

        with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._send.send_nowait(_Write(decide))

    def _tell_damage(self, dropped: Collection[DamagedRow]) -> None:
        self.damaged += len(dropped)
        for row in dropped:
            _log.error(
                "dropped a damaged row: is the disk failing?",
                database=str(self._path),
                key_id=row.key_id,
                slot=repr(row.slot) if row.slot else "",
                error=row.reason,
            )
        for callback in self._damage_callbacks:
            callback({row.key_id for row in dropped})

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        if self._inline:
            await trio.lowlevel.checkpoint()
            return function(*arguments)
        return await trio.to_thread.run_sync(function, *arguments)

    async def run(self) -> None:
        """Commits until cancelled or closed; what was queued by then is committed."""
        async with self._receive:
            async for first in self._receive:
                batch = [first]
                while len(batch) < MAX_COMMIT:
                    try:
                        batch.append(self._receive.receive_nowait())
                    except (trio.WouldBlock, trio.EndOfChannel):
                        break
                with trio.CancelScope(shield=True):
                    await self._commit(batch)

    async def _commit(self, batch: list[_Write]) -> None:
        async with self._disk:
            try:
                transactions = await self._in_thread(self._commit_on_disk, batch, self._may_collect())
            except Exception as error:  # the disk's, or of what it spoilt; raised on, it would end the node
                _log.error("commit failed", database=str(self._path), writes=len(batch), error=repr(error))
                for write in batch:
                    write.outcome = outcome.Error(StorageError(f"the disk refused a write to {self._path}: {error}"))
            else:
                for transaction in transactions:
                    self._tell(transaction)
                self.commits += 1
                self.writes += len(batch)
                self._tell_space()
        for write in batch:
            write.done.set()

    def _tell(self, transaction: Transaction) -> None:
        """Has everybody know what a write changed, once it is on disk."""
        for key_id, change in transaction.changes.items():
            self._cache.apply(key_id, change)
            self._digests.forget(key_id)
        if transaction.changes:
            for callback in self._callbacks:
                callback(transaction.changes)
        if transaction.index.changed:
            for told in self._listed_callbacks:
                told(transaction.index.changed)
        for event in transaction.events:
            _log_event(event)
        self._drop(transaction.damaged)
        if transaction.dropped_as_damaged:
            self._tell_damage(transaction.dropped_as_damaged)

    def _commit_on_disk(self, batch: list[_Write], may_collect: bool) -> list[Transaction]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            transactions = [transaction for write in batch if (transaction := self._run_one(write, may_collect))]
            last = Transaction(self._connection)
            last.settle()
            self._connection.execute("COMMIT")
            self.space.measured(Transaction(self._connection).used_bytes())
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return [*transactions, last]

    def _run_one(self, write: _Write, may_collect: bool) -> Transaction | None:
        """The transaction with what `write` changed; None when it refused."""
        transaction = Transaction(self._connection, self.space, may_collect=may_collect)
        self._connection.execute("SAVEPOINT one_write")
        write.outcome = outcome.capture(write.decide, transaction)
        refused = isinstance(write.outcome, outcome.Error)
        if isinstance(write.outcome, outcome.Error):
            error = write.outcome.error
            if isinstance(error, sqlite3.Error) and not isinstance(error, _OWN_FAULTS):
                raise error
            self._connection.execute("ROLLBACK TO one_write")
            if isinstance(error, sqlite3.Error):
                write.outcome = outcome.Error(StorageError(f"the database {self._path} can't hold this: {error}"))
            if not isinstance(error, RegistryError):
                _log.error("a write to the database failed", error=repr(error))
        self._connection.execute("RELEASE one_write")
        return None if refused else transaction

    def _tell_space(self) -> None:
        """Once per change: a node that is full stays so for a while, and many are refused meanwhile."""
        if self.space.is_full == self._told_full:
            return
        self._told_full = self.space.is_full
        told = {"database": str(self._path), "bytes": self.space.used, "of": self.space.budget}
        if self._told_full:
            _log.warning("the disk budget is full: strangers' new data is refused; raise max_disk_bytes", **told)
        else:
            _log.warning("the disk budget has room again", **told)
            for callback in self._room_callbacks:
                callback()

    def close(self) -> None:
        """No writes after this; `run` ends when the queue is empty."""
        self._send.close()


def _loaded(key_id: str, transaction: Transaction) -> tuple[ResourceState, int, bool]:
    """A resource, its size, and whether damaged rows were met."""
    resource = transaction.resource(key_id)
    return resource, resource.size(), bool(transaction.damaged)


def _log_event(event: HistoryEvent) -> None:
    """Once per event, after its commit; that something came or was renewed is everyday."""
    level = logging.INFO if event.what in GONE else logging.DEBUG
    told = {"key_id": event.key_id, "issued_by": event.issued_by, "peer_id": event.peer_id, "why": event.detail}
    _log.log(level, event.what, **{name: text for name, text in told.items() if text})


@asynccontextmanager
async def open_store(path: Path, *, inline: bool = False, refill: bool = False) -> AsyncIterator[Store]:
    """The storage in the file `path`, created when missing. Leaving commits what was queued. Raises StorageError.

    `inline` runs SQLite in the Trio thread: for a database in memory, which never waits for a disk, and for virtual
    time, which doesn't wait for threads. `refill`: a damaged database is set aside and begun anew.
    """
    opening = partial(open_database, path, refill=refill)
    connection = opening() if inline else await trio.to_thread.run_sync(opening)
    store = Store(connection, path, inline=inline)
    try:
        async with background() as nursery:
            nursery.start_soon(_run_shielded, store)
            try:
                yield store
            finally:
                store.close()
    finally:
        connection.close()


async def _run_shielded(store: Store) -> None:
    # Cancellation ends the writers; `close` then ends this task, after it has committed what they had queued.
    with trio.CancelScope(shield=True):
        await store.run()
