"""A node that answers DNS: what is there, what isn't, and what becomes of whoever asks too much."""

from __future__ import annotations

import random
import shutil
import socket
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
import trio

from aqua_compat.api.full_node import identity_in
from aqua_compat.dns.peer_names import label_of_peer
from aqua_compat.dns.server import domain_of
from aqua_compat.http.listeners import Misconfigured
from aqua_compat.settings import DnsSettings
from registry.health.state import HealthState
from registry.model.endpoints import Instance
from registry.model.names import Names
from tests.unit.aqua_compat.dns.running import Asked, running_dns, told

CHANGED_WITHIN = 2.0  # seconds
INSTANCES = (
    Instance(id="1", address="192.0.2.1", port=8001, tags=("V2",), metadata={"zone": "eu", "long": "x" * 300}),
    Instance(id="2", address="192.0.2.2", port=8002, weight=3),
    Instance(id="3", address="2001:db8::3", port=8003),
    Instance(id="4", address="host.example", port=8004),
    Instance(id="5", address="192.0.2.5"),
)
SERVERS = {
    "1 1 8001 c0000201.addr.aqua.",
    "1 3 8002 c0000202.addr.aqua.",
    "1 1 8003 20010db8000000000000000000000003.addr.aqua.",
    "1 1 8004 host.example.",
}


async def test_names_are_answered_by_what_is_registered(tmp_path: Path) -> None:
    own = identity_in(tmp_path).peer_id
    async with running_dns(tmp_path, DnsSettings(listen="127.0.0.1:0", ttl=3), {"acme": own}) as asked:
        await asked.register("web", INSTANCES)
        await asked.register("elsewhere", [Instance(id="1", address="host.example.", port=80)])
        addresses = {"192.0.2.1", "192.0.2.2", "192.0.2.5"}
        in_any_case = "".join(random.choice((each, each.upper())) for each in f"web.{label_of_peer(own)}.aqua")
        for name in ("web.acme.aqua", "WEB.service.Acme.AQUA", "web.me.aqua", in_any_case):
            for by_tcp in (False, True):
                answer = await asked.ask(name, by_tcp=by_tcp)
                assert told(answer) == addresses
                assert answer.flags & dns.flags.AA
                assert answer.answer[0].ttl == 3
        assert told(await asked.ask("web.acme.aqua", "AAAA")) == {"2001:db8::3"}
        for name in ("_web._tcp.acme.aqua", "web.service.acme.aqua", "web.acme.aqua"):
            answer = await asked.ask(name, "SRV", edns=1232)
            assert told(answer) == SERVERS
            beside = {each.to_text() for found in answer.additional for each in found}
            assert beside == {"192.0.2.1", "192.0.2.2", "2001:db8::3"}
        for name in ("v2.web.acme.aqua", "v2.web.service.acme.aqua", "_web._V2.acme.aqua"):
            assert told(await asked.ask(name)) == {"192.0.2.1"}
        assert told(await asked.ask("web.acme.aqua", "TXT")) == {'"zone=eu"'}, "an entry that is too long is left out"
        for kind in ("A", "AAAA", "CNAME"):
            assert told(await asked.ask("elsewhere.acme.aqua", kind)) == {"host.example."}
        assert not told(await asked.ask("web.acme.aqua", "CNAME"))
        assert told(await asked.ask("c0000201.addr.aqua")) == {"192.0.2.1"}
        for name in ("me.node.aqua", "acme.node.aqua", f"{label_of_peer(own)}.node.aqua", "ns.aqua"):
            assert told(await asked.ask(name)) == {"127.0.0.1"}
        assert told(await asked.ask("me.node.aqua", "TXT")) == {f'"peer_id={own}"'}
        assert told(await asked.ask("aqua", "NS")) == {"ns.aqua."}
        assert (await asked.ask("aqua", "SOA")).answer[0].rdtype == dns.rdatatype.SOA
        assert told(await asked.ask("web.acme.aqua", "ANY")) == {'"RFC8482" ""'}
        first = {str((await asked.ask("_web._tcp.acme.aqua", "SRV")).answer[0][0]) for _ in range(60)}
        assert len(first) > 1, "who takes the first one spreads its load"


