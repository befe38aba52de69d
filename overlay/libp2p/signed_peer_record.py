"""Signs and opens peer records in libp2p's form, the signed peer record (libp2p's RFC 0002 and RFC 0003).

A peer that can't be dialled names relays, by circuit addresses `.../p2p/<relay>/p2p-circuit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.peer.envelope import consume_envelope, seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PEER_RECORD_ENVELOPE_DOMAIN
from libp2p.peer.peer_record import PeerRecord as Libp2pPeerRecord

from overlay.discovery.address_book import parse_dialable
from overlay.discovery.peer_record import MAX_BYTES, BadPeerRecord, PeerRecord
from overlay.errors import AddressError
from overlay.identity import Identity
from overlay.libp2p.addresses import multiaddr_of, spelled

MAX_RELAYS: Final = 4
MAX_ADDRESSES: Final = 16
LONGEST_ADDRESS: Final = 256  # characters; what others tell of their addresses mustn't fill the record

_CIRCUIT: Final = "/p2p-circuit"


def sign_peer_record(
    identity: Identity, addresses: Sequence[str], relays: Sequence[tuple[str, Sequence[str]]], now: float
) -> PeerRecord:
    """This peer's own record. `relays`: ids of relays, each with its multiaddrs. `now`: seconds since 1970.

    Names as many addresses as fit.
    """
    circuits = [
        f"{address.removesuffix(f'/p2p/{relay}')}/p2p/{relay}{_CIRCUIT}"
        for relay, known in relays[:MAX_RELAYS]
        for address in [*known[:2], *([] if known else [""])]
    ]
    texts = [text for text in (*addresses, *circuits) if len(text) <= LONGEST_ADDRESS][:MAX_ADDRESSES]
    private_key, sequence = create_new_key_pair(identity.seed).private_key, max(int(now * 1_000_000), 1)
    while True:
        record = Libp2pPeerRecord(ID.from_base58(identity.peer_id), [multiaddr_of(text) for text in texts], sequence)
        sealed: bytes = seal_record(record, private_key).marshal_envelope()
        if len(sealed) <= MAX_BYTES or not texts:
            return open_peer_record(sealed)
        texts.pop()


def open_peer_record(sealed: bytes) -> PeerRecord:
    """The record in `sealed`, verified to be signed by the peer that it is of. Raises `BadPeerRecord`."""
    if len(sealed) > MAX_BYTES:
        raise BadPeerRecord(f"{len(sealed)} bytes; at most {MAX_BYTES}")
    try:
        envelope, record = consume_envelope(sealed, PEER_RECORD_ENVELOPE_DOMAIN)
        peer = record.peer_id
        is_own = isinstance(envelope.public_key, Ed25519PublicKey) and ID.from_pubkey(envelope.public_key) == peer
        texts = [spelled(address.to_bytes()) for address in record.addrs[:MAX_ADDRESSES]]
    except Exception as error:  # whatever libp2p, protobuf or multiaddr raise for bytes of strangers
        raise BadPeerRecord(f"no signed peer record: {error!r}"[:200]) from error
    if not is_own:
        raise BadPeerRecord("not signed by the peer that it is of")
    addresses: list[str] = []
    relays: dict[str, None] = {}
    relay_addresses: list[tuple[str, str]] = []
    for text in texts:
        is_circuit = _CIRCUIT in text
        transport, _, relay = text.partition(_CIRCUIT)[0].rpartition("/p2p/") if is_circuit else (text, "", "")
        try:
            if is_circuit:
                relays[str(ID.from_base58(relay))] = None
            dialable = parse_dialable(transport)[0] if transport else ""
        except (AddressError, ValueError):
            continue
        if is_circuit and dialable:
            relay_addresses.append((relay, dialable))
        elif dialable:
            addresses.append(dialable)
    return PeerRecord(
        str(peer), tuple(addresses), tuple(list(relays)[:MAX_RELAYS]), tuple(relay_addresses), int(record.seq), sealed
    )
