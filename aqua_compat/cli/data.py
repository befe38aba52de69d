"""`aqua-registry data`: looks after a node's data folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from aqua_compat.cli.backup import backup, restore
from aqua_compat.cli.failures import Failure, one_line
from aqua_compat.cli.output import json_line

if TYPE_CHECKING:
    from registry.storage.database_check import Examination

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


@click.group()
def data() -> None:
    """Look after a node's data folder."""


@data.command("check", short_help="Verify a node's database; changes nothing.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(folder: Path, as_json: bool) -> None:
    """Verify the database in FOLDER: its pages, each row's checksum and signatures, and what is counted.

    Nothing is changed, and the node may run meanwhile. Exit code 1 when something is damaged.
    """
    from registry.errors import StorageError
    from registry.node import DATABASE
    from registry.storage.database_check import examine

    try:
        found = examine(folder / DATABASE)
    except StorageError as error:
        raise Failure(str(error)) from None
    if as_json:
        click.echo(json_line({"is_whole": found.is_whole, **msgspec.structs.asdict(found)}))
    else:
        for line in _described(found):
            click.echo(line)
    if not found.is_whole:
        raise Failure(_remedy(found, folder))


def _described(found: Examination) -> list[str]:
    if found.pages:
        return [f"pages   {one_line(page)}" for text in found.pages for page in text.splitlines()]
    rows = (
        f"{found.keys} keys, {found.records} records, {found.tombstones} tombstones, "
        f"{found.key_tombstones} key tombstones, {found.statements} of the trust graph"
    )
    lines = ["pages   ok", f"rows    {rows}; {found.damaged or 'none'} damaged"]
    lines += [f"        {one_line(row)}" for row in found.rows]
    lines += [f"counts  {one_line(count)}" for count in found.counts] or ["counts  ok"]
    return lines


def _remedy(found: Examination, folder: Path) -> str:
    if found.pages:
        return (
            f"the database in {folder} is damaged: restore a copy, or move it away to start empty; "
            "the network still has what it replicated"
        )
    if found.damaged:
        return (
            f"{found.damaged} rows of the database in {folder} are damaged: a running node drops them when "
            "it meets them, and fetches them from other replicas; check the disk"
        )
    return f"the database in {folder} counts wrongly: move it away to start empty; the network has what it replicated"


data.add_command(backup)
data.add_command(restore)
