"""`aqua-registry http token`: who may use a node by HTTP from elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line
from aqua_compat.cli.keys import user_data_folder
from aqua_compat.cli.output import json_line, moment

if TYPE_CHECKING:
    from aqua_compat.http.tokens import Tokens

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

_LONGEST_NAME = 64

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=["AQUA_REGISTRY_DATA_DIR", "AQUA_REGISTRY_NODE"],
    help="The node's data folder.  [default: that of `aqua-registry node`]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group()
def http() -> None:
    """Say who may use a node by HTTP."""


@http.group()
def token() -> None:
    """Make and withdraw the tokens of a node's HTTP server.

    Once it has one, HTTP on an address needs one; the socket in the data folder never does. The node needn't be
    stopped.
    """


@token.command("create")
@click.argument("name")
@click.option("--read", "grant", flag_value="read", default=True, help="It may ask.  [default]")
@click.option("--write", "grant", flag_value="write", help="It may also register, in the node's name.")
@click.option("--operate", "grant", flag_value="operate", help="It may do all that the node's operator may.")
@data_dir_option
@json_option
def create_token(name: str, grant: str, data_dir: Path | None, as_json: bool) -> None:
    """Make the token NAME and print it. It can't be shown again: only its hash is kept."""
    from aqua_compat.http.message import AccessLevel
    from registry.errors import StorageError

    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise Misuse(f"a token's name has 1 to {_LONGEST_NAME} characters that can be printed")
    try:
        made = _tokens(data_dir).create(name, AccessLevel[grant.upper()], int(time.time()))
    except (ValueError, StorageError) as error:
        raise Failure(str(error)) from None
    click.echo(json_line({"name": name, "grant": grant, "token": made}) if as_json else made)


@token.command("list")
@data_dir_option
@json_option
def list_tokens(data_dir: Path | None, as_json: bool) -> None:
    """Print the names of the tokens, what they may, and since when."""
    from registry.errors import StorageError

    try:
        entries = _tokens(data_dir).entries()
    except StorageError as error:
        raise Failure(str(error)) from None
    if as_json:
        shown = [{"name": each.name, "grant": each.grant, "created": each.created} for each in entries]
        click.echo(json_line(shown))
        return
    for entry in entries:
        click.echo(f"{one_line(entry.name)}\t{entry.grant}\t{moment(entry.created)}")


@token.command("remove")
@click.argument("name")
@data_dir_option
def remove_token(name: str, data_dir: Path | None) -> None:
    """Withdraw the token NAME, at once."""
    from registry.errors import StorageError

    try:
        was_there = _tokens(data_dir).remove(name)
    except StorageError as error:
        raise Failure(str(error)) from None
    if not was_there:
        raise Failure(f"there is no token {name!r}; `aqua-registry http token list` shows those that there are")


def _tokens(data_dir: Path | None) -> Tokens:
    from aqua_compat.http.tokens import Tokens

    return Tokens(data_dir or user_data_folder() / "node")
