"""Queries are read as dnspython wrote them, and answers as dnspython reads them."""

from __future__ import annotations

import random
import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.dns.query import MOST_EDNS, Content, edns_size, is_query, nothing, parse_query, refusal, reply, written
from aqua_compat.dns.sources import KNOWN_FOR, LOCAL, Sources

NAME = dns.name.from_text("web.acme.aqua.")
ANSWER = Content(
    [dns.rrset.from_text("web.acme.aqua.", 0, "IN", "SRV", *(f"1 1 {port} a.aqua." for port in range(1, 41)))],
    [dns.rrset.from_text("a.aqua.", 0, "IN", "A", "192.0.2.1")],
)


def random_case(name: str, chosen: random.Random) -> str:
    return "".join(chosen.choice((each.lower(), each.upper())) for each in name)


@given(st.integers(0, 2**32), st.booleans(), st.binary(min_size=8, max_size=8) | st.none())
def test_an_answer_is_that_of_its_query(seed: int, has_edns: bool, cookie: bytes | None) -> None:
    options = [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)] if cookie else []
    asked = dns.message.make_query(
        random_case("web.acme.aqua.", random.Random(seed)),
        "SRV",
        use_edns=0 if has_edns else False,
        payload=4096,
        options=options if has_edns else None,
    )
    wire = asked.to_wire()
    query = parse_query(wire)
    assert query.labels == ("web", "acme", "aqua")
    assert (query.has_edns, query.payload) == (has_edns, 4096 if has_edns else 512)
    assert query.cookie == (cookie or b"" if has_edns else b"")
    given = Sources(1, 1).cookie(cookie, "192.0.2.1") if cookie and has_edns else b""
    whole = reply(wire[:2], query, written(NAME, query.type, ANSWER, 65_535), 1232, given)
    answer = dns.message.from_wire(whole)
    assert asked.is_response(answer)
    assert answer.question[0].name.to_wire() == asked.question[0].name.to_wire(), "as it was written, case and all"
    assert answer.answer == ANSWER.answer
    assert list(answer.answer[0]) == list(ANSWER.answer[0]), "in the order that was drawn"
    assert answer.additional == ANSWER.additional
    assert answer.flags & dns.flags.RD
    assert answer.edns == (0 if has_edns else -1)
    assert len(whole) == len(written(NAME, query.type, ANSWER, 65_535)) + edns_size(query, given)
    assert edns_size(query, given) <= MOST_EDNS


def test_what_does_not_fit_is_cut_and_says_so() -> None:
    wire = dns.message.make_query("web.acme.aqua.", "SRV").to_wire()
    query = parse_query(wire)
    cut = dns.message.from_wire(reply(wire[:2], query, written(NAME, query.type, ANSWER, 512), 1232))
    assert cut.flags & dns.flags.TC
    alone = len(written(NAME, query.type, Content(ANSWER.answer), 65_535))
    beside = dns.message.from_wire(reply(wire[:2], query, written(NAME, query.type, ANSWER, alone), 1232))
    assert not beside.flags & dns.flags.TC, "addresses beside an answer may be missing"
    assert (beside.answer, beside.additional) == (ANSWER.answer, [])


def test_by_tcp_an_answer_has_the_records_that_fit() -> None:
    long = Content([dns.rrset.from_text("web.acme.aqua.", 0, "IN", "TXT", *(f"{each:0250}" for each in range(400)))])
    cut = dns.message.from_wire(b"\0\0" + written(NAME, dns.rdatatype.TXT, long, 65_535, by_tcp=True)[2:])
    assert not cut.flags & dns.flags.TC
    assert list(cut.answer[0]) == list(long.answer[0])[:200]


