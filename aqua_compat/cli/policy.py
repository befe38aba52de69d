"""`aqua-registry resource policy`: shows who may register on a resource, and changes it in its owner's name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from aqua_compat.cli.failures import Failure, Misuse, not_done, one_line, reasons
from aqua_compat.cli.options import json_option, network_options
from aqua_compat.cli.output import identified, moment, print_json
from aqua_compat.cli.session import CommandSession, warn
from aqua_compat.cli.times import Moment

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from registry.model.names import Names
    from registry.model.values import Key
    from registry.permission.edits import Edit
    from registry.permission.policy import Policy
    from registry.settings import RegistrySettings

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

_PAIRS: Final = ("deny", "lift", "drop_denial")
_OPPOSITES: Final = (("allow", "disallow"), ("root", "drop_root"), ("host", "drop_host"))


@click.command("policy", short_help="Show who may register on a resource, or change it.")
@click.argument("resource")
@click.option("--open", "opens", is_flag=True, help="Let anyone register who isn't denied.")
@click.option("--close", "closes", is_flag=True, help="Let only those register whom the policy names or certifies.")
@click.option("--allow", multiple=True, metavar="ISSUER", help="Let this peer register.")
@click.option("--disallow", multiple=True, metavar="ISSUER", help="Take that back.")
@click.option("--root", multiple=True, metavar="PEER_ID", help="Let those register whom this peer certifies.")
@click.option("--drop-root", multiple=True, metavar="PEER_ID", help="Take that back.")
@click.option("--host", multiple=True, metavar="PEER_ID", help="Let services be only on hosts that are named so.")
@click.option("--drop-host", multiple=True, metavar="PEER_ID", help="Take that back; with none, they may be on any.")
@click.option(
    "--deny",
    multiple=True,
    metavar="ISSUER[@HOST]",
    help="Withhold what this peer registered and registers, on that host or on all; on all, also what those register"
    " whom it certified.",
)
@click.option("--until", type=Moment(), metavar="WHEN", help="End of what --deny denies.  [default: never]")
@click.option("--lift", multiple=True, metavar="ISSUER[@HOST]", help="End a denial now, for what is registered later.")
@click.option("--drop-denial", multiple=True, metavar="ISSUER[@HOST]", help="Take a denial off that ended long ago.")
@click.option(
    "--longest-chain",
    type=click.IntRange(0, 3),
    metavar="N",
    help="Let chains of N certificates at most count, of none at 0.  [3 at first]",
)
@json_option
@network_options(writes=True, counts=False, as_node=False)
def policy(session: CommandSession, resource: str, as_json: bool, **changes: Any) -> None:
    """Show who may register on RESOURCE, an id or a name, or change it: then your key must be its owner's.

    All options but --open, --close, --until and --longest-chain can be repeated. The changes are made on top of what
    the policy is by then, and nothing is said to be done before a majority of the resource's replicas says that it
    holds.

    \b
    aqua-registry resource policy ID --close --allow 12D3KooW...
    aqua-registry resource policy ID --deny 12D3KooW...@12D3KooW... --until 30d
    """
    from aqua_compat.schema.shapes import policy_as_json
    from registry.permission.edits import EditKind

    resource_id, shown = session.resource_id(resource), one_line(resource)
    edits = _edits(changes)
    lifted = frozenset(_pair_in("lift", text) for text in changes["lift"])
    if not edits:
        session.only_read()

    async def act(client: AquaClient) -> tuple[Key, list[str]]:
        key, errors = await client.getResource(resource_id)
        if key is not None and key.revision > 1:
            await _tell_overtaken(client, key.id, session.timeout)
        if key is None:
            raise Failure(f"the resource {shown} wasn't found: {reasons(errors)}")
        if not edits:
            return key, errors
        _check_denials(key, edits, lifted)
        done = await client.registry.change_policy(resource_id, edits, timeout=session.timeout)
        if not done.success:
            raise not_done(f"the policy of {shown} wasn't changed", done)
        changed, errors = await client.getResource(resource_id)
        if changed is None:
            raise Failure(f"the policy of {shown} was changed, but can't be shown: {reasons(errors)}")
        return changed, [*done.errors, *errors]

    key, errors = session.run(act)
    warn(errors)
    for edit in edits:
        if edit.kind is EditKind.DENY:
            meaning = meaning_of_lift(edit, key) if (edit.key, edit.host) in lifted else _meaning(edit)
            click.echo(f"note: {meaning}", err=True)
    if as_json:
        print_json(identified("policy", policy_as_json(key, session.names)))
    else:
        for name, text in _lines(key, session.names):
            click.echo(f"{name:10} {text}")


async def _tell_overtaken(client: AquaClient, resource_id: str, timeout: float) -> None:
    """Says what the policy lacks because two machines of the owner changed it at the same moment."""
    from registry.errors import RegistryError
    from registry.permission.edits import edit_text

    try:
        missing = await client.registry.overtaken_edits(resource_id, timeout=timeout)
    except RegistryError as error:
        warn([f"whether a change of the policy was overtaken by another can't be told: {error}"])
        return
    if missing:
        options = " ".join(map(edit_text, missing))
        overtaken = "another machine of the owner changed this policy at the same moment, which was written over"
        warn([f"{overtaken}; make it again if it is missing: {options}"])


def _edits(changes: dict[str, Any]) -> list[Edit]:
    from registry.permission.edits import Edit, EditKind
    from registry.permission.policy import FOR_EVER
    from registry.settings import RegistrySettings

    if changes["opens"] and changes["closes"]:
        raise Misuse("--open and --close contradict each other; give one")
    for given, taken in _OPPOSITES:
        twice = set(changes[given]) & set(changes[taken])
        if twice:
            options = f"--{given} and --{taken.replace('_', '-')}"
            raise Misuse(f"{options} of {one_line(min(twice))} contradict each other; give one")
    until = changes["until"]
    if until is not None and not changes["deny"]:
        raise Misuse("--until is the end of a denial; give --deny too")
    kinds = {
        "disallow": EditKind.DISALLOW,
        "allow": EditKind.ALLOW,
        "drop_root": EditKind.DROP_ROOT,
        "root": EditKind.ADD_ROOT,
        "drop_host": EditKind.DROP_HOST,
        "host": EditKind.ADD_HOST,
    }
    edits = [Edit(kind, _key(name, peer)) for name, kind in kinds.items() for peer in changes[name]]
    now = int(time.time())
    ends = {
        "deny": FOR_EVER if until is None else until,
        "lift": now,
        "drop_denial": now - _longest(RegistrySettings()),
    }
    for name in _PAIRS:
        kind = EditKind.DROP_DENIAL if name == "drop_denial" else EditKind.DENY
        for text in changes[name]:
            edits.append(Edit(kind, *_pair_in(name, text), ends[name]))
    named = [(edit.key, edit.host) for edit in edits if edit.kind in (EditKind.DENY, EditKind.DROP_DENIAL)]
    if len(named) != len(set(named)):
        raise Misuse("a pair of issuer and host is named twice among --deny, --lift and --drop-denial; name it once")
    if changes["longest_chain"] is not None:
        edits.append(Edit(EditKind.LONGEST_CHAIN, number=changes["longest_chain"]))
    if changes["opens"] or changes["closes"]:
        edits.append(Edit(EditKind.OPEN if changes["opens"] else EditKind.CLOSE))
    return edits


def _pair_in(option: str, text: str) -> tuple[bytes, bytes]:
    """The keys of an issuer and of a host, which may be empty for any."""
    issuer, _, host = text.partition("@")
    return _key(option, issuer), _key(option, host) if host else b""


def _key(option: str, peer_id: str) -> bytes:
    from overlay.errors import PeerIdError
    from overlay.identity import public_key_of

    try:
        return public_key_of(peer_id)
    except PeerIdError as error:
        raise Misuse(f"--{option.replace('_', '-')}: {one_line(str(error))}") from None


def _longest(settings: RegistrySettings) -> int:
    """Seconds after which nothing that was issued can be good any more, whatever the clocks are."""
    return settings.record_lifetime + 2 * settings.clock_skew


def _check_denials(key: Key, edits: list[Edit], lifted: frozenset[tuple[bytes, bytes]]) -> None:
    """Raises Failure for what would be lifted and isn't denied, and for a denial that can't be dropped yet."""
    from registry.permission.edits import EditKind
    from registry.permission.policy import Policy

    held = key.policy.deny if isinstance(key.policy, Policy) else ()
    denials = {(each.issuer, each.host): each.until for each in held}
    for edit in edits:
        until = denials.get((edit.key, edit.host))
        who = _pair(edit.key, edit.host)
        is_lift = edit.kind is EditKind.DENY and (edit.key, edit.host) in lifted
        if is_lift and until is None:
            raise Failure(f"{who} isn't denied, so there is nothing to lift; `resource policy {key.id}` shows who is")
        if is_lift and until is not None and until < edit.until:
            raise Failure(
                f"the denial of {who} ended already, at {moment(until)}; what it issued before stays withheld"
            )
        if edit.kind is EditKind.DROP_DENIAL and until is not None and until > edit.until:
            raise Failure(
                f"the denial of {who} can't be dropped: without it, what {peer_text(edit.key)} registered before would"
                f" be served again by itself. Lift it instead (--lift {who}): then what it registers from now on counts"
            )


def meaning_of_lift(edit: Edit, key: Key) -> str:
    """What it means that a denial ends now, under the policy in `key`, in which others may go on."""
    from registry.permission.policy import ANY_HOST, Policy

    held = key.policy.deny if isinstance(key.policy, Policy) else ()
    others = (
        _pair(each.issuer, each.host)
        for each in held
        if each.issuer == edit.key and each.host != edit.host and ANY_HOST in (each.host, edit.host)
        if each.until > edit.until
    )
    still = "".join(f", but for what is denied still (lift it with --lift {other})" for other in others)
    return (
        f"lifted: what {_pair(edit.key, edit.host)} registers from now on counts again{still}; what it registered"
        " before stays withheld, so it has to register anew"
    )


def _meaning(edit: Edit) -> str:
    from registry.permission.policy import FOR_EVER

    who = _pair(edit.key, edit.host)
    if edit.until <= time.time():
        return f"denied: what {who} registered until {moment(edit.until)}; what it registered later counts"
    end = "until" if edit.until == FOR_EVER else f"until {moment(edit.until)}, or until"
    return f"denied: what {who} registered, and what it registers {end} you lift it with --lift {who}"


def _pair(issuer: bytes, host: bytes) -> str:
    return peer_text(issuer) + (f"@{peer_text(host)}" if host else "")


def peer_text(key: bytes) -> str:
    """The peer id of a public key."""
    from registry.permission.policy import peer_of

    return peer_of(key)


def _lines(key: Key, names: Names) -> list[tuple[str, str]]:
    from registry.permission.policy import UnknownPolicy

    shown = key.policy
    lines = [("name", one_line(names.name(key.label, key.owner_peer_id)))]
    lines += [("label", one_line(key.label)), ("owner", f"{key.owner_peer_id}, who always may register")]
    if shown is None:
        return [*lines, ("policy", "none: anyone may register")]
    lines.append(("revision", str(shown.revision)))
    if isinstance(shown, UnknownPolicy):
        return [*lines, ("policy", "of a later version than this one knows: upgrade to see it")]
    return [*lines, *_lines_of(shown)]


def _lines_of(shown: Policy) -> list[tuple[str, str]]:
    from registry.permission.policy import FOR_EVER

    may = "anyone who isn't denied" if shown.open else "those below alone"
    lines = [("open", f"{'yes' if shown.open else 'no'}: {may}")]
    lines += [("allow", peer_text(each)) for each in shown.allow]
    lines += [("root", f"{peer_text(each)}, and whom it certifies") for each in shown.roots]
    for each in shown.deny:
        end = "until it's lifted" if each.until == FOR_EVER else f"what is issued until {moment(each.until)}"
        on = f"on {peer_text(each.host)}" if each.host else "anywhere, and whom it certified"
        lines.append(("deny", f"{peer_text(each.issuer)} {on}, {end}"))
    lines += [("host", peer_text(each)) for each in shown.hosts] or [("host", "any")]
    count = shown.longest_chain
    of = f"of {count} certificates at most" if count > 1 else "of one certificate" if count else "no certificate counts"
    return [*lines, ("chains", of)]
