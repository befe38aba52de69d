"""The commands for people and their scripts, against six running nodes."""

from __future__ import annotations

import json
import signal
import stat
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import trio

from aqua_compat.cli.node_process import NodeProcess
from overlay.identity import Identity
from registry.model.endpoints import Instance, write_instances
from registry.model.signing import key_id_of
from tests.end_to_end.network import MAJORITY, NODES, Network, command, first_line, launched

FACTOR = ("--factor", str(MAJORITY))
ACK = ("--ack", str(MAJORITY))
UNKNOWN = key_id_of("nobody has made this", Identity.from_seed(bytes(32)).peer_id)


async def test_people_create_register_resolve_and_unregister(network: Network, tmp_path: Path) -> None:
    dead = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    created = await command(
        "resource", "create", "echo", "--relay", dead, "--relay", network.relay(), *FACTOR, home=tmp_path
    )
    assert (created.code, created.err) == (0, "")
    resource_id = created.out.strip()
    assert (await command("resource", "id", "echo", home=tmp_path)).out.strip() == resource_id

    relay = {"AQUA_REGISTRY_RELAY": f"{dead} {network.relay()}"}
    shown = await command("resource", "show", resource_id, home=tmp_path, **relay)
    assert shown.code == 0
    assert "label    echo" in shown.out

    host = network.nodes[3].peer_id
    given = ("service", "register", resource_id, "--value", "tcp://[::1]:7", "--peer", host, "--service-id", "e")
    registered = await command(*given, *FACTOR, home=tmp_path, **relay)
    assert registered.code == 0
    assert registered.out == f"registered {host} on {resource_id}\n"

    resolved = await command("resolve", resource_id, *ACK, home=tmp_path, **relay)
    assert resolved.code == 0
    assert resolved.out.startswith(f"{host}  service e  value tcp://[::1]:7  since ")
    records = json.loads((await command("resolve", resource_id, *ACK, "--json", home=tmp_path, **relay)).out)
    assert [record["metadata"]["value"] for record in records] == ["tcp://[::1]:7"]

    # One's own record is another's only by another key.
    other = await command(
        "service", "unregister", resource_id, "--peer", host, "-k", "other", *FACTOR, home=tmp_path, **relay
    )
    assert (other.code, other.err) == (0, "")
    assert other.out == f"there was nothing of your key to unregister for {host} on {resource_id}\n"
    assert json.loads((await command("resolve", resource_id, *ACK, "--json", home=tmp_path, **relay)).out) == records
    ended = await command("service", "unregister", resource_id, "--peer", host, *FACTOR, home=tmp_path, **relay)
    assert ended.code == 0
    assert (await command("resolve", resource_id, *ACK, home=tmp_path, **relay)).out == "no services\n"


async def test_names_stand_for_ids_and_instances_are_chosen_by_tag_and_metadata(
    network: Network, tmp_path: Path
) -> None:
    relay = {"AQUA_REGISTRY_RELAY": network.relay()}
    owner = (await command("key", "new", "company", home=tmp_path)).out.strip()
    aliases = tmp_path / "names.toml"
    aliases.write_text(f'[names]\nacme = "{owner}"\n')
    relay["AQUA_REGISTRY_CONFIG"] = str(aliases)
    created = await command("resource", "create", "web@2", "-k", "company", *FACTOR, "--json", home=tmp_path, **relay)
    assert json.loads(created.out)["name"] == "web@2@acme"

    value = write_instances(
        [
            Instance(id="a", address="192.0.2.1", port=80, tags=("v1",), metadata={"zone": "eu"}),
            Instance(id="b", address="192.0.2.2", port=81, tags=("v2",), metadata={"zone": "eu"}),
            Instance(id="c", address="192.0.2.3", port=82, tags=("v2",), metadata={"zone": "eu"}, weight=9),
            Instance(id="d", address="192.0.2.4", port=83, tags=("v2",), metadata={"zone": "us"}),
        ]
    )
    registered = await command("service", "register", "web@2@acme", "--value", value, *FACTOR, home=tmp_path, **relay)
    assert (registered.code, registered.err) == (0, "")
    assert registered.out.endswith(" on web@2@acme\n")
    wanted = ("resolve", "web@2@acme", "--tag", "v2", "--meta", "zone=eu", *ACK)
    chosen = await command(*wanted, home=tmp_path, **relay)
    assert [line.split()[0] for line in chosen.out.splitlines()] == ["192.0.2.3:82", "192.0.2.2:81"], chosen
    (record,) = json.loads((await command(*wanted, "--json", home=tmp_path, **relay)).out)
    assert [instance["id"] for instance in record["instances"]] == ["c", "b"]
    assert record["metadata"]["value"] == value
    every = await command("resolve", f"web@2@{owner}", *ACK, home=tmp_path, **relay)
    assert every.out.count("\n") == 4
    none = await command("resolve", "web@2@me", "-k", "company", "--tag", "v3", *ACK, home=tmp_path, **relay)
    assert (none.code, none.out) == (0, "no services, or none with these tags and metadata\n")
    shown = await command("resource", "show", "web@2@acme", home=tmp_path, **relay)
    assert shown.out.startswith("name     web@2@acme\n"), shown
    called = await command("run", "-f", 'resolveResource("web@2@acme", 1)', home=tmp_path, **relay)
    assert json.loads(called.out)[0][0]["metadata"]["value"] == value

    unknown = await command("watch", "web@acne", home=tmp_path, **relay)
    assert unknown.code == 2
    assert "'acne' is no alias of an owner that is known here, nor a peer id; did you mean acme?" in unknown.err
    wrong = await command("resolve", "web@acme", "--meta", "zone", home=tmp_path, **relay)
    assert (wrong.code, "--meta 'zone' has no `=`" in wrong.err) == (2, True)


