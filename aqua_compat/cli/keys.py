"""The user's named keys, as which commands act: one file each, mode 0600, in the user's data folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from aqua_compat.cli.failures import Failure, Misuse
from aqua_compat.cli.output import json_line

if TYPE_CHECKING:
    from overlay.identity import Identity

# Commands import what they need when they run: `--help` and the key commands are to answer at once.
# ruff: noqa: PLC0415

DEFAULT_KEY = "default"
Outcome = TypeVar("Outcome")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def user_data_folder() -> Path:
    """The folder of this user's keys and nodes, by the platform's rules."""
    from platformdirs import user_data_path

    return user_data_path("aqua-registry", appauthor=False)


def key_path(name: str) -> Path:
    """The file of a named key. Raises Misuse for a name that could be a path or is too long."""
    if not _NAME.fullmatch(name):
        raise Misuse(f"{name!r} can't name a key: use up to 64 letters, digits, '.', '_' and '-'")
    return user_data_folder() / "keys" / f"{name}.json"


def named_key(name: str) -> Identity:
    """The identity of that name, made on its first use."""
    from overlay.errors import IdentityError
    from overlay.identity import load_or_create_identity

    try:
        return load_or_create_identity(key_path(name))
    except IdentityError as error:
        raise Failure(str(error)) from None


def named_peer_id(name: str) -> str:
    """The peer id of the key of that name, made on its first use. Later that needs no passphrase."""
    from overlay.errors import IdentityError
    from overlay.identity import peer_id_in

    path = key_path(name)
    if not path.exists():
        return named_key(name).peer_id
    try:
        return peer_id_in(path)
    except IdentityError as error:
        raise Failure(str(error)) from None


@click.group()
def key() -> None:
    """Make and show the keys that commands act as.

    A key is an Ed25519 key pair, and its peer id is your name in the network. It is kept in your data folder, readable
    only by you. Whoever has the file can act as you; without it nobody can change what you registered.
    """


@key.command("new")
@click.argument("name", default=DEFAULT_KEY)
def new_key(name: str) -> None:
    """Make the key NAME and print its peer id.

    Other commands make a key when they first use its name; this one fails if the key exists.
    """
    path = key_path(name)
    if path.exists():
        raise Failure(f"the key {name!r} exists already, in {path}; choose another name, or move that file away")
    click.echo(named_key(name).peer_id)


@key.command("show")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_keys(name: str | None, as_json: bool) -> None:
    """Print the peer id and file of the key NAME, or of all keys. Never prints the secret, and needs no passphrase."""
    paths = [key_path(name)] if name else sorted((user_data_folder() / "keys").glob("*.json"))
    if name and not paths[0].exists():
        raise Failure(f"there is no key {name!r} ({paths[0]}); make it with: aqua-registry key new {name}")
    shown = [{"name": path.stem, "peer_id": named_peer_id(path.stem), "file": str(path)} for path in paths]
    if as_json:
        click.echo(json_line(shown[0] if name else shown))
        return
    if not shown:
        click.echo("no keys yet; make one with: aqua-registry key new", err=True)
    for entry in shown:
        click.echo(f"{entry['name']}\t{entry['peer_id']}\t{entry['file']}")


_where = click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The key of the node with this data folder, in place of a named one.",
)


@key.command("seal", short_help="Put a key under a passphrase.")
@click.argument("name", default=DEFAULT_KEY)
@_where
def seal_key(name: str, data_dir: Path | None) -> None:
    """Put the key NAME, or a node's, under the passphrase in the file that AQUA_REGISTRY_PASSPHRASE_FILE names.

    Whoever uses the key needs that file then; systemd gives it to a node as the credential aqua-registry.passphrase.
    A passphrase that is lost can't be found again, and neither can the key.
    """
    from overlay.sealed_seed import VARIABLE, own_passphrase

    path, identity = _existing(name, data_dir)
    passphrase = _or_failure(own_passphrase)
    if passphrase is None:
        raise Misuse(f"no passphrase: write one into a file of your own, and name that by {VARIABLE}")
    _replace(path, identity, passphrase)
    click.echo(f"sealed {identity.peer_id}")


@key.command("unseal", short_help="Take the passphrase off a key.")
@click.argument("name", default=DEFAULT_KEY)
@_where
def unseal_key(name: str, data_dir: Path | None) -> None:
    """Take the passphrase off the key NAME, or a node's; it has to be given as for every use."""
    path, identity = _existing(name, data_dir)
    _replace(path, identity, None)
    click.echo(f"unsealed {identity.peer_id}")


def _existing(name: str, data_dir: Path | None) -> tuple[Path, Identity]:
    from overlay.identity import load_or_create_identity

    path = key_path(name) if data_dir is None else data_dir / "identity.json"
    if not path.exists():
        raise Failure(f"there is no key {path}")
    return path, _or_failure(lambda: load_or_create_identity(path))


def _replace(path: Path, identity: Identity, passphrase: bytes | None) -> None:
    from overlay.identity import replace_passphrase

    _or_failure(lambda: replace_passphrase(path, identity, passphrase))


def _or_failure(act: Callable[[], Outcome]) -> Outcome:
    from overlay.errors import IdentityError

    try:
        return act()
    except IdentityError as error:
        raise Failure(str(error)) from None
