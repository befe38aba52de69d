"""Where the replicas of a resource may be reached, as a node tells its clients."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from registry.protocol.messages import Name

MAX_ADDRESSES: Final = 16  # of one peer


class PeerInfo(msgspec.Struct, frozen=True, array_like=True):
    """A replica of a resource, and where it may be reached (multiaddrs)."""

    peer_id: Name
    addresses: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_ADDRESSES)]
