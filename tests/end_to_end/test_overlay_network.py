"""Networks of peers over real sockets: joining, neighbourhoods, loss, rejoining and leaving."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay import (
    AddressError,
    CallLimits,
    Identity,
    OverlayError,
    OverlayPeer,
    OverlaySettings,
    Unreachable,
    nearest,
    open_peer,
    resource_position,
)
from overlay.tasks import Broadcast
from tests.end_to_end.forked import ForkedProcess, fork_server
from tests.end_to_end.overlay_node import serve_views

RESOURCES = ("one resource", "another resource", "a third")
NODE = Path(__file__).with_name("overlay_node.py")


def free_address(identity: Identity) -> tuple[str, str]:
    """A listen address that is free now, and what to dial once `identity` listens there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"
    return listen, f"{listen}/p2p/{identity.peer_id}"


async def until(peers: Sequence[OverlayPeer], condition: Callable[[], bool], *, timeout: float = 15) -> None:
    """Wait for membership changes of `peers` until `condition`."""
    changed = Broadcast()
    for peer in peers:
        peer.on_membership_change(changed.send)
    with trio.move_on_after(timeout):
        while not condition():
            await changed.wait()
    assert condition(), [(peer.peer_id, peer.members()) for peer in peers]


async def until_all_know_all(peers: Sequence[OverlayPeer]) -> None:
    ids = {peer.peer_id for peer in peers}
    await until(peers, lambda: all({peer.peer_id, *peer.members()} == ids for peer in peers))


async def assert_neighbourhoods(asking: Sequence[OverlayPeer], members: Sequence[str]) -> None:
    for resource_id in RESOURCES:
        expected = nearest(resource_position(resource_id), members, 4)
        for peer in asking:
            assert await peer.neighbourhood(resource_id, 4) == expected
            if peer.peer_id in members:
                assert peer.is_responsible(resource_id, 4) == (peer.peer_id in expected)


@asynccontextmanager
async def serving_peer(settings: OverlaySettings, identity: Identity | None = None) -> AsyncIterator[OverlayPeer]:
    async with open_peer(identity or Identity.generate(), settings) as peer:
        serve_views(peer)
        yield peer


@pytest.mark.parametrize("bootstraps_start", ["first", "in the middle", "last"])
async def test_six_peers_join_in_any_order_and_agree(bootstraps_start: str) -> None:
    first, second = Identity.generate(), Identity.generate()
    (first_listen, first_address), (second_listen, second_address) = free_address(first), free_address(second)
    bootstrap = (first_address, second_address)
    to_start = [(Identity.generate(), "/ip4/127.0.0.1/tcp/0") for _ in range(4)]
    place = {"first": 0, "in the middle": 2, "last": 4}[bootstraps_start]
    to_start[place:place] = [(second, second_listen), (first, first_listen)]
    async with AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(
                serving_peer(OverlaySettings(listen=(listen,), bootstrap=bootstrap, retry_delay_limit=1.0), identity)
            )
            for identity, listen in to_start
        ]
        await until_all_know_all(peers)
        assert all(peer.ready for peer in peers)
        await assert_neighbourhoods(peers, [peer.peer_id for peer in peers])
        for caller in peers:
            for callee in peers:
                if caller is not callee:
                    answer = await caller.call(callee.peer_id, "test/echo", b"hello", timeout=5)
                    assert answer == [caller.peer_id, b"hello"]
        assert all(peer.statistics().routing_table == 5 for peer in peers)
        assert all(peer.statistics().loop_lag_max >= peer.statistics().loop_lag_p99 > 0 for peer in peers)


async def test_lookups_find_the_nearest_in_a_network_of_more_peers_than_keep_a_resource() -> None:
    async with AsyncExitStack() as stack:
        boot = await stack.enter_async_context(serving_peer(OverlaySettings(neighbourhood_size=3)))
        settings = OverlaySettings(neighbourhood_size=3, bootstrap=(boot.addresses()[0],))
        peers = [boot, *[await stack.enter_async_context(serving_peer(settings)) for _ in range(11)]]
        members = [peer.peer_id for peer in peers]
        await until(
            peers, lambda: all({peer.peer_id, *peer.neighbours()} == set(members) for peer in peers), timeout=60
        )
        for number in range(6):
            expected = nearest(resource_position(f"resource {number}"), members, 3)
            for peer in peers:
                assert await peer.neighbourhood(f"resource {number}", 3) == expected


