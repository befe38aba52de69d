"""The services of this peer, answered to whoever calls, directly or through a relay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import isawaitable
from typing import Annotated, Any, Final

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from aqua_compat.services.exposure import BadCall, Function, functions_of
from overlay.errors import Refusal
from overlay.frames import FrameError, encode_item
from overlay.peer import OverlayPeer

CALL_METHOD: Final = "service/call"
LIST_METHOD: Final = "service/list"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_caller: ContextVar[str] = ContextVar("caller")

Name = Annotated[str, Meta(min_length=1, max_length=256)]


class ServiceCall(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    service_id: Name
    function: Name
    arguments: list[Any]


class ServiceLimits(Struct, frozen=True, kw_only=True):
    """Of one service."""

    concurrency: int = 16
    """Calls that run at the same time; of sync functions, each in a thread."""
    queue: int = 64
    """Calls that wait; beyond it they are turned away, and callers may go to another provider."""
    timeout: float = 60.0
    """Seconds after which a call is ended, whatever its caller's deadline is."""


class _Service:
    def __init__(self, service: object, limits: ServiceLimits) -> None:
        self.functions: Mapping[str, Function] = functions_of(service)
        self.limits = limits
        self.running = trio.CapacityLimiter(limits.concurrency)


def caller() -> str:
    """Within a served function: the verified peer id of who calls it. Raises LookupError elsewhere."""
    return _caller.get()


@contextmanager
def called_by(peer_id: str) -> Iterator[None]:
    """`caller()` is this peer within the block."""
    token = _caller.set(peer_id)
    try:
        yield
    finally:
        _caller.reset(token)


class Serving:
    """Answers `service/call` and `service/list`."""

    def __init__(self, peer: OverlayPeer) -> None:
        self._services: dict[str, _Service] = {}
        peer.serve(CALL_METHOD, self.handle, relayed=True)
        peer.serve(LIST_METHOD, self.listed, relayed=True)

    def add(self, service_id: str, service: object, limits: ServiceLimits | None = None) -> None:
        """Serve an object's public methods, or a mapping's functions. Raises ValueError for an id in use."""
        if service_id in self._services or not 0 < len(service_id) <= 256:
            raise ValueError(f"service {service_id!r} is served already, or is no id of 1 to 256 letters")
        self._services[service_id] = _Service(service, limits or ServiceLimits())

    def remove(self, service_id: str) -> None:
        """Serve it no more; calls under way end as they would."""
        self._services.pop(service_id, None)

    async def listed(self, caller: str, body: object) -> object:  # noqa: ARG002 - a handler's signature
        """Services and their functions' signatures (original: the builtin service `srv`)."""
        await trio.lowlevel.checkpoint()
        return {
            service_id: [function.described for function in service.functions.values()]
            for service_id, service in self._services.items()
        }

    async def handle(self, caller: str, body: object) -> object:
        """One call. Raises Refusal with one of the codes of `aqua_compat.services.errors.CODES`."""
        try:
            call = msgspec.convert(body, ServiceCall, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Refusal("bad-arguments", str(error)) from error
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
        under_way = service.running.statistics()
        if under_way.borrowed_tokens + under_way.tasks_waiting >= service.limits.concurrency + service.limits.queue:
            raise Refusal("overloaded", "too many calls of the service are under way")
        _caller.set(caller)  # of this call's own context: each handler runs in one task
        result: object = None
        with trio.move_on_after(service.limits.timeout) as deadline:
            result = await _run(service, function, arguments, call)
        if deadline.cancelled_caught:
            raise Refusal("too-slow", f"the service allows {service.limits.timeout:g} s")
        return result


async def _run(service: _Service, function: Function, arguments: list[object], call: ServiceCall) -> object:
    try:
        if function.is_async:
            async with service.running:
                result = await function.call(*arguments)
        else:
            # Abandoned at the deadline: its thread ends when it ends, and counts until then.
            result = await trio.to_thread.run_sync(
                function.call, *arguments, abandon_on_cancel=True, limiter=service.running
            )  # type: ignore[call-arg]  # newer than the stubs that libp2p brings
            if isawaitable(result):
                result = await result
        built = msgspec.to_builtins(result, builtin_types=(bytes,))
        encode_item(built)
    except Exception as error:
        log.info("a service raised", service=call.service_id, function=call.function, exc_info=True)
        text = f"can't be sent: {error}" if isinstance(error, FrameError) else f"{type(error).__name__}: {error}"
        raise Refusal("raised", text[:1000]) from error
    return built
