"""`connect` and `node`: a client of nodes that run elsewhere, and a node in this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from aqua_compat.api.client import AquaClient
from aqua_compat.api.invited_names import with_invited
from aqua_compat.schema.constants import Constants
from overlay.identity import Identity
from registry.model.names import Names

if TYPE_CHECKING:
    from overlay.settings import OverlaySettings
    from registry.client.own_certificates import CertificateSource
    from registry.client.registry import Registry
    from registry.settings import NodeSettings, RegistrySettings

# registry.client.light and registry.node bring libp2p, whose import takes 0.8 s: only a connection should cost it.
# ruff: noqa: PLC0415


@asynccontextmanager
async def connect(
    addresses: str | Sequence[str],
    *,
    identity: Identity | None = None,
    constants: Constants | None = None,
    settings: OverlaySettings | None = None,
    rules: RegistrySettings | None = None,
    data_dir: Path | str | None = None,
    certificates: Path | str | CertificateSource | None = None,
    names: Mapping[str, str] | None = None,
) -> AsyncIterator[AquaClient]:
    """A light client: acts through one of the nodes at `addresses` and fails over between them.

    `addresses` are multiaddrs with `/p2p/<peer id>`. `identity` is who acts, a new one for each connection by default;
    it signs here, so the node never can in its name. `rules` are those of the network where they aren't the defaults,
    its `expired_age` above all. `data_dir` keeps the times of its own writes across restarts. `certificates`: a file, a
    folder of files `*.cert`, or a function that gives chains; what this client registers shows them where a policy asks
    for that, and is issued anew under newer ones (docs/permissions.md). `names`: the aliases of owners, beside the one
    that the network's token has.
    Raises `registry.errors.NodeUnavailable` or `overlay.errors.OverlayError` when no node can be reached at the start,
    and RuntimeError outside Trio.
    """
    from aqua_compat.api.services import Services
    from overlay.rpc.network_files import NetworkFiles
    from registry.client.light import open_light_client

    _require_trio()
    _quiet_unless_configured()
    given = [addresses] if isinstance(addresses, str) else list(addresses)
    if not given:
        raise ValueError("addresses holds no multiaddr of a node")
    known = Names(names)  # what is wrong with them is told before anything is done
    who = identity or Identity.generate()
    folder = None if data_dir is None else Path(data_dir)
    async with open_light_client(who, given, settings=settings, registry_settings=rules, data_dir=folder) as client:
        if settings is not None:
            known = Names(with_invited(known.aliases, NetworkFiles(None, settings.network.token).token(who)))
        _use_certificates(client.registry, certificates)
        services = Services(client.peer, client.registry, when_serving=client.relay.serve)
        yield AquaClient(client.registry, constants, services, known)


@asynccontextmanager
async def node(
    data_dir: Path | str,
    *,
    identity: Identity | None = None,
    constants: Constants | None = None,
    settings: NodeSettings | None = None,
    certificates: Path | str | CertificateSource | None = None,
) -> AsyncIterator[AquaClient]:
    """A full node in this process, with its state in the folder `data_dir`; acts through itself.

    `identity` is by default the one in `data_dir`, made on the first start. `settings`: an `aqua_compat.Settings` can
    also have it serve unmodified Aqua. `certificates`: as of `connect`; by default those of `settings`.
    Raises `overlay.errors.OverlayError` or `registry.errors.StorageError` when it can't listen or use its folder, and
    and RuntimeError outside Trio.
    """
    from aqua_compat.api.full_node import identity_in, open_full_node
    from overlay.rpc.network_files import NetworkFiles
    from registry.settings import NodeSettings

    _require_trio()
    _quiet_unless_configured()
    folder, settings = Path(data_dir), settings or NodeSettings()
    who = identity or identity_in(folder)
    token = NetworkFiles(folder, settings.overlay.network.token).token(who)
    names = Names(with_invited(settings.names, token))
    async with open_full_node(who, settings, folder) as (running, services):
        _use_certificates(running.registry, certificates)
        yield AquaClient(running.registry, constants, services, names)


def _use_certificates(registry: Registry, certificates: Path | str | CertificateSource | None) -> None:
    from registry.client.certificate_files import CertificateFiles

    if isinstance(certificates, (Path, str)):
        registry.use_certificates(CertificateFiles([Path(certificates)]))
    elif certificates is not None:
        registry.use_certificates(certificates)


def _require_trio() -> None:
    if not trio.lowlevel.in_trio_run():  # type: ignore[attr-defined] # newer than the stubs, see overlay.tasks
        raise RuntimeError("this runs on Trio: start with trio.run; from asyncio or sync code use BlockingClient")


def _quiet_unless_configured() -> None:
    """Warnings to stderr, where structlog by itself would print every debug line on the application's stdout."""
    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        )
