"""The service `registry`: the original's 23 functions over the node's storage."""

from registry.service.functions import RegistryService

__all__ = ["RegistryService"]
