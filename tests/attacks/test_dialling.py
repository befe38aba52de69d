"""Nobody makes a node dial a third party, or learns from it which ports are open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import pytest
import trio

from overlay import OverlayPeer, OverlaySettings, open_peer
from overlay.discovery.home_view import METHOD as HOME
from overlay.discovery.keyspace import POSITION_BITS
from overlay.discovery.recursive import METHOD as ROUTE
from overlay.errors import CallFailed, Refusal
from overlay.identity import Identity
from overlay.libp2p.host import open_host
from overlay.rpc.links import Links
from overlay.settings import DialLimits, LinkLimits
from registry.client.local_node import ALIKE_AFTER, ask_to_countersign
from registry.errors import HostingRefused
from tests.unit.registry.builders import OWNER, a_key, a_metadata

VICTIM: Final = "127.7.7.7"
PORTS: Final = 24
NAMED: Final = 100  # peers that don't exist, in each forged answer
LASTING: Final = 8.0  # seconds
ASKED_FOR: Final = 1.5  # seconds that an asker waits who is in a hurry: less than a silent port is waited for
LATE: Final = 1.0  # seconds by which an answer comes later than it is due, of a busy machine
NODES: Final = LinkLimits(unlimited_networks=("127.0.0.1/32",))
DIALS: Final = DialLimits(host_burst=8, host_rate=0.1, teller_burst=16, teller_rate=0.1)


class Victim:
    """Listens on many ports of one address, says nothing, and counts who comes."""

    def __init__(self, listeners: Sequence[trio.SocketListener]) -> None:
        self.addresses = [f"/ip4/{VICTIM}/tcp/{listener.socket.getsockname()[1]}" for listener in listeners]
        self.arrived = 0

    async def take(self, stream: trio.SocketStream) -> None:
        self.arrived += 1
        async with stream:
            try:
                while await stream.receive_some(1000):
                    pass
            except trio.BrokenResourceError:
                pass


@asynccontextmanager
async def victim() -> AsyncIterator[Victim]:
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        listeners = [(await trio.open_tcp_listeners(0, host=VICTIM))[0] for _ in range(PORTS)]
        for listener in listeners:
            await stack.enter_async_context(listener)
        one = Victim(listeners)
        for listener in listeners:
            nursery.start_soon(partial(trio.serve_listeners, one.take, [listener]))
        yield one
        nursery.cancel_scope.cancel()


async def lie(address: str, victim: Victim, *, task_status: trio.TaskStatus[None]) -> None:
    """A member whose every answer names others that are all at the victim's addresses."""
    turn = 0

    def named() -> list[object]:
        nonlocal turn
        turn += NAMED
        return [
            [Identity.generate().peer_id, [victim.addresses[(turn + number + port) % PORTS] for port in range(8)]]
            for number in range(NAMED)
        ]

    async def home(caller: str, body: object) -> object:
        return [POSITION_BITS, False, named()]

    async def nearest(caller: str, body: object) -> object:
        return named()[:20]

    async def refuse(caller: str, body: object) -> object:
        raise Refusal("overloaded", "too many lookups")

    async def find(caller: str, body: object) -> object:
        return victim.addresses[:16]

    async with open_host(Identity.generate(), OverlaySettings()) as host, trio.open_nursery() as nursery:

        async def addresses(caller: str, body: object) -> object:
            return host.listen_addresses()

        links = Links(host, OverlaySettings(), True, keeps=lambda _: True)
        for method, handler in {
            HOME: home,
            ROUTE: refuse,
            "overlay/nearest": nearest,
            "overlay/lookup": nearest,
            "overlay/find": find,
            "overlay/addresses": addresses,
        }.items():
            links.serve(method, handler)
        await nursery.start(links.run)
        await links.ensure_link(await host.connect(address, timeout=10), timeout=10)
        task_status.started()
        await trio.sleep_forever()


