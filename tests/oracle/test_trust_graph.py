"""Our trust graph answers as the original's, but where that has a fault that ours mends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import base58
import msgspec
import pytest

from aqua_compat.builtins.trust_graph import TIMES, TrustGraph
from aqua_compat.rpc.dispatch import functions_of
from aqua_compat.rpc.server import called_by
from overlay.identity import Identity, public_key_of
from registry.replica.trust_keeper import TrustKeeper
from registry.replica.weights import Weights
from registry.trust.statements import LONGEST_TRUST
from tests.oracle.originals import HOST, TIME, Failed, Origin, Original, as_text
from tests.unit.registry.builders import identity

Json = Any
START = 1_000  # seconds; even, as all times at which something is asked, while what expires does at odd ones


class Both:
    """The original and ours, beside each other, at one time; peers of their own, since the original forgets none."""

    def __init__(self, its: Original, peers: Sequence[Identity]) -> None:
        self.its = its
        self.now = START
        self.peers = peers
        keeper = TrustKeeper(lambda: self.now, {})
        self._functions = functions_of(TrustGraph(keeper, Weights({}, keeper), HOST))

    async def ours(self, function: str, *arguments: Json, caller: str = HOST) -> Json:
        called = self._functions[function]
        with called_by(caller):
            return msgspec.to_builtins(await called.call(*called.arguments(list(arguments))))

    def original(self, function: str, *arguments: Json, caller: str = HOST) -> Json:
        origins: list[list[Origin]] = [[] for _ in arguments]
        if function in TIMES:
            origins = [[Origin(*TIME)] for _ in arguments]  # docs/design.md, original's fault 24: wants it beside
        return self.its.call(function, *arguments, caller=caller, origins=origins)

    async def same(self, function: str, *arguments: Json, caller: str = HOST) -> Json:
        """The answer of both."""
        ours = await self.ours(function, *arguments, caller=caller)
        assert ours == self.original(function, *arguments, caller=caller), (function, arguments)
        return ours

    def trust(self, by: Identity, whom: Identity, expires_at: int = 9_001, issued_at: int = 10) -> Json:
        bytes_ = self.original("get_trust_bytes", whom.peer_id, expires_at, issued_at)["result"]
        return self.original("issue_trust", whom.peer_id, expires_at, issued_at, list(by.sign(bytes(bytes_))))["trust"]

    def revocation(self, by: Identity, whom: Identity, revoked_at: int = 20) -> Json:
        bytes_ = self.original("get_revocation_bytes", whom.peer_id, revoked_at)["result"]
        signature = list(by.sign(bytes(bytes_)))
        return self.original("issue_revocation", by.peer_id, whom.peer_id, revoked_at, signature)["revocation"]

    async def root(self, peer: Identity, steps: int) -> None:
        """A root that trusts itself."""
        await self.same("set_root", peer.peer_id, steps)
        await self.same("add_trust", self.trust(peer, peer), peer.peer_id, self.now)

    async def weights(self) -> list[int]:
        return [(await self.same("get_weight", peer.peer_id, self.now))["weight"] for peer in self.peers]


numbers = iter(range(10_000, 1_000_000))


@pytest.fixture
def both(its_trust_graph: Original) -> Both:
    return Both(its_trust_graph, new_peers(6))


def new_peers(count: int) -> list[Identity]:
    return [identity(next(numbers)) for _ in range(count)]


async def test_what_is_signed_is_the_same(both: Both) -> None:
    for peer in both.peers:
        for expires_at, issued_at in ((0, 0), (1, 2), (2**53 - 1, 255), (256, 2**40)):
            await both.same("get_trust_bytes", peer.peer_id, expires_at, issued_at)
            await both.same("get_revocation_bytes", peer.peer_id, issued_at)
            await both.same("issue_trust", peer.peer_id, expires_at, issued_at, [7] * 64)
            await both.same("issue_revocation", peer.peer_id, HOST, issued_at, [7] * 64)


async def test_half_the_weight_is_lent_with_each_step(both: Both) -> None:
    await both.root(both.peers[0], 3)
    for by, whom in zip(both.peers, both.peers[1:], strict=False):
        await both.same("add_trust", both.trust(by, whom), by.peer_id, both.now)
    assert await both.weights() == [8, 4, 2, 1, 0, 0]
    for peer in both.peers:
        await both.same("get_all_certs", peer.peer_id, both.now)
        for through in both.peers:
            await both.same("get_all_certs_from", peer.peer_id, through.peer_id, both.now)
            await both.same("get_weight_from", peer.peer_id, through.peer_id, both.now)
    await both.same("get_host_certs", both.now)
    await both.same("get_host_certs_from", both.peers[0].peer_id, both.now)


async def test_a_certificate_is_taken_as_a_whole_as_text_too(both: Both) -> None:
    root, middle, last, other = both.peers[:4]
    await both.same("set_root", root.peer_id, 5)
    chain = [both.trust(root, root), both.trust(root, middle), both.trust(middle, last)]
    await both.same("insert_cert", {"chain": chain}, both.now)
    chain[-1] = both.trust(middle, other)
    await both.same("insert_cert_raw", text_of(chain), both.now)
    assert await both.weights() == [32, 16, 8, 8, 0, 0]
    await both.same("insert_cert", {"chain": []}, both.now)
    await both.same("insert_cert_raw", "1\n1", both.now)
    await both.same("insert_cert", {"chain": [both.trust(last, last)]}, both.now)


def text_of(chain: Sequence[Json]) -> str:
    def typed(raw: bytes) -> str:
        return base58.b58encode(b"\0" + raw).decode()

    lines = ["11", "1111"]
    for trust in chain:
        lines += [typed(public_key_of(trust["issued_for"])), typed(base58.b58decode(trust["signature"]))]
        lines += [str(trust["expires_at"]), str(trust["issued_at"])]
    return "\n".join(lines)


async def test_a_revocation_ends_what_is_below_until_trust_is_given_again(both: Both) -> None:
    root, middle, last = both.peers[:3]
    await both.root(root, 4)
    await both.same("add_trust", both.trust(root, middle), root.peer_id, both.now)
    await both.same("add_trust", both.trust(middle, last), middle.peer_id, both.now)
    await both.same("revoke", both.revocation(root, middle), both.now)
    assert await both.weights() == [16, 0, 0, 0, 0, 0]
    await both.same("export_revocations", middle.peer_id)
    await both.same("add_trust", both.trust(root, middle, issued_at=19), root.peer_id, both.now)  # older
    assert await both.weights() == [16, 0, 0, 0, 0, 0]
    await both.same("add_trust", both.trust(root, middle, issued_at=21), root.peer_id, both.now)
    assert await both.weights() == [16, 8, 4, 0, 0, 0]


async def test_an_ended_trust_is_gone_for_good(both: Both) -> None:
    root, middle = both.peers[:2]
    await both.root(root, 4)
    await both.same("add_trust", both.trust(root, middle, expires_at=1_101), root.peer_id, both.now)
    assert (await both.weights())[:2] == [16, 8]
    both.now = 1_102
    assert (await both.weights())[:2] == [16, 0]
    await both.same("add_trust", both.trust(root, middle, expires_at=1_101), root.peer_id, both.now)
    await both.same("verify_trust", both.trust(root, middle, expires_at=1_101), root.peer_id, both.now)


async def test_refusals_have_the_same_texts(both: Both) -> None:
    root, middle = both.peers[:2]
    await both.root(root, 4)
    good = both.trust(root, middle)
    await both.same("set_root", middle.peer_id, 1, caller=middle.peer_id)
    await both.same("verify_trust", good, root.peer_id, both.now)
    await both.same("verify_trust", {**good, "sig_type": "rsa"}, root.peer_id, both.now)
    await both.same("add_trust", both.trust(root, middle, issued_at=1_001), root.peer_id, both.now)
    await both.same("revoke", both.revocation(root, middle, 1_001), both.now)


async def test_what_both_refuse_in_words_of_their_own(both: Both) -> None:
    root, middle = both.peers[:2]
    await both.root(root, 4)
    good, revocation = both.trust(root, middle), both.revocation(root, middle)
    for function, arguments in (
        *(("verify_trust", (bad, root.peer_id, both.now)) for bad in spoilt(good)),
        *(("add_trust", (bad, root.peer_id, both.now)) for bad in spoilt(good)),
        ("verify_trust", (good, middle.peer_id, both.now)),
        ("add_trust", (good, middle.peer_id, both.now)),
        ("insert_cert", ({"chain": [both.trust(root, root), both.trust(root, middle, expires_at=99)]}, both.now)),
        *(("revoke", (bad, both.now)) for bad in spoilt(revocation)),
        ("set_root", ("x", 1)),
        ("get_trust_bytes", ("x", 1, 1)),
        ("get_revocation_bytes", ("x", 1)),
        ("issue_trust", ("x", 1, 1, [])),
        ("issue_revocation", (root.peer_id, "x", 1, [])),
        ("get_weight", ("x", both.now)),
        ("get_weight_from", (root.peer_id, "x", both.now)),
        ("get_all_certs", ("", both.now)),
        ("get_all_certs_from", (root.peer_id, "x", both.now)),
        ("export_revocations", ("x",)),
        ("insert_cert_raw", ("1\n1\nx\ny\nz\n0", both.now)),
        ("insert_cert_raw", ("1\n1\nx", both.now)),
    ):
        ours, its = await both.ours(function, *arguments), both.original(function, *arguments)
        assert ours.pop("error"), (function, arguments)
        assert its.pop("error"), (function, arguments)
        assert ours == its, (function, arguments)
    assert await both.weights() == [16, 0, 0, 0, 0, 0]


def spoilt(statement: Json) -> list[Json]:
    """The statement with each of its fields changed."""
    number = next(name for name in statement if name.endswith("_at"))
    changes = [{number: statement[number] + 1}, {"signature": ""}, {"signature": "0"}, {"signature": "222"}]
    return [{**statement, **change} for change in (*changes, {"sig_type": "x"})]


# What ours mends (docs/design.md, the original's faults by number): first what the original does, then ours


async def test_fault_23_time_is_given_by_whoever_calls(both: Both) -> None:
    root, stranger = both.peers[:2]
    await both.root(root, 3)
    late = both.trust(stranger, stranger, expires_at=2**53 - 1)
    assert both.original("insert_cert", {"chain": [late]}, 2**52)["success"]
    assert (await both.ours("insert_cert", {"chain": [late]}, 2**52))["success"]
    await both.same("add_trust", both.trust(root, both.peers[2]), root.peer_id, both.now)
    assert both.original("get_all_certs", both.peers[2].peer_id, both.now)["certificates"] == []
    assert len((await both.ours("get_all_certs", both.peers[2].peer_id, both.now))["certificates"]) == 1


async def test_fault_24_the_proof_of_time_is_looked_for_beside_the_issuer(both: Both) -> None:
    arguments, proven = (both.peers[0].peer_id, both.peers[1].peer_id, both.now), [Origin(*TIME)]
    assert not both.its.call("get_weight_from", *arguments, origins=[[], [], proven])["success"]
    assert both.its.call("get_weight_from", *arguments, origins=[[], proven, []])["success"]
    assert TIMES["get_weight_from"].position == 2


async def test_fault_25_a_short_text_breaks_the_service(a_trust_graph: Original) -> None:
    with pytest.raises(Failed):
        a_trust_graph.call("insert_cert_raw", "x", START)
    with pytest.raises(Failed):
        a_trust_graph.call("get_weight", HOST, START, origins=[[], [Origin(*TIME)]])
    assert not (await Both(a_trust_graph, ()).ours("insert_cert_raw", "x", START))["success"]


async def test_fault_26_a_root_is_never_changed(both: Both) -> None:
    root = both.peers[0].peer_id
    for steps, its in ((2, 4), (5, 4)):
        await both.same("set_root", root, steps)
        assert both.original("get_weight", root, both.now)["weight"] == its
        assert (await both.ours("get_weight", root, both.now))["weight"] == 2**steps


async def test_fault_27_longer_chains_than_their_root_allows_count(both: Both) -> None:
    short, long, middle, last = both.peers[:4]
    await both.root(short, 1)
    await both.root(long, 4)
    for by, whom in ((short, middle), (long, middle), (middle, last)):
        await both.same("add_trust", both.trust(by, whom), by.peer_id, both.now)
    its, ours = (
        answer["certificates"]
        for answer in (
            both.original("get_all_certs", last.peer_id, both.now),
            await both.ours("get_all_certs", last.peer_id, both.now),
        )
    )
    assert {peers_of(one)[0] for one in its} == {short.peer_id, long.peer_id}
    assert {peers_of(one)[0] for one in ours} == {long.peer_id}


async def test_fault_28_anybodys_revocations_are_kept(both: Both) -> None:
    revocation = both.revocation(both.peers[0], both.peers[1])
    assert both.original("revoke", revocation, both.now)["success"]
    assert both.original("export_revocations", both.peers[1].peer_id)["revocations"] == [revocation]
    assert "no weight" in (await both.ours("revoke", revocation, both.now))["error"]


async def test_the_order_of_revocations(its_trust_graph: Original) -> None:
    shorter = [peer for peer in new_peers(200) if len(base58.b58encode(public_key_of(peer.peer_id))) == 43]
    both = Both(its_trust_graph, [*shorter[:2], *new_peers(3)])
    *revoking, revoked = both.peers
    for peer in revoking:
        await both.root(peer, 3)
        await both.same("revoke", both.revocation(peer, revoked), both.now)
    assert len((await both.same("export_revocations", revoked.peer_id))["revocations"]) == 4


async def test_fault_29_revocations_are_kept_for_ever(both: Both) -> None:
    root, middle = both.peers[:2]
    await both.root(root, 3)
    await both.same("revoke", both.revocation(root, middle, 20), both.now)
    both.now = 20 + LONGEST_TRUST
    both.original("get_weight", root.peer_id, both.now)
    assert both.original("export_revocations", middle.peer_id)["revocations"]
    assert (await both.ours("export_revocations", middle.peer_id))["revocations"] == []
    both.now -= 1
    assert (await both.ours("export_revocations", middle.peer_id))["revocations"]


async def test_fault_30_of_one_second_the_first_to_arrive_counts(both: Both) -> None:
    root, first, second = both.peers[:3]
    await both.root(root, 3)
    for whom, trust_first in ((first, True), (second, False)):
        trust, revocation = both.trust(root, whom, issued_at=20), both.revocation(root, whom, 20)
        calls = [("add_trust", (trust, root.peer_id, both.now)), ("revoke", (revocation, both.now))]
        for function, arguments in calls if trust_first else reversed(calls):
            await both.same(function, *arguments)
        assert both.original("get_weight", whom.peer_id, both.now)["weight"] == (4 if trust_first else 0)
        assert (await both.ours("get_weight", whom.peer_id, both.now))["weight"] == 0


async def test_fault_31_whom_a_revoked_peer_trusts_still_has_weight(both: Both) -> None:
    root, middle, revoked, last = both.peers[:4]
    await both.root(root, 4)
    for by, whom in ((root, middle), (middle, revoked), (revoked, last)):
        await both.same("add_trust", both.trust(by, whom), by.peer_id, both.now)
    await both.same("revoke", both.revocation(root, revoked), both.now)
    await both.same("get_weight", revoked.peer_id, both.now)
    assert both.original("get_weight", last.peer_id, both.now)["weight"] == 2
    assert (await both.ours("get_weight", last.peer_id, both.now))["weight"] == 0


async def test_fault_32_a_certificate_is_taken_up_to_what_is_bad_in_it(both: Both) -> None:
    root, middle, last = both.peers[:3]
    await both.same("set_root", root.peer_id, 4)
    chain = [both.trust(root, root), both.trust(root, middle), both.trust(root, last)]
    assert not both.original("insert_cert", {"chain": chain}, both.now)["success"]
    assert not (await both.ours("insert_cert", {"chain": chain}, both.now))["success"]
    assert both.original("get_weight", middle.peer_id, both.now)["weight"] == 8
    assert (await both.ours("get_weight", middle.peer_id, both.now))["weight"] == 0


async def test_fault_33_a_trust_in_its_last_second_is_good_and_isnt(both: Both) -> None:
    root, middle = both.peers[:2]
    await both.root(root, 4)
    arguments = both.trust(root, middle, expires_at=both.now), root.peer_id, both.now
    for function in ("verify_trust", "add_trust"):
        assert both.original(function, *arguments)["success"]
        assert not (await both.ours(function, *arguments))["success"]
    assert both.original("get_weight", middle.peer_id, both.now)["weight"] == 0


# Random sequences of calls


class RandomCalls:
    """Random calls to both. What the original tells is compared after what ours mends of it."""

    def __init__(self, both: Both, seed: int) -> None:
        self.both = both
        self.random = random.Random(seed)
        self.steps: dict[str, int] = {}
        self.revokers: dict[str, set[str]] = {}
        self.seconds = iter(range(11, START))

    async def run(self, calls: int) -> int:
        """How many calls were made, until the original's state differs by its faults."""
        both, choose = self.both, self.random.choice
        for root in both.peers[:2]:
            self.steps[root.peer_id] = self.random.randint(1, 4)
            await both.same("set_root", root.peer_id, self.steps[root.peer_id])
        for number in range(calls):
            both.now += choose((0, 0, 0, 2, 40))
            for peer in both.peers:
                revocations = (await both.same("export_revocations", peer.peer_id))["revocations"]
                self.revokers[peer.peer_id] = {one["revoked_by"] for one in revocations}
            for peer in both.peers:
                await self.compare(peer, choose(both.peers))
            by, whom = choose(both.peers), choose(both.peers)
            kind = self.random.random()
            if kind < 0.2 and await self.weight(by):
                await both.same("revoke", both.revocation(by, whom, next(self.seconds)), both.now)
            elif not await self.trusted(choose((by, by, *both.peers[:2])), whom):
                return number
        return calls

    async def trusted(self, by: Identity, whom: Identity) -> bool:
        """Whether both took a trust alike."""
        both = self.both
        trust = both.trust(by, whom, both.now + self.random.choice((21, 121, 9_001)), next(self.seconds))
        ours = await both.ours("add_trust", trust, by.peer_id, both.now)
        its = both.original("add_trust", trust, by.peer_id, both.now)
        if ours != its:
            lent = await self.weight(by)
            assert ours["weight"] == (lent if by is whom else lent // 2), "weights go by the paths that are good"
            assert its["weight"] > ours["weight"]
        return bool(ours == its)

    async def weight(self, peer: Identity) -> int:
        return int((await self.both.ours("get_weight", peer.peer_id, self.both.now))["weight"])

    async def compare(self, peer: Identity, through: Identity) -> None:
        both = self.both
        its = both.original("get_all_certs", peer.peer_id, both.now)["certificates"]
        good = sorted(map(as_text, filter(self.is_good, its)))
        found = (await both.ours("get_all_certs", peer.peer_id, both.now))["certificates"]
        if len(good) <= 32:
            assert sorted(map(as_text, found)) == good
        else:
            assert len(found) == 32
            assert set(map(as_text, found)) <= set(good)
        own = 2 ** self.steps[peer.peer_id] if peer.peer_id in self.steps else 0
        lent = [self.lent(one) for one in its if self.is_good(one)]
        assert await self.weight(peer) == max([own, *lent])
        passing = [one for one in its if self.is_good(one) and through.peer_id in peers_of(one)]
        answer = await both.ours("get_weight_from", peer.peer_id, through.peer_id, both.now)
        assert answer["weight"] == max([0, *map(self.lent, passing)])

    def lent(self, certificate: Json) -> int:
        return int(2 ** (self.steps[peers_of(certificate)[0]] - len(certificate["chain"]) + 1))

    def is_good(self, certificate: Json) -> bool:
        """docs/design.md, original's faults 27 and 31: it isn't longer than its root allows, and nobody is revoked."""
        peers = peers_of(certificate)
        if len(peers) - 1 > self.steps[peers[0]]:
            return False
        return not any(self.revokers[peer_id] & set(peers[:place]) for place, peer_id in enumerate(peers))


def peers_of(certificate: Json) -> list[str]:
    return [trust["issued_for"] for trust in certificate["chain"]]


async def test_random_calls(its_trust_graph: Original) -> None:
    made = [await RandomCalls(Both(its_trust_graph, new_peers(5)), seed).run(10) for seed in range(2)]
    assert sum(made) > 10, "the states differed too soon for the test to tell anything"


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_many_random_calls(its_trust_graph: Original) -> None:
    made = [await RandomCalls(Both(its_trust_graph, new_peers(6)), seed).run(40) for seed in range(100, 200)]
    assert sum(made) > 1_000
