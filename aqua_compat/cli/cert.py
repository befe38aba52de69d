"""`aqua-registry cert`: gives, shows and renews certificates, with which their holders register where a policy asks for
one. Needs no network."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line
from aqua_compat.cli.keys import named_key
from aqua_compat.cli.options import config_option, json_option, key_option
from aqua_compat.cli.output import identified, json_line, moment
from aqua_compat.cli.session import user_names
from aqua_compat.cli.times import TimeSpan, span_text

if TYPE_CHECKING:
    from overlay.identity import Identity
    from overlay.membership.certificate import Certificate
    from registry.codes import Code
    from registry.model.names import Names
    from registry.permission.scope import Scope

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

_key_option = key_option("Your key, which signs.")


@click.group(short_help="Give, show and renew certificates.")
def cert() -> None:
    """Give, show and renew certificates: what lets their holders register where a policy names you as a root, or where
    you are the owner. They are checked offline; they end by themselves, and can be denied (`resource policy --deny`).
    """


@cert.command("issue", short_help="Certify a peer.")
@click.option("--for", "subject", required=True, metavar="PEER_ID", help="Who may register.")
@click.option(
    "--on",
    "place",
    required=True,
    metavar="LABEL|ID|PREFIX*",
    help="On which resources: of a label, of an id, or of all labels that begin so; '*' for all.",
)
@click.option(
    "--owner", metavar="OWNER", help="Whose resources: alias, peer id or `me`.  [default: the chain's, else your key's]"
)
@click.option(
    "--expires", type=TimeSpan(), required=True, metavar="SPAN", help="How long it holds, such as 24h or 30d."
)
@click.option(
    "--delegate",
    type=click.IntRange(0, 2),
    default=0,
    show_default=True,
    metavar="N",
    help="How often it may be handed on, by `cert issue --chain`.",
)
@click.option(
    "--chain",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The certificate that lets you hand on. Without it, you certify as owner or root.",
)
@_key_option
@config_option
@json_option
def issue(
    subject: str,
    place: str,
    owner: str | None,
    expires: int,
    delegate: int,
    chain: Path | None,
    key: str,
    config: Path | None,
    as_json: bool,
) -> None:
    """Certify a peer, and print the certificate: one line, which it keeps in a file `*.cert`.

    \b
    aqua-registry cert issue --for 12D3KooW... --on payments --expires 24h > theirs.cert
    aqua-registry cert issue --for 12D3KooW... --on payments --expires 12h --chain mine.cert > next.cert
    """
    me = named_key(key)
    above = _chain_of_mine(chain, me, key, delegate) if chain is not None else ()
    scope = _scope(place, None if owner is None else _owner(owner, user_names(config, key)), above, me)
    given = _signed(me, _peer_key("--for", subject), scope, delegate, expires)
    _check_own(given)
    _tell((*above, given), as_json=as_json)


@cert.command("show", short_help="Print what a certificate permits.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def show(file: Path, as_json: bool) -> None:
    """Print who certifies whom in FILE, for what and until when. What is forged or cut off is an error."""
    chain = _read(file)
    if as_json:
        click.echo(json_line(_as_json(chain)))
        return
    for number, certificate in enumerate(chain, 1):
        click.echo(f"certificate {number} of {len(chain)}")
        for name, text in _lines(certificate):
            click.echo(f"  {name:8} {text}")
    click.echo(_standing(chain))


@cert.command("renew", short_help="Let a certificate that you gave hold for longer.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--expires", type=TimeSpan(), metavar="SPAN", help="How long it holds from now.  [default: as before]")
@click.option(
    "--chain",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Your own certificate, where it was renewed too.",
)
@_key_option
@json_option
def renew(file: Path, expires: int | None, chain: Path | None, key: str, as_json: bool) -> None:
    """Issue the last certificate in FILE anew, which your key must have given, and put it in its place.

    Whoever runs with that file goes on under the new one by itself.
    """
    from registry.client.certifying import BEFORE
    from registry.permission.scope import scope_in

    me, old = named_key(key), _read(file)
    last = old[-1]
    if _peer(last.issuer) != me.peer_id:
        raise Failure(f"{file} is by {_peer(last.issuer)}, not by your key {key!r}: ask that one, or give -k")
    above = old[:-1] if chain is None else _chain_of_mine(chain, me, key, last.depth)
    span = expires if expires is not None else last.expires_at - last.not_before - BEFORE
    scope = scope_in(last.scope)
    if scope is None:
        raise Failure(f"{file} is for something that this version doesn't know; renew it with the one that issued it")
    _check_shared(_scopes(above), scope)
    given = _signed(me, last.subject, scope, last.depth, max(span, 1))
    renewed = (*above, given)
    _check_ends(renewed)
    _write(file, renewed)
    if as_json:
        click.echo(json_line(_as_json(renewed)))
    else:
        click.echo(f"renewed {file}: {_standing(renewed)}")


def _chain_of_mine(file: Path, me: Identity, key: str, delegate: int) -> tuple[Certificate, ...]:
    """The chain under which `me` hands on, `delegate` times more. Raises Failure."""
    from overlay.membership.certificate import MAX_CHAIN
    from registry.codes import Code

    chain = _read(file)
    holder = _peer(chain[-1].subject)
    if holder != me.peer_id:
        raise _refused(
            Code.CERTIFICATE_SUBJECT, f"{file} is for {holder}, not for your key {key!r}; give -k, or your own"
        )
    if len(chain) + 1 + delegate > MAX_CHAIN:
        raise _refused(
            Code.CERTIFICATE_CHAIN_TOO_LONG,
            f"a chain has {MAX_CHAIN} certificates at most, and {file} has {len(chain)} already; get one nearer the"
            " root, or --delegate less",
        )
    if any(each.depth < len(chain) - place + delegate for place, each in enumerate(chain)):
        raise _refused(
            Code.CERTIFICATE_DEPTH,
            f"{file} mustn't be handed on so often; ask its issuer for one with a greater --delegate, or give a"
            " smaller one",
        )
    _check_ends(chain)
    return chain


def _scope(place: str, owner: str | None, above: Sequence[Certificate], me: Identity) -> Scope:
    """What `--on` says. Raises Misuse, and Failure for what the certificates above don't cover."""
    from registry.client.certifying import scope_of

    label, _, its_owner = place.rpartition("@")
    if label and owner is None:
        named = f"--on {shlex.quote(label)} --owner {shlex.quote(its_owner)}"
        click.echo(f"note: {one_line(place)} is taken as a label; for the name: {one_line(named)}", err=True)
    outer = _scopes(above)
    owners = [scope.owner for scope in outer if scope.owner]
    owner_key = _peer_key("--owner", owner) if owner else owners[-1] if owners else _peer_key("-k", me.peer_id)
    try:
        scope = scope_of(place, _peer(owner_key))
    except ValueError as error:
        raise Misuse(f"--on: {error}") from None
    _check_shared(outer, scope)
    return scope


