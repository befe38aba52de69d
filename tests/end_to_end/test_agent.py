"""A node that keeps the services of its machine registered, by files, until it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import trio

from aqua_compat import AquaClient, connect
from aqua_compat.api.full_node import identity_in
from aqua_compat.cli.node_process import NodeProcess
from overlay.identity import Identity
from overlay.settings import NetworkSettings, OverlaySettings
from registry.model.endpoints import instances_in
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import Finished, Network, Process, command, eventually, first_line, launched
from tests.ports import free_port


async def locations(client: AquaClient, name: str) -> list[str]:
    records, _ = await client.resolveResource(name, 1)
    if records is None:
        return []
    return sorted(endpoint.instance.location for endpoint in await client.endpoints(name))


async def test_services_are_registered_by_files_reread_on_sighup_and_end_with_the_node(
    own_network: Network, tmp_path: Path
) -> None:
    owner = (await command("key", "new", "company", home=tmp_path)).out.strip()
    made = await command("resource", "create", "db", "-k", "company", "--relay", own_network.relay(), home=tmp_path)
    assert made.code == 0
    folder, config = tmp_path / "services", tmp_path / "node.toml"
    folder.mkdir()
    config.write_text(f'names.acme = "{owner}"\n[[service]]\nname = "kept"\nport = 1\non_stop = "stay"\n')
    file = folder / "web.toml"
    file.write_text('[[service]]\nname = "web"\nport = 8080\ntags = ["v1"]\n')
    (folder / "db.json").write_text(
        json.dumps({"service": {"name": "db", "owner": "acme", "address": "192.0.2.1", "port": 5432}})
    )
    node = NodeProcess(tmp_path / "node", tmp_path / "node.log", fork_server().open_process)
    await node.start(
        *("--bootstrap", own_network.nodes[0].address, "--services", str(folder), "--config", str(config)), timeout=60
    )

    async def asked(*arguments: str) -> Finished:
        return await command(*arguments, "--node", str(node.data_dir), home=tmp_path)

    try:
        assert node.process_id is not None
        aliases = {"acme": owner, "machine": node.peer_id}
        async with connect(own_network.nodes[1].address, names=aliases) as client:
            for name, location in (
                ("web@machine", "127.0.0.1:8080"),
                ("db@acme", "192.0.2.1:5432"),
                ("kept@machine", "127.0.0.1:1"),
            ):
                await eventually(partial(locations, client, name), [location].__eq__, timeout=30)

            file.write_text('[[service]]\nname = "web"\nport = 70000\n')
            os.kill(node.process_id, signal.SIGHUP)
            told = "port isn't within 0 and 65535: 70000"
            await eventually(partial(log_of, node), lambda log: told in log, timeout=30)
            refused = await asked("reload")
            assert (refused.code, refused.out) == (1, "")
            assert f"services are as before: {file}, line 1: service 1 (web): {told}" in refused.err
            assert await locations(client, "web@machine") == ["127.0.0.1:8080"]

            file.write_text('[[service]]\nname = "web"\nport = 8081\n[[service.check]]\nttl = 60\n')
            (folder / "db.json").unlink()
            assert (await asked("reload")).out == "changed web\nremoved db\n"
            assert (await asked("reload")).out == "nothing changed\n"
            assert "web/web/ttl  ttl  critical for " in (await asked("check", "list")).out
            assert (await asked("check", "warn", "web", "--note", "hot")).code == 0
            assert [each["note"] for each in json.loads((await asked("check", "list", "--json")).out)] == ["hot"]
            nobody = await asked("check", "pass", "db")
            assert (nobody.code, nobody.out) == (1, "")
            assert "'db' is no service with a check of kind ttl; of these there are: web/web/ttl" in nobody.err
            shown = await asked("resolve", f"web@{node.peer_id}", "--all")
            assert "(warning since " in shown.out
            assert ": hot)" in shown.out

            file.write_text('[[service]]\nname = "web"\nport = 8081\n')
            os.kill(node.process_id, signal.SIGHUP)
            await eventually(partial(locations, client, "web@machine"), ["127.0.0.1:8081"].__eq__, timeout=30)
            await eventually(partial(locations, client, "db@acme"), [].__eq__, timeout=30)
            assert node.alive

            assert await node.stop(timeout=20) == 0
            await eventually(partial(locations, client, "web@machine"), [].__eq__, timeout=30)
            assert await locations(client, "kept@machine") == [], "its host is down"
            [kept] = await client.resolve("kept@machine", include_down=True)
            assert [each.location for each in instances_in(kept.metadata.value)] == ["127.0.0.1:1"]
    finally:
        await node.kill()


async def log_of(node: NodeProcess) -> str:
    return await trio.Path(node.log_file).read_text()


async def test_a_node_with_a_wrong_file_doesnt_start_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('[[service]]\nname = "web"\nprot = 1\n')
    ended = await command("node", "--data-dir", str(tmp_path / "node"), "--services", str(tmp_path), home=tmp_path)
    assert ended.code == 1
    assert f"{tmp_path / 'bad.toml'}, line 1: service 1, prot: there is no such key; did you mean port?" in ended.err


@pytest.fixture
def port() -> int:
    """One at which nobody listens."""
    return free_port()


async def test_what_dies_is_critical_and_what_its_machine_hosts_is_gone(
    own_network: Network, tmp_path: Path, port: int
) -> None:
    (tmp_path / "web.toml").write_text(
        f'[[service]]\nname = "web"\nport = {port}\n[[service.check]]\nhttp = "http://127.0.0.1:{port}/"\n'
        "interval = 1\ntimeout = 1\n"
    )
    data, elsewhere = tmp_path / "node", own_network.nodes[1].data_dir
    node = NodeProcess(data, tmp_path / "node.log", fork_server().open_process)
    flags = ("--bootstrap", own_network.nodes[0].address, "--services", str(tmp_path))

    async def resolved(*options: str, folder: Path = data) -> Finished:
        return await command("resolve", f"web@{node.peer_id}", "--node", str(folder), *options, home=tmp_path)

    await node.start(*flags, timeout=60)
    try:
        away = await eventually(partial(resolved, "--all"), lambda done: "critical" in done.out, timeout=30)
        assert f"127.0.0.1:{port}" in away.out
        assert (await resolved()).out == "no services\n"
        server = await trio.lowlevel.open_process([sys.executable, "-m", "http.server", str(port)], cwd=tmp_path)
        try:
            found = await eventually(resolved, lambda done: f":{port}" in done.out, timeout=10)
            assert "critical" not in found.out
            watching = ("-m", "aqua_compat", "watch", f"web@{node.peer_id}", "--node", str(elsewhere))
            async with launched(sys.executable, *watching, home=tmp_path, log=tmp_path / "watch.log") as watch:
                assert str(port) in await first_line(watch)
                server.kill()
                await server.wait()
                killed = trio.current_time()
                told = await first_line(watch)
                assert trio.current_time() - killed < 2 + 1, "an interval and a timeout, and what it takes here"
            assert "health" in told
            assert "critical" in told
            assert "Connection refused" in told
        finally:
            server.kill()
            await server.wait()
        assert (await resolved(folder=elsewhere)).out == "no services\n"
        for folder in (data, elsewhere):
            shown = await resolved("--all", folder=folder)
            assert "critical" in shown.out
            assert "Connection refused" in shown.out
        await node.kill()
        killed = trio.current_time()
        gone = partial(resolved, "--all", folder=elsewhere)
        await eventually(gone, lambda done: "down for" in done.out, timeout=7)
        assert trio.current_time() - killed < 7
    finally:
        await node.kill()


SERVER = """
import http.server, signal, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if ready else 503)
        self.end_headers()
    def log_message(self, *_): pass
