"""`kad`: the peers nearest to a key."""

from __future__ import annotations

from typing import Annotated, TypeVar

import base58
import trio
from msgspec import Meta

from overlay.discovery.keyspace import multihash_position, nearest, wrapped_position
from overlay.peer import OverlayPeer

_MOST = 20
_AT_ONCE = 100  # peer ids that are decoded and hashed until others get their turn

T = TypeVar("T")

Key = Annotated[str, Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0, le=1000)]
OneOrNone = Annotated[list[T], Meta(max_length=1)]
PeerIds = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=1000)]


class Kad:
    """As in the original: a key is base58 of bytes, or of a multihash; the peer itself is never in a neighbourhood."""

    def __init__(self, peer: OverlayPeer) -> None:
        self._peer = peer

    async def neighborhood(
        self,
        key: Key,
        already_hashed: bool | OneOrNone[bool] | None = None,
        count: Count | OneOrNone[Count] | None = None,
    ) -> list[str]:
        """The `count` (20) live members nearest to a key, nearest first."""
        wanted = _option(count, _MOST)
        position = _position(key, hashed=bool(_option(already_hashed, False)))
        found = await self._peer.nearest_to(position, min(wanted + 1, _MOST + 1))
        return [peer_id for peer_id in found if peer_id != self._peer.peer_id][:wanted]

    async def merge(
        self, target: Key, left: PeerIds, right: PeerIds, count: Count | OneOrNone[Count] | None = None
    ) -> list[str]:
        """Both lists as one, nearest to `target` first, each peer once."""
        position, wanted = _position(target, hashed=False), _option(count, _MOST)
        merged: list[str] = []
        peers = [*left, *right]
        for start in range(0, len(peers), _AT_ONCE):
            merged = nearest(position, [*merged, *peers[start : start + _AT_ONCE]], wanted)
            await trio.lowlevel.checkpoint()
        return merged


def _position(key: str, *, hashed: bool) -> int:
    raw = base58.b58decode(key)
    return multihash_position(raw) if hashed else wrapped_position(raw)


def _option(given: T | list[T] | None, default: T) -> T:
    """An Aqua option, which travels as an array of one or none, or plainly."""
    if isinstance(given, list):
        return given[0] if given else default
    return default if given is None else given
