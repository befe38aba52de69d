"""What an owner has, listed through real nodes: by command, from Python and by HTTP, and after some of them died."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from aqua_compat import connect
from aqua_compat.cli.node_process import NodeProcess
from registry.node import DATABASE
from registry.storage import migrations
from tests.end_to_end.network import Network, command, eventually

LABELS = ["alpha", "beta", "gamma"]


async def listed_by(node: NodeProcess, owner: str) -> list[tuple[str, str]]:
    """(label, standing) of each resource, as a light client of a node sees them."""
    async with connect(node.address) as client:
        page = await client.listResources(owner)
        assert page.after is None
        return [(each.label, str(each.standing)) for each in page.resources or ()]


async def created(node: NodeProcess, label: str, home: Path) -> str:
    done = await command("resource", "create", label, "-k", "acme", "--relay", node.address, home=home)
    assert done.code == 0, done.err
    return done.out.strip()


def without_indexes(node: NodeProcess) -> None:
    """Makes a stopped node's database one of before there were indexes."""
    before = next(number for number, script in enumerate(migrations.MIGRATIONS) if "CREATE TABLE listed" in script)
    # The one after the next adds a column to `listed`, which goes with it; the last makes `issued` anew, any number of
    # times.
    assert before == len(migrations.MIGRATIONS) - 4, "drop what later migrations made, too"
    with closing(sqlite3.connect(node.data_dir / DATABASE)) as connection, connection:
        for name, table in product(("named", "named_before", "named_after", "unnamed"), ("states", "keys")):
            connection.execute(f"DROP TRIGGER {table}_{name}")
        for name in ("opened", "changed", "closed"):
            connection.execute(f"DROP TRIGGER accounts_{name}")
        connection.executescript(
            "ALTER TABLE states DROP COLUMN is_named; DELETE FROM totals WHERE name IN ('named', 'charged');"
            f"DROP TABLE listed; DROP TABLE listed_owners; PRAGMA user_version = {before};"
        )


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_an_owners_resources_are_listed_from_everywhere_whoever_dies(tmp_path: Path) -> None:
    network = Network(tmp_path, 8)
    await network.start()
    try:
        first, *others = network.nodes
        ids = {label: await created(first, label, tmp_path) for label in LABELS}
        shown = await command("key", "show", "acme", "--json", home=tmp_path)
        owner = json.loads(shown.out)["peer_id"]
        for node in network.nodes:
            assert await listed_by(node, owner) == [(label, "live") for label in LABELS]

        removed = await command(
            "resource", "remove", ids["beta"], "-k", "acme", "--relay", others[2].address, home=tmp_path
        )
        assert removed.code == 0, removed.err
        expected = [("alpha", "live"), ("beta", "removed"), ("gamma", "live")]
        for node in network.nodes:
            assert await listed_by(node, owner) == expected

        printed = await command(
            *("resource", "list", "acme", "--relay", others[0].address),
            home=tmp_path,
            AQUA_REGISTRY_NAMES=json.dumps({"acme": owner}),
        )
        lines = [line.split() for line in printed.out.splitlines()]
        assert [(line[0], line[1], line[-1]) for line in lines] == [
            (f"{label}@acme", standing, ids[label]) for label, standing in expected
        ]
        through = await command("resource", "list", owner, "--node", str(others[1].data_dir), "--json", home=tmp_path)
        assert [each["resource_id"] for each in json.loads(through.out)["resources"]] == list(ids.values())
        nobody = await command("resource", "list", "nobody", "--relay", others[0].address, home=tmp_path)
        assert (nobody.code, "is no alias of an owner" in nobody.err) == (2, True)

        for node in (first, others[3], others[4]):
            await node.kill()
        for node in network.running:
            assert await eventually(partial(listed_by, node, owner), lambda found: found == expected) == expected
        await network.restart([first, others[3], others[4]])
        await network.replicated()
        for node in network.nodes:
            assert await listed_by(node, owner) == expected

        await network.stop()
        for node in network.nodes:
            without_indexes(node)
        await network.restart(network.nodes)
        for node in network.nodes:
            assert await listed_by(node, owner) == []
        await created(others[5], "gamma", tmp_path)  # a renewal
        for node in network.nodes:
            assert await listed_by(node, owner) == [("gamma", "live")]
    finally:
        await network.stop()
