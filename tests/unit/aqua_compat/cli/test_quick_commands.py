"""Commands that need no network answer without importing what a node needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from aqua_compat.cli.main import cli

_IMPORTED = (
    "import sys\nfrom aqua_compat.cli.main import main\ntry:\n    main()\nfinally:\n    print('modules:', *sys.modules)"
)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("node", "--help"),
        ("key", "new", "mine"),
        ("key", "show", "default"),
        ("key", "show"),
        ("resource", "id", "label"),
    ],
    ids=" ".join,
)
def test_no_libp2p_no_loop_no_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)}

    def run(*command: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORTED, *command],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.rpartition("modules:")[2].split()

    run("key", "new")
    modules = run(*arguments)
    assert "aqua_compat.cli.main" in modules
    assert not {"libp2p", "multiaddr", "trio", "sqlite3", "structlog", "overlay.peer"} & set(modules)


@pytest.mark.parametrize("name", ["call", "run", "upkeep", "services", "resource policy"])
def test_commands_that_are_clients_of_a_node_do_not_say_that_they_act_as_the_node(name: str) -> None:
    command: click.Command = cli
    for part in name.split():
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), part)
        assert found is not None
        command = found
    [node] = [option for option in command.params if option.name == "node"]
    assert isinstance(node, click.Option)
    assert "a client of that node" in str(node.help)
    assert "node's own key" not in str(node.help)
