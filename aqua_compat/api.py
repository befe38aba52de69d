"""One object with everything that the original's Aqua scripts offered, for full nodes and light clients alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aqua_compat.arguments import check_string
from aqua_compat.constants import Constants
from aqua_compat.registry_api import RegistryApi
from aqua_compat.resources_api import ResourcesApi

if TYPE_CHECKING:
    from registry.registry import Registry
    from registry.watching.watch import Watch


class AquaClient(ResourcesApi, RegistryApi):
    """`resources-api` and `registry-api`, acting as one identity.

    `registry` decides what is acted through: a node in this process, or the one that a light client is connected to.
    `constants` overrides the original's for this client only.
    """

    def __init__(self, registry: Registry, constants: Constants | None = None) -> None:
        super().__init__(registry, constants or Constants())

    @property
    def registry(self) -> Registry:
        """The Pythonic form of the same functions, one layer below."""
        return self._registry

    def watch(self, resource_id: str) -> Watch:
        """A snapshot of a resource, then each change, at once; ours, the original had to ask again and again.

        `async with client.watch(id) as events: async for event in events: ...`. Nothing that the network does ends it.
        Raises ValueError or TypeError for what is no resource id.
        """
        return self._registry.watch(check_string("resource_id", resource_id))

    @property
    def peer_id(self) -> str:
        """The identity that owns, issues and signs (the original's %init_peer_id%)."""
        return self._registry.identity.peer_id

    @property
    def host_peer_id(self) -> str:
        """The node acted through: this one on a full node, the connected one for a light client (HOST_PEER_ID)."""
        return self._registry.host_peer_id
