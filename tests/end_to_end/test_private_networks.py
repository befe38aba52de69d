"""Private networks: what a stranger sees, and a network made, joined and left by the commands, in processes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils import decode_varint_with_size
from structlog.testing import capture_logs

from aqua_compat.cli.node_process import NodeProcess, stop_network
from overlay.assembly import open_peer
from overlay.errors import CallFailed, NotAdmitted, Unreachable
from overlay.identity import Identity, public_key_of
from overlay.membership.certificate import Certificate
from overlay.membership.gatekeeper import CLIENT, MEMBER, LinkFault, certificate_for, encoded
from overlay.membership.join_token import JoinToken
from overlay.membership.revocation import Revocation, Revocations
from overlay.peer import OverlayPeer
from overlay.rpc.framing import FrameDecoder, encode_item
from overlay.rpc.network_files import NetworkFiles
from overlay.rpc.protocol import Bye, Hello, Reason, Request, encode, parse
from overlay.rpc.transport import ByteStream
from overlay.settings import CallLimits, LinkLimits, NetworkSettings, OverlaySettings
from registry.client.remote_node import RemoteNode
from registry.settings import RegistrySettings
from tests.end_to_end.forked import fork_server
from tests.end_to_end.libp2p_strangers import dial, stranger
from tests.end_to_end.network import Finished, command, eventually

PARTICLES = "/fluence/particle/2.0.0"
HELD_BACK = (
    OverlaySettings().kad_protocol_id,
    "/meshsub/1.1.0",
    "/meshsub/1.0.0",
    "/ipfs/ping/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/kad/1.0.0",
    PARTICLES,
)
LISTEN = "/ip4/127.0.0.1/tcp/0"
CUT_WITHIN = 5.0
"""Seconds in which a revocation has to have cut all links of its peer."""


class Root:
    """The root of a network, and peers' folders with tokens by it."""

    def __init__(self, folder: Path) -> None:
        self.identity = Identity.generate()
        self.key = public_key_of(self.identity.peer_id)
        self.folder = folder

    def admits(self, identity: Identity, permits: str = MEMBER, *, begins: float = -60, ends: float = 3600) -> Path:
        """The data folder of a peer with a certificate, from and until so many seconds from now."""
        folder = self.folder / identity.peer_id
        certificate = self.certificate(identity, permits, begins=begins, ends=ends)
        NetworkFiles(folder).save_token(JoinToken((self.key,), (), (certificate,)))
        return folder

    def certificate(
        self, identity: Identity, permits: str = MEMBER, *, begins: float = -60, ends: float = 3600
    ) -> Certificate:
        now, key = time.time(), public_key_of(identity.peer_id)
        return certificate_for(self.identity, key, permits, not_before=int(now + begins), expires_at=int(now + ends))

    def revocations(self, identity: Identity) -> Revocations:
        return Revocations([Revocation.by(self.identity, public_key_of(identity.peer_id), int(time.time()))])


@asynccontextmanager
async def member(
    root: Root,
    *bootstrap: str,
    hello_timeout: float = 5.0,
    clients: str = "certificate",
    revoked: Identity | None = None,
    unlimited_networks: tuple[str, ...] = LinkLimits().unlimited_networks,
) -> AsyncIterator[OverlayPeer]:
    identity = Identity.generate()
    folder = root.admits(identity)
    if revoked is not None:
        NetworkFiles(folder).save_revocations(root.revocations(revoked))
    settings = OverlaySettings(
        listen=(LISTEN,),
        bootstrap=bootstrap,
        calls=CallLimits(hello_timeout=hello_timeout),
        links=LinkLimits(unlimited_networks=unlimited_networks),
        network=NetworkSettings(clients=clients),  # type: ignore[arg-type]
    )
    async with open_peer(identity, settings, data_dir=folder) as peer:
        yield peer


async def keep_open(peer_id: str, stream: ByteStream) -> None:
    await trio.sleep_forever()


async def accept_all(forwarder: str, payload: bytes) -> object:
    raise AssertionError("nothing is announced")