async def test_a_write_on_fewer_replicas_than_asked_for_says_so_and_goes_on(network: Network, tmp_path: Path) -> None:
    relay = {"AQUA_REGISTRY_RELAY": network.relay()}
    more = len(network.nodes) + 1
    created = await command("resource", "create", "echo", "--factor", str(more), home=tmp_path, **relay)
    assert (created.code, created.out) == (3, "")
    assert created.err == (
        f"error: the resource 'echo' wasn't created on as many replicas as asked for: {NODES} of {more} replicas are"
        f" known; {NODES} of {more} replicas have it on disk, and the write goes on\n"
    )
    resource_id = (await command("resource", "id", "echo", home=tmp_path)).out.strip()
    resolved = await command("resolve", resource_id, "--ack", str(NODES), home=tmp_path, **relay)
    assert (resolved.code, resolved.out) == (0, "no services\n"), resolved.err


async def test_run_is_quiet_as_the_originals(network: Network, tmp_path: Path) -> None:
    call = ("run", "-f", f'getResource("{UNKNOWN}")', "--relay", network.relay())
    quiet = await command(*call, "--quiet", "--particle-id", "--log-level", "debug", home=tmp_path)
    assert (quiet.code, quiet.err) == (1, "")
    assert json.loads(quiet.out)[0] is None
    told = await command(*call, "--particle-id", home=tmp_path)
    assert (told.code, told.out.count("\n")) == (1, 1)
    assert told.err == (
        "no particle: the node's functions are called natively\nerror: getResource failed; its result says why\n"
    )


async def test_every_command_for_people_prints_json_for_scripts_on_demand(network: Network, tmp_path: Path) -> None:
    async def json_of(*arguments: str) -> object:
        ended = await command(*arguments, "--json", home=tmp_path, AQUA_REGISTRY_RELAY=network.relay())
        assert (ended.code, ended.err) == (0, "")
        return json.loads(ended.out)

    created = await json_of("resource", "create", "scripted", *FACTOR)
    resource_id = (await command("resource", "id", "scripted", home=tmp_path)).out.strip()
    assert created == await json_of_id(tmp_path) == {"resource_id": resource_id, "name": "scripted@me"}
    assert await json_of("service", "register", resource_id, "--value", "v", *FACTOR) == {"success": True}
    assert await json_of("service", "unregister", resource_id, *FACTOR) == {
        "success": True,
        "was_registered": True,
    }
    assert await json_of("resolve", resource_id, *ACK) == []


async def json_of_id(home: Path) -> object:
    return json.loads((await command("resource", "id", "scripted", "--json", home=home)).out)


async def test_two_commands_of_one_key_at_once_both_succeed(network: Network, tmp_path: Path) -> None:
    codes: list[int] = []

    async def create(label: str) -> None:
        arguments = ("resource", "create", label, "--relay", network.relay(), "--timeout", "60")
        codes.append((await command(*arguments, home=tmp_path)).code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create, "one")
        nursery.start_soon(create, "two")
    assert codes == [0, 0]


async def test_peers_tells_the_members_of_the_network(network: Network, tmp_path: Path) -> None:
    shown = await command("peers", "--relay", network.nodes[0].address, home=tmp_path)
    runs = f" {version('aqua-registry')} protocol 3.0"
    assert f"member   {network.nodes[1].peer_id}{runs}\n" in shown.out
    assert "\nloop     late by " in shown.out
    told = await command("peers", "--relay", network.nodes[0].address, "--json", home=tmp_path)
    status = json.loads(told.out)
    assert status["peer_id"] == network.nodes[0].peer_id
    assert set(status["members"]) == {node.peer_id for node in network.nodes[1:]}
    near = await command("peers", UNKNOWN, "--relay", network.relay(), home=tmp_path)
    assert set(near.out.split()) == {node.peer_id for node in network.nodes}


