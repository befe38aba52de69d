"""Answers calls of scripts on this host in the original's forms, within bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import structlog

from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.engine.steps import CallRequest, CallResult, Tetraplet
from aqua_compat.particles.errors import CallError
from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.rpc.dispatch import MOST_ARGUMENTS, BadCall, Function, functions_of
from aqua_compat.rpc.server import called_by
from overlay.limits.time_slices import TimeSlices

Tetraplets = Sequence[Sequence[Tetraplet]]
HostFunction = Callable[[Context, list[object], Tetraplets], Awaitable[object]]
"""(particle, arguments as JSON values, where each came from) -> result, which JSON can say as it is: no bytes in it.
Raises CallError."""

_LONGEST_ERROR = 2000  # characters

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HostCalls:
    """Answers `CallRequest`s by the functions of services, and by nothing else."""

    def __init__(
        self, services: Mapping[str, Mapping[str, HostFunction]], max_result: int, time_slices: TimeSlices | None = None
    ) -> None:
        """`services`: functions by service id and name. `max_result`: bytes of a result as JSON."""
        self._services = services
        self._max_result = max_result
        self._time_slices = time_slices or TimeSlices()

    async def call(self, context: Context, request: CallRequest) -> CallResult:
        """The result of a call. Never raises for what a script does or a service refuses."""
        service, name = request.service_id, request.function_name
        function = self._services.get(service, {}).get(name)
        if function is None:
            return _failed(f"Service with id '{service[:256]}' not found (function {name[:256]})")
        if len(request.arguments) > MOST_ARGUMENTS:
            return _failed(f"{len(request.arguments)} arguments, more than {MOST_ARGUMENTS}")
        try:
            result = await function(context, request.arguments, request.tetraplets)
            async with self._time_slices.slice(context.source):
                text = msgspec.json.encode(result)
        except CallError as error:
            log.debug("a call failed", service=service, function=name, error=str(error))
            return _failed(str(error))
        except RecursionError:
            return _failed("a value is nested too deeply")
        if len(text) > self._max_result:
            return _failed(f"the result has {len(text)} bytes, more than {self._max_result}")
        return CallResult(0, text.decode())


def _failed(text: str) -> CallResult:
    return CallResult(1, msgspec.json.encode(text[:_LONGEST_ERROR]).decode())


def in_time_slices(functions: Mapping[str, HostFunction], time_slices: TimeSlices) -> dict[str, HostFunction]:
    """Functions that only compute, so that each call of them takes a time slice of its source."""

    def in_slices(function: HostFunction) -> HostFunction:
        async def call(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:
            async with time_slices.slice(context.source):
                return await function(context, arguments, tetraplets)

        return call

    return {name: in_slices(function) for name, function in functions.items()}


def in_places(function: HostFunction, places: FairSemaphore) -> HostFunction:
    """A function that asks other peers, so that each call of it first takes one of the places."""

    async def call(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:
        async with places.place(context.source):
            return await function(context, arguments, tetraplets)

    return call


def native(service: object) -> dict[str, HostFunction]:
    """The functions of one of the builtin services, for scripts."""
    return {name: _as_host_function(function) for name, function in functions_of(service).items()}


def _as_host_function(function: Function) -> HostFunction:
    async def call(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:  # noqa: ARG001
        with called_by(context.init_peer_id):
            try:
                return await function.call(*function.arguments(arguments))
            except BadCall as error:
                raise CallError(str(error)) from error
            except (ValueError, OverflowError) as error:  # of builtins, for values that they can't use
                raise CallError(f"{function.name}: {error}") from error

    return call