ready = False
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
def end(number, _):
    print("ended by", signal.Signals(number).name, flush=True)
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGUSR1, end)
def be_ready():
    global ready
    sys.stdin.readline()
    ready = True
threading.Thread(target=be_ready, daemon=True).start()
print("serving", flush=True)
server.serve_forever()
sys.exit(7)
"""


async def test_a_program_is_registered_once_it_passes_and_for_as_long_as_it_runs(tmp_path: Path, port: int) -> None:
    file = tmp_path / "web.toml"
    check = f'[[service.check]]\nhttp = "http://127.0.0.1:{port}/"\ninterval = 0.2\n'
    file.write_text(f'[[service]]\nname = "web"\nport = {port}\n{check}')
    data = tmp_path / "aqua-registry" / "node"
    data.parent.mkdir()
    node = NodeProcess(data, tmp_path / "node.log", fork_server().open_process)
    await node.start(timeout=60)
    running = ("-m", "aqua_compat", "exec", "--service", str(file), "--", sys.executable, "-c", SERVER, str(port))

    async def listed() -> str:
        return (await command("resolve", "web@me", "--all", home=tmp_path)).out

    def program() -> AbstractAsyncContextManager[Process]:
        return launched(sys.executable, *running, home=tmp_path, log=tmp_path / "log", stdin=subprocess.PIPE)

    try:
        async with program() as process:
            assert await first_line(process) == "serving"
            checks = ("check", "list", "--json")
            await eventually(lambda: command(*checks, home=tmp_path), lambda done: "HTTP 503" in done.out, timeout=20)
            assert (await command("resolve", "web@me", home=tmp_path)).code == 1, "nothing was registered"
            assert process.stdin is not None
            await process.stdin.send_all(b"now\n")
            await eventually(listed, lambda out: f"127.0.0.1:{port}" in out, timeout=20)

            twice = await command("exec", "--service", str(file), "--", "true", home=tmp_path)
            assert (twice.code, "two services have the id 'web'" in twice.err) == (1, True)

            process.send_signal(signal.SIGUSR1)
            assert await first_line(process) == "ended by SIGUSR1"
            assert await process.wait() == 7
        await eventually(listed, "no services\n".__eq__, timeout=20)

        file.write_text('[[service]]\nname = "web"\nport = 70000\n')
        wrong = await command("exec", "--service", str(file), "--", "touch", str(tmp_path / "ran"), home=tmp_path)
        assert (wrong.code, wrong.out) == (1, "")
        assert wrong.err.startswith(f"error: {file}, line 1: service 1 (web): port isn't within 0 and 65535: 70000")
        assert not (tmp_path / "ran").exists()
        file.write_text(f'[[service]]\nname = "web"\nport = {port}\n')
        missing = await command("exec", "--service", str(file), "--", "no-such-program", home=tmp_path)
        assert (missing.code, missing.err) == (127, "error: there is no program no-such-program\n")
        ended = await command("exec", "--service", str(file), "--", "sh", "-c", "kill -9 $$", home=tmp_path)
        assert ended.code == 128 + signal.SIGKILL

        # However it ends, and whoever: the node notices.
        idle = ("-m", "aqua_compat", "exec", "--service", str(file), "--", "sleep", "600")
        async with launched(sys.executable, *idle, home=tmp_path, log=tmp_path / "log") as process:
            await eventually(listed, lambda out: f"127.0.0.1:{port}" in out, timeout=20)
            await node.kill()
            await node.start(timeout=60)
            await eventually(listed, lambda out: f"127.0.0.1:{port}" in out, timeout=20)
            os.killpg(process.pid, signal.SIGKILL)
            await eventually(listed, "no services\n".__eq__, timeout=20)
    finally:
        await node.kill()


async def test_agents_register_on_one_resource_of_the_networks_owner(own_network: Network, tmp_path: Path) -> None:
    """A registrar holds the owner's key, and makes the resource for the first agent that it permits."""
    owner = (await command("key", "new", "company", home=tmp_path)).out.strip()
    key_file = tmp_path / "aqua-registry" / "keys" / "company.json"
    names = ("registrar", "one", "two", "stranger")
    nodes = {name: NodeProcess(tmp_path / name, tmp_path / f"{name}.log", fork_server().open_process) for name in names}

    async def start(name: str, settings: str) -> NodeProcess:
        (tmp_path / f"{name}.toml").write_text(settings)
        config = ("--config", str(tmp_path / f"{name}.toml"))
        await nodes[name].start("--bootstrap", own_network.nodes[0].address, *config, timeout=60)
        return nodes[name]

    def agent(port: int, registrar: NodeProcess, label: str = "web") -> str:
        shared = f'[agent]\nowner = "{owner}"\nregistrars = ["{registrar.peer_id}"]\n'
        return f'{shared}[[service]]\nname = "{label}"\nport = {port}\n'

    try:
        ids = {name: identity_in(tmp_path / name).peer_id for name in names}
        permitted = json.dumps([ids["one"], ids["two"]])
        registrar = await start("registrar", f'[agent]\nowner_keys = ["{key_file}"]\nmakes_for = {permitted}\n')
        await start("stranger", agent(3, registrar, "theirs"))
        await start("one", agent(1, registrar))
        await start("two", agent(2, registrar))
        async with connect(own_network.nodes[1].address, names={"acme": owner}) as client:
            both = ["127.0.0.1:1", "127.0.0.1:2"]
            await eventually(partial(locations, client, "web@acme"), both.__eq__, timeout=30)
            refused = (
                f"this registrar makes no resources for {ids['stranger']}; its operator adds that to agent.makes_for"
            )
            log = await eventually(partial(log_of, nodes["stranger"]), lambda log: refused in log, timeout=30)
            assert f"its owner {owner} makes it by `aqua-registry resource create theirs`" in log
            assert await locations(client, "theirs@acme") == []
    finally:
        for node in nodes.values():
            await node.kill()


