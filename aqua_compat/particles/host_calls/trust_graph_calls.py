"""The service `trust-graph` for scripts: the builtin's functions, with the original's check of times.

A time is a result of this host's peer.timestamp_sec: a tetraplet says so. (docs/design.md, original's faults 23 and 24:
it looks at another argument of `get_weight_from`, and not at all for `insert_cert` and `insert_cert_raw`.)
"""

from __future__ import annotations

from typing import Final

from aqua_compat.builtins.trust_graph import TIMES, TimeArgument, TrustGraph
from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.host_calls.host_calls import HostFunction, Tetraplets, native
from aqua_compat.particles.host_calls.registry_calls import TIME, shown_tetraplet
from overlay.limits.time_slices import TimeSlices

_COST: Final = 0.005  # seconds for a signature and a search
_COST_OF_CERTIFICATE: Final = 0.03


def trust_graph_calls(trust_graph: TrustGraph, host_peer_id: str, time_slices: TimeSlices) -> dict[str, HostFunction]:
    """The 17 functions of the service, by name; each call is charged to its source."""

    def charged(name: str, function: HostFunction) -> HostFunction:
        cost = _COST_OF_CERTIFICATE if name.startswith("insert_cert") else _COST

        async def call(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:
            async with time_slices.slice(context.source, cost):
                pass  # what follows is on the next, and lets others have theirs between its parts
            return await function(context, arguments, tetraplets)

        return call

    functions = {name: charged(name, function) for name, function in native(trust_graph).items()}
    timed = {name: _timed(functions[name], time, host_peer_id) for name, time in TIMES.items()}
    return {**functions, **timed}


def _timed(function: HostFunction, time: TimeArgument, host_peer_id: str) -> HostFunction:
    async def call(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:
        found = tetraplets[time.position] if time.position < len(tetraplets) else ()
        if not found or (found[0].peer_pk, found[0].service_id, found[0].function_name) != (host_peer_id, *TIME):
            shown = shown_tetraplet(found[0]) if found else "[]"
            error = f"you should use host peer.timestamp_sec to pass timestamp: {shown}"
            return time.refused(success=False, error=error)
        return await function(context, arguments, tetraplets)

    return call
