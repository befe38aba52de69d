"""Who weighs what: against all paths that there are, and what is taken in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import combinations, pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import QuotaExceeded, RegistryRefusal
from registry.trust import graph as graphs
from registry.trust.errors import RevokedByStranger, TrustExpired, TrustForm, TrustFromFuture, TrustSignature
from registry.trust.graph import MAX_CERTIFICATES, MAX_ROOTS, StatementChange, WebOfTrust
from registry.trust.statements import (
    LONGEST_TRUST,
    MAX_CHAIN,
    Chain,
    Statement,
    TrustRevocation,
    TrustStatement,
    chain_from_text,
    chain_of,
)
from tests.unit.registry.builders import NOW, a_revocation, a_trust, identity

PEERS = [identity(number) for number in range(60, 66)]
IDS = [peer.peer_id for peer in PEERS]
ROOT, FIRST, SECOND, THIRD = PEERS[:4]


def web(*statements: Statement, steps: int = 4) -> WebOfTrust:
    """With ROOT as a root that trusts itself."""
    return WebOfTrust({ROOT.peer_id: steps}, [a_trust(ROOT, ROOT), *statements])


def take(graph: WebOfTrust, *statements: Statement, now: int = NOW) -> None:
    for statement in statements:
        if isinstance(statement, TrustRevocation):
            graph.apply(graph.take_revocation(statement, now))
        else:
            graph.apply(graph.take_trust(statement, now).changes)


def unsigned(by: str, whom: str, issued: int = NOW, expires: int = NOW + 3600) -> TrustStatement:
    """For graphs that are given statements, which they take to be genuine."""
    return TrustStatement(by, whom, issued, expires, b"")


# Against brute force


@st.composite
def graphs_of_few(draw: st.DrawFn) -> tuple[dict[str, int], dict[tuple[str, str], Statement]]:
    roots = {peer_id: draw(st.integers(0, 5)) for peer_id in IDS[:2]}
    pairs = draw(st.sets(st.tuples(st.sampled_from(IDS), st.sampled_from(IDS)), max_size=18))
    statements: dict[tuple[str, str], Statement] = {}
    for by, whom in sorted({*pairs, *((root, root) for root in roots)}):
        kind = draw(st.sampled_from(("trust", "trust", "trust", "ended", "revocation")))
        if kind == "revocation":
            statements[by, whom] = TrustRevocation(by, whom, NOW, b"")
        else:
            statements[by, whom] = unsigned(by, whom, expires=NOW if kind == "ended" else NOW + 10)
    return roots, statements


def all_chains(statements: dict[tuple[str, str], Statement], roots: dict[str, int], peer_id: str) -> Iterator[Chain]:
    """Every path, by trying all: from each root's trust in itself on, whatever follows."""

    def extended(chain: Chain) -> Iterator[Chain]:
        if len(chain) > 1 and chain[-1].issued_for == peer_id:
            yield chain
        if len(chain) > MAX_CHAIN:
            return
        for (by, whom), statement in statements.items():
            if by != chain[-1].issued_for or not isinstance(statement, TrustStatement) or statement.ends_at <= NOW:
                continue
            above = [trust.issued_for for trust in chain]
            if whom in above and (whom != by or len(above) == 1 or above[-2] == whom):
                continue  # nobody is met twice, and a peer's trust in itself once
            yield from extended((*chain, statement))

    for root in roots:
        begin = statements.get((root, root))
        if isinstance(begin, TrustStatement) and begin.ends_at > NOW:
            for chain in extended((begin,)):
                if is_path(chain, statements, roots):
                    yield chain


def is_path(chain: Chain, statements: dict[tuple[str, str], Statement], roots: dict[str, int]) -> bool:
    assert all(after.issued_by == before.issued_for for before, after in pairwise(chain))
    peers = [trust.issued_for for trust in chain]
    return len(chain) - 1 <= roots[peers[0]] and not any(
        isinstance(statements.get(pair), TrustRevocation) for pair in combinations(peers, 2)
    )


