"""How much of an answer a source gets, and that long ones are made beside the loop."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import trio

from aqua_compat.dns.answers import Answers
from aqua_compat.dns.peer_names import label_of_peer
from aqua_compat.dns.providers import Provider, Providers
from aqua_compat.dns.responder import MANY, Answerable, FindNode, Responder
from aqua_compat.dns.sources import MOST_TIMES, Sources
from aqua_compat.dns.zone import Zone
from overlay.identity import Identity
from registry.model.endpoints import Instance

OWN = Identity.from_seed(bytes(32)).peer_id
FAR = "192.0.2.99"
DOMAIN = dns.name.from_text("aqua.")


class Known:
    """In place of `FollowedNames`: all names have the same."""

    def __init__(self, count: int) -> None:
        numbers = range(1, count + 1)
        instances = [Instance(id=str(each), address=f"10.0.{each >> 8}.{each & 255}", port=each) for each in numbers]
        self.providers = Providers(
            exists=True, usable=[Provider(each, OWN, ip_address(each.address)) for each in instances]
        )

    def at_hand(self, resource_id: str) -> Providers:
        return self.providers


async def nobody(peer_id: str) -> None:
    pass


def responder(
    count: int,
    most: int = 256,
    per_source: float = 1000,
    find_node: FindNode = nobody,
    zone_now: Callable[[], Zone] | None = None,
) -> Responder:
    chance = random.Random(0)
    answers = Answers(
        DOMAIN, ttl=0, negative_ttl=1, most=most, serial=1, own=(), addresses_of=lambda _: (), randomness=chance
    )
    known: Any = Known(count)
    zone = Zone({}, OWN)
    return Responder(
        DOMAIN,
        zone_now or (lambda: zone),
        answers,
        known,
        Sources(10_000, per_source),
        max_udp=1232,
        max_finding=1,
        addresses_of=lambda _: (),
        find_node=find_node,
        randomness=chance,
    )


def query(cookie: bytes = b"") -> bytes:
    options = [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)] if cookie else []
    return dns.message.make_query("_web._tcp.me.aqua.", "SRV", use_edns=0, payload=4096, options=options).to_wire()


def answered(by: Responder, wire: bytes, address: str = FAR, *, by_tcp: bool = False) -> dns.message.Message:
    answer = by.answer(wire, address, 0.0, by_tcp=by_tcp)
    assert isinstance(answer, bytes)
    return dns.message.from_wire(answer)


async def test_who_has_shown_nothing_gets_no_more_than_three_times_what_it_sent() -> None:
    by, wire = responder(10), query()
    answer = by.answer(wire, FAR, 0.0, by_tcp=False)
    assert isinstance(answer, bytes)
    assert len(answer) <= MOST_TIMES * len(wire)
    told = dns.message.from_wire(answer)
    assert told.flags & dns.flags.TC
    assert not told.answer
    assert len(answered(by, wire, "127.0.0.1").answer[0]) == 10, "this machine can't be somebody else"
    assert len(answered(by, wire, by_tcp=True).answer[0]) == 10
    assert len(answered(by, wire).answer[0]) == 10, "it has asked by TCP"


async def test_a_cookie_shows_where_somebody_is() -> None:
    by = responder(10)
    first = answered(by, query(b"12345678"))
    assert first.flags & dns.flags.TC
    [given] = [each.to_wire() for each in first.options if each.otype == dns.edns.OptionType.COOKIE]
    assert answered(by, query(given), "192.0.2.98").flags & dns.flags.TC, "it is of another one"
    assert len(answered(by, query(given)).answer[0]) == 10


async def test_a_source_that_asks_too_much_is_not_looked_at() -> None:
    by = responder(1, per_source=5)
    answers = [by.answer(query(), FAR, 0.0, by_tcp=False) for _ in range(30)]
    assert sum(each is not None for each in answers) == 10
    assert by.dropped == {"rate": 20}
    assert by.answer(query(), "192.0.2.98", 0.0, by_tcp=False) is not None


async def test_out_of_many_instances_so_many_are_drawn_beside_the_loop_and_kept() -> None:
    by, wire = responder(MANY + 40, most=20), query()
    seen: Counter[str] = Counter()
    for _ in range(400):
        answer = by.answer(wire, "127.0.0.1", 0.0, by_tcp=False)
        made = await by.find(answer) if isinstance(answer, Answerable) else answer
        assert made is not None
        told = dns.message.from_wire(made)
        assert len(told.answer[0]) == len(told.additional) == 20
        seen.update(str(each) for each in told.answer[0])
        if isinstance(answer, bytes) and len(seen) > MANY:
            break
    else:
        raise AssertionError("nothing is kept, or always the same is told")


async def test_a_name_that_was_asked_before_means_what_it_means_by_then() -> None:
    zones = [Zone({}, OWN), Zone({"acme": OWN}, OWN)]
    by, wire = responder(1, zone_now=lambda: zones[0]), dns.message.make_query("web.acme.aqua.", "A").to_wire()
    codes = []
    for _ in range(2):
        codes += [answered(by, wire, "127.0.0.1").rcode() for _ in range(2)]
        zones.reverse()
    assert codes == [dns.rcode.NXDOMAIN] * 2 + [dns.rcode.NOERROR] * 2


async def test_only_so_many_peers_are_looked_for_at_the_same_time() -> None:
    looking, going_on = trio.Event(), trio.Event()

    async def find_node(peer_id: str) -> None:
        looking.set()
        await going_on.wait()

    by = responder(1, find_node=find_node)
    asked = []
    for seed in (b"1", b"2"):
        name = label_of_peer(Identity.from_seed(seed * 32).peer_id)
        answer = by.answer(dns.message.make_query(f"{name}.node.aqua.", "A").to_wire(), FAR, 0.0, by_tcp=False)
        assert isinstance(answer, Answerable)
        asked.append(answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(by.find, asked[0])
        await looking.wait()
        assert dns.message.from_wire(await by.find(asked[1])).rcode() is dns.rcode.SERVFAIL
        going_on.set()
    again = by.answer(dns.message.make_query(f"{name}.node.aqua.", "A").to_wire(), FAR, 0.0, by_tcp=False)
    assert isinstance(again, Answerable), "it wasn't looked for"
    assert dns.message.from_wire(await by.find(again)).rcode() is dns.rcode.NXDOMAIN


async def test_what_is_refused_is_counted() -> None:
    by = responder(1)
    assert answered(by, dns.message.make_query("example.org.", "A").to_wire()).rcode() is dns.rcode.REFUSED
    assert answered(by, b"\0\1\0\0" + bytes(8)).rcode() is dns.rcode.FORMERR
    assert by.answered == {"REFUSED": 1, "FORMERR": 1}