class Looking:
    """A raw libp2p host that offers all protocols, and notes what it is asked for."""

    def __init__(self, host: IHost, target: ID) -> None:
        self.host = host
        self.target = target
        self.asked: list[str] = []
        for protocol in (*HELD_BACK, OverlaySettings().protocol_id):
            host.set_stream_handler(TProtocol(protocol), partial(self._note, protocol))

    async def _note(self, protocol: str, stream: INetStream) -> None:
        self.asked.append(protocol)
        await trio.sleep_forever()

    async def propose(self, protocol: str) -> str:
        """What the other side answers to a proposal."""
        stream = await self.host.get_network().new_stream(self.target)
        try:
            communicator = MultiselectCommunicator(stream)
            await communicator.write("/multistream/1.0.0")
            assert await communicator.read() == "/multistream/1.0.0"
            await communicator.write(protocol)
            return await communicator.read()
        finally:
            await stream.reset()

    async def answer_to(self, said: bytes) -> bytes:
        """What is answered to bytes in place of a proposal, until the stream ends."""
        stream = await self.host.get_network().new_stream(self.target)
        communicator = MultiselectCommunicator(stream)
        await communicator.write("/multistream/1.0.0")
        await communicator.read()
        await stream.write(said)
        with suppress(StreamError):
            return await stream.read(4096)
        return b""

    async def identify(self) -> Identify:
        stream = await self.host.new_stream(self.target, [TProtocol("/ipfs/id/1.0.0")])
        raw = b""
        with suppress(StreamEOF):
            while piece := await stream.read(4096):
                raw += piece
        _, size = decode_varint_with_size(raw)
        return Identify.FromString(raw[size:])

    async def say(self, *frames: bytes) -> list[object]:
        """All that is said on a link, until it is closed, to whoever says this."""
        stream = await self.host.new_stream(self.target, [TProtocol(OverlaySettings().protocol_id)])
        decoder, heard = FrameDecoder(1 << 20), []
        for frame in frames:
            await stream.write(frame)
        with suppress(StreamError):  # its end
            while piece := await stream.read(4096):
                heard += [parse(item) for item in decoder.feed(piece)]
        await stream.reset()
        return heard


async def test_a_raw_stranger_sees_nothing(tmp_path: Path) -> None:
    root = Root(tmp_path)
    async with member(root, hello_timeout=1.0) as peer, member(root, *peer.addresses()) as other:
        for one in (peer, other):
            one.set_stream_handler(PARTICLES, keep_open)
            await one.topics.join("a resource", accept_all)  # type: ignore[arg-type]
        await other.wait_joined()
        async with stranger() as host:
            target = await dial(host, peer.addresses()[0])
            looking = Looking(host, target)
            for protocol in (*HELD_BACK, "ls", "/no-such-protocol"):
                assert await looking.propose(protocol) == "na", protocol
            told = await looking.identify()
            assert set(told.protocols) == {OverlaySettings().protocol_id, "/ipfs/id/1.0.0"}
            told.ClearField("protocols")
            told.ClearField("public_key")
            told.ClearField("protocol_version")
            assert not told.ListFields(), "identify tells more than keys and protocols"
        refusal = Bye(Reason.NOT_ADMITTED, why=LinkFault.NO_CERTIFICATE.value)
        request = encode(Request(0, "overlay/addresses", encode_item(None), 1000))
        for said, heard in (
            ([encode(Hello(0, True, bytes(8)))], refusal),
            ([encode(Hello(0, False, bytes(8))), request], refusal),
            ([request], Bye(Reason.BROKE_PROTOCOL)),
            ([], None),
        ):
            async with stranger() as host:
                target = await dial(host, peer.addresses()[0])
                looking = Looking(host, target)
                assert await looking.say(*said) == ([heard] if heard is not None else [])
                await eventually(partial(connections, host, target), lambda count: count == 0)
                assert looking.asked == [], "the peer opened streams to a stranger"
        assert peer.members() == [other.peer_id]


