"""Links in a private network, over in-memory streams: both sides check, and who may not stay is put out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from overlay.errors import CallFailed, CallRefused, NotAdmitted
from overlay.identity import Identity
from overlay.membership.certificate import Certificate
from overlay.membership.gatekeeper import CLIENT, Gatekeeper, LinkFault, ShownChain, encoded
from overlay.membership.revocation import Revocation, Revocations, encode_entry
from overlay.rpc.greetings import Greetings
from overlay.rpc.links import Links
from overlay.rpc.network_files import NetworkFileError, NetworkFiles
from overlay.rpc.network_upkeep import NetworkUpkeep
from overlay.rpc.protocol import Hello
from tests.attacks.fuzz.driver import is_within, settle
from tests.unit.longest_turn import LongestTurn
from tests.unit.overlay.membership.test_gatekeeper import END, given_by
from tests.unit.overlay.membership.test_revocations import NOW, OTHER, OTHER_ROOT, PEER, ROOT, identity, key, revoked
from tests.unit.overlay.memory_network import MemoryNetwork, memory_network

THIRD = 6


@dataclass
class Wall:
    """A clock that the test sets."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


class Peer:
    """Links and what lets others in."""

    def __init__(self, network: MemoryNetwork, number: int, chain: tuple[Certificate, ...], wall: Wall) -> None:
        self.identity: Identity = identity(number)
        self.gatekeeper = Gatekeeper([key(ROOT)], chain)
        self.greetings = Greetings(self.gatekeeper, clock=wall)
        self.network = network
        self.links: Links

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    async def run(self, *, member: bool = True) -> None:
        self.links = await self.network.links(self.peer_id, member=member, greetings=self.greetings)
        upkeep = NetworkUpkeep(self.links, self.greetings, self.identity, NetworkFiles(None))
        await self.network.nursery.start(upkeep.run)

    def linked(self) -> set[str]:
        return set(self.links.linked_peers())


@pytest.fixture
def wall() -> Wall:
    return Wall()


async def a_peer(network: MemoryNetwork, number: int, wall: Wall, *chain: Certificate, member: bool = True) -> Peer:
    peer = Peer(network, number, chain or (given_by(ROOT, number),), wall)
    await peer.run(member=member)
    return peer


async def linked(a: Peer, b: Peer) -> None:
    await a.links.ensure_link(b.peer_id, timeout=5)
    await wait_all_tasks_blocked()


async def test_two_members_link(wall: Wall) -> None:
    async with memory_network() as network:
        a, b = await a_peer(network, PEER, wall), await a_peer(network, OTHER, wall)
        await linked(a, b)
        assert (a.linked(), b.linked()) == ({b.peer_id}, {a.peer_id})
        assert a.greetings.is_in(b.peer_id)
        assert b.greetings.is_in(a.peer_id)


@pytest.mark.parametrize("is_dialler_bad", [True, False])
async def test_both_sides_check(is_dialler_bad: bool, wall: Wall) -> None:
    async with memory_network() as network:
        good = await a_peer(network, PEER, wall)
        bad = await a_peer(network, OTHER, wall, given_by(OTHER_ROOT, OTHER))
        dialler, dialled = (bad, good) if is_dialler_bad else (good, bad)
        with pytest.raises(NotAdmitted, match="another network") as raised, capture_logs() as logs:
            await dialler.links.ensure_link(dialled.peer_id, timeout=5)
        assert raised.value.code == LinkFault.OTHER_ROOT.value
        await wait_all_tasks_blocked()
        assert not good.linked()
        assert not bad.linked()
        assert not good.greetings.is_in(bad.peer_id)
        assert {line["code"] for line in logs if "code" in line} == {LinkFault.OTHER_ROOT.value}


async def test_a_clients_certificate_is_for_light_clients(wall: Wall) -> None:
    async with memory_network() as network:
        node = await a_peer(network, PEER, wall)
        client = await a_peer(network, OTHER, wall, given_by(ROOT, OTHER, CLIENT), member=False)
        await linked(client, node)
        assert dict(node.links.linked_peers()) == {client.peer_id: False}
        posing = await a_peer(network, THIRD, wall, given_by(ROOT, THIRD, CLIENT))
        with pytest.raises(NotAdmitted) as raised:
            await posing.links.ensure_link(node.peer_id, timeout=5)
        assert raised.value.code == LinkFault.NOT_PERMITTED.value


