"""Peers that are not ours: bare py-libp2p hosts, with which the tests do what our own code never would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio
from libp2p import new_host
from libp2p.abc import IHost, ISecureTransport
from libp2p.crypto.ed25519 import Ed25519PrivateKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair, PublicKey
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secio import transport as secio
from libp2p.security.tls.transport import PROTOCOL_ID as TLS_PROTOCOL_ID
from libp2p.security.tls.transport import TLSTransport
from multiaddr import Multiaddr

from overlay.identity import Identity

LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")
SECURITY = ("noise", "tls", "plaintext", "secio")


class _ForgedKey(Ed25519PrivateKey):
    """Signs with its own key and says that its public key is somebody else's."""

    claimed: PublicKey

    def get_public_key(self) -> PublicKey:
        return self.claimed


def forged_key_pair(victim: Identity) -> KeyPair:
    """A key pair that claims to be the victim's, without its private key."""
    claimed = create_new_key_pair(victim.seed).public_key
    forged = _ForgedKey.new(Identity.generate().seed)
    forged.claimed = claimed
    return KeyPair(forged, claimed)


def security(name: str, key_pair: KeyPair) -> Mapping[TProtocol, ISecureTransport]:
    """One security transport, alone."""
    match name:
        case "noise":
            private_key = create_new_x25519_key_pair().private_key
            return {NOISE_PROTOCOL_ID: NoiseTransport(key_pair, noise_privkey=private_key)}
        case "tls":
            return {TLS_PROTOCOL_ID: TLSTransport(key_pair)}
        case "secio":
            return {TProtocol(secio.ID): secio.Transport(key_pair)}
        case _:
            return {PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair)}


@asynccontextmanager
async def stranger(
    key_pair: KeyPair | None = None, *, security_protocol: str = "noise", listen: Sequence[Multiaddr] = ()
) -> AsyncIterator[IHost]:
    """A bare libp2p host; `security_protocol` is its only security protocol."""
    key_pair = key_pair or create_new_key_pair(Identity.generate().seed)
    host = new_host(
        key_pair=key_pair,
        sec_opt=security(security_protocol, key_pair),
        connection_config=ConnectionConfig(min_connections=0, low_watermark=0, max_connections_per_peer=1),
    )
    async with host.run(listen_addrs=list(listen)):
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True):
                await host.close()


async def dial(host: IHost, address: str) -> ID:
    """Connect a stranger to one of our peers."""
    info = info_from_p2p_addr(Multiaddr(address))
    await host.connect(info)
    return info.peer_id
