"""Commands through the node on this machine: no address, nothing of libp2p, and in the node's name."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from aqua_compat import connect
from aqua_compat.cli.node_process import NodeProcess
from registry.model.endpoints import Instance, write_instances
from registry.model.signing import key_id_of
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import command, first_line, launched, ran

HEAVY = ("libp2p", "trio", "msgspec", "cbor2", "structlog", "http.client", "ssl", "rich")


@asynccontextmanager
async def a_node(folder: Path, *flags: str) -> AsyncIterator[NodeProcess]:
    folder.parent.mkdir(exist_ok=True)
    node = NodeProcess(folder, folder.with_suffix(".log"), fork_server().open_process)
    await node.start(*flags, timeout=60)
    try:
        yield node
    finally:
        with trio.CancelScope(shield=True):
            await node.stop()


async def test_a_time_to_live_is_kept_by_the_host_and_all_shows_what_doesnt_pass_yet(tmp_path: Path) -> None:
    async with a_node(tmp_path / "aqua-registry" / "node") as node:
        home, relay = {"home": tmp_path}, ("--relay", node.address)
        resource_id = (await command("resource", "create", "web", **home)).out.strip()
        register = ("service", "register", resource_id, "--ttl", "20")
        assert (await command(*register, "--value", "one", **home)).code == 0
        refused = await command(*register, "--value", "two", *relay, **home)
        assert refused.code == 2
        assert "--ttl needs the --peer" in refused.err
        assert (await command(*register, "--value", "two", "--peer", node.peer_id, *relay, **home)).code == 0
        for through in ((), relay):
            assert (await command("resolve", resource_id, *through, **home)).out == "no services\n"
            everything = (await command("resolve", resource_id, "--all", *through, **home)).out
            assert everything.count("(critical since") == 2, everything
            assert "no services" in (await command("watch", resource_id, "-n", "1", *through, **home)).out
            watched = (await command("watch", resource_id, "-n", "1", "--all", *through, **home)).out
            assert "value one" in watched
            assert "value two" in watched


async def test_commands_act_through_the_node_and_in_its_name(tmp_path: Path) -> None:
    async with a_node(tmp_path / "aqua-registry" / "node") as node:  # where `aqua-registry node` keeps it by default
        created = await command("resource", "create", "web", home=tmp_path)
        assert (created.code, created.err) == (0, "note: created as the node's own key\n")
        resource_id = created.out.strip()
        assert resource_id == key_id_of("web", node.peer_id)

        registered = await command("service", "register", resource_id, "--value", "tcp://x", home=tmp_path)
        assert (registered.code, registered.err) == (0, "")
        assert registered.out == f"registered this node on {resource_id}, as the node's own key\n"

        # What is printed is what a client of its own prints, which connects to the node; but `me` is another.
        for arguments in (
            ("resolve", resource_id),
            ("resolve", resource_id, "--all"),
            ("resolve", resource_id, "--tag", "v1"),
            ("resolve", resource_id, "--reachable", "--meta", "zone=eu"),
            ("resolve", f"web@{node.peer_id}"),
            ("resolve", resource_id, "--reachable"),
            ("resource", "show", resource_id),
            ("resource", "list", node.peer_id),
            ("resource", "explain", resource_id),
            ("resource", "policy", resource_id),
            ("peers", resource_id),
            ("watch", resource_id, "-n", "1"),
            ("watch", resource_id, "-n", "1", "--trust", node.peer_id),
        ):
            for form in ((), ("--json",)):
                through = await command(*arguments, *form, home=tmp_path)
                relayed = await command(*arguments, *form, "--relay", node.address, home=tmp_path)
                assert (through.code, through.err) == (relayed.code, relayed.err) == (0, "")
                is_timed = arguments[0] == "watch" and not form
                outs = [each.out.replace("web@me", f"web@{node.peer_id}") for each in (through, relayed)]
                shown = [out[8:] if is_timed else out for out in outs]
                assert shown[0] == shown[1]
        status = json.loads((await command("peers", "--json", home=tmp_path)).out)
        relayed_status = json.loads((await command("peers", "--json", "--relay", node.address, home=tmp_path)).out)
        assert status.keys() == relayed_status.keys()
        assert f"node     {node.peer_id} (ready)" in (await command("peers", home=tmp_path)).out

        for owner in ((), ("--owner", "me"), ("--owner", node.peer_id)):
            its_id = await command("resource", "id", "web", *owner, home=tmp_path)
            assert (its_id.code, its_id.out.strip(), its_id.err) == (0, resource_id, "")
        named = json.loads((await command("resource", "id", "web", "--json", home=tmp_path)).out)
        assert named == {"resource_id": resource_id, "name": "web@me"}
        for as_key in (("-k", "default"), ("--relay", node.address)):
            key_id = await command("resource", "id", "web", *as_key, home=tmp_path)
            assert (key_id.code, key_id.out.strip() != resource_id) == (0, True)

        wrong = await command("resolve", "web", home=tmp_path)
        assert wrong.code == 2
        assert "'web' is neither a resource id nor a name; a name has an owner" in wrong.err
        few = await command("resource", "create", "web", "--factor", "3", home=tmp_path)
        assert (few.code, few.out) == (3, "")
        assert few.err.startswith("error: the resource wasn't created on as many replicas as asked for: 1 of 3")

        # A key of one's own connects to the same node.
        own = await command("resource", "create", "web", "-k", "mine", home=tmp_path)
        assert own.code == 0, own.err
        assert own.out.strip() != resource_id
        denied = await command("resource", "remove", resource_id, "-k", "mine", home=tmp_path)
        assert (denied.code, "only its owner" in denied.err) == (1, True)

        ended = await command("service", "unregister", resource_id, "--json", home=tmp_path)
        assert json.loads(ended.out) == {"success": True, "was_registered": True}
        assert (await command("resolve", resource_id, home=tmp_path)).out == "no services\n"
        removed = await command("resource", "remove", resource_id, home=tmp_path)
        assert (removed.code, removed.out) == (0, f"removed {resource_id}\n")


async def test_the_near_come_first_where_that_is_asked_for(tmp_path: Path) -> None:
    async with a_node(tmp_path / "one") as one, a_node(tmp_path / "other", "--bootstrap", one.address) as other:
        resource_id = key_id_of("web", one.peer_id)
        at = {node.peer_id: {"AQUA_REGISTRY_NODE": str(node.data_dir)} for node in (one, other)}
        assert (await command("resource", "create", "web", home=tmp_path, **at[one.peer_id])).code == 0
        for node in (one, other):
            value = write_instances([Instance(id="i", address="192.0.2.1", port=80, tags=("v2",))])
            done = await command(
                *("service", "register", resource_id, "--value", value, "--factor", "2"),
                home=tmp_path,
                **at[node.peer_id],
            )
            assert done.code == 0, done.err
        for node, far in ((one, other), (other, one)):
            for form in ((), ("--json",), ("--all",), ("--tag", "v2")):
                asked = ("resolve", resource_id, "--ack", "2", "--near", *form)
                shown = (await command(*asked, home=tmp_path, **at[node.peer_id])).out
                assert shown.index(node.peer_id) < shown.index(far.peer_id)
            async with connect(node.address) as client:
                found = await client.endpoints(resource_id, tags=["v2"], near=True, ack=2)
                assert [each.record.metadata.peer_id for each in found] == [node.peer_id, far.peer_id]


async def test_names_are_resolved_by_the_node_and_by_ones_own_settings(tmp_path: Path) -> None:
    async with a_node(tmp_path / "aqua-registry" / "node") as node:
        created = await command("resource", "create", "web", "--json", home=tmp_path)
        assert json.loads(created.out) == {"resource_id": key_id_of("web", node.peer_id), "name": "web@me"}
        value = write_instances(
            [
                Instance(id="a", address="192.0.2.1", port=80, tags=("v1",), metadata={"zone": "eu"}),
                Instance(id="b", address="::1", port=81, tags=("v2",), metadata={"zone": "eu"}),
                Instance(id="c", address="192.0.2.3", port=82, tags=("v2",), metadata={"zone": "eu"}, weight=9),
            ]
        )
        registered = await command("service", "register", "web@me", "--value", value, home=tmp_path)
        assert registered.out == "registered this node on web@me, as the node's own key\n"
        for form in ((), ("--json",)):
            for chosen in ((), ("--all",), ("--tag", "v2"), ("--tag", "v2", "--near"), ("--near",)):
                through = await command("resolve", "web@me", *chosen, *form, home=tmp_path)
                relayed = await command(
                    *("resolve", f"web@{node.peer_id}", *chosen, *form), "--relay", node.address, home=tmp_path
                )
                assert (through.code, through.err) == (relayed.code, relayed.err) == (0, "")
                assert through.out == relayed.out
        chosen_ones = await command("resolve", "web@me", "--tag", "v2", "--meta", "zone=eu", home=tmp_path)
        assert [line.split()[0] for line in chosen_ones.out.splitlines()] == ["192.0.2.3:82", "[::1]:81"]
        async with connect(node.address, names={"acme": node.peer_id}) as client:
            found = await client.endpoints("web@acme", tags=["v2"], metadata={"zone": "eu"})
            assert [each.instance.location for each in found] == ["192.0.2.3:82", "[::1]:81"]
            found = await client.endpoints("web@acme", order=lambda each: each.instance.id)
            assert [each.instance.id for each in found] == ["a", "b", "c"]
            assert await client.endpoints("web@acme", tags=["v1", "v2"]) == []
        [record] = json.loads((await command("resolve", "web@me", "--json", home=tmp_path)).out)
        assert [each["id"] for each in record["instances"]] == ["a", "b", "c"]

        mine = {"AQUA_REGISTRY_NAMES": json.dumps({"acme": node.peer_id})}
        shown = await command("resource", "show", "web@acme", home=tmp_path, **mine)
        assert shown.out.startswith("name     web@me\n")
        unknown = await command("watch", "web@acne", home=tmp_path, **mine)
        assert (unknown.code, "'acne' is no alias of an owner that is known here" in unknown.err) == (2, True)
        both = await command("resolve", "web@me", "--all", "--reachable", home=tmp_path)
        assert (both.code, "--all and --reachable exclude each other" in both.err) == (2, True)
        looked_at = await command("doctor", home=tmp_path)
        assert f"node {node.peer_id}" in looked_at.out
        removed = await command("resource", "remove", "web@me", home=tmp_path)
        assert (removed.code, removed.out) == (0, "removed web@me\n")


async def test_a_watch_ends_with_its_node_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "watch.log"
    async with a_node(tmp_path / "elsewhere") as node:
        unknown = key_id_of("nobody", node.peer_id)
        watch = (sys.executable, "-m", "aqua_compat", "watch", unknown, "--node", str(node.data_dir))
        async with launched(*watch, home=tmp_path, log=log) as watching:
            assert (await first_line(watching)).endswith("snapshot  no services")
            assert await node.stop() == 0
            assert await watching.wait() == 1
    assert f"note: no resource {unknown} is known yet; watching for it" in log.read_text()
    assert f"error: the node with data folder {node.data_dir} has ended" in log.read_text()


async def test_without_a_node_there_is_a_message_with_a_remedy(tmp_path: Path) -> None:
    none = await command("peers", home=tmp_path)
    assert none.code == 2
    assert none.err.startswith("error: no node to act through: start one on this machine (aqua-registry node)")
    named = await command("peers", "--node", str(tmp_path / "no"), home=tmp_path)
    assert named.code == 1
    assert named.err == (
        f"error: no node runs with the data folder {tmp_path / 'no'}; start it: aqua-registry node --data-dir"
        f" {tmp_path / 'no'}\n"
    )
    both = await command("peers", "--node", "x", "--relay", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooW", home=tmp_path)
    assert both.code == 2
    assert "--node and --relay contradict each other" in both.err


async def test_a_command_through_the_node_imports_next_to_nothing(tmp_path: Path) -> None:
    async with a_node(tmp_path / "node") as node:
        program = (
            "import sys; from aqua_compat.cli.main import cli; cli.main(sys.argv[1:], standalone_mode=False);"
            f" print([each for each in {HEAVY} if each in sys.modules])"
        )
        for arguments in (("peers",), ("resource", "create", "a"), ("watch", key_id_of("a", node.peer_id), "-n", "1")):
            ended = await ran(
                sys.executable, "-c", program, *arguments, "--node", str(node.data_dir), home=tmp_path, fresh=True
            )
            assert ended.code == 0, ended.err
            assert ended.out.splitlines()[-1] == "[]"


async def test_a_node_that_others_could_reach_unprotected_doesnt_start(tmp_path: Path) -> None:
    start = ("node", "--data-dir", str(tmp_path / "node"), "--http")
    refused = await command(*start, "0.0.0.0:0", home=tmp_path)
    assert refused.code == 2
    assert "other machines reach, and this node has no tokens" in refused.err
    made = await command("http", "token", "create", "one", "--data-dir", str(tmp_path / "node"), home=tmp_path)
    assert made.out.startswith("aqr_")
    listed = await command("http", "token", "list", "--data-dir", str(tmp_path / "node"), "--json", home=tmp_path)
    assert [(each["name"], each["grant"]) for each in json.loads(listed.out)] == [("one", "read")]
    refused = await command(*start, "0.0.0.0:0", home=tmp_path)
    assert refused.code == 2
    assert "give http.tls_certificate and http.tls_key" in refused.err
    assert (await command(*start, "nowhere", home=tmp_path)).code == 2
    gone = await command("http", "token", "remove", "one", "--data-dir", str(tmp_path / "node"), home=tmp_path)
    assert gone.code == 0