MISSING = [
    ("nothing.acme.aqua", "A", dns.rcode.NXDOMAIN),
    ("v3.web.acme.aqua", "A", dns.rcode.NXDOMAIN),
    ("web.nobody.aqua", "A", dns.rcode.NXDOMAIN),
    ("web.acme.aqua", "MX", dns.rcode.NOERROR),
    ("web.acme.aqua", "AAAA", dns.rcode.NOERROR),
    ("acme.aqua", "A", dns.rcode.NOERROR),
    ("_tcp.acme.aqua", "NS", dns.rcode.NOERROR),
    ("aqua", "A", dns.rcode.NOERROR),
    ("www.example.org", "A", dns.rcode.REFUSED),
    (".", "NS", dns.rcode.REFUSED),
    ("notaqua", "A", dns.rcode.REFUSED),
    ("aqua", "AXFR", dns.rcode.REFUSED),
]


async def test_what_is_not_there(tmp_path: Path) -> None:
    own = identity_in(tmp_path).peer_id
    async with running_dns(tmp_path, DnsSettings(listen="127.0.0.1:0", negative_ttl=7), {"acme": own}) as asked:
        await asked.register("web", [Instance(id="1", address="192.0.2.1", port=80)])
        for name, kind, rcode in MISSING:
            query = dns.message.make_query(name, kind)
            answer = dns.message.from_wire(await asked.by_udp(query.to_wire()))
            assert (answer.rcode(), answer.answer) == (rcode, []), (name, kind)
            if rcode is not dns.rcode.REFUSED:
                [soa] = answer.authority
                assert (soa.name.to_text(), soa.rdtype, soa.ttl, soa[0].minimum) == ("aqua.", dns.rdatatype.SOA, 7, 7)


async def until_told(asked: Asked, name: str, kind: str, expected: set[str] | dns.rcode.Rcode) -> None:
    with trio.fail_after(CHANGED_WITHIN):
        while True:
            answer = await asked.ask(name, kind)
            if (answer.rcode() if isinstance(expected, dns.rcode.Rcode) else told(answer)) == expected:
                return


async def test_what_changes_is_told_at_once(tmp_path: Path) -> None:
    async with running_dns(tmp_path) as asked:
        await until_told(asked, "web.me.aqua", "A", dns.rcode.NXDOMAIN)
        resource_id = await asked.register("web", INSTANCES[:2])
        await until_told(asked, "web.me.aqua", "A", {"192.0.2.1", "192.0.2.2"})
        registry = asked.node.registry
        assert (await registry.report_health(resource_id, HealthState.CRITICAL, "", instance="1")).success
        await until_told(asked, "web.me.aqua", "A", {"192.0.2.2"})
        assert (await registry.report_health(resource_id, HealthState.WARNING, "", instance="1")).success
        await until_told(asked, "web.me.aqua", "A", {"192.0.2.1", "192.0.2.2"})
        assert (await registry.report_health(resource_id, HealthState.CRITICAL, "")).success
        await until_told(asked, "web.me.aqua", "A", set())
        assert (await asked.ask("web.me.aqua")).rcode() == dns.rcode.NOERROR, "the name is there all the same"
        assert (await registry.remove_resource(resource_id)).success
        await until_told(asked, "web.me.aqua", "A", dns.rcode.NXDOMAIN)
        assert asked.server.statistics().followed == 1


async def test_a_long_answer_comes_by_tcp(tmp_path: Path) -> None:
    async with running_dns(tmp_path, DnsSettings(listen="127.0.0.1:0", max_answers=50)) as asked:
        many = [Instance(id=str(each), address=f"192.0.2.{each}", port=each) for each in range(1, 61)]
        await asked.register("web", many)
        cut = await asked.ask("web.me.aqua", "SRV")
        assert cut.flags & dns.flags.TC
        assert len(told(await asked.ask("web.me.aqua", "SRV", edns=8192))) == 50
        whole = await asked.ask("web.me.aqua", "SRV", by_tcp=True)
        assert not whole.flags & dns.flags.TC
        assert len(told(whole)) == len(whole.additional) == 50
        assert asked.server.statistics().truncated == 1


