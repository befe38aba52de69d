"""Links over real connections that are closed because nobody keeps them, or refused because all places are taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from overlay import OverlaySettings, open_peer
from overlay.identity import Identity
from overlay.libp2p.host import Host, open_host
from overlay.rpc.links import Links
from overlay.settings import LinkLimits
from tests.end_to_end.network import eventually


async def echo(caller: str, body: object) -> object:
    await trio.lowlevel.checkpoint()
    return [caller, body]


async def becomes_true(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells of, as the end of a connection."""

    async def ask() -> bool:
        await trio.lowlevel.checkpoint()
        return condition()

    await eventually(ask, bool, timeout=20)


@asynccontextmanager
async def linking_host(settings: OverlaySettings) -> AsyncIterator[tuple[Host, Links]]:
    """A host whose links nobody keeps."""
    async with open_host(Identity.generate(), settings) as host, trio.open_nursery() as nursery:
        links = Links(host, settings, True, keeps=lambda _: False)
        links.serve("echo", echo)
        await nursery.start(links.run)
        yield host, links
        nursery.cancel_scope.cancel()


async def test_link_that_nobody_keeps_is_closed_with_its_connection_and_calls_open_it_again() -> None:
    settings = OverlaySettings(links=LinkLimits(idle_timeout=0.3, min_lifetime=0.1))
    async with linking_host(settings) as (here, links), linking_host(settings) as (there, others):
        losses: list[str] = []
        for one in (links, others):
            one.on_down(losses.append)
        here.add_addresses(there.peer_id, there.listen_addresses())
        for number in range(2):
            assert await links.call(there.peer_id, "echo", number, timeout=10) == [here.peer_id, number]
            await becomes_true(lambda: not links.is_linked(there.peer_id) and not others.is_linked(here.peer_id))
            await becomes_true(lambda: not here.is_connected(there.peer_id) and not there.is_connected(here.peer_id))
        assert losses == []
        assert links.statistics().closed == others.statistics().closed == 2


async def test_light_client_for_whom_there_is_no_place_comes_to_a_node_that_it_was_told() -> None:
    full = OverlaySettings(links=LinkLimits(max_light_clients=1))
    async with open_peer(Identity.generate(), full) as boot:
        bootstrap = (boot.addresses()[0],)
        light = OverlaySettings(listen=(), bootstrap=bootstrap, member=False)
        async with (
            open_peer(Identity.generate(), OverlaySettings(bootstrap=bootstrap)) as node,
            open_peer(Identity.generate(), light) as first,
        ):
            await becomes_true(lambda: boot.members() == [node.peer_id] and first.members() == [boot.peer_id])
            await becomes_true(lambda: boot.addresses_of(node.peer_id) != [])
            async with open_peer(Identity.generate(), light) as second:
                await becomes_true(lambda: second.members() == [node.peer_id])
                assert boot.statistics().turned_away >= 1
