"""py-libp2p's own request/response: a stream, and its negotiation, per call; on a stock host that offers TLS alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.request_response import BytesCodec, RequestContext, RequestResponse, RequestResponseConfig
from libp2p.security.tls.transport import PROTOCOL_ID as TLS_PROTOCOL_ID
from libp2p.security.tls.transport import TLSTransport
from multiaddr import Multiaddr

from benchmarks.call_ways.way import CALL_TIMEOUT, CONCURRENCY, Measure, measured, serve_until_told, server
from overlay.libp2p_workarounds.quiet_loggers import quieten_libp2p

PROTOCOL = TProtocol("/benchmark/request-response/1")
CONFIG = RequestResponseConfig(timeout=CALL_TIMEOUT, max_concurrent_inbound=CONCURRENCY)


@asynccontextmanager
async def running() -> AsyncIterator[IHost]:
    quieten_libp2p()
    key_pair = create_new_key_pair()
    host = new_host(key_pair=key_pair, sec_opt={TLS_PROTOCOL_ID: TLSTransport(key_pair)})
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield host
        await host.close()


@asynccontextmanager
async def request_response() -> AsyncIterator[Measure]:
    """A stock host calls another one."""
    async with server("request_response") as address, running() as host:
        info = info_from_p2p_addr(Multiaddr(address))
        await host.connect(info)
        calls, codec = RequestResponse(host), BytesCodec()

        async def echo(payload: bytes) -> bytes:
            return await calls.send_request(info.peer_id, [PROTOCOL], payload, codec, CONFIG)

        yield measured(echo)


async def _answer(payload: bytes, context: RequestContext) -> bytes:  # noqa: ARG001 - a handler's signature
    return payload


async def serve() -> None:
    async with running() as host:
        RequestResponse(host).set_handler(PROTOCOL, _answer, BytesCodec(), CONFIG)
        await serve_until_told(str(host.get_addrs()[0]))


if __name__ == "__main__":
    trio.run(serve)