async def test_a_stranger_who_proposes_no_protocol_is_held_no_stream_for(tmp_path: Path) -> None:
    async with member(Root(tmp_path)) as peer, stranger() as host:
        looking = Looking(host, await dial(host, peer.addresses()[0]))
        with capture_logs() as logs:
            for said in (b"\x80\x80\x80\x80\x01 256 MB follow", b"\x03\xff\xfe\n"):
                with trio.fail_after(2):  # long before the time for a hello is over
                    assert await looking.answer_to(said) == b""
        assert {log["event"] for log in logs if log["log_level"] != "debug"} == set()


async def connections(host: IHost, target: ID) -> int:
    return len(host.get_network().get_connections(target))


async def test_aquas_clients_are_served_where_clients_are_free(tmp_path: Path) -> None:
    root = Root(tmp_path)
    async with member(root, clients="free") as peer, stranger() as host:
        peer.set_stream_handler(PARTICLES, keep_open)
        looking = Looking(host, await dial(host, peer.addresses()[0]))
        assert await looking.propose(PARTICLES) == PARTICLES
        for protocol in HELD_BACK[:-1]:
            assert await looking.propose(protocol) == "na", protocol
        settings = OverlaySettings(member=False, listen=())
        async with open_peer(Identity.generate(), settings) as client:
            await client.connect(peer.addresses()[0], timeout=5)


@pytest.mark.parametrize("code", sorted(set(LinkFault) - {LinkFault.WRONG_SUBJECT, LinkFault.INVALID}))
async def test_each_refusal_is_told_by_its_code_and_what_to_do(code: LinkFault, tmp_path: Path) -> None:
    root, other_root = Root(tmp_path / "a"), Root(tmp_path / "b")
    identity, clock, revoked = Identity.generate(), time.time, None
    match code:
        case LinkFault.NO_CERTIFICATE:
            folder = tmp_path
        case LinkFault.OTHER_ROOT:
            folder = other_root.admits(identity)
        case LinkFault.EXPIRED:
            folder = root.admits(identity, ends=-1)
        case LinkFault.NOT_YET_VALID:
            folder = root.admits(identity, begins=60)
        case LinkFault.NOT_PERMITTED:
            folder = root.admits(identity, CLIENT)
        case LinkFault.CLOCK:
            folder = root.admits(identity, begins=-3600, ends=-100)

            def clock() -> float:
                return time.time() - 120

        case LinkFault.REVOKED:
            folder = root.admits(identity)
            revoked = identity
    async with (
        member(root, revoked=revoked) as peer,
        open_peer(identity, OverlaySettings(listen=(LISTEN,)), data_dir=folder, clock=clock) as refused,
    ):
        with capture_logs() as logs, pytest.raises(NotAdmitted) as raised:
            await refused.connect(peer.addresses()[0], timeout=5)
        assert raised.value.code == code.value
        assert "private network" in str(raised.value) or "certificate" in str(raised.value)
        [told] = [line for line in logs if line["event"] == "a private network doesn't let this peer in"]
        assert (told["code"], told["log_level"]) == (code.value, "warning")
        assert peer.members() == refused.members() == []


async def test_others_certificates_and_forged_ones_are_refused(tmp_path: Path) -> None:
    root, identity = Root(tmp_path), Identity.generate()
    others = root.certificate(identity)
    forged = msgspec.structs.replace(others, expires_at=others.expires_at + 1)
    async with member(root) as peer:
        for chain, code in (
            (encoded([others]), LinkFault.WRONG_SUBJECT),
            (encoded([others])[:-1], LinkFault.INVALID),
        ):
            async with stranger() as host:
                looking = Looking(host, await dial(host, peer.addresses()[0]))
                hello = Hello(0, True, bytes(8), chain, int(time.time()))
                assert await looking.say(encode(hello)) == [Bye(Reason.NOT_ADMITTED, why=code.value)]
        async with stranger(create_new_key_pair(identity.seed)) as host:
            looking = Looking(host, await dial(host, peer.addresses()[0]))
            heard = await looking.say(encode(Hello(0, True, bytes(8), encoded([forged]), 0)))
            assert heard == [Bye(Reason.NOT_ADMITTED, why=LinkFault.INVALID.value)]


