"""Who died is noticed within seconds, by real processes over real sockets; who only stood still isn't."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from overlay import Identity, OverlayPeer, OverlaySettings, open_peer
from overlay.presence.liveness import HostState
from overlay.presence.timings import NO_BEAT
from tests.end_to_end.forked import ForkedProcess
from tests.end_to_end.test_overlay_network import free_address, node_processes, until, until_all_know_all


class Changes:
    """What a peer is told of the others that it follows."""

    def __init__(self, peer: OverlayPeer) -> None:
        self._peer = peer
        self._send, self._receive = trio.open_memory_channel[HostState](100)
        peer.presence.on_change(self._send.send_nowait)

    async def until_known(self, others: list[str]) -> None:
        """Follow peers, and wait until their presence is known."""
        self._peer.presence.follow(others)
        with trio.fail_after(30):
            for _ in others:
                assert (await self._receive.receive()).is_known

    async def next(self, *, within: float) -> HostState:
        with trio.fail_after(within):
            return await self._receive.receive()

    def none(self) -> bool:
        return self._receive.statistics().current_buffer_used == 0


@asynccontextmanager
async def following() -> AsyncIterator[tuple[Changes, list[tuple[ForkedProcess, str]]]]:
    """A peer that follows four others, each a process of its own."""
    identity = Identity.generate()
    listen, address = free_address(identity)
    async with (
        open_peer(identity, OverlaySettings(listen=(listen,))) as peer,
        node_processes(4, "/ip4/127.0.0.1/tcp/0", address) as nodes,
    ):
        others = [node.rpartition("/")[2] for _, node in nodes]
        changes = Changes(peer)
        await until([peer], lambda: {*peer.members()} == {*others}, timeout=60)
        await changes.until_known(others)
        yield changes, nodes


async def test_killed_process_is_down_at_once_and_frozen_one_after_the_long_clock() -> None:
    async with following() as (changes, nodes):
        (killed, killed_at), (frozen, frozen_at), (paused, _), _ = nodes
        killed.kill()
        state = await changes.next(within=5)
        assert (state.peer_id, state.is_up, state.has_left) == (killed_at.rpartition("/")[2], False, False)

        paused.send_signal(signal.SIGSTOP)
        await trio.sleep(5)
        paused.send_signal(signal.SIGCONT)

        frozen.send_signal(signal.SIGSTOP)
        began = trio.current_time()
        state = await changes.next(within=20)
        assert (state.peer_id, state.is_up) == (frozen_at.rpartition("/")[2], False)
        assert trio.current_time() - began > NO_BEAT - 3.5
        frozen.send_signal(signal.SIGCONT)
        state = await changes.next(within=5)
        assert (state.peer_id, state.is_up) == (frozen_at.rpartition("/")[2], True)
        assert changes.none()


async def test_peer_that_stops_is_off_the_list_at_once() -> None:
    identities = [Identity.generate() for _ in range(4)]
    places = [free_address(identity) for identity in identities]
    boot = tuple(address for _, address in places[:1])
    peers = [
        open_peer(identity, OverlaySettings(listen=(listen,), bootstrap=boot if number else ()))
        for number, (identity, (listen, _)) in enumerate(zip(identities, places, strict=True))
    ]
    async with peers[0] as first, peers[1] as second, peers[2] as third:
        changes = Changes(first)
        async with peers[3] as stopping:
            await until_all_know_all([first, second, third, stopping])
            await changes.until_known([stopping.peer_id])
        state = await changes.next(within=2)
        assert (state.peer_id, state.is_up, state.has_left) == (stopping.peer_id, False, True)
