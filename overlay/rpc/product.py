"""Which product and release this is, as other peers are told."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

import msgspec


class PeerVersion(msgspec.Struct, frozen=True):
    """What a peer runs: its product and release, empty where it doesn't say, and the newest version of the links'
    protocol that it speaks, such as `1.0`."""

    product: str
    protocol: str


@cache
def agent_version() -> str:
    """The product and its version."""
    try:
        return f"aqua-registry/{version('aqua-registry')}"
    except PackageNotFoundError:  # run out of a source tree
        return "aqua-registry"