async def test_who_is_revoked_is_put_out_by_all_and_the_entry_passed_on(wall: Wall) -> None:
    async with memory_network() as network:
        a, b, c = [await a_peer(network, number, wall) for number in (PEER, OTHER, THIRD)]
        for one, other in ((a, b), (b, c), (a, c)):
            await linked(one, other)
        entry = Revocation.by(identity(ROOT), key(THIRD), NOW)
        a.gatekeeper.take([entry])
        await a.links.call(b.peer_id, "overlay/revocations", told(a), timeout=5)
        a.greetings.changed.set()
        await wait_all_tasks_blocked()
        assert (a.linked(), b.linked(), c.linked()) == ({b.peer_id}, {a.peer_id}, set())
        assert list(b.gatekeeper.revocations) == [entry]
        with pytest.raises(NotAdmitted) as raised:
            await c.links.ensure_link(b.peer_id, timeout=5)
        assert raised.value.code == LinkFault.REVOKED.value


def told(peer: Peer) -> list[object]:
    listed = peer.gatekeeper.revocations
    return [listed.digest(), [encode_entry(entry) for entry in listed]]


async def test_peers_that_link_tell_each_other_what_was_revoked(wall: Wall) -> None:
    async with memory_network() as network:
        a, b = await a_peer(network, PEER, wall), await a_peer(network, OTHER, wall)
        a.gatekeeper.take([revoked(THIRD, NOW)])
        b.gatekeeper.take([revoked(THIRD + 1, NOW)])
        await linked(a, b)
        assert set(a.gatekeeper.revocations) == {revoked(THIRD, NOW), revoked(THIRD + 1, NOW)}
        assert a.gatekeeper.revocations == b.gatekeeper.revocations


@pytest.mark.parametrize("body", [None, [b"", []], [bytes(32), [1]], [bytes(32), [bytes(9)] * 5000]])
async def test_lists_of_bad_form_are_refused(body: object, wall: Wall) -> None:
    async with memory_network() as network:
        a, b = await a_peer(network, PEER, wall), await a_peer(network, OTHER, wall)
        await linked(a, b)
        with pytest.raises(CallFailed, match="malformed"):
            await a.links.call(b.peer_id, "overlay/revocations", body, timeout=5)


async def test_a_renewed_certificate_that_is_shown_puts_off_the_end(wall: Wall) -> None:
    async with memory_network() as network:
        a, b = await a_peer(network, PEER, wall), await a_peer(network, OTHER, wall, given_by(ROOT, OTHER, end=NOW + 5))
        await linked(a, b)
        for shown in (b"", b"nothing", encoded([given_by(OTHER_ROOT, OTHER)]), encoded([given_by(ROOT, PEER)])):
            with pytest.raises(CallFailed):
                await b.links.call(a.peer_id, "overlay/certificate", shown, timeout=5)
        await b.links.call(a.peer_id, "overlay/certificate", encoded([given_by(ROOT, OTHER)]), timeout=5)
        assert a.gatekeeper.next_end() == END
        wall.now = NOW + 5
        a.greetings.changed.set()
        await wait_all_tasks_blocked()
        assert a.linked() == {b.peer_id}
        wall.now = END
        a.greetings.changed.set()
        await wait_all_tasks_blocked()
        assert a.linked() == set()


async def test_a_member_that_greets_again_as_a_client_is_judged_as_a_member(wall: Wall) -> None:
    greetings = Greetings(Gatekeeper([key(ROOT)], clients="free"), clock=wall)
    peer_id = identity(PEER).peer_id
    as_member = Hello(0, True, bytes(8), encoded([given_by(ROOT, PEER, end=NOW + 5)]), NOW)
    as_client = Hello(0, False, bytes(8))
    assert greetings.check(peer_id, as_client) is None
    assert greetings.check(peer_id, as_member) is None
    bye = greetings.check(peer_id, as_client)
    assert bye is not None
    assert bye.fault is LinkFault.NO_CERTIFICATE
    assert greetings.gatekeeper.shown_by(peer_id) == ShownChain(as_member.chain, True)
    greetings.forget(peer_id)
    assert greetings.check(peer_id, as_client) is None


