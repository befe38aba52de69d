"""A node's data copied while it writes, and a node made of the copy in its place."""

from __future__ import annotations

import stat
from pathlib import Path

import trio

from aqua_compat import connect
from aqua_compat.cli.backup import MANIFEST
from aqua_compat.cli.node_process import NodeProcess, stop_network
from aqua_compat.http.consul.index_book import FILE as INDEX_FILE
from aqua_compat.http.consul.local_agent import FILE as AGENT_FILE
from registry.node import DATABASE
from registry.storage.database_check import examine
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import command, eventually


async def written(node: NodeProcess, label: str) -> str:
    async with connect(node.address) as aqua:
        resource_id, errors = await aqua.createResource(label)
        assert resource_id is not None, errors
        assert await aqua.registerService(resource_id, label, node.peer_id, "s") == (True, [])
        return resource_id


async def test_a_copy_of_a_running_node_takes_its_place_and_never_runs_beside_it(tmp_path: Path) -> None:
    data, copy, again = tmp_path / "node", tmp_path / "copy", tmp_path / "again"
    node = NodeProcess(data, tmp_path / "log", fork_server().open_process)
    nodes = [node]
    try:
        await node.start()
        resource_id = await written(node, "before")

        for kept in (AGENT_FILE, INDEX_FILE):
            (data / kept).write_text("{}")

        async def write_on() -> None:
            for number in range(30):
                await written(node, f"meanwhile {number}")

        with trio.CancelScope() as writing:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_on)
                made = await command("data", "backup", str(data), str(copy), home=tmp_path)
                writing.cancel()
        assert made.code == 0, made.err
        assert node.peer_id in made.out
        assert stat.S_IMODE(copy.stat().st_mode) == 0o700
        assert {stat.S_IMODE((copy / name).stat().st_mode) for name in (DATABASE, "identity.json")} == {0o600}
        assert examine(copy / DATABASE).is_whole
        assert all((copy / kept).read_text() == "{}" for kept in (AGENT_FILE, INDEX_FILE))
        assert (await command("data", "backup", str(data), str(copy), home=tmp_path)).code == 1, "it is there already"

        beside = await command("data", "restore", str(copy), str(again), home=tmp_path)
        assert beside.code == 1
        assert f"runs from {data}" in beside.err
        (copy / MANIFEST).write_text((copy / MANIFEST).read_text().replace(str(data), "/of/another/machine"))
        other = NodeProcess(tmp_path / "other", tmp_path / "other.log", fork_server().open_process)
        nodes.append(other)
        await other.start("--bootstrap", node.address)
        found = await command("data", "restore", str(copy), str(again), "--relay", other.address, home=tmp_path)
        assert found.code == 1
        assert "runs somewhere" in found.err
        assert found.out == "", "of what it did on the way, nothing"
        assert not again.exists()

        await node.kill()
        async with connect(other.address) as reader:

            async def gone() -> bool:
                return node.peer_id not in (await reader.registry.status()).members

            await eventually(gone, bool, 30)
        restored = await command("data", "restore", str(copy), str(again), "--relay", other.address, home=tmp_path)
        assert restored.code == 0, restored.err
        assert restored.out == (
            f"restored {node.peer_id} to {again}; start it with: aqua-registry node --data-dir {again}\n"
        )
        twin = NodeProcess(again, tmp_path / "again.log", fork_server().open_process)
        nodes.append(twin)
        await twin.start()
        assert twin.peer_id == node.peer_id
        async with connect(twin.address) as aqua:
            records, errors = await aqua.resolveResource(resource_id, 1)
            assert records is not None, errors
            [record] = records
            assert record.metadata.value == "before"
    finally:
        await stop_network(nodes)


async def test_in_a_private_network_a_twin_is_found_by_who_may_join_it(tmp_path: Path) -> None:
    data, copy, again = tmp_path / "node", tmp_path / "copy", tmp_path / "again"
    assert (await command("network", "create", home=tmp_path)).code == 0
    for file, options in (("token", ()), ("clients", ("--client",))):
        invited = await command("network", "invite", *options, home=tmp_path)
        (tmp_path / file).write_text(invited.out)
    node = NodeProcess(data, tmp_path / "log", fork_server().open_process)
    try:
        await node.start("--join", str(tmp_path / "token"), timeout=60)
        assert (await command("data", "backup", str(data), str(copy), home=tmp_path)).code == 0
        (copy / MANIFEST).write_text((copy / MANIFEST).read_text().replace(str(data), "/of/another/machine"))
        look = ("data", "restore", str(copy), str(again), "--relay", node.address)
        stranger = await command(*look, home=tmp_path)
        assert (stranger.code, stranger.out) == (1, "")
        assert f"can't look through {node.address}" in stranger.err
        member = await command(*look, "--join", str(tmp_path / "clients"), home=tmp_path)
        assert (member.code, member.out) == (1, "")
        assert "runs somewhere" in member.err
        assert not again.exists()
    finally:
        await node.kill()


async def test_what_is_no_folder_of_a_node_nor_a_backup_is_told(tmp_path: Path) -> None:
    empty, target = tmp_path / "empty", tmp_path / "target"
    empty.mkdir()
    none = await command("data", "backup", str(empty), str(target), home=tmp_path)
    assert (none.code, "isn't the data folder of a node" in none.err) == (1, True)
    none = await command("data", "restore", str(empty), str(target), home=tmp_path)
    assert (none.code, "isn't what `data backup` made" in none.err) == (1, True)
    (empty / MANIFEST).write_text("[]")
    none = await command("data", "restore", str(empty), str(target), home=tmp_path)
    assert (none.code, "another format" in none.err) == (1, True)
    assert not target.exists()
    (empty / MANIFEST).write_text('{"format": 1, "peer_id": "x", "folder": "y"}')
    target.write_text("a file")
    none = await command("data", "restore", str(empty), str(target), home=tmp_path)
    assert (none.code, none.err) == (1, f"error: {target} is no folder; give a new one\n")