async def until_connected(asked: Asked, count: int) -> None:
    with trio.fail_after(CHANGED_WITHIN):
        while asked.server.statistics().connections != count:  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.01)


async def test_connections_ask_several_things_and_end_when_they_are_no_good(tmp_path: Path) -> None:
    settings = DnsSettings(listen="127.0.0.1:0", max_connections=2, idle_timeout=0.5)
    async with running_dns(tmp_path, settings) as asked:
        query = dns.message.make_query("aqua", "SOA").to_wire()
        assert dns.message.from_wire(await asked.by_tcp(query, query, query)).answer
        assert await asked.by_tcp(b"\0" * 600) == b"", "longer than any query"
        assert await asked.by_tcp(query[:2] + b"\x80" + query[3:]) == b"", "an answer"
        async with await trio.open_tcp_stream(*asked.server.address) as slow:
            await slow.send_all(b"\0")
            async with await trio.open_tcp_stream(*asked.server.address) as slower:
                await slower.send_all(b"\0")
                await until_connected(asked, 2)
                assert await asked.by_tcp(query) == b"", "there are as many as may be"
                with trio.fail_after(CHANGED_WITHIN):
                    assert await slow.receive_some(1) == b"", "a slow one is let go"
        await until_connected(asked, 0)
        assert await asked.by_tcp(query)


async def test_settings_that_can_not_be_are_explained(tmp_path: Path) -> None:
    for domain in ("", ".", "a..b", "x" * 64, "\u00fc" * 63):
        with pytest.raises(Misconfigured, match=r"dns\.domain"):
            domain_of(domain)
    with pytest.raises(ValueError, match=r"dns\.ttl"):
        DnsSettings(ttl=4000)
    taken = socket.socket()
    with taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Misconfigured, match=r"dns\.listen .*choose another port"):
            async with running_dns(tmp_path, DnsSettings(listen=f"127.0.0.1:{taken.getsockname()[1]}")):
                pass


@pytest.mark.skipif(shutil.which("dig") is None, reason="dig isn't here")
async def test_dig_understands_it(tmp_path: Path) -> None:
    async with running_dns(tmp_path) as asked:
        await asked.register("web", INSTANCES)

        async def dig(*arguments: str) -> list[str]:
            host, port = asked.server.address
            ran = await trio.run_process(["dig", f"@{host}", "-p", str(port), *arguments], capture_stdout=True)
            assert b";; Warning" not in ran.stdout, ran.stdout
            return sorted(ran.stdout.decode().split("\n"))

        assert set(await dig("+short", "_web._tcp.me.aqua", "SRV")) - {""} == SERVERS
        assert set(await dig("+short", "+tcp", "web.me.aqua")) - {""} == {"192.0.2.1", "192.0.2.2", "192.0.2.5"}
        assert any("status: NXDOMAIN" in line for line in await dig("nothing.me.aqua"))
        assert any("; COOKIE: " in line and "(good)" in line for line in await dig("web.me.aqua"))


async def test_names_mean_what_the_aliases_mean_by_then(tmp_path: Path) -> None:
    own = identity_in(tmp_path).peer_id
    names = [Names(), Names({"acme": own})]
    async with running_dns(tmp_path, names_now=lambda: names[0]) as asked:
        await asked.register("web", INSTANCES[:1])
        for found in (set(), {"192.0.2.1"}, set()):
            for _ in range(2):
                answer = await asked.ask("web.acme.aqua")
                assert told(answer) == found
                assert (answer.rcode() == dns.rcode.NXDOMAIN) is not bool(found)
            names.reverse()
