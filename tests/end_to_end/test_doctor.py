"""The doctor looks at real nodes, and at this machine."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from aqua_compat.cli.node_process import NodeProcess, stop_network
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import command


async def test_two_networks_a_dead_node_an_unknown_name_and_an_open_folder_are_found(tmp_path: Path) -> None:
    nodes = [NodeProcess(tmp_path / name, tmp_path / f"{name}.log", fork_server().open_process) for name in "abc"]
    one, other, third = nodes
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.start)
            nursery.start_soon(other.start)
        well = await command("doctor", "--relay", one.address, "--data-dir", str(one.data_dir), home=tmp_path)
        assert (well.code, "problem" in well.out) == (0, False), well.out
        assert "a network of one" in well.out

        await third.start("--bootstrap", one.address)
        together = await command("doctor", "--relay", one.address, "--relay", third.address, home=tmp_path)
        assert (together.code, "networks" in together.out) == (0, False), together.out
        apart = await command("doctor", "--relay", other.address, "--relay", third.address, home=tmp_path)
        assert apart.code == 1
        assert "the nodes are in 2 networks" in apart.out

        third.data_dir.chmod(0o755)
        here = await command("doctor", "--node", str(third.data_dir), home=tmp_path)
        assert (here.code, f"problem  {third.data_dir}: others can read it" in here.out) == (1, True), here.out
        await third.kill()
        ill = await command(
            *("doctor", "--json", "--timeout", "2", "--relay", third.address, "--data-dir", str(third.data_dir)),
            *("--bootstrap", "no-such-host.invalid:7000", "--bootstrap", "localhost:7000"),
            home=tmp_path,
        )
        assert ill.code == 1
        found = {(line["about"], line["level"]) for line in map(json.loads, ill.out.splitlines())}
        assert {
            (third.address, "problem"),
            (str(third.data_dir), "problem"),
            ("no-such-host.invalid:7000", "problem"),
            ("localhost:7000", "ok"),
        } <= found
    finally:
        await stop_network(nodes)


async def test_a_node_that_doesnt_run_is_a_problem_beside_others(tmp_path: Path) -> None:
    ill = await command("doctor", "--node", str(tmp_path), "--bootstrap", "localhost:7000", home=tmp_path)
    assert ill.code == 1
    assert f"problem  node: no node runs with the data folder {tmp_path}" in ill.out
    assert "ok       localhost:7000: leads to" in ill.out
    assert ill.err == "error: 1 problem; docs/troubleshooting.md tells more\n"
