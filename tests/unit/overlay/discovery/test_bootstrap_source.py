"""What an operator may give to join through, and what it leads to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import dns.resolver
import msgspec
import pytest
import trio

from overlay.discovery.bootstrap import validate_bootstrap
from overlay.discovery.bootstrap_pins import FILE, BootstrapPins
from overlay.discovery.bootstrap_resolver import BootstrapResolver
from overlay.discovery.bootstrap_source import MOST_ADDRESSES, BootstrapSource, SourceKind, addresses_in, parse_source
from overlay.discovery.dnsaddr import look_up_dnsaddr
from overlay.errors import AddressError, BootstrapFailed, OverlayError
from overlay.identity import Identity
from overlay.settings import OverlaySettings

OWN, ONE, TWO, THREE = (Identity.from_seed(bytes([number] * 32)).peer_id for number in range(1, 5))
SEED = "seed.example:7000"


@pytest.mark.parametrize(
    ("text", "kind", "where", "peer_id"),
    [
        (f"/ip4/192.0.2.1/tcp/1/p2p/{ONE}", SourceKind.PEER, "/ip4/192.0.2.1/tcp/1", ONE),
        (f"/dns4/a.example/tcp/1/ws/p2p/{ONE}", SourceKind.PEER, "/dns4/a.example/tcp/1/ws", ONE),
        ("/dns/a.example/tcp/1", SourceKind.PLACE, "/dns/a.example/tcp/1", ""),
        (SEED, SourceKind.PLACE, "/dns/seed.example/tcp/7000", ""),
        ("localhost:7", SourceKind.PLACE, "/dns/localhost/tcp/7", ""),
        ("192.0.2.1:7", SourceKind.PLACE, "/ip4/192.0.2.1/tcp/7", ""),
        ("[2001:db8::1]:7", SourceKind.PLACE, "/ip6/2001:db8::1/tcp/7", ""),
        ("/dnsaddr/example.org", SourceKind.DNSADDR, "example.org", ""),
        (f"/dnsaddr/example.org/p2p/{ONE}", SourceKind.DNSADDR, "example.org", ONE),
        ("file:/etc/aqua/peers", SourceKind.FILE, "/etc/aqua/peers", ""),
    ],
)
def test_each_form_means_what_it_says(text: str, kind: SourceKind, where: str, peer_id: str) -> None:
    assert parse_source(text) == BootstrapSource(kind, text, where, peer_id)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seed.example",
        "seed.example:",
        "seed.example:70000",
        "999.0.0.1:7",
        "[::g]:7",
        "[1.2.3]:7",
        "/dnsaddr/",
        "/dnsaddr/a/b",
        "/ip4/192.0.2.1/udp/7",
        "http://seed.example:7000",
        "x" * 600 + ":7",
    ],
)
def test_what_is_none_of_them_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_source(text)


def test_addresses_without_a_peer_need_a_decision() -> None:
    settings = OverlaySettings(bootstrap=(SEED,))
    with pytest.raises(AddressError, match="--trust-first"):
        validate_bootstrap(settings, certificates_decide=False)
    validate_bootstrap(settings, certificates_decide=True)
    validate_bootstrap(msgspec.structs.replace(settings, trust_first=True), certificates_decide=False)
    validate_bootstrap(OverlaySettings(bootstrap=("/dnsaddr/example.org", "file:peers")), certificates_decide=False)


def test_files_have_an_address_on_a_line() -> None:
    assert addresses_in(f"# ours\n\n{SEED}  # the first\n{SEED}\n  a.example:1\n") == [SEED, "a.example:1"]
    assert len(addresses_in("\n".join(f"a{number}:1" for number in range(500)))) == MOST_ADDRESSES


class Answers:
    """Satisfies `bootstrap_resolver.Answering`."""

    def __init__(self) -> None:
        self.at: list[str] = []

    async def who_is_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        await trio.lowlevel.checkpoint()
        return [f"/ip4/192.0.2.1/tcp/7000/p2p/{peer_id}" for peer_id in self.at]


async def _tells(name: str) -> list[str]:
    await trio.lowlevel.checkpoint()
    return [f"/ip4/192.0.2.{number}/tcp/1/p2p/{peer_id}" for number, peer_id in enumerate((ONE, TWO))]


def resolver(answers: Answers, folder: Path | None = None, *, pins_first: bool = True) -> BootstrapResolver:
    return BootstrapResolver(OWN, answers, _tells, BootstrapPins(folder), pins_first=pins_first, timeout=1)


async def found(resolving: BootstrapResolver, text: str) -> set[str]:
    return {address.rpartition("/")[2] for address in await resolving.addresses(parse_source(text))}


async def test_who_answered_first_is_pinned_for_good_and_somebody_else_is_told_of(tmp_path: Path) -> None:
    answers = Answers()
    with pytest.raises(BootstrapFailed, match=r"nobody answers at seed\.example:7000"):
        await found(resolver(answers, tmp_path), SEED)
    answers.at = [ONE, TWO, OWN]
    assert await found(resolver(answers, tmp_path), SEED) == {ONE, TWO, OWN}
    answers.at = [TWO, THREE]
    assert await found(resolver(answers, tmp_path), SEED) == {TWO}
    answers.at = [THREE]
    with pytest.raises(BootstrapFailed, match=f"{THREE}.*take 'seed.example:7000' out of .*{FILE}"):
        await found(resolver(answers, tmp_path), SEED)
    (tmp_path / FILE).unlink()
    assert await found(resolver(answers, tmp_path), SEED) == {THREE}


async def test_nobody_is_pinned_where_certificates_decide_nor_is_this_peer_itself(tmp_path: Path) -> None:
    answers = Answers()
    answers.at = [OWN]
    assert await found(resolver(answers, tmp_path), SEED) == {OWN}
    answers.at = [ONE]
    assert await found(resolver(answers, tmp_path, pins_first=False), SEED) == {ONE}
    answers.at = [TWO]
    assert await found(resolver(answers, tmp_path), SEED) == {TWO}


@pytest.mark.parametrize("content", [b"{", b'{"\xff": []}', b'{"a": 1}'])
async def test_pins_that_rotted_are_an_error_that_says_what_to_do(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(OverlayError, match="mend it, or delete it"):
        BootstrapPins(tmp_path)


async def test_names_and_files_lead_to_peers(tmp_path: Path) -> None:
    answers = Answers()
    assert await found(resolver(answers), "/dnsaddr/example.org") == {ONE, TWO}
    assert await found(resolver(answers), f"/dnsaddr/example.org/p2p/{TWO}") == {TWO}
    with pytest.raises(BootstrapFailed, match="tells no address"):
        await found(resolver(answers), f"/dnsaddr/example.org/p2p/{THREE}")
    file = tmp_path / "peers"
    with pytest.raises(AddressError, match="can't read"):
        await found(resolver(answers), f"file:{file}")
    file.write_text(f"nonsense\nfile:{file}\n/dnsaddr/example.org  # both\n/ip4/192.0.2.9/tcp/1/p2p/{THREE}\n")
    assert await found(resolver(answers), f"file:{file}") == {ONE, TWO, THREE}
    file.write_text("nonsense\n")
    with pytest.raises(AddressError, match="nonsense"):
        await found(resolver(answers), f"file:{file}")


async def test_silent_addresses_of_a_file_are_waited_for_together(tmp_path: Path) -> None:
    class Silent(Answers):
        waiting = 0
        all_wait = trio.Event()

        async def who_is_at(self, multiaddr: str, *, timeout: float) -> list[str]:
            self.waiting += 1
            if self.waiting == 5:
                self.all_wait.set()
            await self.all_wait.wait()
            return [f"{multiaddr}/p2p/{ONE}"] if "192.0.2.4" in multiaddr else []

    file = tmp_path / "peers"
    file.write_text("".join(f"192.0.2.{number}:7000\n" for number in range(5)))
    with trio.fail_after(10):
        assert await found(resolver(Silent()), f"file:{file}") == {ONE}


async def test_a_name_that_nobody_serves_leads_nowhere() -> None:
    """An error where the name servers say so, or don't answer."""
    addresses: list[str] = []
    with trio.fail_after(30), suppress(BootstrapFailed):
        addresses = await look_up_dnsaddr("no-such-name.invalid")
    assert addresses == []


@pytest.mark.parametrize("content", [None, "", "options timeout:1\n"])
async def test_a_machine_without_name_servers_finds_nothing_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """As where /etc/resolv.conf points to what a resolver that isn't running would have made."""
    file = tmp_path / "resolv.conf"
    if content is not None:
        file.write_text(content)
    its = dns.resolver.BaseResolver.read_resolv_conf
    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", lambda resolver, _: its(resolver, str(file)))
    with pytest.raises(BootstrapFailed, match=r"example\.org can't be had: this machine's resolver: "):
        await look_up_dnsaddr("example.org")