async def test_services_are_the_owners_that_the_invitation_tells(tmp_path: Path) -> None:
    owner = (await command("key", "new", "company", home=tmp_path)).out.strip()
    assert (await command("network", "create", home=tmp_path)).code == 0
    for file, options in (("token", ()), ("clients", ("--client",))):
        invited = await command("network", "invite", "--owner", f"acme={owner}", *options, home=tmp_path)
        (tmp_path / file).write_text(invited.out)
    key_file = tmp_path / "aqua-registry" / "keys" / "company.json"
    config = tmp_path / "node.toml"
    config.write_text(f'[agent]\nowner_keys = ["{key_file}"]\n[[service]]\nname = "web"\nport = 1\n')
    node = NodeProcess(tmp_path / "node", tmp_path / "node.log", fork_server().open_process)
    await node.start("--join", str(tmp_path / "token"), "--config", str(config), timeout=60)
    try:
        for reach in (("--node", str(node.data_dir)), ("--relay", node.address, "--join", str(tmp_path / "clients"))):
            asked = partial(command, "resolve", "web@acme", *reach, home=tmp_path)
            await eventually(asked, lambda done: "127.0.0.1:1  web" in done.out, timeout=20)
            joined = (*reach[:2], "--join", str(tmp_path / "clients"))
            shown = await command("resource", "policy", "web@acme", *joined, home=tmp_path)
            assert "name       web@acme" in shown.out, shown
        settings = OverlaySettings(network=NetworkSettings(token=str(tmp_path / "clients")))
        async with connect(node.address, settings=settings) as client:
            assert await locations(client, "web@acme") == ["127.0.0.1:1"]
        assert "web@acme" in await log_of(node)
        # One's own settings go before what the invitation says.
        other = Identity.generate().peer_id
        config.write_text(config.read_text() + f'[names]\nacme = "{other}"\nours = "{owner}"\n')
        told = await command("reload", "--node", str(node.data_dir), home=tmp_path)
        assert told.out == "changed the alias acme\nchanged the alias ours\n"
        for name, found in (("web@ours", "127.0.0.1:1  web"), ("web@acme", "")):
            assert found in (await command("resolve", name, "--node", str(node.data_dir), home=tmp_path)).out
        shown = await command("resource", "list", owner, "--node", str(node.data_dir), home=tmp_path)
        assert shown.out.startswith("web@ours ")
    finally:
        await node.kill()


