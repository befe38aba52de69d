"""The addresses of other peers, in the book and in libp2p's peer store, and those that this peer tells of itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final

from libp2p.abc import IPeerStore
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.discovery.address_book import AddressBook, parse_dialable
from overlay.errors import AddressError, PeerIdError
from overlay.settings import OverlaySettings

ADDRESS_LIFETIME: Final = 7200
"""Seconds; what libp2p's identify gives, after which libp2p hides the addresses even of connected peers."""
_LONGEST_SHOWN: Final = 64  # characters


class KnownAddresses:
    """Where other peers can be dialled: our bounded book first, then what the peers themselves told libp2p's identify.

    libp2p forgets a peer together with its addresses, hence the book.
    """

    def __init__(self, own_peer_id: str, peer_store: IPeerStore, settings: OverlaySettings) -> None:
        self._own_peer_id = own_peer_id
        self._peer_store = peer_store
        self._most = settings.max_addresses_per_peer
        self._book = AddressBook(
            max_peers=settings.max_known_peers, max_addresses_per_peer=settings.max_addresses_per_peer
        )

    def add(self, peer_id: str, addresses: Sequence[str], *, teller: str = "", in_use: Collection[str]) -> None:
        """Remember multiaddrs of a peer; bad ones are dropped, and all of what is none. `in_use`: peers that no new one
        may displace.

        `teller`: as of `AddressBook.add`.
        """
        if peer_id == self._own_peer_id or not _is_peer_id(peer_id):
            return
        good = self._book.add(peer_id, addresses, teller=teller, in_use=in_use)
        if good:
            self._peer_store.add_addrs(libp2p_id(peer_id), list(map(multiaddr_of, good)), ADDRESS_LIFETIME)

    def of(self, peer_id: str) -> list[str]:
        """Multiaddrs known of a peer, without its id; those that led to it lately first."""
        known = dict.fromkeys(self._book.of(peer_id))
        for text in self._identified(peer_id):
            known.setdefault(text)
        return list(known)[: self._most]

    def tellers(self, peer_id: str, address: str) -> tuple[str, ...] | None:
        """Who told an address; None for one that needs nobody's word."""
        return self._book.tellers(peer_id, address)

    def used(self, peer_id: str, address: str) -> None:
        """Note that an address has just led to its peer."""
        self._book.used(peer_id, address)

    def keep(self, peer_id: str) -> None:
        """Put into the book what identify told of a peer that has just disconnected."""
        addresses = self._identified(peer_id)
        if addresses:
            self._book.add(peer_id, addresses, teller=peer_id)
        elif self._peer_store.has_peer(libp2p_id(peer_id)) and not self._book.of(peer_id):
            self._peer_store.clear_peerdata(libp2p_id(peer_id))

    def _identified(self, peer_id: str) -> list[str]:
        good: list[str] = []
        try:
            addresses = self._peer_store.addrs(libp2p_id(peer_id))
        except (PeerStoreError, PeerIdError):
            return good
        for address in addresses[: self._most]:
            transport, named = _dialable(address.to_bytes())
            if transport is not None and named in (None, peer_id):
                good.append(transport)
        return good


def _is_peer_id(peer_id: str) -> bool:
    try:
        libp2p_id(peer_id)
    except PeerIdError:
        return False
    return True


def announced(announce: Sequence[Multiaddr], candidates: list[Multiaddr]) -> list[Multiaddr]:
    """The addresses to tell others: those configured, or those listened on with wildcards spelled out."""
    if announce:
        return list(announce)
    return list(dict.fromkeys(concrete for candidate in candidates for concrete in _spelled_out(candidate)))


# Parsing and spelling multiaddrs takes 100 us and more, and the same ones come up in every lookup.


@lru_cache(maxsize=16_384)
def _dialable(address: bytes) -> tuple[str | None, str | None]:
    """`parse_dialable` of a multiaddr's bytes; no address where that raises."""
    try:
        return parse_dialable(str(Multiaddr(address)))
    except (AddressError, ValueError, LookupError):
        return None, None


@lru_cache(maxsize=16_384)
def multiaddr_of(text: str) -> Multiaddr:
    """A multiaddr as libp2p's type. Raises what that raises for what is none."""
    return Multiaddr(text)


@lru_cache(maxsize=16_384)
def spelled(address: bytes) -> str:
    """A multiaddr's text, of its bytes. Raises what libp2p's type raises for what is none."""
    return str(Multiaddr(address))


@lru_cache(maxsize=16_384)
def libp2p_id(peer_id: str) -> ID:
    """A peer's id (base58) as libp2p's type. Raises `PeerIdError` for what isn't base58."""
    try:
        return ID.from_base58(peer_id)
    except ValueError as error:
        raise PeerIdError(f"not a peer id: {peer_id[:_LONGEST_SHOWN]!r}") from error


def _spelled_out(candidate: Multiaddr) -> list[Multiaddr]:
    text = str(candidate)
    if not text.startswith(("/ip4/0.0.0.0/", "/ip6/::/")):
        return [candidate]  # libp2p's function drops /ws, of these too
    ending = "/ws" if text.endswith("/ws") else ""
    return [Multiaddr(str(concrete).removesuffix("/ws") + ending) for concrete in expand_wildcard_address(candidate)]
