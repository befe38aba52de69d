"""Peers that take places and do nothing for them, over real connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from overlay.errors import CallFailed, OverlayError, StreamBroken
from overlay.identity import Identity
from overlay.libp2p.host import Host, open_host
from overlay.rpc.links import Links
from overlay.settings import CallLimits, OverlaySettings
from tests.end_to_end.network import eventually

Attack = Callable[[Host, str], Awaitable[object]]
"""What one identity does to the node at an address, until it is cancelled."""

_AT_ONCE = 8


async def connect_only(host: Host, address: str) -> None:
    """Connects, answers pings, and comes back when it was sent away."""
    while True:
        with suppress(CallFailed):
            await host.connect(address, timeout=10)
        await trio.sleep(1)


async def link_idly(host: Host, address: str, *, member: bool) -> None:
    """Links, says that it keeps the link, calls and serves nothing, and comes back when it was sent away."""
    async with trio.open_nursery() as nursery:
        links = Links(host, OverlaySettings(calls=CallLimits(ping_interval=3600)), member, keeps=lambda _: True)
        await nursery.start(links.run)
        while True:
            with suppress(CallFailed):
                await links.ensure_link(await host.connect(address, timeout=10), timeout=10)
            await trio.sleep(1)


async def greet_never(host: Host, address: str) -> None:
    """Opens streams for links on which it says nothing, again and again."""
    while True:
        with suppress(StreamBroken, OverlayError):
            peer_id = await host.connect(address, timeout=10)
            stream = await host.open_stream(peer_id, OverlaySettings().protocol_id)
            while await stream.read_some(1000):
                pass
        await trio.sleep(0.1)


ATTACKS: dict[str, Attack] = {
    "connections without a link": connect_only,
    "light clients that do nothing": partial(link_idly, member=False),
    "members that serve nothing": partial(link_idly, member=True),
    "links that are never greeted": greet_never,
}


def _is_so(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        await trio.lowlevel.checkpoint()
        return condition()

    return ask


@asynccontextmanager
async def attacked(address: str, attack: Attack, count: int) -> AsyncIterator[Sequence[Identity]]:
    """`count` identities that attack the node at an address, each of which began, until the block ends."""
    identities = [Identity.generate() for _ in range(count)]
    places = trio.CapacityLimiter(_AT_ONCE)

    async def run(identity: Identity, began: trio.Event) -> None:
        settings = OverlaySettings(listen=(), calls=CallLimits(ping_interval=3600))
        async with open_host(identity, settings) as host, trio.open_nursery() as nursery:
            nursery.start_soon(attack, host, address)
            with suppress(AssertionError):  # there is no place for it
                await eventually(_is_so(lambda: bool(host.connected_peers())), bool, timeout=2)
            began.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def start(identity: Identity) -> None:
            began = trio.Event()
            async with places:
                nursery.start_soon(run, identity, began)
                await began.wait()

        async with trio.open_nursery() as starting:
            for identity in identities:
                starting.start_soon(start, identity)
        yield identities
        nursery.cancel_scope.cancel()