def _scopes(chain: Sequence[Certificate]) -> list[Scope]:
    """What certificates are for, as far as this version knows."""
    from registry.permission.scope import scope_in

    return [scope for scope in map(scope_in, (each.scope for each in chain)) if scope is not None]


def _check_shared(outer: Sequence[Scope], scope: Scope) -> None:
    """Raises Failure if the certificates above, of these scopes, cover nothing of what the next one is for."""
    from registry.codes import Code

    for each in outer:
        if not may_share(each, scope):
            raise _refused(
                Code.CERTIFICATE_RESOURCE,
                f"your own certificate is for {_place(each)}, so yours for {_place(scope)} would permit nothing",
            )


def may_share(one: Scope, other: Scope) -> bool:
    """Whether there may be a resource that both cover: certificates of a chain that share none permit nothing."""
    from registry.model.signing import key_id_of
    from registry.permission.scope import ScopeKind

    by_id = [scope for scope in (one, other) if scope.kind is ScopeKind.RESOURCE]
    by_label = [scope for scope in (one, other) if scope.kind is ScopeKind.LABEL]
    if len(by_id) == 2 or len(by_label) == 2:
        return one == other
    if by_id and by_label:
        return key_id_of(by_label[0].name, _peer(by_label[0].owner)) == by_id[0].name
    if by_id:
        return True  # whose labels begin how doesn't show in an id
    if one.owner != other.owner:
        return False
    if by_label:
        wider = other if one in by_label else one
        return by_label[0].name.startswith(wider.name)
    return one.name.startswith(other.name) or other.name.startswith(one.name)


def _signed(me: Identity, subject: bytes, scope: Scope, depth: int, span: int) -> Certificate:
    from registry.client.certifying import certify

    return certify(me, _peer(subject), scope, now=time.time(), lasts=span, delegate=depth)


def _check_own(given: Certificate) -> None:
    if given.subject == given.issuer:
        raise Misuse("--for names your own key: as the owner it may register anyway, as a root it can't certify itself")


