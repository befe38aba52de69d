"""`aqua-registry network`: makes a private network, invites into it, and puts members out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line
from aqua_compat.cli.logs import configure_logs, logging_options
from aqua_compat.cli.network_folder import DEFAULT_NETWORK, Issued, NetworkFolder
from aqua_compat.cli.options import SecondsType, json_option
from aqua_compat.cli.output import identified, json_line, moment
from aqua_compat.cli.times import TimeSpan

if TYPE_CHECKING:
    from overlay.identity import Identity
    from overlay.membership.revocation import Revocations

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

_CERTIFICATE_OF_COMMAND: Final = 600  # seconds

_name_option = click.option(
    "--name", default=DEFAULT_NETWORK, show_default=True, metavar="NAME", help="Which of your networks."
)


@click.group()
def network() -> None:
    """Make a private network, and say who may be in it.

    Nodes of a private network link to holders of its certificates alone. Its root key gives them; it stays on this
    machine, in your data folder, and no node needs it.

    \b
    aqua-registry network create
    aqua-registry network invite > token
    aqua-registry node --join token
    """


@network.command()
@_name_option
@json_option
def create(name: str, as_json: bool) -> None:
    """Make the root key of a network, and print its peer id."""
    folder = NetworkFolder(name)
    root = folder.create()
    if as_json:
        click.echo(
            json_line(
                identified("network-root", {"name": folder.name, "root": root.peer_id, "file": str(folder.root_file)})
            )
        )
        return
    click.echo(root.peer_id)
    click.echo(
        f"The root key is in {folder.root_file}: back it up, and keep it from others. Whoever has it decides who is in"
        " the network.",
        err=True,
    )


@network.command()
@click.option("--member", "permits", flag_value="member", default="member", help="Into it as a node.  [default]")
@click.option("--client", "permits", flag_value="client", help="To act through its nodes, as a light client.")
@click.option("--for", "peer", metavar="PEER_ID", help="The peer that may join. Without it: whoever has the token.")
@click.option("--expires", type=TimeSpan(), default="30d", show_default=True, help="As 30d, 24h or 90m.")
@click.option(
    "--address",
    multiple=True,
    metavar="ADDRESS",
    help="Node to join through, as `node --bootstrap` takes it; no file. Repeatable; remembered.",
)
@click.option(
    "--owner",
    metavar="[ALIAS=]PEER_ID",
    help="Whose names the network's are: of services that name no owner. With ALIAS all who join know that owner by it,"
    " as in web@ALIAS. Remembered.",
)
@click.option(
    "--registrar",
    multiple=True,
    metavar="PEER_ID",
    help="Node that holds the owner's key, and makes resources for others. Repeatable; remembered.",
)
@_name_option
@json_option
def invite(
    permits: str,
    peer: str | None,
    expires: int,
    address: tuple[str, ...],
    owner: str | None,
    registrar: tuple[str, ...],
    name: str,
    as_json: bool,
) -> None:
    """Print a token with which a peer joins: `node --join FILE`.

    With --for it is of use to that peer alone. Without, it holds an invitation key, and is a secret: whoever has it may
    join, as often as it likes, until it ends or is revoked. Revoking it puts out all who joined by it.
    """
    from overlay.errors import AddressError, PeerIdError
    from overlay.identity import Identity, public_key_of
    from overlay.membership.gatekeeper import certificate_for
    from overlay.membership.join_token import MOST_ADDRESSES, MOST_REGISTRARS, JoinToken

    folder = NetworkFolder(name)
    root = folder.root()
    alias, owner = _named_owner(owner)
    try:
        _check_addresses(address)
        subject = public_key_of(peer) if peer is not None else None
        for named in filter(None, (owner, *registrar)):
            public_key_of(named)
    except (AddressError, PeerIdError) as error:
        raise Misuse(str(error)) from None
    if len(address) > MOST_ADDRESSES:
        raise Misuse(f"at most {MOST_ADDRESSES} addresses fit into a token")
    if address:
        folder.note_addresses(address)
    if owner or registrar:
        if not (owner or folder.owner):
            raise Misuse("--registrar needs --owner: whose resources it makes")
        if len(registrar) > MOST_REGISTRARS:
            raise Misuse(f"at most {MOST_REGISTRARS} registrars fit into a token")
        if not owner:
            owner, alias = folder.owner, folder.alias
        folder.note_owner(owner, alias, registrar or folder.registrars)
    invitation = Identity.generate() if subject is None else None
    key = public_key_of(invitation.peer_id) if invitation is not None else subject
    assert key is not None
    now = int(time.time())
    certificate = certificate_for(
        root,
        key,
        permits,
        not_before=folder.begins_at(key, now),
        expires_at=now + expires,
        may_admit=invitation is not None,
    )
    who = peer or (invitation.peer_id if invitation is not None else "")
    folder.note_issued(Issued(who, permits, invitation is not None, now, certificate.expires_at))
    token = JoinToken(
        (public_key_of(root.peer_id),),
        folder.addresses,
        (certificate,),
        invitation.seed if invitation is not None else b"",
        public_key_of(folder.owner) if folder.owner else b"",
        tuple(map(public_key_of, folder.registrars)),
        folder.alias,
    )
    if as_json:
        told: dict[str, Any] = {
            "token": token.text(),
            "root": root.peer_id,
            "permits": permits,
            "expires_at": certificate.expires_at,
        }
        told |= {"for": peer, "invitation": who if invitation is not None else None}
        click.echo(json_line(identified("network-token", told)))
        return
    click.echo(token.text())
    ends = moment(certificate.expires_at)
    if invitation is None:
        click.echo(f"This token is of use to {who} alone, until {ends}.", err=True)
    else:
        click.echo(
            f"This token is a secret: whoever has it may join, until {ends}, or until `aqua-registry network revoke"
            f" {who}`, which also puts out all who joined by it.",
            err=True,
        )
    if not folder.addresses:
        click.echo("It names no node to join through: that is for the first one. Tell --address for others.", err=True)


@network.command()
@click.argument("peer")
@click.option(
    "--relay",
    multiple=True,
    metavar="MULTIADDR",
    envvar="AQUA_REGISTRY_RELAY",
    help="Node to tell first, beside those of the latest invitation. Repeatable.",
)
@click.option("--timeout", type=SecondsType(), default=6.0, show_default=True, metavar="SECONDS")
@_name_option
@json_option
@logging_options("error")
def revoke(
    peer: str,
    relay: tuple[str, ...],
    timeout: float,
    name: str,
    as_json: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Put PEER out of the network, or an invitation and all who joined by it.

    Nodes tell each other, and cut its links within seconds. A peer that joined by an invitation may still have that:
    revoke it as well, as `network show` lists it. To let PEER in again, invite it with --for.
    """
    import trio

    from overlay.errors import AddressError, PeerIdError
    from overlay.identity import public_key_of

    configure_logs(log_level, log_format)
    folder = NetworkFolder(name)
    root = folder.root()
    try:
        subject = public_key_of(peer)
        _check_addresses(relay)
    except (AddressError, PeerIdError) as error:
        raise Misuse(str(error)) from None
    revocations = folder.revoke(subject, int(time.time()))
    addresses = tuple(dict.fromkeys((*relay, *folder.addresses)))
    told, failures = trio.run(_tell, root, revocations, addresses, timeout) if addresses else ([], [])
    if as_json:
        click.echo(json_line(identified("network-revocation", {"revoked": peer, "told": told, "failed": failures})))
    elif told:
        click.echo(f"revoked {peer}; told {len(told)} of {len(addresses)} nodes, which tell the others")
    if not told:
        reasons = "; ".join(one_line(failure) for failure in failures[:3]) or "no address of a node is known"
        raise Failure(f"the revocation is saved here, and no node knows of it ({reasons}): repeat it with --relay")


