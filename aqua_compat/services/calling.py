"""Calling services: `on peer via relay` as a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, TypeVar, overload

import msgspec
import trio

from aqua_compat.services.errors import BadAnswer, BadArguments, TooSlow, service_error
from aqua_compat.services.serving import CALL_METHOD, LIST_METHOD, Serving
from overlay.errors import CallFailed, CallRefused, CallTimeout, ConnectionLost, Refusal, Unreachable
from overlay.frames import FrameError, decode_item, encode_item
from overlay.peer import OverlayPeer

FIND_TIMEOUT: Final = 2.0

T = TypeVar("T")


class OnPeer:
    """Calls on one peer. Made by `AquaClient.on`."""

    def __init__(
        self,
        peer: OverlayPeer,
        serving: Serving,
        host_peer_id: Callable[[], str],
        peer_id: str,
        via: Sequence[str],
        timeout: float,
    ) -> None:
        """`host_peer_id`: the node acted through."""
        self.peer_id = peer_id
        self.via = tuple(via)
        self._peer = peer
        self._serving = serving
        self._host_peer_id = host_peer_id
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
        try:
            given = msgspec.to_builtins(list(arguments), builtin_types=(bytes,))
        except TypeError as error:
            raise BadArguments(self.peer_id, service_id, function, f"can't be sent: {error}") from error
        seconds = self._timeout if timeout is None else timeout
        try:
            answer = await self._send(CALL_METHOD, [service_id, function, given], seconds)
        except FrameError as error:
            raise BadArguments(self.peer_id, service_id, function, f"can't be sent: {error}") from error
        except CallTimeout as error:
            raise TooSlow(self.peer_id, service_id, function, f"no answer within {seconds:g} s") from error
        except CallFailed as error:
            raise service_error(error, self.peer_id, service_id, function) from error
        try:
            return msgspec.convert(answer, returns, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise BadAnswer(self.peer_id, service_id, function, str(error)) from error

    async def services(self, *, timeout: float | None = None) -> dict[str, list[str]]:
        """What the peer serves: the signatures of the functions of each service. Raises `ServiceError`."""
        try:
            answer = await self._send(LIST_METHOD, None, self._timeout if timeout is None else timeout)
            return msgspec.convert(answer, dict[str, list[str]])
        except CallFailed as error:
            raise service_error(error, self.peer_id, "srv", "list") from error
        except msgspec.ValidationError as error:
            raise BadAnswer(self.peer_id, "srv", "list", str(error)) from error

    def service(self, service_id: str) -> Proxy:
        """The service as an object: `await on.service("echo").echo("hi")`."""
        return Proxy(self, service_id)

    async def _send(self, method: str, body: object, timeout: float) -> object:
        """Over the first way that leads there: a link, the given relays, a dial, the own node as a relay.

        The next way is tried only after one on which the call surely didn't arrive. Raises CallFailed, FrameError.
        """
        if self.peer_id == self._peer.peer_id:
            return await self._here(method, body, timeout)
        failure: Unreachable | None = None
        deadline = trio.current_time() + timeout  # kept by each way itself: one more scope would cost 5 us
        for way in self._ways():
            try:
                return await way(method, body, deadline)
            except ConnectionLost:
                raise
            except Unreachable as error:
                failure = failure or error
        raise failure or Unreachable(self.peer_id, method)

    def _ways(self) -> Iterator[Callable[[str, object, float], Awaitable[object]]]:
        me = self._peer.peer_id
        relays = [relay for relay in self.via if relay not in (me, self.peer_id)]
        directly_first = not relays or self._peer.is_linked(self.peer_id)
        if directly_first:
            yield self._directly
        yield from map(self._through, relays)
        if not directly_first:
            yield self._directly
        node = self._host_peer_id()
        if node not in (me, self.peer_id, *relays):
            yield self._through(node)

    async def _directly(self, method: str, body: object, deadline: float) -> object:
        await self._locate(self.peer_id, deadline)
        left = max(deadline - trio.current_time(), 0.0)
        return await self._peer.call(self.peer_id, method, body, timeout=left)

    def _through(self, relay: str) -> Callable[[str, object, float], Awaitable[object]]:
        async def through(method: str, body: object, deadline: float) -> object:
            await self._locate(relay, deadline)
            left = max(deadline - trio.current_time(), 0.0)
            return await self._peer.call_via([relay], self.peer_id, method, body, timeout=left)

        return through

    async def _locate(self, peer_id: str, deadline: float) -> None:
        if not self._peer.is_linked(peer_id) and not self._peer.addresses_of(peer_id):
            left = max(deadline - trio.current_time(), 0.0)
            await self._peer.find(peer_id, timeout=min(FIND_TIMEOUT, left))

    async def _here(self, method: str, body: object, timeout: float) -> object:
        encode_item(body)
        handler = self._serving.handle if method == CALL_METHOD else self._serving.listed
        with trio.move_on_after(timeout):
            try:
                return decode_item(encode_item(await handler(self.peer_id, body)))
            except Refusal as refusal:
                raise CallRefused(self.peer_id, method, refusal.code, refusal.message) from refusal
        raise CallTimeout(self.peer_id, method)


class Proxy:
    """A service of a peer, whose attributes are its functions."""

    def __init__(self, on: OnPeer, service_id: str) -> None:
        self._on = on
        self._service_id = service_id

    def __getattr__(self, function: str) -> Callable[..., Awaitable[Any]]:
        if function.startswith("_"):
            raise AttributeError(function)

        async def call(*arguments: object, timeout: float | None = None) -> Any:
            return await self._on.call(self._service_id, function, *arguments, timeout=timeout)

        return call
