"""Serves this peer's services to whoever calls them, directly or through a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from aqua_compat.rpc.dispatch import BadCall, Function, functions_of
from aqua_compat.rpc.executor import NO_MORE, next_of, result_of, results_of
from aqua_compat.rpc.streams import BATCH_BYTES, Deliver, Departing, Token, delivering
from overlay.errors import CallFailed, Refusal
from overlay.limits.time_slices import turn
from overlay.peer import OverlayPeer
from overlay.rpc.bodies import Encoded, encoded
from overlay.rpc.framing import FrameError

CALL_METHOD: Final = "service/call"
STREAM_METHOD: Final = "service/stream"
LIST_METHOD: Final = "service/list"

MOST_COLLECTED: Final = 4 * BATCH_BYTES  # bytes of a generator's results that a plain call is answered with

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_caller: ContextVar[str] = ContextVar("caller")

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Called = TypeVar("Called", bound="ServiceCall")


class ServiceCall(Struct, frozen=True, array_like=True):
    """A call of a function of a service, as it travels."""

    service_id: Name
    function: Name
    arguments: list[Any]


class StreamCall(ServiceCall, frozen=True, array_like=True):
    """A call whose results are sent while it runs.

    `path`: the relay that the call came through and results go back through; empty when there is none.
    """

    token: Token
    path: Annotated[str, Meta(max_length=64)]


class ServiceLimits(Struct, frozen=True, kw_only=True):
    """Limits of one service."""

    concurrency: int = 16
    """Calls that run at the same time; of sync functions, each in a thread. A stream is a call while it lasts."""
    queue: int = 64
    """Calls that wait; others are refused at once, and their callers may go to another provider."""
    timeout: float = 60.0
    """Seconds after which a call is ended, whatever its caller's deadline is; of a stream, for each result."""
    patience: float = 300.0
    """Seconds that the reader of a stream may take for a batch, of 256 results at most, before the stream is ended."""


class _Service:
    def __init__(self, service: object, limits: ServiceLimits) -> None:
        self.functions: Mapping[str, Function] = functions_of(service)
        self.limits = limits
        self.running = trio.CapacityLimiter(limits.concurrency)
        self.threads = trio.CapacityLimiter(limits.concurrency)
        """Of sync generators: one that was left behind counts until it ends."""

    @property
    def is_full(self) -> bool:
        """Whether a call more would have to wait where the queue is full."""
        if self.running.available_tokens > 0:
            return False  # nobody waits
        return self.running.statistics().tasks_waiting >= self.limits.queue


class _Admitted(NamedTuple):
    service: _Service
    function: Function
    arguments: list[object]


def caller() -> str:
    """Within a served function: the verified peer id of its caller. Raises LookupError elsewhere."""
    return _caller.get()


@contextmanager
def called_by(peer_id: str) -> Iterator[None]:
    """Within the block, `caller()` is this peer."""
    token = _caller.set(peer_id)
    try:
        yield
    finally:
        _caller.reset(token)


