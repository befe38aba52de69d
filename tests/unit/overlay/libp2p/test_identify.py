"""Who a node says it is, as another libp2p peer hears it over a real connection."""

from __future__ import annotations

from importlib.metadata import version

import trio
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.utils import read_varint_prefixed_bytes
from multiaddr import Multiaddr

from overlay.identity import Identity
from overlay.libp2p.addresses import libp2p_id
from overlay.libp2p.host import Host, open_host
from overlay.libp2p.identify import IDENTIFY
from overlay.settings import OverlaySettings


async def told(node: Host, asker: Host) -> Identify:
    with trio.fail_after(10):
        stream = await asker.libp2p.new_stream(libp2p_id(node.peer_id), [IDENTIFY])
        message = Identify()
        message.ParseFromString(await read_varint_prefixed_bytes(stream))
        await stream.reset()
    return message


async def test_a_peer_is_told_product_version_addresses_and_protocols() -> None:
    async with (
        open_host(Identity.generate(), OverlaySettings()) as node,
        open_host(Identity.generate(), OverlaySettings(listen=())) as asker,
    ):
        [address] = node.listen_addresses()
        await asker.connect(address, timeout=5)
        message = await told(node, asker)
        assert message.agent_version == f"aqua-registry/{version('aqua-registry')}"
        assert [f"{Multiaddr(each)}/p2p/{node.peer_id}" for each in message.listen_addrs] == [address]
        assert {IDENTIFY, "/meshsub/1.1.0"} <= set(message.protocols)
        assert str(Multiaddr(message.observed_addr)).startswith("/ip4/127.0.0.1/tcp/")
        assert (await told(node, asker)) == message


async def test_who_takes_no_answer_holds_nothing_up() -> None:
    async with (
        open_host(Identity.generate(), OverlaySettings()) as node,
        open_host(Identity.generate(), OverlaySettings(listen=())) as asker,
    ):
        await asker.connect(node.listen_addresses()[0], timeout=5)
        stream = await asker.libp2p.new_stream(libp2p_id(node.peer_id), [IDENTIFY])
        await stream.reset()
        assert (await told(node, asker)).protocols
