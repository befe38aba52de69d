"""Peers that aren't of this network, or only say so, crowd nobody out of homes, neighbourhoods, answers and tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final, NamedTuple

import trio

from overlay import OverlayPeer, OverlaySettings, open_peer
from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES, peer_position
from overlay.discovery.vetting import METHOD as ADDRESSES
from overlay.errors import StreamBroken
from overlay.identity import Identity
from overlay.libp2p.addresses import libp2p_id
from overlay.libp2p.host import Host, open_host
from overlay.libp2p.kad import KadRouting
from overlay.libp2p.kad_server import MOST_STREAMS, MOST_STREAMS_OF_ONE
from overlay.rpc.links import Links
from overlay.rpc.transport import ByteStream
from overlay.settings import CallLimits
from tests.end_to_end.test_link_places import becomes_true
from tests.end_to_end.test_overlay_network import until_all_know_all

NODES: Final = 3
PRETENDERS: Final = 2  # for each pretence
QUIET: Final = OverlaySettings(calls=CallLimits(ping_interval=3600))
Told = Callable[[Host, Sequence[OverlayPeer]], object]
"""What a pretender answers who asks for its addresses."""


def nowhere(host: Host, nodes: Sequence[OverlayPeer]) -> object:
    return []


def nonsense(host: Host, nodes: Sequence[OverlayPeer]) -> object:
    return {"addresses": 1}


def closed_port(host: Host, nodes: Sequence[OverlayPeer]) -> object:
    return ["/ip4/127.0.0.1/tcp/1"]


def somebody_else_s(host: Host, nodes: Sequence[OverlayPeer]) -> object:
    return [address.partition("/p2p/")[0] for node in nodes for address in node.addresses()]


PRETENCES: Final[tuple[Told, ...]] = (nowhere, nonsense, closed_port, somebody_else_s)


class Member(NamedTuple):
    """A bare member that answers what the test says."""

    host: Host
    links: Links


@asynccontextmanager
async def network() -> AsyncIterator[list[OverlayPeer]]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_peer(Identity.generate(), OverlaySettings()))
        joining = OverlaySettings(bootstrap=(first.addresses()[0],))
        others = [await stack.enter_async_context(open_peer(Identity.generate(), joining)) for _ in range(NODES - 1)]
        await until_all_know_all([first, *others])
        yield [first, *others]


@asynccontextmanager
async def member(
    nodes: Sequence[OverlayPeer], told: Callable[[Host], object] | None, *, listen: bool = False
) -> AsyncIterator[Member]:
    """Says to each node that it is a member; answers `told` where it is asked for its addresses, if anything."""
    settings = QUIET if listen else OverlaySettings(listen=(), calls=QUIET.calls)
    async with open_host(Identity.generate(), settings) as host, trio.open_nursery() as nursery:
        links = Links(host, settings, True, keeps=lambda _: True)

        async def answer(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            return told(host) if told is not None else None

        if told is not None:
            links.serve(ADDRESSES, answer)
        await nursery.start(links.run)
        for node in nodes:
            await links.ensure_link(await host.connect(node.addresses()[0], timeout=10), timeout=10)
        yield Member(host, links)
        nursery.cancel_scope.cancel()


async def names_told(asking: Member, node: OverlayPeer, position: int) -> set[str]:
    """Everybody whom a node names near a position, by all that it answers."""
    question = [position.to_bytes(POSITION_BYTES, "big"), 40]
    home = [question[0], POSITION_BITS, bytes(8)]
    named: set[str] = set()
    for method, body in (("overlay/nearest", question), ("overlay/lookup", question), ("overlay/home", home)):
        answer = await asking.links.call(node.peer_id, method, body, timeout=10)
        assert isinstance(answer, list)
        members = answer[2] if method == "overlay/home" else answer
        named.update(str(told[0]) for told in members)
    return named


async def stays_out(pretenders: Sequence[Member], nodes: Sequence[OverlayPeer], asking: Member) -> None:
    ids = {pretender.host.peer_id for pretender in pretenders}
    for node in nodes:
        assert not ids & {*node.members(), *node.neighbours()}
        assert node.statistics().routing_table == len(nodes) - 1
        for pretender in pretenders:
            position = peer_position(pretender.host.peer_id)
            assert not ids & {*await node.nearest_to(position, 20)}
            assert not ids & await names_told(asking, node, position)
        assert not ids & {*await node.neighbourhood("a resource", 20)}


async def test_who_only_says_that_it_is_a_member_enters_nothing() -> None:
    """Whatever it tells who asks for its addresses, or where it serves nothing."""
    async with network() as nodes, AsyncExitStack() as stack:
        answers = [None, *(partial(told, nodes=nodes) for told in PRETENCES)] * PRETENDERS
        pretenders = [await stack.enter_async_context(member(nodes, answer)) for answer in answers]
        for node in nodes:
            await becomes_true(lambda node=node: all(node.is_linked(one.host.peer_id) for one in pretenders))
        await trio.sleep(1)  # nothing tells that a peer was found to be none
        await stays_out(pretenders, nodes, pretenders[0])


async def test_who_is_a_member_enters_once_it_proved_so() -> None:
    async with network() as nodes, member(nodes, Host.listen_addresses, listen=True) as newcomer:
        for node in nodes:
            await becomes_true(lambda node=node: newcomer.host.peer_id in node.members())
            await becomes_true(lambda node=node: node.statistics().routing_table == NODES)


async def ask_in_vain(stream: ByteStream) -> None:
    """Holds a stream and asks nothing."""
    with suppress(StreamBroken):
        while await stream.read_some(1000):
            pass


async def test_strangers_that_hold_all_streams_keep_nobody_from_asking() -> None:
    async with network() as nodes, trio.open_nursery() as nursery, AsyncExitStack() as stack:
        node = nodes[0]
        kad = OverlaySettings().kad_protocol_id
        for _ in range(MOST_STREAMS // MOST_STREAMS_OF_ONE + 4):
            host = await stack.enter_async_context(open_host(Identity.generate(), OverlaySettings(listen=())))
            peer_id = await host.connect(node.addresses()[0], timeout=10)
            for _ in range(MOST_STREAMS_OF_ONE):
                nursery.start_soon(ask_in_vain, await host.open_stream(peer_id, kad))
        visitor = await stack.enter_async_context(open_host(Identity.generate(), OverlaySettings(listen=())))
        routing = KadRouting(visitor, OverlaySettings(), serve=False)
        peer_id = await visitor.connect(node.addresses()[0], timeout=10)
        for _ in range(5):
            key = libp2p_id(Identity.generate().peer_id).to_bytes()
            named = await routing.find_node(peer_id, key, timeout=3)
            assert {peer.peer_id for peer in named} == {other.peer_id for other in nodes[1:]}, (
                "members, and nobody else"
            )
        assert node.statistics().routing_table == NODES - 1, "who asks enters nothing"
        nursery.cancel_scope.cancel()


async def test_visitors_that_left_are_named_to_nobody() -> None:
    async with network() as nodes:
        for _ in range(20):
            async with open_host(Identity.generate(), OverlaySettings()) as host:
                routing = KadRouting(host, OverlaySettings(), serve=True)
                peer_id = await host.connect(nodes[0].addresses()[0], timeout=10)
                await routing.find_node(peer_id, libp2p_id(host.peer_id).to_bytes(), timeout=5)
        async with member(nodes[:1], nowhere_to_go) as asking:
            named = await names_told(asking, nodes[0], peer_position(asking.host.peer_id))
        assert named == {node.peer_id for node in nodes}
        assert nodes[0].statistics().routing_table == NODES - 1


def nowhere_to_go(host: Host) -> object:
    return []