async def test_forged_answers_make_a_node_dial_a_victim_only_a_few_times() -> None:
    settings = OverlaySettings(links=NODES, dials=DIALS)
    async with victim() as attacked, open_peer(Identity.generate(), settings) as node, trio.open_nursery() as nursery:
        for _ in range(3):
            await nursery.start(partial(lie, node.addresses()[0], attacked))
        with trio.move_on_after(LASTING):
            while True:
                await node.nearest_to(node.density().height, 20)
                await node.find(Identity.generate().peer_id, timeout=1)
                await trio.sleep(0.5)
        print(f"{attacked.arrived} connections arrived at the victim")  # noqa: T201
        assert attacked.arrived <= DIALS.host_burst + DIALS.host_rate * (LASTING + 5) + 1
        nursery.cancel_scope.cancel()


async def test_nodes_of_everybody_s_internet_dial_nobody_at_their_own_machine() -> None:
    settings = OverlaySettings(dials=DialLimits(private="never"))
    async with victim() as attacked, open_peer(Identity.generate(), settings) as node, trio.open_nursery() as nursery:
        await nursery.start(partial(lie, node.addresses()[0], attacked))
        with trio.move_on_after(3):
            while True:
                await node.nearest_to(node.density().height, 20)
                await trio.sleep(0.5)
        assert attacked.arrived == 0
        nursery.cancel_scope.cancel()


async def test_whoever_has_a_node_ask_a_host_learns_nothing_of_its_ports(node: OverlayPeer) -> None:
    """Closed, silent, open to somebody else, open to a peer without a registry: all are told alike, at one time."""
    mute = Identity.generate()
    async with (
        victim() as silent,
        open_peer(Identity.generate(), OverlaySettings()) as other,
        open_host(mute, OverlaySettings()) as speechless,
    ):
        transport = other.addresses()[0].partition("/p2p/")[0]
        [closed] = await trio.open_tcp_listeners(0, host=VICTIM)
        closed_address = f"/ip4/{VICTIM}/tcp/{closed.socket.getsockname()[1]}"
        await closed.aclose()
        hosts = [
            (Identity.generate(), [closed_address]),
            (Identity.generate(), silent.addresses[:1]),
            (Identity.generate(), [transport]),
            (Identity.generate(), []),
            (mute, speechless.listen_addresses()),
        ]
        told: set[tuple[str, str]] = set()
        took: dict[float, list[float]] = {ALIKE_AFTER: [], ASKED_FOR: []}

        async def ask(host: Identity, timeout: float) -> None:
            key = a_key("label", OWNER)
            metadata = a_metadata(key.id, OWNER, host)
            began = trio.current_time()
            with pytest.raises(HostingRefused) as refused:
                await ask_to_countersign(node, key, metadata, timeout=timeout, for_stranger=True)
            took[min(timeout, ALIKE_AFTER)].append(trio.current_time() - began)
            told.add((str(refused.value).replace(host.peer_id, "HOST"), refused.value.code))

        for host, addresses in hosts:
            node.add_addresses(host.peer_id, addresses, teller=other.peer_id)
        for timeout in (60.0, ASKED_FOR):
            async with trio.open_nursery() as nursery:
                for host, _ in hosts:
                    nursery.start_soon(ask, host, timeout)
        assert len(told) == 1, told
        for seconds, times in took.items():
            assert len(times) == len(hosts)
            assert seconds <= min(times) <= max(times) < seconds + LATE, times
        assert not any(character in str(told) for character in ("/tcp/", "127."))


@pytest.fixture
async def node() -> AsyncIterator[OverlayPeer]:
    async with open_peer(Identity.generate(), OverlaySettings()) as peer:
        yield peer


async def test_errors_of_dialling_keep_ports_to_our_own_log(node: OverlayPeer) -> None:
    stranger = Identity.generate().peer_id
    node.add_addresses(stranger, [f"/ip4/{VICTIM}/tcp/1"], teller=node.peer_id)
    with pytest.raises(CallFailed) as failed:
        await node.call(stranger, "anything", None, timeout=5)
    assert failed.value.reason == "unreachable"
    assert VICTIM in failed.value.detail
    assert VICTIM in str(failed.value)
