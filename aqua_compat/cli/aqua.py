"""`aqua-registry aqua`: installs what nodes need for unmodified Aqua clients."""

from __future__ import annotations

from pathlib import Path

import click

from aqua_compat.cli.failures import Failure

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


@click.group(short_help="Install what nodes need for unmodified Aqua clients.")
def aqua() -> None:
    """Install what nodes need to serve unmodified Aqua clients and scripts.

    `aqua-registry node --aqua` serves them.
    """


@aqua.command()
@click.option(
    "--from",
    "tarball",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Tarball of the npm package.  [default: fetched by your npm]",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="AQUA_REGISTRY_AQUA_FOLDER",  # as of the setting
    help="Folder to install it in, the node's setting aqua.folder.  [default: your data folder]",
)
def install(tarball: Path | None, folder: Path | None) -> None:
    """Install the Aqua interpreter that nodes run with --aqua.

    The interpreter is avm.wasm of the npm package @fluencelabs/avm 0.62.0 (Apache-2.0). It is checked by its sha256 and
    compiled for this machine.
    """
    from aqua_compat.particles.enabling import interpreter_folder
    from aqua_compat.particles.engine import installation
    from aqua_compat.particles.errors import NotInstalled
    from aqua_compat.particles.settings import AquaSettings

    try:
        place = installation.install(folder or interpreter_folder(AquaSettings()), tarball)
    except NotInstalled as error:
        raise Failure(str(error)) from None
    click.echo(f"installed {place}")
