"""Everything about services that an `AquaClient` offers."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from aqua_compat.builtins.served import builtins_of
from aqua_compat.builtins.trust_graph import TrustGraph, in_memory
from aqua_compat.rpc.client import OnPeer
from aqua_compat.rpc.errors import (
    CallInterrupted,
    NoProvider,
    NoSuchService,
    NotReported,
    PeerOverloaded,
    PeerUnreachable,
    ServiceError,
    TooSlow,
)
from aqua_compat.rpc.health_check import HealthCheck
from aqua_compat.rpc.load_balancing import LoadBalancer, Strategy
from aqua_compat.rpc.registration import registered
from aqua_compat.rpc.server import ServiceLimits, ServiceServer
from aqua_compat.rpc.streams import Arrivals
from aqua_compat.schema.arguments import check_peer_id
from aqua_compat.schema.constants import Constants
from overlay.peer import OverlayPeer
from overlay.tasks import background
from registry.health.state import HealthState
from registry.model.values import Record

if TYPE_CHECKING:
    from registry.client.registry import Registry
    from registry.client.results import Resolved
    from registry.model.trusted_issuers import TrustChoice

BUILTIN_LIMITS = ServiceLimits(concurrency=256, timeout=65.0)


class Called(NamedTuple):
    """What calling one provider came to: `error` is None when `result` is one."""

    record: Record
    result: Any
    error: ServiceError | None


class Services:
    """Serves and calls services as one peer."""

    def __init__(
        self,
        peer: OverlayPeer,
        registry: Registry,
        *,
        trust_graph: TrustGraph | None = None,
        when_serving: Callable[[], None] | None = None,
    ) -> None:
        """`trust_graph`: that of this peer; by default one of its own, in memory. `when_serving` is called when this
        peer serves more than the builtins, so that others must be able to reach it."""
        self._peer = peer
        self._registry = registry
        self._when_serving = when_serving
        self._server = ServiceServer(peer)
        self._arrivals = Arrivals(peer)
        trust_graph = trust_graph or in_memory(peer.peer_id)
        for service_id, service in builtins_of(peer, registry.identity, trust_graph).items():
            self._server.add(service_id, service, BUILTIN_LIMITS)
        self._load_balancer = LoadBalancer()
        self._provided: set[str] = set()

    def on(
        self, peer_id: str, via: Sequence[str], timeout: float, reach: float = math.inf, *, is_patient: bool = True
    ) -> OnPeer:
        """Calls on a peer through the relays `via`: in all within `timeout` seconds, reaching it within `reach`; asking
        it again while it has too much to do, if `is_patient`."""
        return OnPeer(self._peer, self._server, self._arrivals, peer_id, via, timeout, reach, is_patient=is_patient)

    def distance_to(self, peer_id: str) -> int:
        """See `OverlayPeer.distance_to`."""
        return self._peer.distance_to(peer_id)

    async def wait_joined(self) -> None:
        """Waits until this peer is in its network."""
        await self._peer.wait_joined()

    def serve(self, service_id: str, service: object, limits: ServiceLimits | None) -> None:
        """Serves a service. Raises ValueError for an id in use, TypeError for what can't be served."""
        self._server.add(service_id, service, limits)
        if self._when_serving is not None:
            self._when_serving()

    @asynccontextmanager
    async def provide(
        self,
        resource_id: str,
        service_id: str,
        service: object,
        value: str,
        limits: ServiceLimits | None,
        constants: Constants,
        check: HealthCheck | None = None,
        ttl: float | None = None,
    ) -> AsyncIterator[None]:
        """Serves a service and registers it on a resource while the block runs. Raises as `AquaClient.provide`."""
        if check is not None:
            ttl = check.ttl if ttl is None else ttl
        if resource_id in self._provided:  # both would be one record: a resource has one of an issuer and a host
            raise ValueError(f"this peer provides a service on {resource_id} already")
        self.serve(service_id, service, limits)
        self._provided.add(resource_id)
        try:
            factor, timeout = constants.INITIAL_REPLICATION_FACTOR, constants.timeout
            async with (
                registered(self._registry, resource_id, service_id, value, factor, timeout, ttl),
                background() as nursery,
            ):
                if check is not None:
                    nursery.start_soon(check.run, self._registry, resource_id)
                yield
        finally:
            self._provided.discard(resource_id)
            self._server.remove(service_id)

    async def report_health(
        self,
        resource_id: str,
        state: HealthState,
        note: str,
        peer_id: str,
        instance: str,
        ttl: float | None,
        timeout: float,
    ) -> None:
        """Says how a service of this identity is. Raises NotReported."""
        done = await self._registry.report_health(
            resource_id, state, note, peer_id=peer_id or None, instance=instance, ttl=ttl, timeout=timeout
        )
        if not done.success:
            raise NotReported(f"{state} on {resource_id}: {'; '.join(done.errors)}")

    async def call_all(
        self,
        resource_id: str,
        function: str,
        arguments: Sequence[object],
        service_id: str,
        ack: int,
        timeout: float,
        trusted: TrustChoice | None = None,
    ) -> list[Called]:
        """Calls all providers at once; what each came to. Raises NoProvider when the resource can't be resolved."""
        called: list[Called] = []

        async def call(record: Record, timeout: float) -> None:
            try:
                result = await self._call(record, service_id, function, arguments, timeout)
            except ServiceError as error:
                called.append(Called(record, None, error))
            else:
                called.append(Called(record, result, None))

        deadline = trio.current_time() + timeout
        records = await self.resolve(resource_id, ack, timeout, trusted)
        async with trio.open_nursery() as nursery:
            for record in records:
                nursery.start_soon(call, record, max(deadline - trio.current_time(), 0.0))
        return called

    async def reachable(
        self, resource_id: str, ack: int, timeout: float, patience: float, trusted: TrustChoice | None = None
    ) -> list[Record]:
        """The records whose peer answers within `patience` seconds.

        Raises NoProvider when the resource can't be resolved.
        """
        answered: list[Record] = []

        async def ask(record: Record) -> None:
            with suppress(ServiceError):
                await self.on(record.metadata.peer_id, relays_of(record), patience).services()
                answered.append(record)

        records = await self.resolve(resource_id, ack, timeout, trusted)
        async with trio.open_nursery() as nursery:
            for record in records:
                nursery.start_soon(ask, record)
        return answered

    async def call_any(
        self,
        resource_id: str,
        function: str,
        arguments: Sequence[object],
        *,
        strategy: Strategy,
        idempotent: bool,
        service_id: str,
        ack: int,
        timeout: float,
        trusted: TrustChoice | None = None,
    ) -> Any:
        """Calls one provider, and others when it can't be called.

        Raises NoProvider when nobody could be called, and the ServiceError of the one that was.
        """
        deadline = trio.current_time() + timeout
        resolved = await self.resolved(resource_id, ack, timeout, trusted, include_down=True)
        causes: list[str] = []
        ordered = self._load_balancer.order(resource_id, resolved.usable, strategy)
        if resolved.doubtful:  # in a round of their own
            ordered += self._load_balancer.order(f"{resource_id} doubtful", resolved.doubtful, strategy)
        for behind, record in zip(range(len(ordered) - 1, -1, -1), ordered, strict=True):
            left = max(deadline - trio.current_time(), 0.0)
            peer_id, began = record.metadata.peer_id, trio.current_time()
            try:
                # One that stalls mustn't use up the time of those behind it: where asking twice is allowed, not at
                # all, else not before it was surely reached.
                share = left / 2 if idempotent and behind else left
                reach = left / 2 if behind else left
                result = await self._call(record, service_id, function, arguments, share, reach, is_patient=not behind)
            except (CallInterrupted, TooSlow) as error:
                self._load_balancer.failed(peer_id)
                if not idempotent or not behind:
                    raise
                causes.append(str(error))
            except (PeerUnreachable, PeerOverloaded, NoSuchService) as error:
                self._load_balancer.failed(peer_id)
                causes.append(str(error))
            else:
                self._load_balancer.answered(peer_id, trio.current_time() - began)
                return result
        raise NoProvider(f"no provider on {resource_id}: {'; '.join(causes) or 'nobody is registered'}")

    async def resolve(
        self,
        resource_id: str,
        ack: int,
        timeout: float,
        trusted: TrustChoice | None = None,
        *,
        include_down: bool = False,
    ) -> list[Record]:
        """The live records of a resource, of those who are `trusted`. Raises NoProvider when it can't be resolved."""
        return list((await self.resolved(resource_id, ack, timeout, trusted, include_down=include_down)).records or ())

    async def resolved(
        self, resource_id: str, ack: int, timeout: float, trusted: TrustChoice | None, *, include_down: bool = False
    ) -> Resolved:
        """The same, with what is known of their health."""
        resolved = await self._registry.resolve_resource(
            resource_id, ack, timeout=timeout, trusted=trusted, include_down=include_down
        )
        if resolved.records is None:
            raise NoProvider(f"the resource {resource_id} wasn't resolved: {'; '.join(resolved.errors)}")
        return resolved

    async def _call(
        self,
        record: Record,
        service_id: str,
        function: str,
        arguments: Sequence[object],
        timeout: float,
        reach: float = math.inf,
        *,
        is_patient: bool = True,
    ) -> Any:
        metadata = record.metadata
        service = metadata.service_id[0] if metadata.service_id else service_id
        if not service:
            raise NoSuchService(metadata.peer_id, "", function, "its record names no service")
        on_host = self.on(metadata.peer_id, relays_of(record), timeout, reach, is_patient=is_patient)
        try:
            return await on_host.call(service, function, *arguments)
        except (PeerUnreachable, TooSlow):
            self._registry.note_unreachable(metadata.peer_id)  # so that it is looked at now
            raise


def relays_of(record: Record) -> list[str]:
    """The relays that a record names, without texts that are no peer id."""
    relays: list[str] = []
    for relay in record.metadata.relay_id:
        with suppress(ValueError):
            relays.append(check_peer_id("relay_id", relay))
    return relays
