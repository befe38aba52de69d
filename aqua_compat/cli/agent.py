"""`aqua-registry check` and `reload`: the services that the node on this machine keeps registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from aqua_compat.cli.failures import Failure, one_line
from aqua_compat.cli.keys import user_data_folder
from aqua_compat.cli.node_socket import NodeSocket, found_node
from aqua_compat.cli.options import json_option, timeout_option
from aqua_compat.cli.output import json_line
from aqua_compat.cli.session import warn

_CHANGES: Final = {"aliases": "changed the alias"}
"""How changes are told whose name in the node's answer doesn't say it."""
_STATES: Final = {"pass": "passing", "warn": "warning", "fail": "critical"}


def _node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    decorated = timeout_option(json_option(command))
    return click.option(
        "--node",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="PATH",
        envvar="AQUA_REGISTRY_NODE",
        help="Data folder of the node.  [default: that of `aqua-registry node`]",
    )(decorated)


@click.command(short_help="Have the node read its services again.")
@_node_options
def reload(node: Path | None, timeout: float, as_json: bool) -> None:
    """Have the node on this machine read the files of its services and its aliases again, and print what changed.

    Where anything is wrong, nothing changes: each fault is told with file, field and remedy.
    """
    answer = _found(node, timeout).post("agent", "reload", timeout=None)
    warn(answer.warnings)
    changes: Mapping[str, list[str]] = answer.result
    if as_json:
        click.echo(json_line(changes))
        return
    lines = [f"{_CHANGES.get(what, what)} {one_line(name)}" for what, names in changes.items() for name in names]
    for line in lines or ["nothing changed"]:
        click.echo(line)


@click.group()
def check() -> None:
    """Say how a program is that the node on this machine checks, or see how all are."""


@check.command("list")
@_node_options
def list_checks(node: Path | None, timeout: float, as_json: bool) -> None:
    """Print the checks of this machine's services, and how each is."""
    checks = _found(node, timeout).get("agent", "checks", timeout=None).result
    if as_json:
        click.echo(json_line(checks))
        return
    for each in checks:
        key = one_line("/".join((each["service"], each["instance"], each["check"])))
        note = f": {one_line(each['note'])}" if each["note"] else ""
        click.echo(f"{key}  {each['kind']}  {each['state']} for {each['lasted']:.0f} s{note}")
    if not checks:
        click.echo("no checks")


def _reporting(name: str, state: str) -> click.Command:
    @click.argument("check_id", metavar="ID")
    @click.option("--note", default="", metavar="TEXT", help="Why, for people.")
    @_node_options
    def report(check_id: str, note: str, node: Path | None, timeout: float, as_json: bool) -> None:
        said = {"state": state, "note": note, "timeout": None}
        answer = _found(node, timeout).post("agent", "checks", check_id, **said).result
        if as_json:
            click.echo(json_line(answer))
        elif answer["state"] != state:
            click.echo(f"note: the check is {answer['state']} for now, by its thresholds or since it flaps", err=True)

    report.__doc__ = f"""Say that the program with the `ttl` check ID is {state}.

    ID is the id of its service, or SERVICE/CHECK, or SERVICE/INSTANCE/CHECK where that has several.
    """
    return click.command(name, short_help=f"Say that a program is {state}.")(report)


for _name, _state in _STATES.items():
    check.add_command(_reporting(_name, _state))


def _found(folder: Path | None, timeout: float) -> NodeSocket:
    node = found_node(folder, lambda: user_data_folder() / "node", timeout)
    if node is None:
        raise Failure("no node runs on this machine: start one (aqua-registry node --services DIR), or name its data"
                      " folder (--node PATH)")  # fmt: skip
    return node