async def test_an_invitation_alone_tells_agents_the_owner_and_who_makes_its_resources(tmp_path: Path) -> None:
    owner = (await command("key", "new", "company", home=tmp_path)).out.strip()
    key_file = tmp_path / "aqua-registry" / "keys" / "company.json"
    assert (await command("network", "create", home=tmp_path)).code == 0
    of_both = ("--owner", f"acme={owner}", "--registrar", identity_in(tmp_path / "registrar").peer_id)
    (tmp_path / "token").write_text((await command("network", "invite", *of_both, home=tmp_path)).out)
    (tmp_path / "registrar.toml").write_text(f'[agent]\nowner_keys = ["{key_file}"]\nmakes_for = ["anyone"]\n')
    (tmp_path / "agent.toml").write_text('[[service]]\nname = "web"\nport = 1\n')
    nodes = [
        NodeProcess(tmp_path / name, tmp_path / f"{name}.log", fork_server().open_process)
        for name in ("registrar", "agent")
    ]
    registrar, agent = nodes
    try:
        flags = ("--join", str(tmp_path / "token"), "--config")
        await registrar.start(*flags, str(tmp_path / "registrar.toml"), timeout=60)
        joins = ("--bootstrap", registrar.address)
        await agent.start(*flags, str(tmp_path / "agent.toml"), *joins, timeout=60)
        asked = partial(command, "resolve", "web@acme", "--node", str(registrar.data_dir), home=tmp_path)
        found = await eventually(asked, lambda done: "127.0.0.1:1  web" in done.out, timeout=30)
        assert f"on {agent.peer_id}" in found.out
    finally:
        for node in nodes:
            await node.kill()