def test_an_answer_without_records_has_the_soa() -> None:
    wire = dns.message.make_query("WEB.acme.aqua.", "A", use_edns=0).to_wire()
    soa = dns.rrset.from_text("aqua.", 1, "IN", "SOA", "ns.aqua. h.aqua. 1 2 3 4 5")
    from io import BytesIO

    out = BytesIO()
    soa.to_wire(out)
    query = parse_query(wire)
    answer = dns.message.from_wire(
        reply(wire[:2], query, nothing(query.question, dns.rcode.NXDOMAIN, out.getvalue()), 1232)
    )
    assert (answer.rcode(), answer.answer, answer.authority) == (dns.rcode.NXDOMAIN, [], [soa])


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        (lambda wire: wire[:4] + b"\0\2" + wire[6:], dns.rcode.FORMERR),
        (lambda wire: wire[:4] + b"\0\0" + wire[6:], dns.rcode.FORMERR),
        (lambda wire: wire[:6] + b"\0\1" + wire[8:], dns.rcode.FORMERR),
        (lambda wire: wire[:-1], dns.rcode.FORMERR),
        (lambda wire: wire + b"\0", dns.rcode.FORMERR),
        (lambda wire: wire[:12] + b"\xc0\x0c" + wire[-4:], dns.rcode.FORMERR),
        (lambda wire: wire[:12] + b"\xc0\x04" + wire[-4:], dns.rcode.FORMERR),
        (lambda wire: wire + b"\0" * 600, dns.rcode.FORMERR),
        (lambda wire: wire[:2] + b"\x28" + wire[3:], dns.rcode.NOTIMP),
    ],
)
def test_what_is_no_good_query_is_refused(change: object, rcode: int) -> None:
    assert callable(change)
    wire = change(dns.message.make_query("web.acme.aqua.", "A").to_wire())
    query = parse_query(wire)
    assert query.refused == rcode
    answer = dns.message.from_wire(refusal(wire[:2], query, rcode, 1232))
    assert (answer.id, answer.rcode()) == (struct.unpack_from("!H", wire)[0], rcode)


def test_a_later_edns_is_told_of_this_one() -> None:
    wire = dns.message.make_query("web.acme.aqua.", "A", use_edns=1).to_wire()
    query = parse_query(wire)
    answer = dns.message.from_wire(refusal(wire[:2], query, query.refused, 1232))
    assert (answer.rcode(), answer.edns) == (dns.rcode.BADVERS, 0)


def test_answers_are_not_answered() -> None:
    query = dns.message.make_query("web.acme.aqua.", "A")
    assert is_query(query.to_wire())
    assert not is_query(dns.message.make_response(query).to_wire())
    assert not is_query(b"\0" * 11)


@given(st.binary(max_size=600))
def test_any_bytes_can_be_read(wire: bytes) -> None:
    if is_query(wire):
        query = parse_query(wire)
        dns.message.from_wire(refusal(wire[:2], query, query.refused, 1232))


def test_a_source_is_known_after_its_own_cookie_and_for_a_while() -> None:
    sources = Sources(1000, 10)
    first = sources.cookie(b"12345678", "192.0.2.1")
    assert first.startswith(b"12345678")
    assert sources.is_ours(first, sources.cookie(first, "192.0.2.1"))
    assert not sources.is_ours(first, sources.cookie(first, "192.0.2.2")), "another sender's"
    assert not sources.is_ours(b"12345678", first), "the client's part alone"
    assert sources.cookie(b"123", "192.0.2.1") == b""
    assert not sources.is_known("192.0.2.1", 0.0)
    sources.note_known("192.0.2.1", 0.0)
    assert sources.is_known("192.0.2.1", KNOWN_FOR - 1)
    assert not sources.is_known("192.0.2.1", KNOWN_FOR + 1)


def test_each_source_has_its_share_and_all_have_theirs() -> None:
    sources = Sources(100, 10)
    assert sum(sources.may_ask("192.0.2.1", 0.0) for _ in range(50)) == 20
    assert sources.group("::ffff:192.0.2.1") == sources.group("192.0.2.1") == "192.0.2.1"
    assert sources.group("2001:db8::1") == sources.group("2001:db8::2") != sources.group("2001:db8:0:1::1")
    assert sources.group("127.0.0.1") == sources.group("::1") == LOCAL
    assert sum(sources.may_ask(LOCAL, 0.0) for _ in range(200)) == 80
