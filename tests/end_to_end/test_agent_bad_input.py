"""What is wrong where a node starts as an agent: one line that names file, field and remedy, and an exit code."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from aqua_compat.cli.node_process import NodeProcess
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import command, environment_of, eventually, launched
from tests.faults.namespaces import are_possible, isolated

FAULTS = {
    "alias.toml": ('check = [{alias = "nobody"}]', r"alias: there is no service with the id 'nobody' on this machine"),
    "check.toml": ('check = [{htpp = "http://127.0.0.1/"}]', r"htpp: there is no such key; did you mean http\?"),
    "key.toml": ("prot = 80", r"prot: there is no such key; did you mean port\?"),
    "nothing.toml": ("check = [{interval = 5}]", r"it checks nothing that is known; give exactly one of http, tcp"),
    "owner.toml": ('owner = "acne"', r"owner: 'acne' is no alias"),
    "port.toml": ("port = 70000", r"port isn't within 0 and 65535: 70000"),
    "script.toml": ('check = [{script = ["/bin/true"]}]', r"script: scripts are off.*agent\.scripts = true"),
}


async def test_every_fault_in_service_files_is_told_at_once_and_nothing_starts(tmp_path: Path) -> None:
    folder = tmp_path / "services"
    folder.mkdir()
    for name, (line, _) in FAULTS.items():
        (folder / name).write_text(f'[[service]]\nname = "{name.removesuffix(".toml")}"\n{line}\n')
    started = ("node", "--data-dir", str(tmp_path / "node"), "--services", str(folder))
    ended = await command(*started, home=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    for name, (_, told) in FAULTS.items():
        if name != "alias.toml":  # whether services fit together is looked at last
            assert re.search(rf"{re.escape(str(folder / name))}, line 1: service 1[^;]*{told}", ended.err), name

    for name in FAULTS:
        (folder / name).unlink()
    (folder / "alias.toml").write_text(f'[[service]]\nname = "a"\n{FAULTS["alias.toml"][0]}\n')
    (folder / "twice.toml").write_text('[[service]]\nname = "a"\n')
    ended = await command(*started, home=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert re.search(rf"{folder}/alias\.toml, line 1: service 'a', check 'alias': {FAULTS['alias.toml'][1]}", ended.err)
    assert re.search(
        rf"{folder}/twice\.toml, line 1: two services have the id 'a', the other in {folder}/alias", ended.err
    )

    missing = await command(*started[:3], "--services", str(tmp_path / "none"), home=tmp_path)
    assert missing.code == 1
    assert f"{tmp_path / 'none'}: can't be read: No such file or directory; give --services a folder" in missing.err


async def test_what_another_node_has_is_named(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "node", tmp_path / "node.log", fork_server().open_process)
    await node.start(timeout=60)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        try:
            twice = await command("node", "--data-dir", str(tmp_path / "node"), home=tmp_path)
            assert twice.code == 1
            assert str(tmp_path / "node") in twice.err
            assert "another" in twice.err
            listen = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
            occupied = await command("node", "--data-dir", str(tmp_path / "other"), "--listen", listen, home=tmp_path)
            assert (occupied.code, occupied.out) == (1, "")
            assert f"can't listen on {listen} (overlay.listen): another process does; choose another" in occupied.err
            for flags, code in ((("--http", address), 2), (("--dns", address), 2)):
                ended = await command("node", "--data-dir", str(tmp_path / "other"), *flags, home=tmp_path)
                assert ended.code == code, flags
                assert f"{flags[0]}" in ended.err or address in ended.err
                assert "in use" in ended.err
                assert len(ended.err.splitlines()) == len([one for one in ended.err.splitlines() if one]), "in a line"
        finally:
            await node.kill()


async def test_an_owner_whose_policy_refuses_us_is_told_with_file_and_remedy_until_it_certifies_us(
    tmp_path: Path,
) -> None:
    owner = (await command("key", "new", "company", home=tmp_path)).out.strip()
    config, certificates = tmp_path / "node.toml", tmp_path / "certificates"
    certificates.mkdir()
    settings = f'certificates = "{certificates}"\n'
    config.write_text(settings)
    node = NodeProcess(tmp_path / "node", tmp_path / "node.log", fork_server().open_process)
    await node.start("--config", str(config), timeout=60)
    as_owner = ("-k", "company", "--relay", node.address)

    async def reloaded() -> None:
        done = await command("reload", "--node", str(node.data_dir), home=tmp_path)
        assert done.code == 0, done.err

    async def log() -> str:
        return await trio.Path(node.log_file).read_text()

    async def listed() -> str:
        return (await command("resolve", f"db@{owner}", "--node", str(node.data_dir), home=tmp_path)).out

    try:
        db = (await command("resource", "create", "db", *as_owner, home=tmp_path)).out.strip()
        closed = await command("resource", "policy", db, "--close", *as_owner, home=tmp_path)
        assert closed.code == 0, closed.err
        config.write_text(f'{settings}[[service]]\nname = "db"\nowner = "{owner}"\nport = 5432\n')
        await reloaded()
        remedy = f"its owner permits it by `aqua-registry resource policy {db} --allow {node.peer_id}`"
        told = await eventually(log, lambda text: remedy in text, timeout=30)
        [line] = [line for line in told.splitlines() if remedy in line][:1]
        assert f"defined_in='{config}, line 2'" in line
        assert "its policy doesn't name the issuer" in line
        assert await listed() == "no services\n"

        async def certified(peer_id: str) -> str:
            issue = ("cert", "issue", "--for", peer_id, "--on", "db", "--expires", "1h", "-k", "company")
            issued = await command(*issue, home=tmp_path)
            assert issued.code == 0, issued.err
            return issued.out

        (certificates / "db.cert").write_text(await certified(node.peer_id))
        await reloaded()
        await eventually(listed, lambda out: "127.0.0.1:5432  db" in out, timeout=40)

        # Under another key `exec` registers, where no node has that one as `agent.key`.
        worker = (await command("key", "new", "worker", home=tmp_path)).out.strip()
        own, services = tmp_path / "worker.cert", tmp_path / "theirs.toml"
        own.write_text(await certified(worker))
        services.write_text(f'[[service]]\nname = "db"\nowner = "{owner}"\nport = 5433\n')
        as_worker = ("--relay", node.address, "-k", "worker", "--certificate", str(own), "--service", str(services))
        line = (sys.executable, "-m", "aqua_compat", "exec", *as_worker, "--", "sleep", "600")
        async with launched(*line, home=tmp_path, log=tmp_path / "exec.log"):
            await eventually(listed, lambda out: f"127.0.0.1:5433  db  on {worker}" in out, timeout=40)
    finally:
        await node.kill()


@pytest.mark.skipif(not are_possible(), reason="this machine or user can't make namespaces")
def test_a_full_disk_is_told_with_the_folder(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = 'mount -t tmpfs -o size=64k tmpfs "$1" && head -c 65536 /dev/zero > "$1/ballast"; shift; exec "$@"'
    node = (sys.executable, "-m", "aqua_compat", "node", "--data-dir", str(disk / "node"))
    done = subprocess.run(
        isolated("sh", "-c", inside, "sh", str(disk), *node),
        env=environment_of(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert str(disk / "node") in done.stderr
    assert re.search("No space left on device|disk is full", done.stderr)
    assert "Traceback" not in done.stderr