@network.command()
@_name_option
@json_option
def show(name: str, as_json: bool) -> None:
    """Print the network's root, whose its names are, what was issued by it and hasn't ended, and what was revoked."""
    from overlay.identity import peer_id_of

    folder = NetworkFolder(name)
    root = folder.root()
    revoked = {peer_id_of(entry.subject): entry.time for entry in folder.revocations()}
    if as_json:
        issued = [
            {
                "subject": entry.subject,
                "permits": entry.permits,
                "invitation": entry.is_invitation,
                "issued_at": entry.issued_at,
                "expires_at": entry.expires_at,
            }
            for entry in folder.issued
        ]
        shown: dict[str, Any] = {"name": folder.name, "root": root.peer_id, "file": str(folder.root_file)}
        names = {"owner": folder.owner or None, "alias": folder.alias or None, "registrars": list(folder.registrars)}
        shown |= {"addresses": list(folder.addresses), **names, "issued": issued, "revoked": revoked}
        click.echo(json_line(identified("private-network", shown)))
        return
    click.echo(f"network  {folder.name}")
    click.echo(f"root     {root.peer_id}  {folder.root_file}")
    for address in folder.addresses:
        click.echo(f"address  {one_line(address)}")
    if folder.owner:
        click.echo(f"owner    {folder.owner}{f', as {folder.alias}' if folder.alias else ''}")
    for registrar in folder.registrars:
        click.echo(f"registrar  {registrar}")
    for entry in folder.issued:
        kind = f"invitation of {entry.permits}s" if entry.is_invitation else entry.permits
        click.echo(f"issued   {entry.subject}  {kind}, until {moment(entry.expires_at)}")
    for peer_id, at in revoked.items():
        click.echo(f"revoked  {peer_id}  at {moment(at)}")