async def test_keys_are_private_and_made_once(tmp_path: Path) -> None:
    made = await command("key", "new", "me", home=tmp_path)
    assert made.code == 0
    file = tmp_path / "aqua-registry" / "keys" / "me.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await command("key", "new", "me", home=tmp_path)).code == 1
    shown = await command("key", "show", home=tmp_path)
    assert shown.out == f"me\t{made.out.strip()}\t{file}\n"
    secret = json.loads(file.read_text())["ed25519_seed"]
    assert secret not in shown.out + shown.err + made.out + made.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("resolve", UNKNOWN), "no node to act through: start one on this machine"),
        (
            ("resolve", "echo"),
            "'echo' is neither a resource id nor a name; a name has an owner: echo@me is that of your key",
        ),
        (
            ("resolve", UNKNOWN, "--relay", "nonsense"),
            "not a multiaddr: 'nonsense'; one is like /ip4/203.0.113.5/tcp/7000",
        ),
        (("resolve", UNKNOWN, "--timeout", "nan"), "nan is no number of seconds"),
        (("run", "-f", "resolveResource(1"), "expected ',' or ')' at character 18"),
        (("run", "-f", "resolveResource(id, 1)"), "id has no value; give one, as in --data"),
        (("run", "-f", 'resolveResource("id", 70000)'), "ack is 70000, not within 0 and 32767"),
        (("run", "-f", "resolveResource()"), "takes 2 arguments (resource_id: ResourceId, ack: i16), not 0"),
        (("run", "-f", "evict()"), "there is no function evict"),
        (("run", "-f", 'executeOnResource("id", 1, nil)'), "which JSON can't express"),
        (("run", "-f", "getResource(1)", "--data", "["), "--data isn't JSON"),
        (("node", "--listen", "nonsense"), "nonsense"),
        (("node", "--config", "none.toml"), "can't read the configuration none.toml"),
        (("key", "new", "../me"), "can't name a key"),
    ],
)
async def test_wrong_usage_is_told_on_one_line_with_exit_code_2(
    arguments: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    finished = await command(*arguments, home=tmp_path)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith("error: ")
    assert text in finished.err
    assert finished.err.count("\n") == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_node_logs_json_prints_addresses_and_ends_with_0(how: signal.Signals, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[overlay]\nlisten = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"]\n')
    flags = ("--data-dir", str(tmp_path / "data"), "--config", str(config), "--log-format", "json")
    async with launched(
        sys.executable, "-m", "aqua_compat", "node", *flags, home=tmp_path, log=tmp_path / "log"
    ) as process:
        lines = [await first_line(process) for _ in range(3)]
        assert lines[2] == "ready"
        assert sorted("/ws/p2p/12D3KooW" in line for line in lines[:2]) == [False, True]
        process.send_signal(how)
        with trio.fail_after(5):
            assert await process.wait() == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events[0] == "listening"
    assert events[-1] == "stopping"


async def test_an_owner_removes_a_resource_and_others_cant(network: Network, tmp_path: Path) -> None:
    relay = ("--relay", network.relay())
    created = await command("resource", "create", "removed", *relay, "--factor", str(NODES), home=tmp_path)
    resource_id = created.out.strip()
    assert (await command("service", "register", resource_id, *relay, "--factor", str(NODES), home=tmp_path)).code == 0
    other = await command("resource", "remove", resource_id, *relay, "-k", "other", home=tmp_path)
    assert (other.code, "only its owner" in other.err) == (1, True)
    removed = await command("resource", "remove", resource_id, *relay, "--factor", str(NODES), home=tmp_path)
    assert (removed.code, removed.out) == (0, f"removed {resource_id}\n")
    resolved = await command("resolve", resource_id, "--relay", network.relay(), home=tmp_path)
    assert (resolved.code, "was removed by its owner" in resolved.err) == (1, True)
    explained = await command("resource", "explain", resource_id, "--json", *relay, home=tmp_path)
    assert [event["what"] for event in json.loads(explained.out)] == ["stored", "stored", "removed", "removed"]


async def test_only_operators_run_a_nodes_schedules(network: Network, tmp_path: Path) -> None:
    refused = await command("upkeep", "replicate_3600", "--relay", network.relay(), home=tmp_path)
    why = "only the node's operator may call this; its setting `operators` names them"
    assert (refused.code, refused.err) == (1, f"error: the schedule replicate_3600: {why}\n")
    await command("key", "new", "operator", home=tmp_path)
    key = await command("key", "show", "operator", "--json", home=tmp_path)
    peer_id = json.loads(key.out)["peer_id"]
    node = NodeProcess(tmp_path / "node", tmp_path / "log")
    configuration = tmp_path / "node.toml"
    configuration.write_text(f'operators = ["{peer_id}"]\n')
    await node.start("--config", str(configuration), "--bootstrap", network.relay(), timeout=60)
    try:
        ran = await command("upkeep", "clearExpired_86400", "--relay", node.address, "-k", "operator", home=tmp_path)
        assert (ran.code, ran.out.startswith("clearExpired_86400: keys 0, records 0")) == (0, True)
        unknown = await command("upkeep", "nope", "--relay", node.address, "-k", "operator", home=tmp_path)
        assert (unknown.code, "no schedule nope; there are clearExpired_86400" in unknown.err) == (1, True)
    finally:
        await node.stop()
        await network.settled()
