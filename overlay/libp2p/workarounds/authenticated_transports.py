"""Fault: libp2p's default security list offers secio and plaintext, through which a peer claims any peer id.

`new_swarm` adds both to what it negotiates, and a forged client was accepted under another's id. Its default muxer
list is configurable too, and mplex hangs under load. So both lists are always passed, complete.

TLS comes first because bulk reads over it are three times faster than over noise; the dialler's order decides.
TLS of 0.8.1 authenticates both sides (TLS 1.3 only; the server demands a certificate; the signature of the host key
over the certificate's key is verified; the dialler compares with the id that it dialled), which
tests/end_to_end/test_overlay_regressions.py tests. AutoTLS, which replaces that check, stays off.

Remove: the lists when libp2p's defaults are Noise, TLS and Yamux alone.
"""

from __future__ import annotations

import ssl

from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TSecurityOptions
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS_PROTOCOL_ID
from libp2p.security.tls.transport import TLSTransport


class TlsTransport(TLSTransport):
    """TLS whose contexts are made once.

    Fault: libp2p writes the certificate and its private key to the temporary folder for every connection, which costs
    a millisecond, and connections fail when that folder is full. Remove when `create_ssl_context` is cached upstream.
    """

    def __init__(self, key_pair: KeyPair) -> None:
        super().__init__(key_pair, enable_autotls=False)
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def create_ssl_context(self, server_side: bool = False) -> ssl.SSLContext:
        """The context of either side, made at its first use."""
        context = self._contexts.get(server_side)
        if context is None:
            context = self._contexts[server_side] = super().create_ssl_context(server_side)
            if server_side:
                context.num_tickets = 0  # sessions are never resumed: each connection proves its identity anew
        return context


def security_options(key_pair: KeyPair) -> TSecurityOptions:
    """TLS, then noise; nothing else."""
    return {
        TLS_PROTOCOL_ID: TlsTransport(key_pair),
        NOISE_PROTOCOL_ID: NoiseTransport(key_pair, noise_privkey=create_new_x25519_key_pair().private_key),
    }