@pytest.mark.parametrize("transport", ["", "/ws"])
async def test_a_light_client_sees_neighbourhoods_and_is_in_none(transport: str) -> None:
    listen = f"/ip4/127.0.0.1/tcp/0{transport}"
    async with serving_peer(OverlaySettings(listen=(listen,))) as boot:
        bootstrap = (boot.addresses()[0],)
        settings = OverlaySettings(listen=(listen,), bootstrap=bootstrap)
        light_settings = OverlaySettings(listen=(), bootstrap=bootstrap, member=False)
        async with (
            serving_peer(settings) as one,
            serving_peer(settings) as two,
            serving_peer(light_settings) as light,
        ):
            await until_all_know_all([boot, one, two])
            with trio.fail_after(10):
                await light.wait_joined()
            members = [boot.peer_id, one.peer_id, two.peer_id]
            await assert_neighbourhoods([boot, one, two, light], members)
            for member in members:
                assert await light.call(member, "test/echo", 1, timeout=5) == [light.peer_id, 1]
            # A call the other way needs no address: the link is there.
            assert await boot.call(light.peer_id, "test/echo", 2, timeout=5) == [boot.peer_id, 2]
            assert not any(light.peer_id in peer.members() for peer in (boot, one, two))
            assert light.addresses() == []


