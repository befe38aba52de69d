"""One client for long: nothing of a particle stays behind with it or with its relay."""

from __future__ import annotations

import pytest
import trio

from tests.aqua.js_peer import JsProcess
from tests.aqua.nodes import AquaNetwork, websocket

pytestmark = pytest.mark.timeout(300)  # the first test also installs

STREAMS = 128  # that the client is told to take at the same time, of 1024; it never closes its side of one
MORE = 72  # particles than that


async def test_a_client_gets_more_particles_than_it_has_streams(network: AquaNetwork, js: JsProcess) -> None:
    times: list[int] = []
    async with js.peer(websocket(network.nodes[0]), streams=STREAMS) as peer, trio.open_nursery() as nursery:

        async def ask() -> None:
            while len(times) < STREAMS + MORE:
                times.append(await peer.call("relayTime"))

        for _ in range(8):
            nursery.start_soon(ask)
    assert len(times) >= STREAMS + MORE
