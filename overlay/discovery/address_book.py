"""Where peers are: multiaddrs that can be dialled here, and a bounded book of them.

An address is `/ip4|ip6|dns|dns4|dns6/../tcp/N`, optionally `/ws`, optionally `/p2p/<peer id>`. Others are dropped:
circuits are dialled by other means, and what no transport of ours can dial is of no use.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Protocol

from cachetools import LRUCache
from msgspec import Struct
from multiaddr import Multiaddr  # type: ignore[import-untyped]
from multiaddr.exceptions import MultiaddrError  # type: ignore[import-untyped]

from overlay.errors import AddressError, PeerIdError
from overlay.identity import public_key_of

_HOSTS = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})
_LONGEST_ADDRESS = 512
MOST_TELLERS = 4
"""Of each address, that are remembered."""


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
        raise AddressError(f"not a multiaddr: {text!r}; one is like /ip4/203.0.113.5/tcp/7000") from error
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

    def add_addresses(self, peer_id: str, addresses: Sequence[str], *, teller: str = "") -> None:
        """Remember multiaddrs of a peer; bounded, and bad ones are dropped silently.

        `teller`: the peer that says so, whose word is worth a few vain dials; empty: our operator or user.
        """
        ...


class Trust(enum.IntEnum):
    """How sure it is that a peer is at an address; what is surer comes first, and isn't pushed out by what is less."""

    TOLD = 0
    """Another peer says so."""
    OWN = 1
    """The peer itself says so."""
    KNOWN = 2
    """It led to the peer lately, or this peer's operator or user says so."""


class _Remembered(Struct, frozen=True):
    address: str
    trust: Trust
    tellers: tuple[str, ...]


class AddressBook:
    """Addresses per peer, the surest first, then the newest; the peers longest unused make room for new ones, except
    those in use."""

    def __init__(self, *, max_peers: int, max_addresses_per_peer: int) -> None:
        self._max_addresses = max_addresses_per_peer
        self._book: LRUCache[str, tuple[_Remembered, ...]] = LRUCache(max_peers)

    def __len__(self) -> int:
        return len(self._book)

    def add(
        self, peer_id: str, addresses: Sequence[str], *, teller: str = "", in_use: Collection[str] = ()
    ) -> list[str]:
        """Remember those of `addresses` that can be dialled and are of `peer_id`, and return them without it.

        `teller`: the peer that says so; empty: our operator or user.
        """
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
        known = {entry.address: entry for entry in self._book.get(peer_id, ())}
        entries = [_told(address, known.pop(address, None), peer_id, teller) for address in dict.fromkeys(good)]
        if peer_id not in self._book and len(self._book) >= self._book.maxsize:
            for other in in_use:
                self._book.get(other)  # counts as a use, so that another makes room
        self._enter(peer_id, [*entries, *known.values()])
        return good

    def of(self, peer_id: str) -> tuple[str, ...]:
        """Transport addresses of `peer_id`, without the peer id."""
        return tuple(entry.address for entry in self._book.get(peer_id, ()))

    def tellers(self, peer_id: str, address: str) -> tuple[str, ...] | None:
        """Who told an address of `peer_id`, at most `MOST_TELLERS`; None for one that needs nobody's word.

        Of one that isn't in the book, the peer itself did.
        """
        for entry in self._book.get(peer_id, ()):
            if entry.address == address:
                return None if entry.trust is Trust.KNOWN else entry.tellers
        return (peer_id,)

    def used(self, peer_id: str, address: str) -> None:
        """Note that `address` has just led to the peer: it's tried first from now on."""
        others = [entry for entry in self._book.get(peer_id, ()) if entry.address != address]
        self._enter(peer_id, [_Remembered(address, Trust.KNOWN, ()), *others])

    def _enter(self, peer_id: str, entries: Sequence[_Remembered]) -> None:
        """Those of equal trust keep their order."""
        self._book[peer_id] = tuple(sorted(entries, key=lambda entry: -entry.trust)[: self._max_addresses])


def _told(address: str, before: _Remembered | None, peer_id: str, teller: str) -> _Remembered:
    trust = Trust.TOLD if teller else Trust.KNOWN
    if teller == peer_id:
        trust = Trust.OWN
    if before is None:
        return _Remembered(address, trust, (teller,))
    tellers = tuple(dict.fromkeys((*before.tellers, teller)))[:MOST_TELLERS]
    return _Remembered(address, max(trust, before.trust), tellers)
