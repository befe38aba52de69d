"""A peer as a process of its own: prints its address, serves what the tests ask, and runs until it's killed.

Usage: python overlay_node.py LISTEN [BOOTSTRAP ...]
"""

from __future__ import annotations

import logging
import sys

import structlog
import trio

from overlay import Identity, OverlayPeer, OverlaySettings, open_peer


def serve_views(peer: OverlayPeer) -> None:
    """Let others ask what this peer sees."""

    async def members(caller: str, body: object) -> object:
        return peer.members()

    async def neighbourhood(caller: str, body: object) -> object:
        return await peer.neighbourhood(str(body), 4)

    async def relay(caller: str, body: object) -> object:
        return await peer.call(str(body), "test/echo", [peer.peer_id, caller], timeout=5)

    async def echo(caller: str, body: object) -> object:
        return [caller, body]

    peer.serve("test/members", members)
    peer.serve("test/neighbourhood", neighbourhood)
    peer.serve("test/relay", relay)
    peer.serve("test/echo", echo)


async def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    listen, *bootstrap = sys.argv[1:]
    settings = OverlaySettings(listen=(listen,), bootstrap=tuple(bootstrap))
    async with open_peer(Identity.generate(), settings) as peer:
        serve_views(peer)
        print(peer.addresses()[0], flush=True)  # noqa: T201
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