@given(graphs_of_few())
def test_weights_and_certificates_are_those_of_all_paths(
    drawn: tuple[dict[str, int], dict[tuple[str, str], Statement]],
) -> None:
    roots, statements = drawn
    graph = WebOfTrust(roots, statements.values())
    for peer_id in IDS:
        paths = set(all_chains(statements, roots, peer_id))
        exponents = sorted((roots[chain[0].issued_by] - len(chain) + 1 for chain in paths), reverse=True)
        own = [2 ** roots[peer_id]] if peer_id in roots else []
        assert graph.weight(peer_id, NOW) == max([0, *own, *(2**exponent for exponent in exponents)])
        found = graph.certificates(peer_id, NOW)
        assert set(found) <= paths
        assert len(found) == len(set(found)) == min(len(paths), MAX_CERTIFICATES)
        told = [roots[chain[0].issued_by] - len(chain) + 1 for chain in found]
        assert told == exponents[: len(told)], "the heaviest come first"
        for through in IDS:
            passing = [chain for chain in paths if any(trust.issued_for == through for trust in chain)]
            most = max([0, *(2 ** (roots[chain[0].issued_by] - len(chain) + 1) for chain in passing)])
            assert graph.weight_from(peer_id, through, NOW) == most


@given(st.permutations(range(6)))
def test_the_order_in_which_statements_of_a_pair_come_doesnt_matter(order: list[int]) -> None:
    statements = [
        a_trust(ROOT, FIRST),
        a_revocation(ROOT, FIRST),
        a_trust(ROOT, FIRST, expires=NOW + 7200),
        a_trust(ROOT, FIRST, issued=NOW - 9),
        a_revocation(ROOT, FIRST, NOW - 5),
        a_trust(ROOT, FIRST, issued=NOW - 1),
    ]
    graph = web()
    take(graph, *(statements[place] for place in order))
    assert graph.revocations(FIRST.peer_id, NOW) == [statements[1]]
    assert graph.weight(FIRST.peer_id, NOW) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.integers(-9, 0)), max_size=12))
def test_time_only_takes_weight_away(made: list[tuple[int, int, bool, int]]) -> None:
    graph = web()
    for by, whom, revokes, at in made:
        statement: Statement = (
            a_revocation(PEERS[by], PEERS[whom], NOW + at)
            if revokes
            else a_trust(PEERS[by], PEERS[whom], NOW + at, NOW + 10 - at)
        )
        try:
            take(graph, statement)
        except RegistryRefusal:
            continue
    for peer_id in IDS:
        weights = [graph.weight(peer_id, now) for now in (NOW, NOW + 5, NOW + 13, NOW + 4000)]
        assert weights == sorted(weights, reverse=True)
        assert [graph.weight(peer_id, now) for now in (NOW + 13, NOW)] == [weights[2], weights[0]], "and back"


# What is taken in


def test_a_trust_is_taken_from_those_who_have_weight_to_lend() -> None:
    graph = web(steps=1)
    assert graph.take_trust(a_trust(FIRST, SECOND), NOW) == (0, ())
    take(graph, a_trust(ROOT, FIRST))
    assert graph.weight(FIRST.peer_id, NOW) == 1
    assert graph.take_trust(a_trust(FIRST, SECOND), NOW) == (0, ()), "there is nothing left to lend"


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (a_trust(ROOT, FIRST, issued=NOW + 1), TrustFromFuture),
        (a_trust(ROOT, FIRST, expires=NOW), TrustExpired),
        (a_trust(ROOT, FIRST, issued=NOW - LONGEST_TRUST, expires=2**64 - 1), TrustExpired),
        (msgspec.structs.replace(a_trust(ROOT, FIRST), issued_at=NOW - 1), TrustSignature),
        (msgspec.structs.replace(a_trust(FIRST, SECOND), issued_by=ROOT.peer_id), TrustSignature),
        (a_revocation(ROOT, FIRST, NOW + 1), TrustFromFuture),
        (msgspec.structs.replace(a_revocation(ROOT, FIRST), issued_at=NOW - 1), TrustSignature),
        (a_revocation(THIRD, FIRST), RevokedByStranger),
    ],
)
def test_what_isnt_good_is_refused(statement: Statement, error: type[RegistryRefusal]) -> None:
    graph = web(a_trust(ROOT, FIRST, issued=NOW - 10))
    with pytest.raises(error):
        take(graph, statement)
    assert graph.weight(FIRST.peer_id, NOW) == 8


