"""Identities that take places and do nothing keep no newcomer out, whatever kind of place they take."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from subprocess import DEVNULL
from typing import Final

import pytest
import trio

from overlay import OverlayPeer, OverlaySettings, open_peer
from overlay.errors import PeerFull
from overlay.identity import Identity
from overlay.settings import LinkLimits
from tests.attacks.fuzz.driver import is_within
from tests.attacks.strangers import ATTACKS, attacked
from tests.attacks.test_cpu import LONGEST
from tests.attacks.victim import lag_in_cpu_time
from tests.end_to_end.network import eventually
from tests.end_to_end.test_link_places import becomes_true

PLACES: Final = 12  # of each kind
ATTACKERS: Final = 30
ATTACKING: Final = 8  # connections of one attack
MOST_UNDER_WAY: Final = 16 * 2**20  # bytes that the kernel takes at both ends
IN_WITHIN: Final = 10.0  # seconds until a newcomer is in, on a busy machine
LIMITS: Final = LinkLimits(
    low_water=6, high_water=8, max_members=PLACES, max_unproven=4, max_light_clients=PLACES, max_unlinked=PLACES
)


async def echo(caller: str, body: object) -> object:
    await trio.lowlevel.checkpoint()
    return [caller, body]


@asynccontextmanager
async def serving(settings: OverlaySettings) -> AsyncIterator[OverlayPeer]:
    async with open_peer(Identity.generate(), settings) as peer:
        peer.serve("echo", echo)
        yield peer


async def echoed(newcomer: OverlayPeer, peer_id: str) -> object:
    """What a call answers; None while there is no place."""
    try:
        return await newcomer.call(peer_id, "echo", 1, timeout=5)
    except PeerFull:
        return None


@pytest.mark.parametrize("attack", ATTACKS)
async def test_idle_identities_keep_no_newcomer_out(attack: str) -> None:
    async with (
        serving(OverlaySettings(links=LIMITS)) as node,
        attacked(node.addresses()[0], ATTACKS[attack], ATTACKERS),
    ):
        began = trio.current_time()
        joining = OverlaySettings(bootstrap=(node.addresses()[0],))
        light = OverlaySettings(bootstrap=joining.bootstrap, listen=(), member=False)
        async with serving(joining) as member, serving(light) as client:
            with trio.fail_after(IN_WITHIN):
                await member.wait_joined()
                await client.wait_joined()
            print(f"{attack}: both were in after {trio.current_time() - began:.2f} s")  # noqa: T201
            await becomes_true(lambda: member.peer_id in node.members())
            for newcomer in (member, client):
                # Who hasn't done anything a second after it came loses its place to another newcomer, and asks again:
                # so do these, who come and wait for each other. Nor can one that acts at once be sure of a place: while
                # all that have one came within that second, they look like it. If they gave way sooner, it would lose
                # its own to whoever comes next; if there were more places, they would be taken alike.
                answered = await eventually(partial(echoed, newcomer, node.peer_id), bool, IN_WITHIN)
                assert answered == [newcomer.peer_id, 1]
                assert await node.call(newcomer.peer_id, "echo", 2, timeout=5) == [node.peer_id, 2]
            statistics = node.statistics()
            assert statistics.links <= 2 * PLACES + 1
            await becomes_true(lambda: node.statistics().connections <= 3 * PLACES + 8)


async def test_one_address_gets_its_share_of_connections_also_while_they_shake_hands() -> None:
    limits = LinkLimits(max_per_address=4, unlimited_networks=())
    async with open_peer(Identity.generate(), OverlaySettings(links=limits)) as node, AsyncExitStack() as opened:
        port = int(node.addresses()[0].split("/")[4])

        async def is_taken(source: str) -> bool:
            one = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            await one.bind((source, 0))
            stream = await opened.enter_async_context(trio.SocketStream(one))
            await one.connect(("127.0.0.1", port))
            with trio.move_on_after(0.5):
                try:
                    return bool(await stream.receive_some(100))
                except trio.BrokenResourceError:
                    return False
            return True

        assert [await is_taken("127.0.0.1") for _ in range(6)] == [True] * 4 + [False] * 2
        assert await is_taken("127.0.0.2")
        await opened.aclose()
        await eventually(partial(is_taken, "127.0.0.1"), bool)


async def test_those_who_leave_with_hundreds_of_streams_hold_the_loop_for_no_time() -> None:
    async with open_peer(Identity.generate(), OverlaySettings()) as node:
        command = [sys.executable, "-m", "tests.attacks.corpus", "idle_streams", node.addresses()[0]]

        async def attacked_and_left() -> float:
            async with trio.open_nursery() as nursery:
                attack = await nursery.start(partial(trio.run_process, command, stdout=DEVNULL, check=False))
                await becomes_true(lambda: node.statistics().connections >= ATTACKING)
                await trio.sleep(1)  # for the streams of the last one
                gc.collect()
                gc.disable()  # what it takes to look through what a whole test run has left isn't theirs
                try:
                    meter = lag_in_cpu_time()
                    with meter.measured():
                        attack.kill()
                        await becomes_true(lambda: node.statistics().connections == 0)
                finally:
                    gc.enable()
            return meter.statistics().max

        took = [await attacked_and_left() for _ in range(3)]
        assert is_within(min(took), LONGEST), took


@pytest.mark.parametrize("declared", [b"\xff\xff\xff\xff\x03", b"\xff\xff\xff\xff\xff\x6e"])  # 1 GB and 3.8 TB
async def test_a_negotiation_is_read_no_further_than_its_longest_message(declared: bytes) -> None:
    """Before anything is known of a peer: what it declares isn't allocated, and what it sends isn't kept."""
    async with open_peer(Identity.generate(), OverlaySettings()) as node:
        stranger = await trio.open_tcp_stream("127.0.0.1", int(node.addresses()[0].split("/")[4]))
        async with stranger:
            await stranger.send_all(declared)
            assert await _sent_until_it_breaks(stranger) < MOST_UNDER_WAY


async def _sent_until_it_breaks(stream: trio.SocketStream) -> int:
    """Bytes that the other side, or the kernel for it, took of endlessly many within some seconds."""
    sent = 0
    with trio.move_on_after(3), suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(bytes(2**20))
            sent += 2**20
    return sent