async def test_what_waits_for_a_greeting_is_told_of_its_end(wall: Wall) -> None:
    greetings = Greetings(Gatekeeper([key(ROOT)]), clock=wall)
    peer_id, answers = identity(PEER).peer_id, []

    async def wait() -> None:
        answers.append(await greetings.wait_in(peer_id))

    await wait()
    assert answers == [False], "without a greeting nobody waits"
    async with trio.open_nursery() as nursery:
        greetings.began(peer_id)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert answers == [False]
        greetings.ended(peer_id)
    assert answers == [False, False]
    async with trio.open_nursery() as nursery:
        greetings.began(peer_id)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        greetings.check(peer_id, Hello(0, True, bytes(8), encoded([given_by(ROOT, PEER)]), NOW))
    assert answers == [False, False, True]


class FailingFiles(NetworkFiles):
    """On a disk that refuses the first write."""

    def __init__(self) -> None:
        super().__init__(None)
        self.tried: list[object] = []

    def save_revocations(self, revocations: Revocations) -> None:
        self.tried.append(revocations)
        if len(self.tried) == 1:
            raise NetworkFileError("the disk is full")


async def test_revocations_that_could_not_be_saved_are_tried_again(wall: Wall, autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        peer, files = Peer(network, PEER, (given_by(ROOT, PEER),), wall), FailingFiles()
        peer.links = await network.links(peer.peer_id, member=True, greetings=peer.greetings)
        await network.nursery.start(NetworkUpkeep(peer.links, peer.greetings, peer.identity, files).run)
        other = await a_peer(network, OTHER, wall)
        other.gatekeeper.take([Revocation.by(identity(ROOT), key(THIRD), NOW)])
        with capture_logs() as logs:
            await linked(peer, other)
            for _ in range(100):
                await trio.sleep(1)
                await trio.to_thread.run_sync(time.sleep, 0.002)  # the clock doesn't wait for the thread that saves
        assert len(files.tried) == 2, "again until it's done, and no more"
        assert [each["event"] for each in logs].count("what was revoked can't be saved") == 1


async def test_many_revocations_one_after_the_other_reach_all(wall: Wall, autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        peers = [await a_peer(network, number, wall) for number in (PEER, OTHER, THIRD, THIRD + 1)]
        a, b, *tellers = peers
        for other in peers[1:]:
            await linked(a, other)
        entries = [revoked(number) for number in range(100, 160)]
        for number, entry in enumerate(entries):
            listed = Revocations([entry])
            body = [listed.digest(), [encode_entry(entry)]]
            await tellers[number % 2].links.call(a.peer_id, "overlay/revocations", body, timeout=5)
        assert len(a.gatekeeper.revocations) == 60
        await trio.sleep(30)
        assert all(peer.gatekeeper.revocations == Revocations(entries) for peer in peers)
        assert b.linked() == {a.peer_id}


async def test_a_peer_that_floods_with_lists_is_refused(wall: Wall, autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        a, b = await a_peer(network, PEER, wall), await a_peer(network, OTHER, wall)
        await linked(a, b)
        codes: list[str] = []
        for _ in range(100):
            try:
                await b.links.call(a.peer_id, "overlay/revocations", told(b), timeout=5)
            except CallRefused as error:
                codes.append(error.code)
        assert set(codes) == {"overloaded"}
        assert len(codes) > 60


async def test_forged_revocations_hold_nobody_up(wall: Wall) -> None:
    async with memory_network() as network:
        a, b = await a_peer(network, PEER, wall), await a_peer(network, OTHER, wall)
        await linked(a, b)
        lags: list[float] = []
        for number in range(3):
            signature = bytes([number]) * 64
            forged = [
                encode_entry(Revocation(key(ROOT), at.to_bytes(32, "big"), NOW, signature)) for at in range(1_000)
            ]
            turns = LongestTurn()
            settle()
            trio.lowlevel.add_instrument(turns)
            await a.links.call(b.peer_id, "overlay/revocations", [bytes(32), forged], timeout=30)
            trio.lowlevel.remove_instrument(turns)
            lags.append(turns.longest)
            if is_within(turns.longest, 0.02):
                break
        assert not b.gatekeeper.revocations
        assert is_within(min(lags), 0.02), lags
