"""One object with everything that the original's Aqua scripts offered, for full nodes and light clients alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from aqua_compat.api.registry_api import RegistryApi
from aqua_compat.api.resources_api import ResourcesApi
from aqua_compat.schema.arguments import check_peer_id, check_string
from aqua_compat.schema.constants import Constants
from registry.model.endpoints import Endpoint, Order, Selection, by_distance, by_weight, endpoints_in

if TYPE_CHECKING:
    from aqua_compat.api.services import Called, Services
    from aqua_compat.rpc.client import OnPeer
    from aqua_compat.rpc.health_check import Check
    from aqua_compat.rpc.load_balancing import Strategy
    from aqua_compat.rpc.server import ServiceLimits
    from registry.client.registry import Registry
    from registry.health.state import HealthState
    from registry.model.names import Names
    from registry.model.trusted_issuers import TrustChoice
    from registry.model.values import Record
    from registry.watch.watch import Watch


class AquaClient(ResourcesApi, RegistryApi):
    """`resources-api` and `registry-api`, acting as one identity.

    `registry` decides what is acted through: a node in this process, or the one that a light client is connected to.
    `constants` overrides the original's for this client only. Wherever an id of a resource is taken, its name is too:
    `web@acme` by the aliases in `names`, `web@12D3KooW...`, and `web@me` of this identity's own.
    """

    def __init__(
        self,
        registry: Registry,
        constants: Constants | None = None,
        services: Services | None = None,
        names: Names | None = None,
    ) -> None:
        super().__init__(registry, constants or Constants(), names)
        self._given_services = services

    def serve(self, service_id: str, service: object, *, limits: ServiceLimits | None = None) -> None:
        """Answer calls of an object's public methods, or of a mapping's functions, async or sync (in threads).

        Arguments are checked by annotations; `aqua_compat.caller()` tells within a function who calls. Raises
        ValueError for an id in use, TypeError for what can't be served.
        """
        self._services.serve(service_id, service, limits)

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
    ) -> AbstractAsyncContextManager[None]:
        """Serve and stay registered on a resource while the block runs; `async with client.provide(...)`.

        Registered when INITIAL_REPLICATION_FACTOR replicas have it on disk. The record is renewed, and issued anew when
        the relay changes.
        `check` is called every `every` seconds, 5 by default: the service passes if it returns nothing or True; it may
        raise, or return a state ("warning", "critical") or a state and a note. With `every` alone the service passes as
        long as this program runs its tasks. `ttl`: seconds for which it passes after each `pass_check`, for programs
        that check themselves.
        Raises NotRegistered, ValueError, TypeError.
        """
        from aqua_compat.rpc.health_check import EVERY, HealthCheck  # noqa: PLC0415 - brings libp2p

        checked = None if check is None and every is None else HealthCheck(check, EVERY if every is None else every)
        return self._services.provide(
            self._resource_id(resource_id),
            service_id,
            service,
            check_string("value", value),
            limits,
            self.constants,
            checked,
            ttl,
        )

    async def pass_check(
        self, resource_id: str, *, peer_id: str = "", instance: str = "", timeout: float | None = None
    ) -> None:
        """Say that a service passes which this identity registered, or one instance of it; to be repeated within its
        time to live. `peer_id`: its host, by default this peer. Raises NotReported."""
        await self.set_health(resource_id, "passing", peer_id=peer_id, instance=instance, timeout=timeout)

    async def set_health(
        self,
        resource_id: str,
        state: HealthState | str,
        note: str = "",
        *,
        peer_id: str = "",
        instance: str = "",
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> None:
        """Say how a service is that this identity registered: "passing", "warning" or "critical", and why.

        `ttl`: its time to live from now on, in seconds; 0 ends it and what was said. Raises NotReported, ValueError.
        """
        from registry.health.state import HealthState  # noqa: PLC0415 - only who says how a service is needs it

        await self._services.report_health(
            self._resource_id(resource_id),
            HealthState.named(str(state)),
            check_string("note", note),
            check_peer_id("peer_id", peer_id) if peer_id else "",
            check_string("instance", instance),
            ttl,
            self._seconds(timeout),
        )

    def on(self, peer: str | Record, *, via: str | Sequence[str] = (), timeout: float | None = None) -> OnPeer:
        """A peer to call, reached through `via` where it can't be dialled (Aqua: `on peer via relay`).

        `await client.on(peer_id, via=relay).call("echo", "echo", "hi")`, or `client.on(record)` for the peer and the
        relay that a record names. `timeout`: of calls that give none, in seconds.
        """
        relays = [via] if isinstance(via, str) else list(via)
        peer_id = peer if isinstance(peer, str) else peer.metadata.peer_id
        if not isinstance(peer, str) and not relays:
            from aqua_compat.api.services import relays_of  # noqa: PLC0415 - brings libp2p

            relays = relays_of(peer)
        checked = [check_peer_id("via", relay) for relay in relays]
        seconds = self.constants.timeout if timeout is None else timeout
        return self._services.on(check_peer_id("peer_id", peer_id), checked, seconds)

    async def call_all(
        self,
        resource_id: str,
        function: str,
        *arguments: object,
        service_id: str = "",
        ack: int = 1,
        timeout: float | None = None,
        trusted: TrustChoice | None = None,
    ) -> list[Called]:
        """Call a function of every provider on a resource at once; what each came to, in the order of answers.

        The Pythonic form of `executeOnResource`. `service_id`: of records that name none. `trusted`: as of `call_any`.
        Raises NoProvider when the resource can't be resolved.
        """
        return await self._services.call_all(
            self._resource_id(resource_id),
            function,
            arguments,
            service_id,
            ack,
            self._seconds(timeout),
            trusted,
        )

    async def resolve(
        self,
        resource_id: str,
        *,
        ack: int = 1,
        timeout: float | None = None,
        trusted: TrustChoice | None = None,
        include_down: bool = False,
    ) -> list[Record]:
        """The live records of a resource; the Pythonic form of `resolveResource`. `trusted`: as of `call_any`.

        `include_down`: also those whose host is said to be down, or says that they don't pass. How each is, since when
        and by whose word, is in `health` of what `client.registry.resolve_resource(..., include_down=True)` gives, by
        the record's `slot`.
        Raises NoProvider when the resource can't be resolved.
        """
        return await self._services.resolve(
            self._resource_id(resource_id), ack, self._seconds(timeout), trusted, include_down=include_down
        )

    async def endpoints(
        self,
        resource_id: str,
        *,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        order: Order = by_weight,
        near: bool = False,
        ack: int = 1,
        timeout: float | None = None,
        trusted: TrustChoice | None = None,
    ) -> list[Endpoint]:
        """The instances of which a resource's live records tell, with address, tags and metadata (docs/agent.md).

        Those that work, and have all of `tags` and of `metadata`; the first by `order` first, as of `sorted`, by
        default the heaviest; with `near` before others those on this peer, then those on peers that it is linked with.
        Records whose value isn't of this form have none. Raises NoProvider when the resource
        can't be resolved.
        """
        resolved = await self._services.resolved(self._resource_id(resource_id), ack, self._seconds(timeout), trusted)
        wanted = Selection(tags=tags, metadata=metadata or {})
        order = by_distance(self.distance_to, order) if near else order
        return endpoints_in(resolved.records or (), wanted, order, resolved.left_out)

    async def reachable(
        self,
        resource_id: str,
        *,
        ack: int = 1,
        timeout: float | None = None,
        patience: float = 3.0,
        trusted: TrustChoice | None = None,
    ) -> list[Record]:
        """The records whose peer answers now, in the order of answers: who died is listed until its record expires.

        `timeout`: seconds for resolving; `patience`: for each peer to answer. Says nothing of a service that isn't
        served by this library. `trusted`: as of `call_any`. Raises NoProvider when the resource can't be resolved.
        """
        return await self._services.reachable(
            self._resource_id(resource_id), ack, self._seconds(timeout), patience, trusted
        )

    async def call_any(
        self,
        resource_id: str,
        function: str,
        *arguments: object,
        strategy: Strategy = "random",
        idempotent: bool = False,
        service_id: str = "",
        ack: int = 1,
        timeout: float | None = None,
        trusted: TrustChoice | None = None,
    ) -> Any:
        """Call a function of one provider on a resource, and of the next when that one can't be called.

        A call that may have reached its service is repeated elsewhere only if `idempotent`. Peers that failed come last
        for 30 seconds. `trusted`: whose records count, as `aqua_compat.Trusted`, issuers' peer ids, or a function of a
        record; by default everybody's whom the resource's policy permits.
        Raises NoProvider, and the ServiceError of the provider that was called.
        """
        return await self._services.call_any(
            self._resource_id(resource_id),
            function,
            arguments,
            strategy=strategy,
            idempotent=idempotent,
            service_id=service_id,
            ack=ack,
            timeout=self._seconds(timeout),
            trusted=trusted,
        )

    def _seconds(self, timeout: float | None) -> float:
        return self.constants.timeout if timeout is None else timeout

    @property
    def _services(self) -> Services:
        if self._given_services is None:
            raise RuntimeError("this client was made without a network; use aqua_compat.connect or aqua_compat.node")
        return self._given_services

    @property
    def registry(self) -> Registry:
        """The Pythonic form of the same functions, one layer below."""
        return self._registry

    async def wait_joined(self) -> None:
        """Wait until this peer is in its network, so that writes make sense; a light client is from the beginning."""
        await self._services.wait_joined()

    def watch(self, resource_id: str, *, trusted: TrustChoice | None = None, include_down: bool = False) -> Watch:
        """A snapshot of a resource, then each change, at once; ours, the original had to ask again and again.

        `async with client.watch(id) as events: async for event in events: ...`. Nothing that the network does ends it.
        `trusted`: as of `call_any`; `include_down`: as of `resolve`. Raises ValueError or TypeError for what is no
        resource id.
        """
        return self._registry.watch(self._resource_id(resource_id), trusted=trusted, include_down=include_down)

    def distance_to(self, peer_id: str) -> int:
        """How far a peer is: 0 for this one, 1 for one that it is linked with, 2 for others."""
        return self._services.distance_to(peer_id)

    @property
    def peer_id(self) -> str:
        """The identity that owns, issues and signs (the original's %init_peer_id%)."""
        return self._registry.identity.peer_id

    @property
    def host_peer_id(self) -> str:
        """The node acted through: this one on a full node, the connected one for a light client (HOST_PEER_ID)."""
        return self._registry.host_peer_id
