"""Calls services on one peer: Aqua's `on peer via relay` as an object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, overload

import msgspec
import trio

from aqua_compat.rpc.errors import BadAnswer, BadArguments, PeerOverloaded, ServiceError, TooSlow, service_error
from aqua_compat.rpc.executor import sendable
from aqua_compat.rpc.proxy import Proxy, typed
from aqua_compat.rpc.server import CALL_METHOD, LIST_METHOD, STREAM_METHOD, ServiceCall, ServiceServer
from aqua_compat.rpc.streams import LONGEST, Arrivals, Arriving, TooManyStreams
from overlay.errors import CallFailed, CallRefused, CallTimeout, ProtocolError, Refusal
from overlay.peer import OverlayPeer
from overlay.relaying.path_selection import Path, PathSelection
from overlay.rpc.bodies import encoded
from overlay.rpc.framing import FrameError, decode_item, encode_item
from overlay.tasks import background
from overlay.tracing import TRACING
from registry.client.patience import patiently

T = TypeVar("T")


class OnPeer:
    """Calls services of one peer. Made by `AquaClient.on`."""

    def __init__(
        self,
        peer: OverlayPeer,
        server: ServiceServer,
        arrivals: Arrivals,
        peer_id: str,
        via: Sequence[str],
        timeout: float,
        reach: float,
        *,
        is_patient: bool = True,
    ) -> None:
        """`timeout`: seconds for calls that give none; `reach`: seconds for reaching the peer; `is_patient`: whether a
        peer that has too much to do is asked again, as long as the time of the call lasts."""
        self._reach = reach
        self._is_patient = is_patient
        self.peer_id = peer_id
        self.via = tuple(via)
        self._peer = peer
        self._server = server
        self._arrivals = arrivals
        self._paths = PathSelection(peer, peer_id, via)
        self._timeout = timeout

    @overload
    async def call(self, service_id: str, function: str, *arguments: object, timeout: float | None = None) -> Any: ...

    @overload
    async def call(
        self, service_id: str, function: str, *arguments: object, timeout: float | None = None, returns: type[T]
    ) -> T: ...

    async def call(
        self,
        service_id: str,
        function: str,
        *arguments: object,
        timeout: float | None = None,
        returns: Any = Any,
    ) -> Any:
        """The result of a function of a service, converted to `returns`; `timeout` in seconds is for all of it.

        The function is cancelled at the deadline and when this is cancelled. Raises subclasses of `ServiceError`.
        """
        seconds = self._timeout if timeout is None else timeout
        body = [service_id, function, self._given(service_id, function, arguments)]
        try:
            with TRACING.span("service call", peer=self.peer_id, service=service_id, function=function):
                if self.peer_id == self._peer.peer_id:
                    answer = await self._here(CALL_METHOD, body, seconds)
                else:
                    answer = await self._there(body, seconds)
        except (CallFailed, FrameError) as error:
            raise self._as_service_error(error, service_id, function, seconds, body) from error
        return self._converted(answer, returns, service_id, function)

    @overload
    def stream(
        self, service_id: str, function: str, *arguments: object, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]: ...

    @overload
    def stream(
        self, service_id: str, function: str, *arguments: object, timeout: float | None = None, returns: type[T]
    ) -> AbstractAsyncContextManager[AsyncIterator[T]]: ...

    @asynccontextmanager
    async def stream(
        self,
        service_id: str,
        function: str,
        *arguments: object,
        timeout: float | None = None,
        returns: Any = Any,
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """The results of a generator function, each as soon as it is there, converted to `returns`.

        `async with on.stream("logs", "follow") as results: async for result in results: ...`. A slow reader slows the
        function down; leaving the block ends it. `timeout` in seconds is for all of it, at most an hour, which is the
        default. Reading raises subclasses of `ServiceError`, after the results that came before the failure.
        """
        given = self._given(service_id, function, arguments)
        seconds = LONGEST if timeout is None else min(timeout, LONGEST)
        try:
            arriving = self._arrivals.open(self.peer_id)
        except TooManyStreams as error:
            raise PeerOverloaded(self.peer_id, service_id, function, str(error)) from error
        try:
            async with background() as nursery:
                nursery.start_soon(self._arrive, arriving, service_id, function, given, seconds)
                yield ResultStream(arriving, lambda result: self._converted(result, returns, service_id, function))
        finally:
            self._arrivals.close(arriving)

    async def services(self, *, timeout: float | None = None) -> dict[str, list[str]]:
        """What the peer serves: the signatures of the functions of each service. Raises `ServiceError`."""
        seconds = self._timeout if timeout is None else timeout
        try:
            if self.peer_id == self._peer.peer_id:
                answer = await self._here(LIST_METHOD, None, seconds)
            else:
                answer = await self._paths.call(LIST_METHOD, lambda _: None, seconds)
        except CallFailed as error:
            raise self._as_service_error(error, "srv", "list", seconds) from error
        listed: dict[str, list[str]] = self._converted(answer, dict[str, list[str]], "srv", "list")
        return listed

    @overload
    def service(self, service_id: str) -> Proxy: ...

    @overload
    def service(self, service_id: str, interface: type[T]) -> T: ...

    def service(self, service_id: str, interface: type[T] | None = None) -> Proxy | T:
        """The service as an object: `await on.service("echo").echo("hi")`.

        With an `interface`, such as a Protocol with async functions, it has that type: its functions only, whose
        results are converted to what their annotations say. Raises TypeError for an interface without annotations.
        """
        return Proxy(self.call, service_id) if interface is None else typed(self.call, service_id, interface)

    def _given(self, service_id: str, function: str, arguments: Sequence[object]) -> Any:
        try:
            given = sendable(list(arguments))
        except (TypeError, RecursionError) as error:
            raise BadArguments(self.peer_id, service_id, function, f"can't be sent: {error}") from error
        return given

    def _as_service_error(
        self, error: CallFailed | FrameError, service_id: str, function: str, timeout: float, sent: object = None
    ) -> ServiceError:
        """`sent`: what the call carried; where it is what the peer couldn't read, the error says so, and why."""
        if isinstance(error, CallTimeout):
            return TooSlow(self.peer_id, service_id, function, f"no answer within {timeout:g} s")
        if isinstance(error, CallFailed):
            told = service_error(error, self.peer_id, service_id, function)
            unreadable = _unreadable(sent) if isinstance(told, BadAnswer) else None
            if unreadable is None:
                return told
            error = unreadable
        return BadArguments(self.peer_id, service_id, function, f"can't be sent: {error}")

    def _converted(self, answer: object, form: Any, service_id: str, function: str) -> Any:
        try:
            return msgspec.convert(answer, form, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise BadAnswer(self.peer_id, service_id, function, str(error)) from error

    async def _arrive(self, arriving: Arriving, service_id: str, function: str, given: Any, timeout: float) -> None:
        """Makes the call for as long as which the stream lasts."""

        def body(path: Path) -> object:
            return [service_id, function, given, arriving.token, path]

        failure: ServiceError | None = None
        try:
            if self.peer_id == self._peer.peer_id:
                await self._stream_here(arriving, ServiceCall(service_id, function, given), timeout)
            else:
                await self._paths.call(STREAM_METHOD, body, timeout)
        except (CallFailed, FrameError) as error:
            failure = self._as_service_error(error, service_id, function, timeout, body(""))
        arriving.end(failure)

    async def _stream_here(self, arriving: Arriving, call: ServiceCall, timeout: float) -> None:
        with trio.move_on_after(timeout):
            try:
                await self._server.stream(self.peer_id, call, arriving.put)
            except Refusal as refusal:
                raise CallRefused(self.peer_id, STREAM_METHOD, refusal.code, refusal.message) from refusal
            return
        raise CallTimeout(self.peer_id, STREAM_METHOD)

    async def _there(self, body: object, timeout: float) -> object:
        """A peer that has too much to do hasn't begun with the call; what a service itself turns away isn't asked for
        again."""

        async def ask(left: float) -> object:
            return await self._paths.call(CALL_METHOD, lambda _: body, left, reach=self._reach)

        return await (patiently(ask, timeout) if self._is_patient else ask(timeout))

    async def _here(self, method: str, body: object, timeout: float) -> object:
        body = decode_item(await encoded(body))
        handler = self._server.handle if method == CALL_METHOD else self._server.listed
        with trio.move_on_after(timeout):
            try:
                answer = await encoded(await handler(self.peer_id, body))
            except Refusal as refusal:
                raise CallRefused(self.peer_id, method, refusal.code, refusal.message) from refusal
            try:
                return decode_item(answer)
            except FrameError as error:  # as of an answer that comes from elsewhere
                raise ProtocolError(self.peer_id, method, f"its answer {error}") from error
        raise CallTimeout(self.peer_id, method)


def _unreadable(sent: object) -> FrameError | None:
    """Why no peer could read this: CBOR says more than what peers take, such as keys that are numbers."""
    try:
        decode_item(encode_item(sent))
    except FrameError as error:
        return error
    return None


class ResultStream(AsyncIterator[T]):
    """The results of one function, in their order, converted."""

    def __init__(self, arriving: Arriving, convert: Callable[[object], T]) -> None:
        self._arriving = arriving
        self._convert = convert

    def __aiter__(self) -> ResultStream[T]:
        return self

    async def __anext__(self) -> T:
        return self._convert(await self._arriving.get())