def _check_ends(chain: Sequence[Certificate]) -> None:
    from overlay.membership.chain import ends_at
    from registry.codes import Code

    if ends_at(chain) <= time.time():
        raise _refused(
            Code.CERTIFICATE_EXPIRED,
            f"the chain above ended at {moment(ends_at(chain))}: get yours renewed, then give it with --chain",
        )


def _tell(chain: tuple[Certificate, ...], *, as_json: bool) -> None:
    from overlay.membership.chain import ends_at
    from registry.permission.certificate_text import text_of

    _check_ends(chain)
    if ends_at(chain) < chain[-1].expires_at:
        click.echo(f"note: it holds until {moment(ends_at(chain))} only: a certificate above it ends then", err=True)
    click.echo(json_line(_as_json(chain)) if as_json else text_of(chain))


def _read(file: Path) -> tuple[Certificate, ...]:
    from registry.client.certificate_files import UnusableCertificate, read_chain

    try:
        return read_chain(file)
    except UnusableCertificate as error:
        raise Failure(one_line(str(error))) from None


def _write(file: Path, chain: Sequence[Certificate]) -> None:
    from registry.client.certifying import save_chain

    try:
        save_chain(file, chain)
    except OSError as error:
        raise Failure(
            f"can't write the certificate {file}: {error.strerror}; check that its folder is writable"
        ) from None


def _as_json(chain: Sequence[Certificate]) -> dict[str, Any]:
    from overlay.membership.chain import begins_at, ends_at
    from registry.permission.certificate_text import text_of

    told = {
        "certificate": text_of(chain),
        "chain": [_certificate_as_json(each) for each in chain],
        "begins_at": begins_at(chain),
        "ends_at": ends_at(chain),
    }
    return identified("certificate", told)


def _certificate_as_json(certificate: Certificate) -> dict[str, Any]:
    from registry.permission.scope import scope_in

    scope = scope_in(certificate.scope)
    on = None
    if scope is not None:
        on = {"kind": scope.kind.value, "name": scope.name, "owner": _peer(scope.owner) if scope.owner else None}
    return {
        "issuer": _peer(certificate.issuer),
        "subject": _peer(certificate.subject),
        "permits": list(certificate.permits),
        "delegate": certificate.depth,
        "on": on,
        "not_before": certificate.not_before,
        "expires_at": certificate.expires_at,
    }


def _lines(certificate: Certificate) -> list[tuple[str, str]]:
    from registry.permission.scope import scope_in

    scope, times = scope_in(certificate.scope), certificate.depth
    handing = "not to be handed on" if not times else f"may be handed on {'once' if times == 1 else f'{times} times'}"
    return [
        ("by", _peer(certificate.issuer)),
        ("for", _peer(certificate.subject)),
        ("permits", f"{', '.join(map(one_line, certificate.permits)) or 'nothing'}; {handing}"),
        ("on", "something that this version doesn't know" if scope is None else _place(scope)),
        ("from", moment(certificate.not_before)),
        ("until", moment(certificate.expires_at)),
    ]


def _place(scope: Scope) -> str:
    from registry.permission.scope import ScopeKind

    if scope.kind is ScopeKind.RESOURCE:
        return f"the resource {one_line(scope.name)}"
    owner = _peer(scope.owner)
    if scope.kind is ScopeKind.ALL:
        return f"all resources of {owner}"
    begins = "labels that begin with " if scope.kind is ScopeKind.PREFIX else ""
    return f"{begins}{one_line(scope.name)!r} of {owner}"


def _standing(chain: Sequence[Certificate]) -> str:
    from overlay.membership.chain import begins_at, ends_at

    now = int(time.time())
    if now >= ends_at(chain):
        return f"it ended at {moment(ends_at(chain))}: get it renewed"
    if now < begins_at(chain):
        return f"it begins at {moment(begins_at(chain))}"
    return f"it holds for {span_text(ends_at(chain) - now)}, until {moment(ends_at(chain))}"


def _owner(word: str, names: Names) -> str:
    from registry.errors import InvalidValue

    try:
        return names.owner(word)
    except InvalidValue as error:
        raise Misuse(f"--owner: {error}") from None


def _peer_key(option: str, peer_id: str) -> bytes:
    from overlay.errors import PeerIdError
    from overlay.identity import public_key_of

    try:
        return public_key_of(peer_id)
    except PeerIdError as error:
        raise Misuse(f"{option}: {one_line(str(error))}") from None


def _peer(key: bytes) -> str:
    from overlay.identity import peer_id_of

    return peer_id_of(key)


def _refused(code: Code, text: str) -> Failure:
    return Failure(f"{text} ({code})")