def test_clocks_may_differ_as_much_as_is_allowed() -> None:
    graph = web()
    graph.take_trust(a_trust(ROOT, FIRST, issued=NOW + 30), NOW, 30)
    graph.take_revocation(a_revocation(ROOT, FIRST, NOW + 30), NOW, 30)
    with pytest.raises(TrustFromFuture):
        graph.take_trust(a_trust(ROOT, FIRST, issued=NOW + 31), NOW, 30)


def test_a_trust_can_never_outlive_its_revocation() -> None:
    graph = web()
    take(graph, a_revocation(ROOT, FIRST, NOW))
    for now in (NOW + LONGEST_TRUST - 1, NOW + LONGEST_TRUST):
        older = a_trust(ROOT, FIRST, issued=NOW, expires=2**64 - 1)
        try:
            take(graph, a_trust(ROOT, ROOT, issued=now, expires=2**64 - 1), older, now=now)
        except TrustExpired:
            assert now == NOW + LONGEST_TRUST
        assert graph.weight(FIRST.peer_id, now) == 0


def test_a_shorter_trust_that_has_ended_gives_way_to_an_older_one_that_hasnt() -> None:
    graph = web(a_trust(ROOT, FIRST, issued=NOW - 5, expires=NOW + 1))
    take(graph, a_trust(ROOT, FIRST, issued=NOW - 9), now=NOW + 1)
    assert graph.weight(FIRST.peer_id, NOW + 1) == 8


def test_undoing_changes_leaves_what_was() -> None:
    graph = web(a_trust(ROOT, FIRST))
    before = sorted(graph.statements(), key=repr)
    changes = [*graph.take_revocation(a_revocation(ROOT, FIRST), NOW), *graph.take_trust(a_trust(ROOT, SECOND), NOW)[1]]
    graph.apply(changes)
    graph.apply(StatementChange(after, before) for before, after in reversed(changes))
    assert sorted(graph.statements(), key=repr) == before
    assert graph.weight(FIRST.peer_id, NOW) == 8


# Bounds


def test_an_issuer_has_so_many_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "PER_ISSUER", 3)
    graph = web()
    take(graph, a_trust(ROOT, FIRST), a_trust(ROOT, SECOND))
    with pytest.raises(QuotaExceeded):
        take(graph, a_trust(ROOT, THIRD))
    take(graph, a_revocation(ROOT, FIRST))  # in place of the trust
    later = NOW + 3601
    take(graph, a_trust(ROOT, ROOT, issued=later, expires=later + 9), a_trust(ROOT, THIRD, later, later + 9), now=later)
    assert graph.weight(THIRD.peer_id, later) == 8, "what has ended takes no place"


def test_the_heavy_have_their_place_before_the_light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "IN_ALL", 5)
    graph = web(a_trust(ROOT, FIRST), a_trust(FIRST, SECOND), a_trust(FIRST, THIRD), a_revocation(FIRST, PEERS[4]))
    with pytest.raises(QuotaExceeded):
        take(graph, a_trust(SECOND, PEERS[5]))
    take(graph, a_trust(ROOT, PEERS[5]))
    assert len(graph) == 5
    assert sorted(graph.weight(peer.peer_id, NOW) for peer in (SECOND, THIRD)) == [0, 4]
    assert graph.revocations(PEERS[4].peer_id, NOW), "a revocation never gives way"
    take(graph, a_trust(ROOT, PEERS[4]))
    with pytest.raises(QuotaExceeded):
        take(graph, a_trust(ROOT, THIRD))


