"""Peers that can't be dialled stay reachable while relays die, over real node processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from aqua_compat import AquaClient, connect, node
from aqua_compat.rpc.errors import PeerUnreachable
from overlay.assembly import open_peer
from overlay.discovery.peer_records import GET_METHOD, PUT_METHOD
from overlay.errors import CallRefused
from overlay.identity import Identity
from overlay.libp2p.signed_peer_record import sign_peer_record
from overlay.settings import OverlaySettings
from registry.client.light import open_light_client
from registry.settings import NodeSettings
from tests.end_to_end.network import MAJORITY, Network, eventually, first_line, launched
from tests.paths import ROOT


async def _echo(text: str) -> str:
    return text


async def _relays(user: AquaClient, resource_id: str) -> list[list[str]]:
    return [list(r.metadata.relay_id) for r in (await user.resolveResource(resource_id, MAJORITY))[0] or []]


async def test_records_of_its_own_name_the_new_relay_when_the_old_one_died(own_network: Network) -> None:
    old, new = own_network.nodes[1], own_network.nodes[0]
    async with connect([old.address, new.address]) as provider, connect(own_network.nodes[2].address) as user:
        first, _ = await provider.createResource("provided")
        second, _ = await provider.createResource("registered")
        assert first
        assert second
        assert await provider.registerService(second, "v", provider.peer_id, "echo") == (True, [])
        async with provider.provide(first, "echo", {"echo": _echo}):
            for resource_id in (first, second):
                await eventually(partial(_relays, user, resource_id), lambda found: found == [[old.peer_id]])
            await old.kill()
            for resource_id in (first, second):
                await eventually(partial(_relays, user, resource_id), lambda found: found == [[new.peer_id]], 20)
            assert await user.call_any(first, "echo", "still here", ack=MAJORITY) == "still here"
            assert await provider.unregisterService(second, provider.peer_id) == (True, [])
        for resource_id in (first, second):
            await eventually(partial(_relays, user, resource_id), lambda found: found == [])
    await own_network.restart([old])


async def test_a_host_whose_record_names_a_dead_relay_is_found_through_its_peer_record(own_network: Network) -> None:
    old, new = own_network.nodes[1], own_network.nodes[3]
    async with (
        connect([old.address, new.address]) as provider,
        connect(own_network.nodes[0].address) as issuer,
        connect(own_network.nodes[2].address) as user,
    ):
        provider.serve("echo", {"echo": _echo})
        resource_id, errors = await issuer.createResource("hosted for another")
        assert resource_id, errors
        # The issuer says so through the provider's node, and isn't told when that changes.
        done, errors = await issuer.registerService(resource_id, "", provider.peer_id, "echo")
        assert done, errors
        await old.kill()
        there = user.on(provider.peer_id, via=old.peer_id, timeout=5)

        async def call() -> str:
            try:
                return str(await there.call("echo", "echo", "found"))
            except PeerUnreachable as error:
                return str(error)

        assert await eventually(call, lambda answer: answer == "found", 20)
        [called] = await user.call_all(resource_id, "echo", "hi", ack=MAJORITY)
        assert (called.result, called.error) == ("hi", None)
        # Nor needs anyone to know the relay at all.
        async with connect(own_network.nodes[4].address) as another:
            assert await another.on(provider.peer_id).call("echo", "echo", "by id alone") == "by id alone"
    await own_network.restart([old])


async def test_a_relay_that_stalls_is_replaced(own_network: Network) -> None:
    old, new = own_network.nodes[4], own_network.nodes[5]
    async with connect([old.address, new.address]) as provider, connect(own_network.nodes[2].address) as user:
        resource_id, _ = await provider.createResource("stalled")
        assert resource_id
        async with provider.provide(resource_id, "echo", {"echo": _echo}):
            assert old.process_id is not None
            os.kill(old.process_id, signal.SIGSTOP)
            try:
                await eventually(partial(_relays, user, resource_id), lambda found: found == [[new.peer_id]], 40)
                assert await user.call_any(resource_id, "echo", "hi", ack=MAJORITY, timeout=10) == "hi"
            finally:
                os.kill(old.process_id, signal.SIGCONT)
    await own_network.settled()


async def test_a_full_node_that_nobody_can_dial_is_called_through_those_it_dialled(
    own_network: Network, tmp_path: Path
) -> None:
    overlay = OverlaySettings(listen=(), bootstrap=(own_network.nodes[0].address,))
    async with (
        node(tmp_path / "behind NAT", settings=NodeSettings(overlay=overlay)) as hidden,
        connect(own_network.nodes[3].address) as user,
        open_light_client(Identity.generate(), [own_network.nodes[3].address]) as finder,
    ):
        await hidden.wait_joined()
        hidden.serve("echo", {"echo": _echo})
        there = user.on(hidden.peer_id, timeout=5)

        async def call() -> str:
            try:
                return str(await there.call("echo", "echo", "found"))
            except PeerUnreachable as error:
                return str(error)

        assert await eventually(call, lambda answer: answer == "found", 20)
        find = partial(finder.peer.find_peer_record, hidden.peer_id, timeout=2)
        peer_record = await eventually(find, lambda peer_record: peer_record is not None and peer_record.relays != ())
        assert peer_record is not None
        assert peer_record.addresses == ()
        assert set(peer_record.relays) <= {member.peer_id for member in own_network.nodes}
    await own_network.settled()


async def test_nobody_is_found_who_says_nothing_of_itself(own_network: Network) -> None:
    async with connect(own_network.nodes[2].address) as user:
        began = time.monotonic()
        with pytest.raises(PeerUnreachable):
            await user.on(Identity.generate().peer_id, timeout=6).call("echo", "echo", "hi")
        assert time.monotonic() - began < 5


async def test_a_peer_record_is_taken_from_its_own_peer_only(own_network: Network) -> None:
    identity, light = Identity.generate(), OverlaySettings(listen=(), member=False)
    async with open_peer(identity, light) as own, open_peer(Identity.generate(), light) as peer:
        for each in (own, peer):
            await each.connect(own_network.nodes[0].address, timeout=5)
        node = own_network.nodes[0].peer_id
        sealed = sign_peer_record(identity, [], [(node, [own_network.nodes[0].address])], time.time()).sealed
        for body in ([sealed, True], [sealed[:-1], True], [b"", True], [bytes(5000), False], None, ["x", True]):
            with pytest.raises(CallRefused):
                await peer.call(node, PUT_METHOD, body, timeout=5)
        old = sign_peer_record(identity, [], [], time.time() - 3600).sealed
        with pytest.raises(CallRefused, match="stale"):
            await own.call(node, PUT_METHOD, [old, True], timeout=5)
        assert await peer.call(node, GET_METHOD, [own.peer_id, False], timeout=5) is None
        await own.call(node, PUT_METHOD, [sealed, True], timeout=5)
        assert await peer.call(node, GET_METHOD, [own.peer_id, False], timeout=5) == sealed
        for body in (["", False], ["0OIl", False], [own.peer_id], None):
            with pytest.raises(CallRefused):
                await peer.call(node, GET_METHOD, body, timeout=5)


async def test_calls_go_on_while_a_provider_stalls(own_network: Network, tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "high_availability" / "provider.py")
    provider = [sys.executable, script, "--relay", own_network.nodes[0].address]
    log = tmp_path / "log"
    async with (
        launched(*provider, "stalled", home=tmp_path, log=log) as stalled,
        connect(own_network.nodes[2].address) as user,
    ):
        resource_id = await first_line(stalled)
        async with launched(*provider, "alive", resource_id, home=tmp_path, log=log) as alive:
            assert await first_line(alive) == resource_id
            call = partial(user.call_any, resource_id, "greet", "you", ack=MAJORITY, idempotent=True, timeout=6)
            found = partial(user.resolveResource, resource_id, MAJORITY)
            await eventually(found, lambda result: len(result[0] or []) == 2)
            stalled.send_signal(signal.SIGSTOP)
            answers = [await call() for _ in range(6)]
            assert all(answer.startswith("alive greets you") for answer in answers)
