"""HTTP on a node: its listeners, its places, and what each request goes to.

h11 alone, without ASGI: one loop (Trio's), no framework between a request and its answer, and what has to hold under
hostile clients is in this folder. docs/http.md tells how to use it, docs/design.md what was measured beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from prometheus_client.core import Metric

from aqua_compat.api.services import Services
from aqua_compat.http.access import AddressGuard, check_may
from aqua_compat.http.connection import Connection, Handle
from aqua_compat.http.consul.consul_api import ConsulApi, consul_api
from aqua_compat.http.consul.local_agent import RunningAgent
from aqua_compat.http.consul.query import is_blocking
from aqua_compat.http.feeds import Feeds
from aqua_compat.http.listeners import (
    SOCKET,
    Address,
    address_in,
    check_exposure,
    is_own_user,
    listen_on,
    socket_in,
    tls_context,
)
from aqua_compat.http.message import AccessLevel, HttpReply, HttpRequest
from aqua_compat.http.metrics import Exposition, MoreMetrics, gauge
from aqua_compat.http.native_api import NativeApi
from aqua_compat.http.native_operations import OPERATIONS
from aqua_compat.http.operations import HttpOperation, call_of, reply_of
from aqua_compat.http.places import ConnectionPlaces, WatchPlaces, client_of
from aqua_compat.http.problems import Problem, status_of
from aqua_compat.http.ready import AtHand, ReadyReply, known_requests
from aqua_compat.http.tokens import Tokens
from aqua_compat.http.ui.page_files import is_of_page, page_reply
from aqua_compat.settings import HttpSettings
from overlay.errors import CallFailed, PeerIdError
from overlay.tasks import background
from registry.errors import RegistryError
from registry.model.names import Names
from registry.node import Node
from registry.protocol.error_info import ErrorInfo

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_ROOT: Final = "/v1/aqua/openapi.json"


class HttpServer:
    """What a running server tells of itself."""

    def __init__(
        self,
        socket: Path,
        address: Address | None,
        places: tuple[ConnectionPlaces, ...],
        watching: WatchPlaces,
        consul: ConsulApi,
    ) -> None:
        self.consul = consul
        """What answers Consul's clients; it is told of the agent."""
        self.socket = socket
        self.address = address
        """Where it listens, with the port that it got; None where it doesn't."""
        self._places = places
        self._watching = watching

    @property
    def connections(self) -> int:
        """How many are open."""
        return sum(map(len, self._places))

    @property
    def watches(self) -> int:
        """How many of them watch, or wait for a change."""
        return len(self._watching)


PROBES: Final = (("healthz",), ("readyz",))  # asked by what has no token: Kubernetes, load balancers
_OWN: Final = ((), ("aqua",), ("http_sd",))  # below v1, where the rest is Consul's


class Router:
    """Finds a request's operation and answers it."""

    def __init__(self, api: NativeApi, consul: ConsulApi) -> None:
        self._api = api
        self._consul = consul
        self.known = known_requests()
        """What was asked last, on all connections."""

    def at_hand(self, request: HttpRequest) -> ReadyReply | None:
        """The answer to a request that may be asked, where that needs no waiting."""
        return self._consul.at_hand(request)

    def waits(self, request: HttpRequest) -> bool:
        """Whether the answer to a request may wait for a change."""
        return _is_consuls(request) and is_blocking(request.query)

    async def answer(self, request: HttpRequest) -> HttpReply:
        """The answer to a request that may be asked. Raises Problem for what was wrong with it."""
        if is_of_page(request):
            return page_reply(request)
        if _is_consuls(request):
            return await self._consul.answer(request)
        operation = _operation_of(request)
        check_may(request, operation.grant)
        call = call_of(operation, request)
        try:
            result = await operation.answer(self._api, call)
            return result if isinstance(result, HttpReply) else await reply_of(operation, result)
        except PeerIdError as error:
            raise Problem.invalid(str(error)) from error
        except CallFailed as error:
            info = ErrorInfo.of(error)
            raise Problem(status_of(info.known_code), info.code, info.text) from error


def _is_consuls(request: HttpRequest) -> bool:
    return request.path[:1] == ("v1",) and request.path[1:2] not in _OWN


def _operation_of(request: HttpRequest) -> HttpOperation:
    method = "GET" if request.method == "HEAD" else request.method
    same_path = [each for each in OPERATIONS if _matches(each.parts, request.path)]
    for operation in same_path:
        if operation.method == method:
            return operation
    if same_path:
        allowed = ", ".join(sorted({each.method for each in same_path}))
        raise Problem(405, "method-unknown", f"here are: {allowed}", headers=[("Allow", allowed)])
    raise Problem(404, "path-unknown", f"there is nothing here; {_ROOT} describes what is where")


def _matches(parts: tuple[str, ...], path: tuple[str, ...]) -> bool:
    return len(parts) == len(path) and all(
        part == given or (part.startswith("{") and given) for part, given in zip(parts, path, strict=True)
    )


