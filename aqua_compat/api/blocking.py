"""The same client for code that isn't async: scripts, threads, Django, Flask; with `asyncio.to_thread` for asyncio.

It runs on a Trio thread of its own. Any number of threads may use one client at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from aqua_compat.api.client import AquaClient
from aqua_compat.api.connections import connect
from overlay.tasks import TaskStatus

if TYPE_CHECKING:
    from types import TracebackType

    from aqua_compat.rpc.health_check import Check
    from aqua_compat.rpc.server import ServiceLimits
    from registry.model.trusted_issuers import TrustChoice
    from registry.watch.watch_event import WatchEvent

T = TypeVar("T")


class BlockingClient:
    """`with BlockingClient(addresses) as client: client.createResource("label")`.

    Has every function of `AquaClient` under its name; what it raises is raised in the calling thread.
    """

    def __init__(self, addresses: str | Sequence[str], **options: Any) -> None:
        """`options`: those of `aqua_compat.connect`."""
        self._addresses = addresses
        self._options = options
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._client: AquaClient | None = None
        self._closing: trio.Event | None = None
        self._nursery: trio.Nursery | None = None
        self._failure: BaseException | None = None

    def open(self) -> BlockingClient:
        """Connects, for code that can't use `with`; `close` it in the end. Raises what `aqua_compat.connect` raises."""
        if self._thread is not None:
            raise RuntimeError("this client was used before; make a new one")
        self._thread = threading.Thread(target=self._run, name="aqua-registry", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __enter__(self) -> BlockingClient:
        """Connects. Raises what `aqua_compat.connect` raises."""
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends calls under way and disconnects."""
        self.close()

    def close(self) -> None:
        """Ends calls under way and disconnects. Harmless when it is closed already."""
        if self._token is not None and self._closing is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._closing.set)
        if self._thread is not None:
            self._thread.join()

    @property
    def peer_id(self) -> str:
        """The peer id of the identity that acts."""
        return self._connected.peer_id

    def run(self, function: Callable[[AquaClient], Awaitable[T]]) -> T:
        """Runs `await function(client)` on the Trio thread and returns its result, for what has no blocking form."""
        client = self._connected
        done: list[T] = []

        async def within_lifetime() -> None:
            assert self._closing is not None
            ended = self._closing
            async with trio.open_nursery() as inner:

                async def end_with_client() -> None:
                    await ended.wait()
                    inner.cancel_scope.cancel()

                inner.start_soon(end_with_client)
                try:
                    done.append(await function(client))
                except Exception as error:  # raised in the calling thread as it is, not in a group
                    failures.append(error)
                inner.cancel_scope.cancel()

        failures: list[Exception] = []
        try:
            trio.from_thread.run(within_lifetime, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise RuntimeError("the client was closed") from self._failure
        if failures:
            raise failures[0]
        if not done:
            raise RuntimeError("the client was closed")
        return done[0]

    def call(
        self,
        peer_id: str,
        service_id: str,
        function: str,
        *arguments: object,
        via: str | Sequence[str] = (),
        timeout: float | None = None,
    ) -> Any:
        """`client.on(peer_id, via=via).call(...)`. Raises `aqua_compat.rpc.errors.ServiceError`."""

        async def call(client: AquaClient) -> Any:
            return await client.on(peer_id, via=via).call(service_id, function, *arguments, timeout=timeout)

        return self.run(call)

    def stream(
        self,
        peer_id: str,
        service_id: str,
        function: str,
        *arguments: object,
        via: str | Sequence[str] = (),
        timeout: float | None = None,
    ) -> Iterator[Any]:
        """`client.on(peer_id, via=via).stream(...)`: each result as soon as it is there. Leave the loop to end it."""
        there = self._connected.on(peer_id, via=via)
        with self._held(there.stream(service_id, function, *arguments, timeout=timeout)) as results:
            while True:
                try:
                    result = self.run(lambda _: anext(results))
                except StopAsyncIteration:
                    return
                yield result

    @contextmanager
    def provide(
        self,
        resource_id: str,
        service_id: str,
        service: object,
        *,
        value: str = "",
        limits: ServiceLimits | None = None,
        check: Check | None = None,
        every: float | None = None,
        ttl: float | None = None,
    ) -> Iterator[None]:
        """Serves a service and keeps it registered while the block runs; sync functions, and `check`, run in threads.

        With `every` alone the service passes as long as this process runs: whatever its own threads do, the client's
        goes on.
        """
        provided = self._connected.provide(
            resource_id, service_id, service, value=value, limits=limits, check=check, every=every, ttl=ttl
        )
        with self._held(provided):
            yield

    @contextmanager
    def _held(self, block: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Keeps an async block of the client open, in a task of its own, while this block runs."""
        release, ended = trio.Event(), threading.Event()

        async def hold(*, task_status: TaskStatus[T] = trio.TASK_STATUS_IGNORED) -> None:
            try:
                async with block as held:
                    task_status.started(held)
                    await release.wait()
            finally:
                ended.set()

        async def start(_: AquaClient) -> T:
            assert self._nursery is not None
            held: T = await self._nursery.start(hold)
            return held

        held = self.run(start)
        try:
            yield held
        finally:
            assert self._token is not None
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(release.set)
                ended.wait()

    def watch(
        self, resource_id: str, *, trusted: TrustChoice | None = None, include_down: bool = False
    ) -> Iterator[WatchEvent]:
        """Events of a resource, each as soon as it is known; ends with the client. Leave the loop to stop watching.

        `trusted`, `include_down`: as of `AquaClient.watch`.
        """

        async def open_watch(client: AquaClient) -> Any:
            return client.watch(resource_id, trusted=trusted, include_down=include_down)

        watch = self.run(open_watch)
        try:
            while True:
                yield self.run(lambda _: anext(watch))
        finally:
            with suppress(RuntimeError):  # the client was closed, and the watch with it
                self.run(lambda _: watch.aclose())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or not iscoroutinefunction(getattr(AquaClient, name, None)):
            raise AttributeError(name)

        def blocking(*arguments: Any, **options: Any) -> Any:
            return self.run(lambda client: getattr(client, name)(*arguments, **options))

        return blocking

    @property
    def _connected(self) -> AquaClient:
        if self._client is None:
            raise RuntimeError("the client isn't connected; use it in a `with` block")
        return self._client

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        async with connect(self._addresses, **self._options) as client, trio.open_nursery() as nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._closing = trio.Event()
            self._client, self._nursery = client, nursery
            self._ready.set()
            await self._closing.wait()
            nursery.cancel_scope.cancel()