@asynccontextmanager
async def node_processes(count: int, *arguments: str) -> AsyncIterator[list[tuple[ForkedProcess, str]]]:
    """Nodes as processes, started at once; yields each with its address."""
    command = [sys.executable, str(NODE), *arguments]
    processes = [await fork_server().open_process(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        nodes: list[tuple[ForkedProcess, str]] = []
        with trio.fail_after(60):
            for process in processes:
                assert process.stdout is not None
                nodes.append((process, (await process.stdout.receive_some(4096)).decode().strip()))
        yield nodes
    finally:
        with trio.CancelScope(shield=True):
            for process in processes:
                process.kill()
            for process in processes:
                await process.wait()
                if process.stdout is not None:
                    await process.stdout.aclose()


@asynccontextmanager
async def node_process(*arguments: str) -> AsyncIterator[tuple[ForkedProcess, str]]:
    async with node_processes(1, *arguments) as nodes:
        yield nodes[0]


async def test_processes_agree_and_a_killed_one_leaves_the_neighbourhoods() -> None:
    listen = "/ip4/127.0.0.1/tcp/0"
    async with AsyncExitStack() as stack:
        _, boot = await stack.enter_async_context(node_process(listen))
        nodes = await stack.enter_async_context(node_processes(4, listen, boot))
        observer = await stack.enter_async_context(serving_peer(OverlaySettings(bootstrap=(boot,))))
        await until([observer], lambda: len(observer.members()) == 5, timeout=30)
        ids = [address.rpartition("/")[2] for address in (boot, *(address for _, address in nodes))]

        async def assert_view(asked: Sequence[str], members: Sequence[str]) -> None:
            for peer_id in asked:
                seen: object = None
                with trio.move_on_after(15):  # polled: what another process sees gives us no event
                    while True:
                        seen = await observer.call(peer_id, "test/members", None, timeout=5)
                        assert isinstance(seen, list)
                        if {peer_id, *seen} == set(members):
                            break
                        await trio.sleep(0.05)
                assert isinstance(seen, list)
                assert {peer_id, *seen} == set(members)
                for resource_id in RESOURCES:
                    expected = nearest(resource_position(resource_id), members, 4)
                    assert await observer.call(peer_id, "test/neighbourhood", resource_id, timeout=5) == expected

        await assert_view(ids, [*ids, observer.peer_id])
        for peer_id in ids:
            for other in ids:
                if peer_id != other:
                    answer = await observer.call(peer_id, "test/relay", other, timeout=10)
                    assert answer == [peer_id, [peer_id, observer.peer_id]]

        victim, victim_address = nodes[1]
        victim_id = victim_address.rpartition("/")[2]
        victim.send_signal(signal.SIGKILL)
        await until([observer], lambda: victim_id not in observer.members(), timeout=5)
        left = [peer_id for peer_id in ids if peer_id != victim_id]
        await assert_neighbourhoods([observer], [*left, observer.peer_id])
        await assert_view(left, [*left, observer.peer_id])
        with pytest.raises(Unreachable):
            await observer.call(victim_id, "test/echo", 1, timeout=5)


async def test_a_frozen_member_leaves_the_neighbourhoods() -> None:
    async with node_process("/ip4/127.0.0.1/tcp/0") as (process, address):
        settings = OverlaySettings(bootstrap=(address,), calls=CallLimits(ping_interval=0.3, ping_timeout=0.5))
        async with serving_peer(settings) as observer:
            await until([observer], lambda: len(observer.members()) == 1)
            process.send_signal(signal.SIGSTOP)
            await until([observer], lambda: observer.members() == [], timeout=10)
            assert observer.is_isolated()
            assert await observer.neighbourhood("a resource", 4) == [observer.peer_id]
            process.send_signal(signal.SIGCONT)
            await until([observer], lambda: len(observer.members()) == 1, timeout=30)


async def test_a_bootstrap_peer_that_starts_later_is_found() -> None:
    late = Identity.generate()
    listen, address = free_address(late)
    async with serving_peer(OverlaySettings(bootstrap=(address,), retry_delay=0.05)) as early:
        assert early.is_isolated()
        assert not early.ready
        with trio.move_on_after(0.5) as waited:
            await early.wait_joined()
        assert waited.cancelled_caught
        async with serving_peer(OverlaySettings(listen=(listen,)), late) as boot:
            with trio.fail_after(10):
                await early.wait_joined()
            assert early.members() == [boot.peer_id]
            assert early.ready


async def test_an_isolated_peer_rejoins_when_its_bootstrap_peer_is_back() -> None:
    boot_identity = Identity.generate()
    listen, address = free_address(boot_identity)
    async with serving_peer(OverlaySettings(bootstrap=(address,), retry_delay=0.05, retry_delay_limit=0.5)) as peer:
        for _ in range(2):
            async with serving_peer(OverlaySettings(listen=(listen,)), boot_identity):
                await until([peer], lambda: peer.members() == [boot_identity.peer_id])
            await until([peer], peer.is_isolated)


async def test_peers_that_lost_each_other_meet_again_without_their_bootstrap_peer() -> None:
    boot_identity = Identity.generate()
    listen, address = free_address(boot_identity)
    settings = OverlaySettings(bootstrap=(address,), retry_delay=0.05)
    async with serving_peer(settings) as one, serving_peer(settings) as two:
        async with serving_peer(OverlaySettings(listen=(listen,)), boot_identity) as boot:
            await until_all_know_all([boot, one, two])
        await until_all_know_all([one, two])
        gone = trio.Event()
        one.on_membership_change(lambda: gone.set() if not one.members() else None)
        await one.disconnect(two.peer_id)
        with trio.fail_after(5):
            await gone.wait()
        await until_all_know_all([one, two])


async def test_a_peer_without_bootstrap_addresses_is_a_network_of_one() -> None:
    async with serving_peer(OverlaySettings()) as peer:
        with trio.fail_after(1):
            await peer.wait_joined()
        assert peer.ready
        assert await peer.neighbourhood("a resource", 20) == [peer.peer_id]
        assert peer.is_responsible("a resource", 1)


async def test_leaving_a_network_closes_all_sockets_and_tasks_quickly() -> None:
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    files_before = len(os.listdir("/proc/self/fd"))
    async with AsyncExitStack() as stack:
        boot = await stack.enter_async_context(serving_peer(OverlaySettings()))
        settings = OverlaySettings(bootstrap=(boot.addresses()[0],))
        peers = [boot, *[await stack.enter_async_context(serving_peer(settings)) for _ in range(3)]]
        await until_all_know_all(peers)
        leaving = trio.current_time()
    assert trio.current_time() - leaving < 4 * 3
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living <= tasks_before
    assert len(os.listdir("/proc/self/fd")) <= files_before


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
async def test_what_the_block_raises_comes_out_as_it_is(error: type[BaseException]) -> None:
    with pytest.raises(error):
        async with serving_peer(OverlaySettings()):
            raise error


async def test_an_address_at_which_another_peer_is_is_told_from_one_without_answer() -> None:
    async with serving_peer(OverlaySettings()) as one, serving_peer(OverlaySettings()) as other:
        address = other.addresses()[0].rpartition("/p2p/")[0]
        with pytest.raises(Unreachable, match=f"another peer is at {address}/p2p/{other.peer_id}"):
            await one.connect(f"{address}/p2p/{Identity.generate().peer_id}", timeout=5)


async def test_a_taken_port_is_told() -> None:
    async with serving_peer(OverlaySettings()) as peer:
        taken = peer.addresses()[0].rpartition("/p2p/")[0]
        with pytest.raises(OverlayError, match="can't listen"):
            async with serving_peer(OverlaySettings(listen=(taken,))):
                pass


@pytest.mark.parametrize(
    "settings",
    [
        OverlaySettings(bootstrap=("/ip4/127.0.0.1/tcp/4001",)),
        OverlaySettings(bootstrap=("nonsense",)),
        OverlaySettings(listen=("/ip4/127.0.0.1/udp/4001/quic-v1",)),
        OverlaySettings(announce=("nonsense",)),
    ],
)
async def test_bad_addresses_in_settings_are_told(settings: OverlaySettings) -> None:
    with pytest.raises(AddressError):
        async with serving_peer(settings):
            pass


async def test_announced_addresses_replace_the_ones_listened_on() -> None:
    async with serving_peer(OverlaySettings(announce=("/dns4/node.example/tcp/4001",))) as peer:
        assert peer.addresses() == [f"/dns4/node.example/tcp/4001/p2p/{peer.peer_id}"]


async def test_connecting_to_nobody_fails_in_time() -> None:
    async with serving_peer(OverlaySettings()) as peer:
        _, address = free_address(Identity.generate())
        with pytest.raises(Unreachable), trio.fail_after(3):
            await peer.connect(address, timeout=2)
