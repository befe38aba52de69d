"""A peer over py-libp2p, put together, with one owner of all its tasks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from overlay.discovery.bootstrap import validate_bootstrap
from overlay.discovery.bootstrap_pins import BootstrapPins
from overlay.identity import Identity
from overlay.libp2p.host import open_host
from overlay.libp2p.kad import KadRouting
from overlay.peer import OverlayPeer
from overlay.presence.incarnation import next_incarnation
from overlay.rpc.network_upkeep import private_network
from overlay.settings import OverlaySettings
from overlay.tasks import background


@asynccontextmanager
async def open_peer(
    identity: Identity,
    settings: OverlaySettings,
    *,
    clock: Callable[[], float] = time.time,
    data_dir: Path | None = None,
) -> AsyncIterator[OverlayPeer]:
    """A peer that listens, joins and serves until the block ends; then its sockets and tasks are gone within seconds.

    `clock`: seconds since 1970. `data_dir`: where it keeps what it knows of its network, and which run of it this is.
    Raises `AddressError`
    for settings with a bad address and `OverlayError` when it can't listen, or can't use its token.
    """
    private = private_network(identity, settings.network, data_dir, clock)
    validate_bootstrap(settings, certificates_decide=private is not None)
    greetings = private.greetings if private is not None else None
    async with open_host(identity, settings, greetings) as host, background() as nursery:
        routing = KadRouting(host, settings, serve=settings.member)
        pins = BootstrapPins(data_dir)
        peer = OverlayPeer(
            host,
            routing,
            identity,
            settings,
            clock=clock,
            private=private,
            pins=pins,
            steady_clock=_steady_clock,
            incarnation=next_incarnation(data_dir, clock()),
        )
        with peer.loop_lag.measured():
            await nursery.start(peer.run)
            yield peer


def _steady_clock() -> float:
    """Seconds since the machine started; while it sleeps, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