@asynccontextmanager
async def open_http_server(
    node: Node,
    services: Services,
    settings: HttpSettings,
    data_dir: Path,
    *,
    names: Callable[[], Names] | None = None,
    more_metrics: Sequence[MoreMetrics] = (),
    agent: RunningAgent | None = None,
) -> AsyncIterator[HttpServer]:
    """Answers HTTP while the context is open. `names`: what names such as `web@acme` mean at the moment.
    `more_metrics`: other servers' figures. `agent`: keeps this machine's services registered, where the node does.

    Raises `aqua_compat.http.listeners.Misconfigured`, StorageError.
    """
    tokens, watching = Tokens(data_dir), WatchPlaces(settings.max_watches)
    feeds, consul = Feeds(node.registry, watching), consul_api(node, settings, data_dir, names, watching, agent)
    by_socket, by_address = ConnectionPlaces(settings.max_connections), ConnectionPlaces(settings.max_connections)

    metrics = Exposition([partial(_metrics, (by_socket, by_address), watching, settings), *more_metrics])
    router = Router(
        NativeApi(node, services, feeds, names, metrics, agent.agent if agent is not None else None), consul
    )
    async with AsyncExitStack() as stack:
        listener, tcp, bound = stack.enter_context(socket_in(data_dir)), None, None
        if settings.listen:
            address = address_in(settings.listen)
            check_exposure(settings, address, has_tokens=bool(tokens.entries()))
            context = tls_context(settings)
            tcp = await stack.enter_async_context(await listen_on(address))
            bound = Address(address.host, tcp.socket.getsockname()[1])
            guard = AddressGuard(tokens, settings.hosts, is_loopback=address.is_loopback, now=trio.current_time)
        tasks = await stack.enter_async_context(background())
        tasks.start_soon(feeds.run)
        await tasks.start(consul.run)
        accepting = trio.CancelScope()

        async def accept() -> None:
            with accepting:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(trio.serve_listeners, handler_nursery=tasks), on_socket, [listener])
                    if tcp is not None:
                        nursery.start_soon(partial(trio.serve_listeners, handler_nursery=tasks), on_address, [tcp])

        async def on_socket(stream: trio.SocketStream) -> None:
            handle = answering(router, lambda request: request._replace(grant=AccessLevel.OPERATE))
            connection = Connection(stream, handle, settings, router.at_hand, router.known, router.waits)
            if not is_own_user(stream):
                await connection.refuse(Problem(403, "not-permitted", "the socket is for the node's own user and root"))
                return
            await _serve(connection, by_socket)

        async def on_address(stream: trio.SocketStream) -> None:
            try:
                remote = client_of(str(stream.socket.getpeername()[0]))
            except OSError:  # gone already
                await trio.aclose_forcefully(stream)
                return
            secured: trio.abc.Stream = stream
            if context is not None:
                secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)

            judge = partial(judged_at, guard, remote)
            connection = Connection(
                secured,
                answering(router, judge),
                settings,
                at_hand_of(router, partial(judge, counts=False)),
                router.known,
                router.waits,
            )
            await _serve(connection, by_address, remote)

        tasks.start_soon(accept)
        try:
            yield HttpServer(data_dir / SOCKET, bound, (by_socket, by_address), watching, consul)
        finally:
            accepting.cancel()
            with trio.CancelScope(shield=True), trio.move_on_after(settings.stop_timeout):
                await _stop(consul, by_socket, by_address)


async def _stop(consul: ConsulApi, *places: ConnectionPlaces) -> None:
    consul.stop()  # whose clients get an answer
    for each in places:
        await each.stop()


def _metrics(places: tuple[ConnectionPlaces, ...], watching: WatchPlaces, settings: HttpSettings) -> Iterator[Metric]:
    yield gauge("aqua_http_connections", "Open connections by HTTP.", sum(map(len, places)))
    yield gauge("aqua_http_connections_budget", "Of those, the most.", len(places) * settings.max_connections)
    yield gauge("aqua_http_watches", "Open watches by HTTP, and queries of Consul's clients that wait.", len(watching))
    yield gauge("aqua_http_watches_budget", "Of those, the most.", settings.max_watches)


async def _serve(connection: Connection, places: ConnectionPlaces, client: str = "") -> None:
    if not places.take(connection, client):
        await connection.refuse(Problem(503, "overloaded", "all connections are in use", retry_after=1.0))
        return
    try:
        await connection.serve()
    finally:
        places.leave(connection)


def judged_at(guard: AddressGuard, remote: str, request: HttpRequest, *, counts: bool = True) -> HttpRequest:
    """A request that came by an address, with what its maker may do. Raises Problem, StorageError. `counts`: as of
    `AddressGuard.judged`."""
    return guard.judged(request, remote, is_public=is_of_page(request) or request.path in PROBES, counts=counts)


def at_hand_of(router: Router, judge: Callable[[HttpRequest], HttpRequest]) -> AtHand:
    """Gives what is ready to who may have it; what is wrong is told by `answering`, which judges again."""

    def at_hand(request: HttpRequest) -> ReadyReply | None:
        reply = router.at_hand(request)
        if reply is not None:
            try:
                judge(request)
            except (Problem, RegistryError):
                return None
        return reply

    return at_hand


def answering(router: Router, judge: Callable[[HttpRequest], HttpRequest]) -> Handle:
    """Judges and answers requests. What nobody foresaw is logged, and is a 500 for who asked: the node goes on."""

    async def answer(request: HttpRequest) -> HttpReply:
        try:
            return await router.answer(judge(request))
        except Problem:
            raise
        except RegistryError as error:
            raise Problem.of(error) from error
        except Exception as error:
            _log.exception("a request failed for a reason of ours", method=request.method, path=request.path[:8])
            raise Problem(500, "internal", "this is a fault of the node's; its log tells more") from error

    return answer