async def test_a_program_on_a_machine_without_a_node_is_registered_through_a_relay_as_its_users_key(
    own_network: Network, tmp_path: Path, port: int
) -> None:
    file = tmp_path / "web.toml"
    check = f'[[service.check]]\nhttp = "http://127.0.0.1:{port}/"\ninterval = 0.2\n'
    file.write_text(f'[[service]]\nname = "web"\nport = {port}\n{check}')
    relays = [each for node in own_network.nodes[:2] for each in ("--relay", node.address)]
    running = ("-m", "aqua_compat", "exec", *relays, "-k", "mine", "--service", str(file), "--")

    def program(*arguments: str) -> AbstractAsyncContextManager[Process]:
        line = (sys.executable, *running, *arguments)
        return launched(*line, home=tmp_path, log=tmp_path / "log", stdin=subprocess.PIPE)

    owner = (await command("key", "new", "mine", home=tmp_path)).out.strip()
    async with connect(own_network.nodes[3].address, names={"me-there": owner}) as client:
        async with program(sys.executable, "-c", SERVER, str(port)) as process:
            assert await first_line(process) == "serving"
            assert await locations(client, "web@me-there") == [], "its checks don't pass yet"
            assert process.stdin is not None
            await process.stdin.send_all(b"now\n")
            await eventually(partial(locations, client, "web@me-there"), [f"127.0.0.1:{port}"].__eq__, timeout=20)
            process.send_signal(signal.SIGUSR1)
            assert await first_line(process) == "ended by SIGUSR1"
            assert await process.wait() == 7
        await eventually(partial(locations, client, "web@me-there"), [].__eq__, timeout=7)

    file.write_text('[[service]]\nname = "web"\nport = 70000\n')
    wrong = await command("exec", *running[3:], "touch", str(tmp_path / "ran"), home=tmp_path)
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err.startswith(f"error: {file}, line 1: service 1 (web): port isn't within 0 and 65535: 70000")
    unreached = await command(
        *("exec", "--relay", f"/ip4/127.0.0.1/tcp/{port}/p2p/{owner}", "--service", str(file), "--", "true"),
        home=tmp_path,
    )
    assert (unreached.code, "is that node running there?" in unreached.err) == (1, True)
    assert not (tmp_path / "ran").exists()