def _named_owner(given: str | None) -> tuple[str, str]:
    """The alias and the peer id in `--owner`; empty where they aren't given. Raises Misuse for what is no alias."""
    from registry.errors import InvalidValue
    from registry.model.names import check_alias

    alias, is_named, owner = (given or "").rpartition("=")
    if is_named:
        try:
            check_alias(alias, owner)
        except InvalidValue as error:
            raise Misuse(f"--owner: {error}") from None
    return alias, owner


def _check_addresses(addresses: Sequence[str]) -> None:
    from overlay.discovery.bootstrap_source import SourceKind, parse_source
    from overlay.errors import AddressError

    for address in addresses:
        if parse_source(address).kind is SourceKind.FILE:
            raise AddressError(f"whoever joins doesn't have this machine's files: {address!r}")


async def _tell(
    root: Identity, revocations: Revocations, addresses: Sequence[str], timeout: float
) -> tuple[list[str], list[str]]:
    """The nodes that were told of what was revoked, and why others couldn't be."""
    import trio

    from overlay.assembly import open_peer
    from overlay.errors import OverlayError
    from overlay.identity import Identity, public_key_of
    from overlay.membership.gatekeeper import CLIENT, certificate_for
    from overlay.membership.join_token import JoinToken
    from overlay.rpc.network_files import FOLDER, REVOCATIONS, NetworkFiles, write_revocations
    from overlay.settings import OverlaySettings

    told: list[str] = []
    failures: list[str] = []
    identity, now = Identity.generate(), int(time.time())
    certificate = certificate_for(
        root,
        public_key_of(identity.peer_id),
        CLIENT,
        not_before=now - 60,
        expires_at=now + _CERTIFICATE_OF_COMMAND,
    )
    with tempfile.TemporaryDirectory() as folder:
        NetworkFiles(Path(folder)).save_token(JoinToken((public_key_of(root.peer_id),), (), (certificate,)))
        write_revocations(Path(folder) / FOLDER / REVOCATIONS, revocations)
        settings = OverlaySettings(member=False, listen=())
        async with open_peer(identity, settings, data_dir=Path(folder)) as peer:

            async def tell(address: str) -> None:
                try:
                    for each in await peer.addresses_from(address):
                        peer_id = await peer.connect(each, timeout=timeout)
                        await peer.share_revocations(peer_id, timeout=timeout)
                        told.append(peer_id)
                except OverlayError as error:
                    failures.append(f"{address}: {error}")

            async with trio.open_nursery() as nursery:
                for address in addresses:
                    nursery.start_soon(tell, address)
    return told, failures
