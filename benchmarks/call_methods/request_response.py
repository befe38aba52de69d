"""py-libp2p's own request/response on its own host: a stream, and its negotiation, per call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.request_response import BytesCodec, RequestContext, RequestResponse, RequestResponseConfig
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from benchmarks.call_methods.method import CALL_TIMEOUT, CONCURRENCY, Measure, measured, serve_until_told, server
from benchmarks.call_methods.stock_host import stock_host

PROTOCOL = TProtocol("/benchmark/request-response/1")
CONFIG = RequestResponseConfig(timeout=CALL_TIMEOUT, max_concurrent_inbound=CONCURRENCY)


@asynccontextmanager
async def request_response() -> AsyncIterator[Measure]:
    """A stock host calls another one."""
    async with server("request_response") as address, stock_host() as host:
        info = info_from_p2p_addr(Multiaddr(address))
        await host.connect(info)
        calls, codec = RequestResponse(host), BytesCodec()

        async def echo(payload: bytes) -> bytes:
            return await calls.send_request(info.peer_id, [PROTOCOL], payload, codec, CONFIG)

        yield measured(echo)


async def _answer(payload: bytes, context: RequestContext) -> bytes:  # noqa: ARG001 - a handler's signature
    return payload


async def serve() -> None:
    """Answers callers until told to end."""
    async with stock_host() as host:
        RequestResponse(host).set_handler(PROTOCOL, _answer, BytesCodec(), CONFIG)
        await serve_until_told(str(host.get_addrs()[0]))


if __name__ == "__main__":
    trio.run(serve)
