"""Owners decide who registers: over six running nodes, with the commands that owners and issuers use."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aqua_compat import connect
from overlay.identity import Identity, load_or_create_identity
from overlay.membership.certificate import Certificate
from registry.permission.certificate_text import text_of
from registry.permission.scope import Scope, ScopeKind
from tests.end_to_end.network import MAJORITY, Finished, Network, command, eventually
from tests.unit.registry.builders import a_certificate, public_key

ACK = ("--ack", str(MAJORITY))


class People:
    """Acts by commands under several keys of one home."""

    def __init__(self, network: Network, home: Path) -> None:
        self._network = network
        self._home = home

    def identity(self, name: str) -> Identity:
        return load_or_create_identity(self._home / "aqua-registry" / "keys" / f"{name}.json")

    def peer_id(self, name: str) -> str:
        return self.identity(name).peer_id

    async def runs(self, name: str, *arguments: str) -> Finished:
        return await command(
            *arguments, home=self._home, AQUA_REGISTRY_KEY=name, AQUA_REGISTRY_RELAY=self._network.relay()
        )

    async def prints(self, name: str, *arguments: str) -> str:
        finished = await self.runs(name, *arguments)
        assert finished.code == 0, finished.err
        return finished.out.strip()

    async def fails(self, name: str, *arguments: str) -> str:
        """What a command says on stderr that fails."""
        finished = await self.runs(name, *arguments)
        assert (finished.code, finished.out) == (1, "")
        return finished.err

    async def issued(self, name: str, to: str, *arguments: str) -> str:
        """The path of a new certificate."""
        path = self._home / f"{to}.cert"
        path.write_text(await self.prints(name, "cert", "issue", "--for", self.peer_id(to), *arguments))
        return str(path)

    def written(self, *chain: Certificate) -> str:
        path = self._home / "made.cert"
        path.write_text(text_of(chain))
        return str(path)


@pytest.fixture
def people(network: Network, tmp_path: Path) -> People:
    return People(network, tmp_path)


def rows(node: Any, query: str, *values: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{node.data_dir}/registry.sqlite?mode=ro", uri=True)) as database:
        return database.execute(query, values).fetchall()


async def test_a_stranger_is_refused_everywhere_and_a_delegate_of_a_delegate_registers(
    network: Network, people: People, tmp_path: Path
) -> None:
    resource_id = await people.prints("acme", "resource", "create", "payments")
    changed = json.loads(
        await people.prints(
            "acme", "resource", "policy", resource_id, "--close", "--root", people.peer_id("ops"), "--json"
        )
    )
    assert changed["policy"]["roots"] == [people.peer_id("ops")]
    owner = ("--owner", people.peer_id("acme"))
    team = await people.issued("ops", "team", "--on", "pay*", *owner, "--expires", "30d", "--delegate", "1")
    worker = await people.issued("team", "worker", "--on", "payments", "--expires", "1h", "--chain", team)
    register = ("service", "register", resource_id, "--value", "tcp://pay:1")
    await people.prints("worker", *register, "--certificate", worker, "--factor", str(MAJORITY))
    assert "(issuer-not-allowed)" in await people.fails("stranger", *register)

    for node in network.nodes:  # who asks nobody's leave, and hands to each node what it signed by itself
        async with connect(node.address) as stranger:
            metadata, _ = await stranger.getRecordMetadata(resource_id, "evil", stranger.peer_id, [], [], b"")
            assert metadata is not None
            now = int(time.time())
            signed = await stranger.getRecordSignature(metadata, now)
            assert signed.signature is not None
            put = await stranger.putRecord(metadata, now, signed.signature)
            assert not put.success
            assert "its policy doesn't name the issuer" in str(put.error)

    def issuers(node: Any) -> set[str]:
        return {row[0] for row in rows(node, "SELECT issued_by FROM states WHERE key_id = ?", resource_id)}

    for node in network.nodes:
        await eventually(_of(issuers, node), lambda found: found == {people.peer_id("worker")})
    shown = json.loads(await people.prints("caller", "resolve", resource_id, *ACK, "--json"))
    assert [record["metadata"]["issued_by"] for record in shown] == [people.peer_id("worker")]

    # The owner, by a client that knows nothing of policies: its id, and no change.
    before = [rows(node, "SELECT body FROM keys WHERE key_id = ?", resource_id) for node in network.nodes]
    async with connect(network.relay(), identity=people.identity("acme")) as unaware:
        assert await unaware.createResource("payments") == (resource_id, [])
    assert before == [rows(node, "SELECT body FROM keys WHERE key_id = ?", resource_id) for node in network.nodes]
    seen = json.loads(await people.prints("caller", "resource", "policy", resource_id, "--json"))
    assert (changed.pop("name"), seen.pop("name")) == ("payments@me", f"payments@{people.peer_id('acme')}")
    assert seen == changed
    assert changed["schema"] == "aqua-registry.policy/1"


def _of(ask: Any, node: Any) -> Any:
    async def answer() -> Any:
        return ask(node)

    return answer


async def test_an_owner_moderates_lifts_and_cant_lock_itself_out(people: People, network: Network) -> None:
    resource_id = await people.prints("acme", "resource", "create", "board")
    guest, host = people.peer_id("guest"), people.peer_id("guest")
    pair = f"{guest}@{host}"
    await people.prints("guest", "service", "register", resource_id, "--value", "spam", "--factor", str(MAJORITY))
    denied = await people.runs("acme", "service", "unregister", resource_id, "--peer", host)
    lift = f"aqua-registry resource policy {resource_id} --lift {pair}"
    assert denied.out == f"denied {pair} on {resource_id}; lift it with: {lift}\n"
    assert await people.prints("caller", "resolve", resource_id, *ACK) == "no services"
    assert "(issuer-denied)" in await people.fails("guest", "service", "register", resource_id)
    policy = ("resource", "policy", resource_id)
    explained = json.loads(await people.prints("caller", "resource", "explain", resource_id, "--json"))
    assert explained[-1]["what"] == "withheld"
    assert explained[-1]["issued_by"] == guest
    assert "(issuer-denied)" in explained[-1]["detail"]
    assert "would be served again by itself. Lift it instead" in await people.fails(
        "acme", *policy, "--drop-denial", pair
    )
    lifted = await people.runs("acme", *policy, "--lift", pair)
    assert lifted.code == 0
    assert "it has to register anew" in lifted.err
    assert await people.prints("caller", "resolve", resource_id, *ACK) == "no services", "lifting brings nothing back"
    again = partial(people.runs, "guest", "service", "register", resource_id, "--value", "fine")
    await eventually(again, lambda done: done.code == 0)  # in the second of the lifting it's still denied
    assert guest in await people.prints("caller", "resolve", resource_id, *ACK)

    # Of several on one host, the one that is named.
    at = network.nodes[0].peer_id
    for name in ("guest", "other"):
        await people.prints(name, "service", "register", resource_id, "--peer", at, "--factor", str(MAJORITY))
    end = ("service", "unregister", resource_id, "--peer", at)
    unnamed = await people.fails("acme", *end)
    assert "name the one to end (issuer=, --issuer): " in unnamed
    assert guest in unnamed
    assert people.peer_id("other") in unnamed
    ended = await people.prints("acme", *end, "--issuer", guest, "--until", "7d")
    assert ended.startswith(f"denied {guest}@{at} on {resource_id} until 2")
    again = await people.prints("acme", *end, "--issuer", guest)
    assert again == f"there was nothing of {guest} to unregister for {at} on {resource_id}"
    shown = json.loads(await people.prints("caller", "resolve", resource_id, *ACK, "--json"))
    still = {(each["metadata"]["issued_by"], each["metadata"]["peer_id"]) for each in shown}
    assert still == {(guest, guest), (people.peer_id("other"), at)}

    assert "(policy-locks-owner-out)" in await people.fails("acme", *policy, "--deny", people.peer_id("acme"))
    assert "only its owner" in await people.fails("guest", *policy, "--open")
    assert f"{guest} isn't denied, so there is nothing to lift" in await people.fails("acme", *policy, "--lift", guest)


async def test_who_shows_a_bad_certificate_is_told_what_is_wrong_and_what_to_do(people: People) -> None:
    resource_id = await people.prints("acme", "resource", "create", "guarded")
    await people.prints("acme", "resource", "policy", resource_id, "--close")
    acme, guest, other = (people.identity(name) for name in ("acme", "guest", "other"))
    now = int(time.time())
    good: dict[str, Any] = {
        "scope": Scope(ScopeKind.LABEL, public_key(acme), "guarded"),
        "not_before": now - 60,
        "expires_at": now + 3600,
    }
    certificate = partial(a_certificate, acme, guest)
    by_other = a_certificate(other, guest, **good)
    elsewhere = Scope(ScopeKind.LABEL, public_key(acme), "elsewhere")
    to_other = partial(a_certificate, acme, other)
    chains = {
        "certificate-expired": [certificate(**{**good, "expires_at": now - 1})],
        "certificate-not-yet-valid": [certificate(**{**good, "not_before": now + 3600, "expires_at": now + 7200})],
        "certificate-permission": [certificate(**good, permits=("admit",))],
        "certificate-subject": [to_other(**good)],
        "certificate-resource": [certificate(**{**good, "scope": elsewhere})],
        "certificate-root": [by_other],
        "certificate-link": [certificate(**good, depth=1), by_other],
        "certificate-depth": [to_other(**good), by_other],
    }
    for code, chain in chains.items():
        told = await people.fails("guest", "service", "register", resource_id, "--certificate", people.written(*chain))
        assert f"({code})" in told
        assert told.count("; ") >= 1, "what to do"
    forged = msgspec.structs.replace(certificate(**good), expires_at=now + 7200)
    told = await people.fails("guest", "service", "register", resource_id, "--certificate", people.written(forged))
    assert "(certificate-signature)" in told
    sound = people.written(certificate(**good))
    await people.prints("guest", "service", "register", resource_id, "--certificate", sound)
    policy = await people.prints("acme", "resource", "policy", resource_id, "--longest-chain", "0")
    assert "chains     no certificate counts" in policy
    told = await people.fails("guest", "service", "register", resource_id, "--certificate", sound)
    assert "(certificate-chain-too-long)" in told
    policy = await people.prints("acme", "resource", "policy", resource_id, "--longest-chain", "1")
    assert "chains     of one certificate" in policy
    await people.prints("guest", "service", "register", resource_id, "--certificate", sound)
    # The same certificate on another resource of the same owner.
    another = await people.prints("acme", "resource", "create", "another")
    await people.prints("acme", "resource", "policy", another, "--close")
    told = await people.fails("guest", "service", "register", another, "--certificate", sound)
    assert "(certificate-resource)" in told
