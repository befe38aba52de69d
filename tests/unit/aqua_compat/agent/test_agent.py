"""What an agent registers, over a registry that answers what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
import trio
import trio.testing

from aqua_compat.agent.agent import Agent, Changes
from aqua_compat.agent.check_runner import CheckKey
from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.definitions import CheckDefinition, DefinedInstance, OnStop, ServiceDefinition, TtlCheck
from aqua_compat.agent.memory import AgentMemory, Remembered
from aqua_compat.agent.service_files import BadDefinitions, Definitions, read_text
from aqua_compat.agent.wanted import registrations_of
from registry.client.results import Created, Done, Found
from registry.codes import Code
from registry.errors import ClockOff
from registry.model.endpoints import Instance, instances_in
from registry.model.names import Names
from registry.model.signing import key_id_of
from tests.unit.aqua_compat.acting import HOST, OWNER, ScriptedRegistry, a_key

ADDRESSES = ["/ip4/127.0.0.1/tcp/1/p2p/x", "/ip4/192.0.2.9/tcp/7000/p2p/x"]


def service(service_id: str, label: str = "", owner: str = OWNER.peer_id, **fields: Any) -> ServiceDefinition:
    label, port, checks = label or service_id, fields.pop("port", 80), fields.pop("checks", ())
    return ServiceDefinition(
        id=service_id,
        label=label,
        owner=owner,
        key_id=key_id_of(label, owner),
        instances=(DefinedInstance(instance=Instance(id=service_id, port=port), checks=checks),),
        **fields,
    )


def test_services_of_one_resource_are_one_record_with_the_nodes_address() -> None:
    one, two, other = service("a", "web"), service("b", "web", on_stop=OnStop.STAY), service("c", port=0)
    found = registrations_of([one, two, other], "192.0.2.9")
    web = found[one.key_id]
    assert [(each.id, each.location) for each in instances_in(web.value)] == [
        ("a", "192.0.2.9:80"),
        ("b", "192.0.2.9:80"),
    ]
    assert (web.stays, found[other.key_id].stays) == (True, False)
    assert instances_in(found[other.key_id].value)[0].address == "", "without a port there is nothing to reach"


class Defined:
    """What is defined at the moment: services, or errors."""

    def __init__(self, *services: ServiceDefinition) -> None:
        self.services = services
        self.errors: list[str] = []

    def read(self) -> Definitions:
        if self.errors:
            raise BadDefinitions(self.errors)
        return Definitions(self.services, ())

    def read_text(self, name: str, text: str) -> Definitions:
        return read_text(name, text, Names({}, OWNER.peer_id))


@asynccontextmanager
async def running(registry: ScriptedRegistry, defined: Defined, folder: Path) -> AsyncIterator[Agent]:
    agent = Agent(
        cast("Any", registry),
        defined,
        lambda: ADDRESSES,
        AgentMemory(folder / "agent.json"),
        trio.lowlevel.checkpoint,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(agent.run)
        await settled()
        yield agent
        nursery.cancel_scope.cancel()


async def settled() -> None:
    """Until the agent waits for something new, and not for a thread that keeps what it remembers."""
    await trio.testing.wait_all_tasks_blocked(0.01)
    while trio.to_thread.current_default_thread_limiter().borrowed_tokens:
        await trio.testing.wait_all_tasks_blocked(0.01)


def registry(**answers: object) -> ScriptedRegistry:
    usual = {
        "get_resource": Found(a_key(), ()),
        "create_resource": Created("id", ()),
        "register_service": Done(True, (), 1),
        "unregister_service": Done(True, ()),
        "report_health": Done(True, ()),
    }
    return ScriptedRegistry(**(usual | answers))


def asked(registry: ScriptedRegistry) -> list[tuple[str, str]]:
    return [(name, str(arguments[0])) for name, arguments, _ in registry.asked]


async def test_services_are_registered_and_end_with_the_agent_unless_they_stay(tmp_path: Path) -> None:
    gone, stays = service("gone"), service("stays", on_stop=OnStop.STAY)
    acted = registry()
    async with running(acted, Defined(gone, stays), tmp_path) as agent:
        registered = {arguments[0]: arguments for name, arguments, _ in acted.asked if name == "register_service"}
        assert registered.keys() == {gone.key_id, stays.key_id}
        _, value, peer_id, service_id = registered[gone.key_id]
        assert (instances_in(str(value))[0].location, peer_id, service_id) == ("192.0.2.9:80", OWNER.peer_id, None)
        await agent.stop()
    assert [one for one in asked(acted) if one[0] == "unregister_service"] == [("unregister_service", gone.key_id)]


async def test_a_resource_is_made_by_its_owner_only(tmp_path: Path) -> None:
    mine, theirs = service("mine"), service("theirs", owner=HOST.peer_id)
    acted = registry(get_resource=Found(None, ("resource not found",)))
    async with running(acted, Defined(mine, theirs), tmp_path):
        assert [one for one in asked(acted) if one[0] != "get_resource"] == [
            ("create_resource", "mine"),
            ("register_service", mine.key_id),
        ]


async def test_what_cant_be_registered_is_tried_again_later(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    acted = registry(register_service=Done(False, ("refused",)))
    async with running(acted, Defined(service("web")), tmp_path):
        await trio.sleep(10)
        times = [name for name, _ in asked(acted)].count("register_service")
        assert times == 4, "after 1, 2 and 4 seconds"
        acted.answers["register_service"] = Done(True, (), 1)
        await trio.sleep(1000)
        assert [name for name, _ in asked(acted)].count("register_service") == times + 1


async def test_reading_again_changes_what_changed(tmp_path: Path) -> None:
    same, old = service("same"), service("old")
    defined, acted = Defined(same, old, service("port", port=1)), registry()
    async with running(acted, defined, tmp_path) as agent:
        acted.asked.clear()
        defined.services = (same, service("new"), service("port", port=2))
        assert await agent.reload() == Changes(("new",), ("port",), ("old",))
        await settled()
        did = [one for one in asked(acted) if one[0] != "get_resource"]
        assert did[0] == ("unregister_service", old.key_id)
        assert set(did[1:]) == {
            ("register_service", key_id_of("new", OWNER.peer_id)),
            ("register_service", key_id_of("port", OWNER.peer_id)),
        }


async def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    defined, acted = Defined(service("web")), registry()
    async with running(acted, defined, tmp_path) as agent:
        acted.asked.clear()
        defined.errors = ["bad.toml: isn't TOML"]
        with pytest.raises(BadDefinitions, match=r"bad\.toml"):
            await agent.reload()
        await settled()
        assert acted.asked == []
    defined.errors = ["bad.toml: isn't TOML"]
    with pytest.raises(BadDefinitions, match=r"bad\.toml"):
        await Agent(
            cast("Any", acted), defined, lambda: ADDRESSES, AgentMemory(tmp_path / "new"), trio.lowlevel.checkpoint
        ).run()


async def test_what_was_cut_off_on_the_way_is_ended_too(tmp_path: Path) -> None:
    begun = trio.Event()

    async def hang(*_arguments: object, **_options: object) -> Done:
        begun.set()
        await trio.sleep_forever()
        raise AssertionError

    ended: list[str] = []

    async def unregister(key_id: str, *_arguments: object, **_options: object) -> Done:
        ended.append(key_id)
        return Done(True, ())

    async def found(_key_id: str) -> Found:
        return Found(a_key(), ())

    acted = SimpleNamespace(
        identity=OWNER,
        peer_id=OWNER.peer_id,
        get_resource=found,
        register_service=hang,
        unregister_service=unregister,
    )
    async with running(cast("Any", acted), Defined(service("web")), tmp_path) as agent:
        await begun.wait()
        await agent.stop()
    assert ended == [service("web").key_id]


async def test_what_isnt_defined_any_more_after_a_restart_ends(tmp_path: Path) -> None:
    old, kept, stays = service("old"), service("kept"), service("stays", on_stop=OnStop.STAY)
    async with running(registry(), Defined(old, kept, stays), tmp_path):
        pass  # it is cut off, as by `kill -9`
    memory = AgentMemory(tmp_path / "agent.json")
    assert {(one.key_id, one.stays) for one in memory.read()} == {
        (old.key_id, False),
        (kept.key_id, False),
        (stays.key_id, True),
    }
    again = registry()
    async with running(again, Defined(kept), tmp_path) as agent:
        ended = {key_id for name, key_id in asked(again) if name == "unregister_service"}
        assert ended == {old.key_id, stays.key_id}
        await agent.stop()
    assert memory.read() == []


def test_a_memory_that_is_damaged_is_none(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    file.write_text('[["k", 1')
    assert AgentMemory(file).read() == []
    AgentMemory(file).keep([Remembered("k", "web", "o", stays=False)])
    assert AgentMemory(file).read() == [Remembered("k", "web", "o", stays=False)]
    AgentMemory(tmp_path / "none" / "agent.json").keep([])


async def test_what_couldnt_be_ended_is_tried_again(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    defined, acted = Defined(service("web")), registry(unregister_service=Done(False, ("nobody",)))
    async with running(acted, defined, tmp_path) as agent:
        defined.services = ()
        await agent.reload()
        await trio.sleep(3)
        assert [name for name, _ in asked(acted)].count("unregister_service") >= 2
        acted.answers["unregister_service"] = Done(True, ())
        await trio.sleep(200)
        await settled()
        assert AgentMemory(tmp_path / "agent.json").read() == []


TTL_CHECK = CheckDefinition(name="ttl", probe=TtlCheck(ttl=1_000))


def told(registry: ScriptedRegistry) -> list[tuple[object, ...]]:
    """What was said of health: resource, state, note, instance."""
    return [
        (arguments[0], str(arguments[1]), arguments[2], options["instance"])
        for name, arguments, options in registry.asked
        if name == "report_health"
    ]


async def test_checks_are_the_health_of_their_instance_critical_until_they_pass(tmp_path: Path) -> None:
    checked, plain = service("checked", checks=(TTL_CHECK,)), service("plain")
    acted = registry()
    async with running(acted, Defined(checked, plain), tmp_path) as agent:
        ttls = {args[0]: options["ttl"] for name, args, options in acted.asked if name == "register_service"}
        assert ttls == {checked.key_id: 120.0, plain.key_id: None}
        assert told(acted) == [(checked.key_id, "critical", "not checked yet", "")]
        for state, shown in ((CheckState.PASSING, "passing"), (CheckState.WARNING, "warning")):
            acted.asked.clear()
            note = "hot" if state is CheckState.WARNING else ""
            assert agent.checks.report(CheckKey("checked", "checked", "ttl"), CheckResult(state, note))
            await settled()
            assert told(acted) == [(checked.key_id, shown, note, "")]


async def test_after_a_restart_the_record_on_disk_is_told_of_before_the_network_is_there(tmp_path: Path) -> None:
    checked = service("checked", checks=(TTL_CHECK,))
    async with running(registry(), Defined(checked), tmp_path):
        pass
    acted = registry()
    agent = Agent(
        cast("Any", acted), Defined(checked), lambda: ADDRESSES, AgentMemory(tmp_path / "agent.json"),
        trio.sleep_forever,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(agent.run)
        await settled()
        assert [one[1:] for one in told(acted)] == [("critical", "not checked yet", "")]
        nursery.cancel_scope.cancel()


async def test_an_owner_whose_policy_refuses_us_is_told_with_file_and_remedy(tmp_path: Path) -> None:
    theirs = service("theirs", owner=HOST.peer_id, source="/etc/services/web.toml")
    refused = Done(False, ("its policy doesn't name the issuer",), code=Code.ISSUER_NOT_ALLOWED)
    with structlog.testing.capture_logs() as logged:
        async with running(registry(register_service=refused), Defined(theirs), tmp_path):
            pass
    [told] = [each for each in logged if each["event"] == "a service isn't registered yet"]
    assert told["defined_in"] == "/etc/services/web.toml"
    assert told["errors"] == [
        "its policy doesn't name the issuer",
        f"its owner permits it by `aqua-registry resource policy {theirs.key_id} --allow {OWNER.peer_id}`",
    ]


async def test_a_clock_that_is_off_is_told_with_file_and_remedy_and_it_is_registered_once_that_is_set(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    off = ClockOff("172,800 s ahead of 3 peers'")
    acted = registry(register_service=Done(False, (str(off),), code=off.code))
    with structlog.testing.capture_logs() as logged:
        async with running(acted, Defined(service("web", source="/etc/services/web.toml")), tmp_path):
            acted.answers["register_service"] = Done(True, ())
            await trio.sleep(10)
    [told] = [each for each in logged if each["event"] == "a service isn't registered yet"]
    assert told["defined_in"] == "/etc/services/web.toml"
    assert told["errors"] == ["this machine's clock is 172,800 s ahead of 3 peers'; set it"]
    assert [each["event"] for each in logged if each["event"] == "a service is registered"]


async def test_another_owners_resource_is_made_by_who_may_and_only_where_nobody_has_it(tmp_path: Path) -> None:
    theirs, asked_for, answers = service("web", owner=HOST.peer_id), [], [("not now",), ()]

    async def make(label: str, owner: str) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        asked_for.append((label, owner))
        return answers.pop(0)

    for code, registered in ((Code.TIMEOUT, False), (Code.KEY_NOT_EXISTS, False), (Code.KEY_NOT_EXISTS, True)):
        acted = registry(get_resource=Found(None, ("resource not found",), code=code))
        agent = Agent(
            cast("Any", acted), Defined(theirs), lambda: ADDRESSES, AgentMemory(tmp_path / "agent.json"),
            trio.lowlevel.checkpoint, make,
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            await nursery.start(agent.run)
            await settled()
            nursery.cancel_scope.cancel()
        assert (("register_service", theirs.key_id) in asked(acted)) is registered
    assert asked_for == [("web", HOST.peer_id)] * 2


LENT = """
[[service]]
name = "lent"
port = 80
[[service.check]]
ttl = 1000
"""


async def test_what_is_lent_is_registered_once_it_passes_and_for_as_long_as_it_is(tmp_path: Path) -> None:
    acted, defined = registry(), Defined(service("own"))
    key_id = key_id_of("lent", OWNER.peer_id)
    async with running(acted, defined, tmp_path) as agent:
        async with agent.lent("a.toml", LENT):
            await settled()
            assert ("register_service", key_id) not in asked(acted)
            assert agent.checks.report(agent.checks.reported_by("lent"), CheckResult(CheckState.PASSING))
            await settled()
            assert ("register_service", key_id) in asked(acted)
            acted.asked.clear()
            assert agent.checks.report(agent.checks.reported_by("lent"), CheckResult(CheckState.CRITICAL, "no"))
            await settled()
            assert [one[0] for one in asked(acted)] == ["report_health"], "it stays, and isn't called"
            twice = r"b\.toml, line 2: two services have the id 'lent', the other in a\.toml, line 2"
            with pytest.raises(BadDefinitions, match=twice):
                await agent.check_lent("b.toml", LENT)
            defined.services = (service("lent"),)
            with pytest.raises(BadDefinitions, match="two services have the id 'lent'"):
                await agent.reload()
            assert agent.leases == 1
        await settled()
        assert ("unregister_service", key_id) in asked(acted)
        assert agent.leases == 0
        assert await agent.reload() == Changes(("lent",), (), ("own",))
