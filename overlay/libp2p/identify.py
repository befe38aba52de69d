"""Answers libp2p's identify, `/ipfs/id/1.0.0`: who we are, where we listen, what we speak, and of which version.

libp2p's own handler can't name the product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.utils import encode_varint_prefixed
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.rpc.product import agent_version

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

IDENTIFY: Final = TProtocol("/ipfs/id/1.0.0")
_PROTOCOL_VERSION: Final = "ipfs/0.1.0"  # as all implementations say
_P2P: Final = 0x01A5  # code of the peer id that ends an address, which identify leaves out
_TIMEOUT: Final = 5.0  # seconds for the peer to take the answer


def serve_identify(host: IHost) -> None:
    """Answer every peer that asks, in place of libp2p's own handler."""
    agent = agent_version()

    async def answer(stream: INetStream) -> None:
        await _tell(stream, lambda: _identity(host, stream, agent))

    host.set_stream_handler(IDENTIFY, answer)


async def identify_stranger(host: IHost, stream: INetStream, protocols: Sequence[str]) -> None:
    """Tell a peer that wasn't let into a private network our key, and what it may speak, alone."""
    public_key = host.get_public_key().serialize()
    await _tell(
        stream, lambda: Identify(protocol_version=_PROTOCOL_VERSION, public_key=public_key, protocols=protocols)
    )


async def _tell(stream: INetStream, identity: Callable[[], Identify]) -> None:
    answered = False
    try:
        with trio.move_on_after(_TIMEOUT):
            await stream.write(encode_varint_prefixed(identity().SerializeToString()))
            await stream.close()
            answered = True
    except Exception as error:
        log.debug("a peer couldn't be told who this is", error=repr(error)[:200])
    finally:
        if not answered:
            with trio.CancelScope(shield=True), trio.move_on_after(0.5):
                await stream.reset()


def _identity(host: IHost, stream: INetStream, agent: str) -> Identify:
    sealed, _ = env_to_send_in_RPC(host)
    return Identify(
        protocol_version=_PROTOCOL_VERSION,
        agent_version=agent,
        public_key=host.get_public_key().serialize(),
        listen_addrs=[address.decapsulate_code(_P2P).to_bytes() for address in host.get_addrs()],
        observed_addr=_observed(stream),
        protocols=[str(protocol) for protocol in host.get_mux().get_protocols() if protocol is not None],
        signedPeerRecord=sealed,
    )


def _observed(stream: INetStream) -> bytes:
    """Where the peer's connection comes from, as it may want to know; empty where we can't tell."""
    remote = stream.get_remote_address()
    if remote is None:
        return b""
    host, port = remote
    host = host.removeprefix("::ffff:")
    kind = "ip6" if ":" in host else "ip4"
    return bytes(Multiaddr(f"/{kind}/{host}/tcp/{port}").to_bytes())
