"""One service, served and registered for as long as a block runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
import trio

from aqua_compat.services.errors import NotRegistered
from aqua_compat.services.serving import Serving
from overlay.peer import OverlayPeer
from registry.background import background
from registry.errors import RegistryError

if TYPE_CHECKING:
    from registry.registry import Registry

LOOKED_AFTER: Final = 15.0  # seconds between two looks at whether the relay still is the one that the record names
RETRIED_AFTER: Final = 1.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@asynccontextmanager
async def provided(
    peer: OverlayPeer, registry: Registry, serving: Serving, resource_id: str, service_id: str, value: str
) -> AsyncIterator[None]:
    """Keeps a served service registered; when the relay changes, registers it anew, with the new `relay_id`.

    The node or client renews the record meanwhile. Unregisters in the end. Raises NotRegistered.
    """
    relay = registry.host_peer_id
    done = await registry.register_service(resource_id, value, peer.peer_id, service_id)
    if not done.success:
        serving.remove(service_id)
        raise NotRegistered(f"{service_id} on {resource_id}: {'; '.join(done.errors)}")
    changed = trio.Event()

    def note_change() -> None:
        changed.set()

    async def follow_relay(relay: str) -> None:
        nonlocal changed
        while True:
            delay = LOOKED_AFTER
            try:
                await registry.status()  # turns to the next node when this one is gone
            except RegistryError as error:
                log.warning("no node answers", error=str(error))
                delay = RETRIED_AFTER
            current = registry.host_peer_id
            if current != relay:
                done = await registry.register_service(resource_id, value, peer.peer_id, service_id)
                if done.success:
                    log.info("registered with a new relay", service=service_id, relay=current)
                    relay = registry.host_peer_id
                else:
                    log.warning("not registered with the new relay", service=service_id, errors=done.errors)
                    delay = RETRIED_AFTER
            with trio.move_on_after(delay):
                await changed.wait()
            changed = trio.Event()

    try:
        async with background() as nursery:
            if relay != peer.peer_id:
                peer.on_membership_change(note_change)
                nursery.start_soon(follow_relay, relay)
            yield
    finally:
        serving.remove(service_id)
        with trio.CancelScope(shield=True):
            done = await registry.unregister_service(resource_id, peer.peer_id, timeout=3.0)
        if not done.success:
            log.warning("not unregistered", service=service_id, errors=done.errors)
