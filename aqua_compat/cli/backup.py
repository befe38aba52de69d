"""`aqua-registry data backup` and `data restore`: a node's data folder, copied while the node runs, and put back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from aqua_compat.cli.failures import Failure, Misuse, root_of
from aqua_compat.cli.keys import DEFAULT_KEY, named_key
from aqua_compat.cli.logs import configure_logs, logging_options
from aqua_compat.cli.options import json_option
from aqua_compat.cli.output import json_line

if TYPE_CHECKING:
    from collections.abc import Sequence

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

MANIFEST: Final = "backup.json"
_FORMAT: Final = 1
_PRIVATE: Final = 0o700
_LOOKED_FOR: Final = 6.0  # seconds
_BESIDE: Final = (
    "bootstrap-pins.json",
    "network",
    "incarnation",
    "agent.json",
    "agent-registered.json",
    "consul-index.json",
    "http-tokens.json",
)
"""What a data folder has besides key and database that isn't made anew by itself."""


class Manifest(NamedTuple):
    """What a backup says of itself."""

    peer_id: str
    folder: str
    """Where the node has its data; absolute."""

    def write(self, folder: Path) -> None:
        """Puts it into the folder of a backup."""
        (folder / MANIFEST).write_text(json.dumps({"format": _FORMAT, **self._asdict()}) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises OSError or ValueError where there is none of ours."""
        told = json.loads((folder / MANIFEST).read_text())
        if not isinstance(told, dict) or told.get("format") != _FORMAT:
            raise ValueError("it is of another format")
        peer_id, origin = str(told.get("peer_id") or ""), str(told.get("folder") or "")
        if not (peer_id and origin):
            raise ValueError(f"{MANIFEST} names no peer and no folder")
        return cls(peer_id, origin)


@click.command("backup", short_help="Copy a node's data folder; the node may run.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("to", type=click.Path(path_type=Path))
@json_option
def backup(folder: Path, to: Path, as_json: bool) -> None:
    """Copy the data FOLDER of a node into the new folder TO: its key, its database as it is at one moment, and what it
    knows of its network.

    The node may run meanwhile. The copy has the node's secret key: keep it as well as the folder itself.
    """
    from aqua_compat.api.full_node import IDENTITY_FILE
    from overlay.errors import IdentityError
    from overlay.identity import peer_id_in
    from registry.errors import StorageError
    from registry.node import DATABASE
    from registry.storage.backup import copy_database

    if not (folder / IDENTITY_FILE).is_file():
        raise Failure(f"{folder} isn't the data folder of a node: it has no {IDENTITY_FILE}")
    try:
        peer_id = peer_id_in(folder / IDENTITY_FILE)
        with _made(to):
            _copy(folder, to, IDENTITY_FILE)
            copy_database(folder / DATABASE, to / DATABASE)
            Manifest(peer_id, str(folder.resolve())).write(to)
    except (IdentityError, StorageError, OSError) as error:
        raise Failure(str(error)) from None
    if as_json:
        click.echo(json_line({"peer_id": peer_id, "folder": str(folder), "backup": str(to)}))
    else:
        click.echo(f"copied {peer_id} to {to}; it has the node's secret key")


@click.command("restore", short_help="Make a data folder of a backup.")
@click.argument("copy", metavar="BACKUP", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--relay",
    multiple=True,
    metavar="MULTIADDR",
    envvar="AQUA_REGISTRY_RELAY",
    help="Node through which to look whether the peer of the backup runs somewhere.",
)
@click.option(
    "--join",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    envvar="AQUA_REGISTRY_JOIN",
    help="Token of the private network in which to look, as your default key.",
)
@json_option
@logging_options("error")
def restore(
    copy: Path,
    folder: Path,
    relay: tuple[str, ...],
    join: Path | None,
    as_json: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Make the data FOLDER of a node, which mustn't exist or be empty, of what `data backup` made.

    Two nodes with one key are an error that nobody can mend: so this is refused while a node runs from the folder that
    was copied, or where --relay is given and the peer is found in that network.
    """
    from aqua_compat.api.full_node import IDENTITY_FILE
    from overlay.errors import IdentityError
    from overlay.identity import peer_id_in
    from registry.errors import StorageError
    from registry.node import DATABASE
    from registry.storage.backup import copy_database

    configure_logs(log_level, log_format)
    try:
        manifest = Manifest.read(copy)
    except (OSError, ValueError) as error:
        raise Failure(f"{copy} isn't what `data backup` made: {error}") from None
    try:
        _refuse_filled(folder)
        if peer_id_in(copy / IDENTITY_FILE) != manifest.peer_id:
            raise Failure(f"the key in {copy} isn't that of {manifest.peer_id}: it was changed since it was copied")
        _refuse_beside_a_twin(manifest, relay, join)
        with _made(folder):
            _copy(copy, folder, IDENTITY_FILE)
            copy_database(copy / DATABASE, folder / DATABASE)
    except (IdentityError, StorageError, OSError) as error:
        raise Failure(str(error)) from None
    if as_json:
        click.echo(json_line({"peer_id": manifest.peer_id, "folder": str(folder)}))
        return
    click.echo(f"restored {manifest.peer_id} to {folder}; start it with: aqua-registry node --data-dir {folder}")
    if not relay:
        click.echo("make sure that it runs nowhere else; with --relay this command looks", err=True)


def _refuse_beside_a_twin(manifest: Manifest, relays: Sequence[str], token: Path | None) -> None:
    from overlay.errors import AddressError
    from registry.errors import StorageError
    from registry.storage.data_folder import claimed

    origin = Path(manifest.folder)
    if origin.is_dir():
        try:
            with claimed(origin):
                pass
        except StorageError:
            raise Failure(
                f"{manifest.peer_id} runs from {origin}: stop that node first, and don't start it again beside this one"
            ) from None
    if not relays:
        return
    import trio

    try:
        found = trio.run(_is_running, manifest.peer_id, relays, token)
    except AddressError as error:
        raise Misuse(str(error)) from None
    except Exception as error:  # of the network
        raise Failure(f"can't look through {' or '.join(relays)}: {root_of(error)}") from None
    if found:
        raise Failure(f"{manifest.peer_id} runs somewhere: stop that node first, and don't start it again")


async def _is_running(peer_id: str, relays: Sequence[str], token: Path | None) -> bool:
    from overlay.assembly import open_peer
    from overlay.errors import CallFailed
    from overlay.identity import Identity
    from overlay.settings import NetworkSettings, OverlaySettings

    settings = OverlaySettings(member=False, listen=(), network=NetworkSettings(token=str(token or "")))
    # A token may be for the user's key alone.
    identity = Identity.generate() if token is None else named_key(DEFAULT_KEY)
    async with open_peer(identity, settings) as peer:
        linked = [await peer.connect(relay, timeout=_LOOKED_FOR) for relay in relays]
        if peer_id in linked:
            return True
        await peer.find(peer_id, timeout=_LOOKED_FOR)
        try:
            await peer.link(peer_id)
        except CallFailed:
            return False
        return True


def _refuse_filled(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise Failure(f"{folder} is no folder; give a new one")
    if folder.exists() and any(folder.iterdir()):
        raise Failure(f"{folder} isn't empty; nothing is written over it")


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A new private folder, which isn't left behind half filled."""
    _refuse_filled(folder)
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    folder.chmod(_PRIVATE)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _copy(source: Path, target: Path, *names: str) -> None:
    for name in (*names, *_BESIDE):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).is_file():
            shutil.copy2(source / name, target / name)
            os.chmod(target / name, 0o600)
