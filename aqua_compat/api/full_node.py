"""A full node as this layer runs it: the registry's node, its builtin services, and Aqua where it is enabled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from aqua_compat.api.services import Services
from aqua_compat.builtins.trust_graph import TrustGraph
from aqua_compat.particles.enabling import particles_if_enabled
from aqua_compat.particles.metrics import Metrics
from aqua_compat.settings import aqua_settings_of
from overlay.identity import Identity, load_or_create_identity
from overlay.rpc.network_files import NetworkFiles
from registry.node import Node, open_node
from registry.settings import NodeSettings

IDENTITY_FILE: Final = "identity.json"


def identity_in(data_dir: Path) -> Identity:
    """The identity of the node with this data folder, made on its first start. Raises overlay.errors.IdentityError."""
    return load_or_create_identity(data_dir / IDENTITY_FILE)


def _with_bootstrap(identity: Identity, settings: NodeSettings, data_dir: Path) -> NodeSettings:
    """The settings of a node that joined a private network: with its token's addresses, where there are no others."""
    overlay = settings.overlay
    token = NetworkFiles(data_dir, overlay.network.token).token(identity)
    if token is None or overlay.bootstrap:
        return settings
    return msgspec.structs.replace(settings, overlay=msgspec.structs.replace(overlay, bootstrap=token.addresses))


@asynccontextmanager
async def open_full_node(
    identity: Identity, settings: NodeSettings, data_dir: Path, issuers: Sequence[Identity] = ()
) -> AsyncIterator[tuple[Node, Services]]:
    """Runs a node while the context is open; the services are those of its own peer. `issuers`: as of `open_node`.

    Raises what `open_node` raises, and `aqua_compat.particles.errors.NotInstalled`.
    """
    settings = _with_bootstrap(identity, settings, data_dir)
    aqua, metrics = aqua_settings_of(settings), Metrics()
    particles = metrics.snapshot if aqua.enabled else None
    async with open_node(identity, settings, data_dir, particles=particles, issuers=issuers) as node:
        parts = node.parts
        trust_graph = TrustGraph(parts.trust, parts.weights, identity.peer_id, settings.operators)
        services = Services(node.peer, node.registry, trust_graph=trust_graph)
        async with particles_if_enabled(node, identity, trust_graph, aqua, metrics):
            yield node, services
