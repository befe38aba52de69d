"""Where peers are: multiaddrs that can be dialled here, and a bounded book of them.

An address is `/ip4|ip6|dns|dns4|dns6/../tcp/N`, optionally `/ws`, optionally `/p2p/<peer id>`. Others are dropped:
circuits are dialled by other means, and what no transport of ours can dial is of no use.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Protocol

from cachetools import LRUCache
from multiaddr import Multiaddr  # type: ignore[import-untyped]
from multiaddr.exceptions import MultiaddrError  # type: ignore[import-untyped]

from overlay.errors import AddressError, PeerIdError
from overlay.identity import public_key_of

_HOSTS = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})
_LONGEST_ADDRESS = 512


@lru_cache(maxsize=16_384)  # parsing takes 100 us, and lookups tell the same addresses again and again
def parse_dialable(text: str) -> tuple[str, str | None]:
    """`text` as (transport address without peer id, peer id or None). Raises `AddressError`."""
    if len(text) > _LONGEST_ADDRESS:
        raise AddressError("a multiaddr of more than 512 characters")
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
        port = int(address.value_for_protocol("tcp") or 0) if "tcp" in names else 0
        peer_id = str(address.value_for_protocol("p2p")) if names[-1:] == ["p2p"] else None
        transport = str(address.decapsulate(Multiaddr(f"/p2p/{peer_id}"))) if peer_id else str(address)
    except (MultiaddrError, ValueError, LookupError, TypeError) as error:
        raise AddressError(f"not a multiaddr: {text!r}") from error
    shape = names[:-1] if peer_id else names
    if len(shape) not in (2, 3) or shape[0] not in _HOSTS or shape[1] != "tcp" or shape[2:] not in ([], ["ws"]):
        raise AddressError(f"not an address of the form /ip4/../tcp/N[/ws][/p2p/<peer id>]: {text!r}")
    if not 0 <= port < 2**16:
        raise AddressError(f"not a TCP port: {text!r}")
    if peer_id is not None:
        try:
            public_key_of(peer_id)
        except PeerIdError as error:
            raise AddressError(f"the address names no peer id of an Ed25519 key: {text!r}") from error
    return transport, peer_id


def parse_peer_address(text: str) -> tuple[str, str]:
    """`text` as (transport address, peer id), both required. Raises `AddressError`."""
    transport, peer_id = parse_dialable(text)
    if peer_id is None:
        raise AddressError(f"the address doesn't end in /p2p/<peer id>, so its peer can't be verified: {text!r}")
    return transport, peer_id


class PeerAddresses(Protocol):
    """What discovery needs of the host: where this peer and others can be reached."""

    @property
    def peer_id(self) -> str:
        """Our own id (base58)."""
        ...

    def listen_addresses(self) -> list[str]:
        """Multiaddrs at which others reach this peer, each ending in `/p2p/<own id>`."""
        ...

    def addresses_of(self, peer_id: str) -> list[str]:
        """Multiaddrs known of a peer, empty when there are none."""
        ...

    def add_addresses(self, peer_id: str, addresses: Sequence[str]) -> None:
        """Remember multiaddrs of a peer; bounded, and bad ones are dropped silently."""
        ...


class AddressBook:
    """Addresses per peer, newest first; the peers longest unused make room for new ones, except those in use."""

    def __init__(self, *, max_peers: int, max_addresses_per_peer: int) -> None:
        self._max_addresses = max_addresses_per_peer
        self._book: LRUCache[str, tuple[str, ...]] = LRUCache(max_peers)

    def __len__(self) -> int:
        return len(self._book)

    def add(self, peer_id: str, addresses: Sequence[str], *, in_use: Collection[str] = ()) -> list[str]:
        """Remember those of `addresses` that can be dialled and are of `peer_id`, and return them without it."""
        good: list[str] = []
        for text in addresses[: self._max_addresses]:
            try:
                transport, named = parse_dialable(text)
            except AddressError:
                continue
            if named in (None, peer_id) and "/tcp/0" not in transport.removesuffix("/ws")[-6:]:
                good.append(transport)
        if not good:
            return []
        merged = tuple(dict.fromkeys((*good, *self._book.get(peer_id, ()))))[: self._max_addresses]
        if peer_id not in self._book and len(self._book) >= self._book.maxsize:
            for other in in_use:
                self._book.get(other)  # counts as a use, so that another makes room
        self._book[peer_id] = merged
        return good

    def of(self, peer_id: str) -> tuple[str, ...]:
        """Transport addresses of `peer_id`, without the peer id."""
        return self._book.get(peer_id, ())

    def used(self, peer_id: str, address: str) -> None:
        """Note that `address` has just led to the peer: it's tried first from now on."""
        known = self._book.get(peer_id, ())
        self._book[peer_id] = (address, *(other for other in known if other != address))[: self._max_addresses]
