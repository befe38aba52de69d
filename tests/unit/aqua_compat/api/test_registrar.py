"""For whom a registrar makes what, over a registry that answers what a test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from aqua_compat.agent.owner_keys import OwnerKeys, read_owner_keys
from aqua_compat.agent.service_files import BadDefinitions
from aqua_compat.agent.settings import AgentSettings
from aqua_compat.api.registrar import ANYONE, Registrar, ask_registrars, check_registrars
from aqua_compat.rpc.server import called_by
from overlay.errors import IdentityError
from overlay.identity import Identity, load_or_create_identity
from registry.client.results import Found
from registry.codes import Code
from registry.errors import ClockOff, NodeUnavailable
from registry.model.signing import key_id_of
from registry.model.values import Key
from registry.protocol.messages import Item, WriteOutcome
from tests.unit.aqua_compat.acting import HOST, ScriptedRegistry, a_key

COMPANY = Identity.generate()
NOBODY = Found(None, ("resource not found",), code=Code.KEY_NOT_EXISTS)


class Network:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written: list[Item] = []
        self.outcome = WriteOutcome(1, 1)
        self.clock_is_off = False

    async def write(self, item: Item, timeout: float) -> WriteOutcome:
        self.written.append(item)
        return self.outcome

    async def wait_for_clock(self) -> None:
        if self.clock_is_off:
            raise ClockOff("172,800 s ahead of 3 peers'")


def registrar(found: object, *permitted: str) -> tuple[Registrar, Network]:
    network = Network()
    keys = OwnerKeys({COMPANY.peer_id: COMPANY}, network.write, network.wait_for_clock)
    return Registrar(cast("Any", ScriptedRegistry(get_resource=found)), keys, permitted), network


async def test_what_isnt_there_is_made_for_who_may_ask_and_for_nobody_else() -> None:
    made, network = registrar(NOBODY, HOST.peer_id)
    with called_by(HOST.peer_id):
        assert await made.make("web", COMPANY.peer_id) == []
        assert await made.make("web", HOST.peer_id) == [
            f"this registrar doesn't hold the key of the owner {HOST.peer_id}"
        ]
    [item] = network.written
    assert isinstance(item.key_or_tombstone, Key)
    assert item.key_id == key_id_of("web", COMPANY.peer_id)
    with called_by(COMPANY.peer_id):
        [refused] = await made.make("web", COMPANY.peer_id)
    assert "its operator adds that to agent.makes_for" in refused
    assert len(network.written) == 1


async def test_what_is_there_or_couldnt_be_looked_for_isnt_made_anew() -> None:
    for found, told in (
        (Found(a_key(), ()), []),
        (Found(None, ("too few answered",), code=Code.TIMEOUT), ["too few answered"]),
        (Found(None, ("it was removed",), code=Code.KEY_REMOVED), ["it was removed"]),
    ):
        made, network = registrar(found, ANYONE)
        with called_by(HOST.peer_id):
            assert await made.make("web", COMPANY.peer_id) == told
        assert network.written == []


async def test_without_a_registrar_it_is_said_that_nobody_was_asked() -> None:
    def on(peer_id: str) -> Any:
        raise AssertionError("there is nobody to call")

    [told] = await ask_registrars(on, (), "web", COMPANY.peer_id)
    assert "no registrar is known" in told


async def test_an_agent_that_asks_too_often_waits(autojump_clock: object) -> None:
    made, network = registrar(NOBODY, ANYONE)
    with called_by(HOST.peer_id):
        answers = [await made.make(f"web-{number}", COMPANY.peer_id) for number in range(250)]
    assert answers[:200] == [[]] * 200
    assert answers[-1] == ["too many resources were asked for; later ones are made later"]
    assert len(network.written) == 200


async def test_why_it_wasnt_written_is_told() -> None:
    network = Network()
    network.outcome = WriteOutcome(0, 1)
    keys = OwnerKeys({COMPANY.peer_id: COMPANY}, network.write, network.wait_for_clock)
    assert await keys.make("web", COMPANY.peer_id) == ("no replica took the resource",)
    assert await keys.make("w" * 100_000, COMPANY.peer_id) != ()

    async def refuse(item: Item, timeout: float) -> WriteOutcome:
        raise NodeUnavailable("no neighbours")

    keys = OwnerKeys({COMPANY.peer_id: COMPANY}, refuse, network.wait_for_clock)
    assert await keys.make("web", COMPANY.peer_id) == ("no neighbours",)


async def test_nothing_is_signed_while_the_clock_is_off() -> None:
    made, network = registrar(NOBODY, ANYONE)
    network.clock_is_off = True
    with called_by(HOST.peer_id):
        [refused] = await made.make("web", COMPANY.peer_id)
    assert "172,800 s ahead" in refused
    assert network.written == []


def test_settings_that_cant_be_meant_name_the_field_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadDefinitions) as raised:
        check_registrars(AgentSettings(makes_for=("anyone", "x"), registrars=("anyone",)), "node.toml, {}".format)
    first, second, third = raised.value.errors
    assert first.startswith("node.toml, makes_for: agent.makes_for: this node has no owner's key")
    assert second.startswith("node.toml, registrars: agent.registrars: ")
    assert third.startswith("node.toml, makes_for: agent.makes_for: ")
    assert third.endswith("`aqua-registry peers` prints a node's peer id")
    check_registrars(AgentSettings(makes_for=("anyone",), owner_keys=("x",), registrars=(HOST.peer_id,)), str)
    with pytest.raises(IdentityError, match=r"node\.toml: agent\.owner_keys: there is no file .*none; `aqua"):
        read_owner_keys([str(tmp_path / "none")], "node.toml")
    made = load_or_create_identity(tmp_path / "key.json")
    assert read_owner_keys([str(tmp_path / "key.json")], "node.toml").keys() == {made.peer_id}
