"""All services that scripts can call on a host: the builtins, `sig` and `registry`."""

from __future__ import annotations

import time

import trio

from aqua_compat.builtins.array import Array
from aqua_compat.builtins.json import Json
from aqua_compat.builtins.kad import Kad
from aqua_compat.builtins.math import Cmp, Math
from aqua_compat.builtins.op import Op
from aqua_compat.builtins.peer import Peer
from aqua_compat.builtins.trust_graph import TrustGraph
from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.engine.installation import VERSION
from aqua_compat.particles.errors import CallError
from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.host_calls.host_calls import HostFunction, Tetraplets, in_places, in_time_slices, native
from aqua_compat.particles.host_calls.registry_calls import RegistryCalls
from aqua_compat.particles.host_calls.signing_calls import SigningCalls, countersigning
from aqua_compat.particles.host_calls.trust_graph_calls import trust_graph_calls
from aqua_compat.particles.settings import AquaSettings
from overlay.identity import Identity
from overlay.limits.time_slices import TimeSlices
from registry.node import Node


def host_services(
    node: Node,
    identity: Identity,
    trust_graph: TrustGraph,
    settings: AquaSettings,
    time_slices: TimeSlices,
    lookups: FairSemaphore,
) -> dict[str, dict[str, HostFunction]]:
    """All that scripts can call, by service and function. What asks other peers takes a place of `lookups`."""
    parts = node.parts
    countersign = countersigning(parts.registry, parts.host, parts.service.settings.hosting, lookups, time.time)
    peer, kad = native(Peer(node.peer, VERSION)), native(Kad(node.peer))
    merge = in_time_slices({"merge": kad["merge"]}, time_slices)
    check_clock = parts.host.clock_guard.check
    sig = SigningCalls(identity, countersign, check_clock, as_original=settings.sign_as_original).functions()
    registry = RegistryCalls(
        parts.service,
        node.store,
        parts.replica.ingest,
        parts.rumors,
        parts.health_of_hosts,
        identity.peer_id,
        time_slices,
    )
    return {
        "op": in_time_slices(native(Op()), time_slices),
        "math": in_time_slices(native(Math()), time_slices),
        "cmp": in_time_slices(native(Cmp()), time_slices),
        "array": in_time_slices(native(Array()), time_slices),
        "json": in_time_slices(native(Json()), time_slices),
        "peer": {**peer, "timeout": peer_timeout, "connect": in_places(peer["connect"], lookups)},
        "kad": {**kad, "neighborhood": in_places(kad["neighborhood"], lookups), **merge},
        "trust-graph": trust_graph_calls(trust_graph, identity.peer_id, time_slices),
        "sig": {**sig, **in_time_slices({"verify": sig["verify"]}, time_slices)},
        "registry": registry.functions(),
    }


async def peer_timeout(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:  # noqa: ARG001
    """`peer.timeout`: the message after so many milliseconds, or when the particle expires."""
    if len(arguments) != 2 or type(arguments[0]) is not int or arguments[0] < 0 or not isinstance(arguments[1], str):
        raise CallError("peer.timeout takes a number of milliseconds and a message")
    await trio.sleep_until(min(trio.current_time() + arguments[0] / 1000, context.deadline))
    return arguments[1]