def test_revocations_of_peers_that_were_made_up_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "IN_ALL", 20)
    made_up = [identity(number) for number in range(200, 216)]
    real = a_revocation(SECOND, THIRD)
    graph = web(a_trust(ROOT, FIRST), a_trust(FIRST, SECOND), a_trust(ROOT, THIRD), steps=3)
    take(graph, real, *(a_revocation(SECOND, peer) for peer in made_up[:15]))
    assert len(graph) == 20
    with pytest.raises(QuotaExceeded):
        take(graph, a_revocation(SECOND, made_up[15]))
    take(graph, a_trust(ROOT, PEERS[4]), a_revocation(FIRST, PEERS[5]), a_revocation(ROOT, SECOND))
    assert graph.weight(PEERS[4].peer_id, NOW) == 4
    take(graph, *(a_trust(ROOT, identity(number)) for number in range(300, 304)))  # the revoker weighs nothing by now
    assert len(graph) == 20
    assert real in graph.revocations(THIRD.peer_id, NOW), "what ends a trust that is there stays"
    assert graph.revocations(PEERS[5].peer_id, NOW), "as do those of who has few"


def test_searches_end_in_the_densest_graph() -> None:
    """All trust all, and one revoked many: without a bound paths without number would be tried."""
    chance = Random(1)
    peers = [identity(number).peer_id for number in range(300, 364)]
    statements = [unsigned(by, whom) for by in peers for whom in peers if by == whom or chance.random() < 0.9]
    revoked = [TrustRevocation(peers[1], whom, NOW, b"") for whom in peers[2:40]]
    graph = WebOfTrust(
        {peers[0]: 16}, [*{(one.issued_by, one.issued_for): one for one in [*statements, *revoked]}.values()]
    )
    began = time.process_time()
    for peer_id in peers[1:6]:
        assert graph.weight(peer_id, NOW) > 0
        assert len(graph.certificates(peer_id, NOW)) == MAX_CERTIFICATES
    assert time.process_time() - began < 1.0


def test_nobody_hides_a_path_among_hundreds_that_lead_nowhere() -> None:
    """A peer trusts hundreds of its own, which all trust two peers, whom it revoked: no path goes through it."""
    root, hiding, *honest = (identity(number).peer_id for number in range(400, 406))
    own = [identity(number).peer_id for number in range(500, 900)]
    pairs = [(root, root), (root, hiding), *pairwise((root, *honest))]
    for each in own:
        pairs += [(hiding, each), (each, honest[-1]), (each, honest[-2])]
    graph = WebOfTrust({root: 16}, (unsigned(*pair) for pair in pairs))
    assert graph.weight(honest[-1], NOW) == 2**13
    graph.apply(StatementChange(None, TrustRevocation(hiding, whom, NOW, b"")) for whom in honest[-2:])
    assert graph.weight(honest[-1], NOW) == 2**12
    assert graph.weight(honest[-2], NOW) == 2**13


@pytest.mark.parametrize("steps", [-1, 2**32])
def test_steps_are_of_32_bits(steps: int) -> None:
    with pytest.raises(TrustForm):
        web().set_root(FIRST.peer_id, steps)


def test_roots_are_bounded() -> None:
    graph = web()
    for number in range(1_000, 999 + MAX_ROOTS):
        graph.set_root(identity(number).peer_id, 2**32 - 1)
    with pytest.raises(QuotaExceeded):
        graph.set_root(identity(1).peer_id, 1)
    assert graph.weight(identity(1_000).peer_id, NOW) == 2**16


# Certificates


@pytest.mark.parametrize("text", ["", "x", "1\n2\nx", "1\n2\nx\ny\nz\n0", "1\n2" + "\n1" * 4, "1\n2\n" + "x" * 100_000])
def test_texts_that_are_no_certificates_are_refused(text: str) -> None:
    with pytest.raises(TrustForm):
        chain_from_text(text)


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(TrustForm):
        chain_from_text(text)


def test_certificates_are_bounded() -> None:
    with pytest.raises(TrustForm):
        chain_of([a_trust(ROOT, ROOT)] * (MAX_CHAIN + 1))