async def test_who_goes_on_trying_is_refused_before_the_handshake_and_a_member_gets_in_beside(tmp_path: Path) -> None:
    """All from one address, which is no better than another here."""
    root = Root(tmp_path)
    async with member(root, unlimited_networks=()) as peer:
        address = peer.addresses()[0]
        outcomes = []
        async with open_peer(Identity.generate(), OverlaySettings(listen=(LISTEN,))) as refused:
            for _ in range(30):
                with pytest.raises(CallFailed) as raised:
                    await refused.connect(address, timeout=5)
                await refused.disconnect(peer.peer_id)
                outcomes.append(type(raised.value))
        assert Counter(outcomes).keys() == {NotAdmitted, Unreachable}
        status = peer.network_status()
        assert status is not None
        assert 4 <= status.refused <= 16, "a connection is known to be a stranger's once it has ended"
        identity = Identity.generate()
        settings = OverlaySettings(listen=(LISTEN,), network=NetworkSettings())
        async with open_peer(identity, settings, data_dir=root.admits(identity)) as other:
            with trio.fail_after(20):
                while not other.members():
                    with suppress(CallFailed):
                        await other.connect(address, timeout=5)


async def test_ends_and_renewals_take_effect_on_open_links(tmp_path: Path) -> None:
    root = Root(tmp_path)
    identity = Identity.generate()
    folder = root.admits(identity, ends=3)
    async with member(root) as peer:
        settings = OverlaySettings(listen=(LISTEN,), bootstrap=tuple(peer.addresses()))
        async with open_peer(identity, settings, data_dir=folder) as short:

            async def members() -> list[str]:
                return peer.members()

            await eventually(members, lambda known: known == [short.peer_id])
            root.admits(identity, ends=6)
            end = time.time() + 6
            while peer.members() or time.time() < end - 1:
                assert peer.members() == [short.peer_id] or time.time() > end - 1, "the renewal didn't take effect"
                assert time.time() < end + CUT_WITHIN, "the end didn't take effect"
                await trio.sleep(0.05)
            root.admits(identity)
            await eventually(members, lambda known: known == [short.peer_id], timeout=20)


