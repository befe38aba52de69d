"""Tasks and waiting, beyond what Trio offers: nurseries behind blocks, threads, events that repeat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

if TYPE_CHECKING:
    # libp2p 0.8.1 needs `trio-typing`, whose stubs of Trio 0.22 type checkers prefer to Trio's own types: the two
    # differ in this class. Goes, with what `in_thread` says, when libp2p needs it no more.
    from trio_typing import TaskStatus
else:
    from trio import TaskStatus

__all__ = ["Broadcast", "TaskOwner", "TaskStatus", "Wakeup", "background", "in_thread"]

T = TypeVar("T")


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the block ends.

    What the block raises comes out as itself: a nursery of Trio's would wrap it in an ExceptionGroup, and then nobody
    could catch a StorageError by its name. What a task raises is a fault of ours and comes out in a group.
    """
    failure: Exception | KeyboardInterrupt | SystemExit | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def in_thread(function: Callable[..., T], *arguments: Any, limiter: trio.CapacityLimiter | None = None) -> T:
    """Run a blocking function in a thread. When this is cancelled the thread is left to end by itself.

    `limiter`: bounds how many threads are taken at the same time; Trio's own 40 by default. The result may be a
    coroutine, as of a lambda that calls an async function.
    """

    def boxed() -> tuple[T]:  # Trio refuses a plain coroutine
        return (function(*arguments),)

    # The old stubs lack `abandon_on_cancel`.
    result: tuple[T] = await trio.to_thread.run_sync(  # type: ignore[call-arg]
        boxed, abandon_on_cancel=True, limiter=limiter
    )
    return result[0]


class Wakeup:
    """Wakes one task that does what has come up since: set any number of times, it wakes its waiter once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake the waiter, now or when it waits next."""
        self._event.set()

    def clear(self) -> None:
        """Forget that it was set: whatever came up until now is done anyway."""
        if self._event.is_set():
            self._event = trio.Event()

    def is_set(self) -> bool:
        """Whether the next wait won't wait."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until it is set, unless it was since the last wait, and clear it. When cancelled, it stays set."""
        await self._event.wait()
        self._event = trio.Event()


class Broadcast:
    """Wakes all tasks that wait at the moment, again and again; a task that waits later is woken the next time."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def send(self) -> None:
        """Wake all tasks that wait now."""
        event, self._event = self._event, trio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next `send`."""
        await self._event.wait()


class TaskOwner:
    """Owns the tasks that an object's methods start: they live while `run`, or a block of `opened`, does."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    @property
    def is_open(self) -> bool:
        """Whether tasks can be started."""
        return self._nursery is not None

    @property
    def count(self) -> int:
        """How many tasks are running."""
        return len(self._nursery.child_tasks) if self._nursery is not None else 0

    def start_soon(self, function: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        """Start a task. Raises RuntimeError when this isn't open (any more)."""
        if self._nursery is None:
            raise RuntimeError("no tasks can be started: their owner isn't running")
        self._nursery.start_soon(function, *arguments)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Within, tasks can be started; leaving waits for those that are running, unless it is cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be open until cancelled, and cancel the tasks then."""
        async with self.opened():
            task_status.started()
            await trio.sleep_forever()