class ServiceServer:
    """Answers `service/call`, `service/stream` and `service/list`."""

    def __init__(self, peer: OverlayPeer) -> None:
        self._peer = peer
        self._services: dict[str, _Service] = {}
        peer.serve(CALL_METHOD, self.handle, relayed=True)
        peer.serve(STREAM_METHOD, self.handle_stream, relayed=True)
        peer.serve(LIST_METHOD, self.listed, relayed=True)

    def add(self, service_id: str, service: object, limits: ServiceLimits | None = None) -> None:
        """Serve an object's public methods, or a mapping's functions. Raises ValueError for an id in use."""
        if service_id in self._services or not 0 < len(service_id) <= 256:
            raise ValueError(f"service {service_id!r} is served already, or is no id of 1 to 256 letters")
        self._services[service_id] = _Service(service, limits or ServiceLimits())

    def remove(self, service_id: str) -> None:
        """Stop serving a service; calls under way go on."""
        self._services.pop(service_id, None)

    async def listed(self, caller: str, body: object) -> object:  # noqa: ARG002 - a handler's signature
        """The services and their functions' signatures (the original's builtin service `srv`)."""
        await trio.lowlevel.checkpoint()
        return {
            service_id: [function.described for function in service.functions.values()]
            for service_id, service in self._services.items()
        }

    async def handle(self, caller: str, body: object) -> object:
        """One call. Raises Refusal with one of the codes of `aqua_compat.rpc.errors.CODES`."""
        call = _parsed(body, ServiceCall)
        service, function, arguments = self._admit(call)
        with called_by(caller), _raising_refusal(call):
            if function.is_generator:
                return await _collected(service, function, arguments)
            with _in_time(service):
                result = await result_of(function, arguments, service.running)
            if isinstance(result, list | dict):
                await turn(0.0)  # what is large takes as long to encode as to make
            return Encoded(await encoded(result))

    async def handle_stream(self, caller: str, body: object) -> object:
        """One call whose results are sent while it runs; how many there were. Raises Refusal, as `handle`."""
        call = _parsed(body, StreamCall)
        if call.path and not self._peer.is_linked(call.path):
            raise Refusal("bad-arguments", "results can't be sent through a relay that this peer isn't connected to")
        service = self._services.get(call.service_id)
        patience = service.limits.patience if service is not None else 0.0
        return await self.stream(caller, call, delivering(self._peer, caller, call.path, call.token, patience))

    async def stream(self, caller: str, call: ServiceCall, deliver: Deliver) -> int:
        """Call a function and deliver its results; how many there were. Raises Refusal, as `handle`."""
        service, function, arguments = self._admit(call)
        departing = Departing(deliver)
        count = 0
        failure: Refusal | None = None
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                nonlocal failure
                try:
                    await departing.run()
                except (CallFailed, Refusal) as error:
                    failure = Refusal("no-stream", f"nobody reads its results: {error}")
                    nursery.cancel_scope.cancel()

            nursery.start_soon(send)
            try:
                with called_by(caller), _raising_refusal(call):
                    async with results_of(function, arguments, service.running, service.threads) as results:
                        while (result := await _next(results, service)) is not NO_MORE:
                            await departing.put(result)
                            count += 1
            except Refusal as refusal:  # raised after the results that came before it
                failure = refusal
            departing.complete()
        if failure is not None:
            raise failure
        return count

    def _admit(self, call: ServiceCall) -> _Admitted:
        """Raises Refusal."""
        service = self._services.get(call.service_id)
        if service is None:
            raise Refusal("no-service", "the peer serves no such service")
        function = service.functions.get(call.function)
        if function is None:
            raise Refusal("no-function", f"it has {', '.join(sorted(service.functions))}"[:512])
        try:
            arguments = function.arguments(call.arguments)
        except BadCall as error:
            raise Refusal("bad-arguments", str(error)) from error
        if service.is_full:
            raise Refusal("overloaded", "too many calls of the service are under way")
        return _Admitted(service, function, arguments)


def _parsed(body: object, form: type[Called]) -> Called:
    try:
        return msgspec.convert(body, form, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Refusal("bad-arguments", str(error)) from error


@contextmanager
def _raising_refusal(call: ServiceCall) -> Iterator[None]:
    """Whatever a function raises becomes a Refusal, without its traceback."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        log.info("a service raised", service=call.service_id, function=call.function, exc_info=True)
        text = f"can't be sent: {error}" if isinstance(error, FrameError) else f"{type(error).__name__}: {error}"
        raise Refusal("raised", text[:1000].encode(errors="replace").decode()) from error


@contextmanager
def _in_time(service: _Service) -> Iterator[None]:
    if trio.current_effective_deadline() <= trio.current_time() + service.limits.timeout:
        yield  # the call's own deadline comes first, and a scope costs 5 us
        return
    with trio.move_on_after(service.limits.timeout) as deadline:
        yield
    if deadline.cancelled_caught:
        raise Refusal("too-slow", f"the service allows {service.limits.timeout:g} s")


async def _next(results: AsyncIterator[object], service: _Service) -> object:
    with _in_time(service):
        return await next_of(results)


async def _collected(service: _Service, function: Function, arguments: list[object]) -> list[object]:
    """A generator's results as a list, for a call that is no stream."""
    collected: list[object] = []
    size = 0
    async with results_of(function, arguments, service.running, service.threads) as results:
        while (result := await _next(results, service)) is not NO_MORE:
            collected.append(result)
            size += len(await encoded(result))
            if size > MOST_COLLECTED:
                raise Refusal("raised", f"its results are more than {MOST_COLLECTED} bytes; call it as a stream")
    return collected