class Home:
    """Commands of one user, and nodes by tokens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[NodeProcess] = []

    async def network(self, *arguments: str) -> Finished:
        finished = await command("network", *arguments, home=self.folder)
        assert finished.code == 0, finished.err
        return finished

    async def token(self, name: str, *arguments: str) -> str:
        path = self.folder / name
        path.write_text((await self.network("invite", *arguments)).out)
        return str(path)

    async def node(self, *flags: str) -> NodeProcess:
        number = len(self.nodes)
        node = NodeProcess(
            self.folder / f"node-{number}", self.folder / f"node-{number}.log", fork_server().open_process
        )
        self.nodes.append(node)
        await node.start("--log-level", "debug", *flags, timeout=60)
        return node


async def test_a_network_made_by_commands_refuses_strangers_and_puts_out_who_is_revoked(tmp_path: Path) -> None:
    home = Home(tmp_path)
    try:
        await _a_network_by_commands(home)
    finally:
        await stop_network(home.nodes)


def token_in(file: str) -> str:
    return Path(file).read_text().strip()


async def _a_network_by_commands(home: Home) -> None:
    root = json.loads((await home.network("create", "--json")).out)["root"]
    first = await home.node("--join", await home.token("first"))
    invitation = await home.token("others", "--address", first.address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(home.node, "--join", invitation)
        nursery.start_soon(home.node, "--join", invitation)
    nodes = home.nodes
    for node in nodes:
        assert token_in(invitation) not in node.log_file.read_text(), "a secret was logged"
    client_token = await home.token("client", "--client")

    outside = NodeProcess(home.folder / "stranger", home.folder / "stranger.log", fork_server().open_process)
    async with trio.open_nursery() as nursery:

        async def start_stranger() -> None:
            await outside.start("--bootstrap", first.address, timeout=60)
            raise AssertionError("a stranger got in")

        async def log() -> str:
            return outside.log_file.read_text() if outside.log_file.exists() else ""

        nursery.start_soon(start_stranger)
        told = await eventually(log, lambda text: "code=no-certificate" in text, timeout=30)
        assert "`aqua-registry network invite`" in told
        nursery.cancel_scope.cancel()
    refused = await command("peers", "--relay", first.address, home=home.folder)
    assert refused.code == 1
    assert "no certificate was shown" in refused.err

    settings = OverlaySettings(member=False, listen=(), network=NetworkSettings(token=client_token))
    async with open_peer(Identity.generate(), settings) as client:
        views = {node.peer_id: RemoteNode(client, [node.address], RegistrySettings(), time.time) for node in nodes}

        async def members(peer_id: str) -> set[str]:
            return set((await views[peer_id].status(timeout=5)).members)

        added = await home.node("--join", await home.token("added"))
        for node in nodes[:3]:
            others = {other.peer_id for other in nodes if other is not node}
            await eventually(partial(members, node.peer_id), lambda known, others=others: known == others, timeout=30)  # type: ignore[misc]

        status = await views[first.peer_id].status(timeout=5)
        assert status.network is not None
        assert (status.network.roots, status.network.revoked) == ((root,), 0)
        assert status.network.refused >= 2
        started = trio.current_time()
        revoked = json.loads((await home.network("revoke", added.peer_id, "--json")).out)
        told_at = trio.current_time()
        assert revoked["told"] == [first.peer_id]
        for node in nodes[:3]:
            await eventually(partial(members, node.peer_id), lambda known: added.peer_id not in known, CUT_WITHIN)
        ended = trio.current_time()
        print(f"links were cut {ended - told_at:.2f} s after the command, {ended - started:.2f} s after its start")  # noqa: T201
        assert ended - told_at < CUT_WITHIN

        async def log_of_added() -> str:
            return added.log_file.read_text()

        await eventually(log_of_added, lambda text: "code=revoked" in text, timeout=10)
    shown = json.loads((await home.network("show", "--json")).out)
    assert (shown["root"], list(shown["revoked"])) == (root, [added.peer_id])
    assert len(shown["issued"]) == 4


async def test_wrong_commands_say_what_is_wrong(tmp_path: Path) -> None:
    async def failed(code: int, text: str, *arguments: str) -> None:
        finished = await command(*arguments, home=tmp_path)
        assert (finished.code, finished.out) == (code, "")
        assert text in finished.err
        assert len(finished.err.splitlines()) == 1

    await failed(1, "network create", "network", "invite")
    await failed(1, "network create", "network", "show")
    assert (await command("network", "create", home=tmp_path)).code == 0
    await failed(1, "exists already", "network", "create")
    await failed(2, "peer id", "network", "invite", "--for", "nobody")
    await failed(2, "30", "network", "invite", "--expires", "30 moons")
    await failed(2, "HOST:PORT", "network", "invite", "--address", "192.0.2.7")
    await failed(2, "this machine's files", "network", "invite", "--address", "file:peers")
    await failed(2, "peer id", "network", "revoke", "nobody")
    somebody = Identity.generate().peer_id
    await failed(1, "no address of a node is known", "network", "revoke", somebody)
    for_another = tmp_path / "for-another"
    for_another.write_text((await command("network", "invite", "--for", somebody, home=tmp_path)).out)
    node = ("node", "--data-dir", str(tmp_path / "node"), "--join")
    await failed(1, "isn't for this peer", *node, str(for_another))
    clients = tmp_path / "clients"
    clients.write_text((await command("network", "invite", "--client", home=tmp_path)).out)
    await failed(1, "--member", *node, str(clients))
    clients.write_text("not a token")
    await failed(1, "no token", *node, str(clients))
    await failed(1, "can't read", *node, str(tmp_path / "nothing"))
    clients.write_text((await command("network", "invite", "--expires", "1s", home=tmp_path)).out)
    await trio.sleep(1.5)
    await failed(1, "has ended", *node, str(clients))
    assert not (tmp_path / "node" / "network" / "token").exists(), "what is of no use takes the place of nothing"
