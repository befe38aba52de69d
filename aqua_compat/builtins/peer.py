"""`peer`: a peer's clock, its own addresses, and its connections with others."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import trio
from msgspec import Meta, Struct

from aqua_compat.rpc.server import caller
from overlay.errors import CallFailed
from overlay.identity import public_key_of
from overlay.peer import OverlayPeer

_LONGEST_TIMEOUT = 60_000  # milliseconds
_CONNECTING = 5.0  # seconds


class Contact(Struct, frozen=True):
    """Where a peer can be reached."""

    peer_id: str
    addresses: list[str]


class Info(Struct, frozen=True):
    """`air_version` is that of the interpreter, where there is one. Spells and binaries are the original's."""

    external_addresses: list[str]
    node_version: str
    air_version: str = ""
    spell_version: str = ""
    allowed_binaries: list[str] = []


class Peer:
    """As in the original, but dials given addresses only for the peer itself: else strangers could scan with it."""

    def __init__(self, peer: OverlayPeer, air_version: str = "") -> None:
        self._peer = peer
        self._air_version = air_version

    async def identify(self) -> Info:
        """The peer's addresses and its version."""
        try:
            own_version = version("aqua-registry")
        except PackageNotFoundError:  # run from its sources
            own_version = ""
        return Info(self._peer.addresses(), own_version, self._air_version)

    async def timestamp_ms(self) -> int:
        """The peer's clock, in milliseconds since 1970."""
        return int(time.time() * 1000)

    async def timestamp_sec(self) -> int:
        """The peer's clock, in seconds since 1970."""
        return int(time.time())

    async def timeout(self, duration_ms: Annotated[int, Meta(ge=0, le=_LONGEST_TIMEOUT)], message: str) -> str:
        """Returns `message` after `duration_ms` milliseconds, a minute at most."""
        await trio.sleep(duration_ms / 1000)
        return message

    async def is_connected(self, peer_id: str) -> bool:
        """Whether this peer is connected with a peer, or is that peer itself."""
        public_key_of(peer_id)
        return peer_id == self._peer.peer_id or self._peer.is_connected(peer_id)

    async def connect(self, peer_id: str, addresses: list[str] | None = None) -> bool:
        """Connects with a peer; tells whether they are connected now."""
        public_key_of(peer_id)
        if addresses and caller() == self._peer.peer_id:
            self._peer.add_addresses(peer_id, addresses)
        with trio.move_on_after(_CONNECTING):
            try:
                await self._peer.find(peer_id, timeout=_CONNECTING)
                await self._peer.link(peer_id)
            except CallFailed:
                pass
        return await self.is_connected(peer_id)

    async def get_contact(self, peer_id: str) -> Contact:
        """The addresses of a peer, as far as they are known here."""
        public_key_of(peer_id)
        return Contact(peer_id, self._peer.addresses_of(peer_id))
