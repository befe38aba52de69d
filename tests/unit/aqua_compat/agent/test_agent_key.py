"""Under which key an agent registers: which file is read, and what is said where that can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import structlog
import trio

from aqua_compat.agent.agent import Agent
from aqua_compat.agent.agent_key import AgentKey, earlier_keys
from aqua_compat.agent.definitions import OnStop
from aqua_compat.agent.memory import AgentMemory, Remembered
from aqua_compat.agent.settings import AgentSettings
from aqua_compat.cli.config import SettingsOrigin
from aqua_compat.cli.failures import Failure
from aqua_compat.cli.issuing_key import issuing_key
from aqua_compat.cli.keys import key_path
from aqua_compat.cli.service_source import SettingsOfServices
from aqua_compat.settings import Settings
from overlay.errors import IdentityError
from overlay.identity import load_or_create_identity, replace_passphrase
from overlay.sealed_seed import VARIABLE
from registry.client.certifying import certify, save_chain, scope_of
from registry.client.results import Found
from registry.codes import Code
from tests.unit.aqua_compat.acting import OWNER, ScriptedRegistry
from tests.unit.aqua_compat.agent.test_agent import ADDRESSES, TTL_CHECK, Defined, asked, registry, service, settled
from tests.unit.registry.builders import NODE, NOW, identity

ORIGIN = SettingsOrigin(Path("node.toml"), {"AQUA_REGISTRY_AGENT_CERTIFICATES": "given"})


def settings(**agent: str) -> Settings:
    return Settings(agent=AgentSettings(**cast("Any", agent)))


def test_it_is_given_by_name_or_file_and_is_none_where_it_is_the_nodes_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    named = load_or_create_identity(key_path("machine"))
    filed = load_or_create_identity(tmp_path / "other.json")
    monkeypatch.chdir(tmp_path)
    for given, made, file in (
        ("machine", named, key_path("machine")),
        ("other.json", filed, tmp_path / "other.json"),
        (str(tmp_path / "other.json"), filed, tmp_path / "other.json"),
    ):
        found = issuing_key(settings(key=given), ORIGIN, NODE.peer_id)
        assert found is not None
        assert (found.identity, found.file) == (made, str(file))
    (tmp_path / "words").write_text("open\n")
    (tmp_path / "words").chmod(0o600)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "words"))
    replace_passphrase(key_path("machine"), named, b"open")
    opened = issuing_key(settings(key="machine"), ORIGIN, NODE.peer_id)
    assert opened is not None
    assert opened.identity == named
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(IdentityError, match=rf"node\.toml: agent\.key: the key in .* is sealed: .* by {VARIABLE}"):
        issuing_key(settings(key="machine"), ORIGIN, NODE.peer_id)
    replace_passphrase(key_path("machine"), named, None)

    assert issuing_key(settings(), ORIGIN, NODE.peer_id) is None
    assert issuing_key(settings(key="machine"), ORIGIN, named.peer_id) is None


def test_what_cant_be_used_is_told_with_where_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    machine = load_or_create_identity(key_path("machine"))
    with pytest.raises(IdentityError, match=r"node\.toml: agent\.key: there is no file .*nobody\.json; `aqua-registry"):
        issuing_key(settings(key="nobody"), ORIGIN, NODE.peer_id)
    with pytest.raises(
        Failure, match=r"node\.toml: agent\.key: 'a b' can't name a key.*; or give the path of its file"
    ):
        issuing_key(settings(key="a b"), ORIGIN, NODE.peer_id)
    key_path("machine").chmod(0o644)
    with pytest.raises(IdentityError, match=r"node\.toml: agent\.key: .*is open to other users.*chmod 600"):
        issuing_key(settings(key="machine"), ORIGIN, NODE.peer_id)
    key_path("machine").chmod(0o600)

    file = tmp_path / "web.cert"
    for subject in (machine, NODE):
        chain = [certify(OWNER, subject.peer_id, scope_of("web", OWNER.peer_id), now=NOW, lasts=600)]
        save_chain(file, chain)
        if subject is machine:
            assert issuing_key(settings(key="machine", certificates=str(file)), ORIGIN, NODE.peer_id) is not None
    place = r"AQUA_REGISTRY_AGENT_CERTIFICATES: agent\.certificates: "
    with pytest.raises(
        Failure, match=rf"{place}the certificate {file} isn't for agent\.key, which is {machine.peer_id}"
    ):
        issuing_key(settings(key="machine", certificates=str(file)), ORIGIN, NODE.peer_id)
    with pytest.raises(Failure, match=rf"{place}can't read the certificate {tmp_path}/none"):
        issuing_key(settings(key="machine", certificates=str(tmp_path / "none")), ORIGIN, NODE.peer_id)
    with pytest.raises(Failure, match=rf"{place}they are for agent\.key"):
        issuing_key(settings(certificates=str(file)), ORIGIN, NODE.peer_id)
    assert issuing_key(settings(key="machine", certificates=str(tmp_path)), ORIGIN, NODE.peer_id) is not None


def test_keys_of_before_are_read_again_where_they_still_are(tmp_path: Path) -> None:
    first, second, third = (load_or_create_identity(tmp_path / f"{name}.json") for name in ("a", "b", "c"))
    (tmp_path / "c.json").unlink()

    def remembered(issuer: str, file: str) -> Remembered:
        return Remembered("k", "web", "o", stays=True, issued_by=issuer, key_file=str(tmp_path / file))

    known = [
        Remembered("k", "web", "o", stays=True),
        *[remembered(first.peer_id, "a.json")] * 2,
        remembered(second.peer_id, "b.json"),
        remembered(third.peer_id, "c.json"),
        remembered(NODE.peer_id, "a.json"),
    ]
    assert earlier_keys(known, but=[second.peer_id]) == [first]


def test_what_an_agent_of_before_remembered_is_the_nodes_own() -> None:
    [one] = msgspec.json.decode(b'[["k","web","o",true]]', type=list[Remembered])
    assert one == Remembered("k", "web", "o", stays=True, issued_by="", key_file="")


def test_reading_again_tells_that_another_key_awaits_a_restart() -> None:
    now = [settings(key="machine")]
    source = SettingsOfServices(lambda: now[0], NODE.peer_id, origin=ORIGIN, started=now[0].agent)
    assert source.read().warnings == ()
    now[0] = settings(key="other", certificates="x.cert")
    assert source.read().warnings == (
        "node.toml: agent.key was another at the start: restart the node",
        "AQUA_REGISTRY_AGENT_CERTIFICATES: agent.certificates was another at the start: restart the node",
    )


async def under_key(
    defined: Defined, folder: Path, key: AgentKey | None, own: ScriptedRegistry, **others: ScriptedRegistry
) -> None:
    """A short life of an agent, cut off, that registers under a key. `others`: registries by names of keys in KEYS."""
    agent = Agent(
        cast("Any", own), defined, lambda: ADDRESSES, AgentMemory(folder / "agent.json"), trio.lowlevel.checkpoint,
        registries=cast("Any", {KEYS[name].identity.peer_id: one for name, one in others.items()}), key=key,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(agent.run)
        await settled()
        nursery.cancel_scope.cancel()


KEYS = {name: AgentKey(identity(number), f"/keys/{name}.json") for number, name in enumerate(("old", "new"), 80)}


async def test_it_registers_under_its_key_and_makes_resources_under_the_nodes_own(tmp_path: Path) -> None:
    own, new = registry(get_resource=Found(None, (), code=Code.KEY_NOT_EXISTS)), registry()
    checked = service("web", checks=(TTL_CHECK,), on_stop=OnStop.STAY)
    await under_key(Defined(checked), tmp_path, KEYS["new"], own, new=new)
    assert {name for name, _ in asked(own)} == {"get_resource", "create_resource"}
    assert {name for name, _ in asked(new)} == {"register_service", "report_health"}
    [registered] = [arguments for name, arguments, _ in new.asked if name == "register_service"]
    assert registered[2] == new.peer_id, "the node hosts it"
    again = registry()
    await under_key(Defined(checked), tmp_path, KEYS["new"], registry(), new=again)
    assert "unregister_service" not in {name for name, _ in asked(again)}


async def test_what_another_key_registered_ends_where_that_is_there_and_is_told_where_it_isnt(tmp_path: Path) -> None:
    web = service("web", on_stop=OnStop.STAY)
    await under_key(Defined(web), tmp_path, KEYS["old"], registry(), old=registry())
    memory = AgentMemory(tmp_path / "agent.json")
    before = memory.read()
    assert [(one.issued_by, one.key_file) for one in before] == [(KEYS["old"].identity.peer_id, "/keys/old.json")]
    with structlog.testing.capture_logs() as logged:
        await under_key(Defined(web), tmp_path, KEYS["new"], registry(), new=registry())
    [told] = [each for each in logged if each["event"] == "what another key registered can't be ended"]
    assert (told["issuer"], told["key_file"]) == (KEYS["old"].identity.peer_id, "/keys/old.json")
    unregister = f"service unregister {web.key_id} --peer {OWNER.peer_id} --issuer {KEYS['old'].identity.peer_id}"
    assert f"its owner {OWNER.peer_id} ends it by `aqua-registry {unregister}`" in told["remedy"]
    assert len(memory.read()) == 2, "it may be ended later"
    old, own = registry(), registry()
    await under_key(Defined(web), tmp_path, None, own, old=old, new=registry())
    assert ("unregister_service", web.key_id) in asked(old)
    assert [one.issued_by for one in memory.read()] == [""]
