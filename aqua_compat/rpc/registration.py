"""One service, served and registered for as long as a block runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
import trio

from aqua_compat.rpc.errors import NotRegistered

if TYPE_CHECKING:
    from registry.client.registry import Registry

UNREGISTER_TIMEOUT: Final = 3.0  # seconds for unregistering

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@asynccontextmanager
async def registered(
    registry: Registry,
    resource_id: str,
    service_id: str,
    value: str,
    factor: int,
    timeout: float,
    ttl: float | None = None,
) -> AsyncIterator[None]:
    """Keeps a service registered as running on this peer while the block runs; the node or client renews the record.

    Unregisters in the end, whatever happens. `factor`: replicas that must have it on disk, within `timeout` seconds.
    `ttl`: as of `Registry.register_service`. Raises NotRegistered.
    """
    peer_id, success = registry.identity.peer_id, False
    try:
        success, errors = await registry.register_service(
            resource_id, value, peer_id, service_id, factor=factor, ttl=ttl, timeout=timeout
        )
        if not success:
            raise NotRegistered(f"{service_id} on {resource_id}: {'; '.join(errors)}")
        yield
    finally:
        # Also when registering failed or was cancelled: some replica may have the record.
        with trio.CancelScope(shield=True):
            ended = await registry.unregister_service(resource_id, peer_id, factor=factor, timeout=UNREGISTER_TIMEOUT)
        if success and not ended.success:
            log.warning("a service isn't unregistered", service=service_id, errors=ended.errors)
