"""`aqua-registry resource`: creates, shows, explains and removes resources."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from aqua_compat.cli.failures import Failure, not_done, one_line, reasons
from aqua_compat.cli.keys import named_peer_id
from aqua_compat.cli.options import json_option, network_options
from aqua_compat.cli.output import json_line, moment, print_json, print_lines
from aqua_compat.cli.policy import policy
from aqua_compat.cli.session import CommandSession, warn
from aqua_compat.cli.through_node import create_through, print_id_through, remove_through

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient

WIDEST: Final = 60  # characters to which names are padded

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


@click.group(short_help="Create, show and remove resources.")
def resource() -> None:
    """Create, show and remove resources: labels under which services are found."""


resource.add_command(policy)


@resource.command("create")
@click.argument("label")
@json_option
@network_options(writes=True)
def create_resource(session: CommandSession, label: str, as_json: bool) -> None:
    """Create the resource LABEL, owned by your key, and print its id."""
    if (node := session.node()) is not None:
        create_through(node, label, session.factor, as_json=as_json)
        return
    from aqua_compat.schema.arguments import check_string

    created = session.run(lambda client: client.registry.create_resource(check_string("label", label), **session.write))
    if created.resource_id is None:
        raise not_done(f"the resource {label[:80]!r} wasn't created", created)
    warn(created.errors)
    if as_json:
        from aqua_compat.schema.shapes import created_as_json

        owner = named_peer_id(session.key_name)
        print_json(created_as_json(created.resource_id, session.names.of(owner).name(label, owner)))
    else:
        click.echo(created.resource_id)


@resource.command("remove", short_help="Remove a resource that your key owns.")
@click.argument("resource")
@json_option
@network_options(writes=True)
def remove_resource(session: CommandSession, resource: str, as_json: bool) -> None:
    """Remove RESOURCE, an id or a name such as web@me, which your key owns, and all that is registered on it.

    Its label can be used again.
    """
    shown = one_line(resource)
    if (node := session.node()) is not None:
        remove_through(node, session.name_for_node(resource), shown, session.factor, as_json=as_json)
        return
    resource_id = session.resource_id(resource)
    done = session.run(lambda client: client.registry.remove_resource(resource_id, **session.write))
    if not done.success:
        raise not_done(f"the resource {shown} wasn't removed", done)
    warn(done.errors)
    if as_json:
        print_json({"removed": resource_id})
    else:
        click.echo(f"removed {shown}")


@resource.command("explain", short_help="Print what happened to a resource on a node, and why.")
@click.argument("resource")
@json_option
@network_options()
def explain_resource(session: CommandSession, resource: str, as_json: bool) -> None:
    """Print what happened to RESOURCE, an id or a name such as web@acme, on the node, as far as it remembers.

    A line for each record or key that was stored, renewed or removed there, and each time that the node saw a host go
    down or come up, or a service change, with the time and the reason; then one for each record that the resource's
    policy withholds, whose host is down, or that doesn't pass now.
    """
    if (node := session.node()) is not None:
        events = node.get("resources", session.name_for_node(resource), "history").result
    else:
        from aqua_compat.schema.json_codec import to_json

        resource_id = session.resource_id(resource)
        found = session.run(lambda client: client.registry.explain(resource_id, timeout=session.timeout))
        events = to_json(found)
    if as_json:
        click.echo(json_line(events))
        return
    if not events:
        click.echo(
            "the node remembers nothing of this resource; `aqua-registry peers RESOURCE` tells who keeps it",
            err=True,
        )
    for event in events:
        print_lines(
            f"{moment(event['time'])}  {event['what']:11} {_subject(event)}  {one_line(event['detail'])}".rstrip()
        )


def _subject(event: Mapping[str, Any]) -> str:
    """What something happened to."""
    if event["issued_by"]:
        on = f" on {event['peer_id']}" if event["peer_id"] != event["issued_by"] else ""
        return f"record of {event['issued_by']}{on}"
    return f"host {event['peer_id']}" if event["peer_id"] else "resource"


@resource.command("show", short_help="Print a resource's owner and label.")
@click.argument("resource")
@json_option
@network_options()
def show_resource(session: CommandSession, resource: str, as_json: bool) -> None:
    """Print the owner of RESOURCE, an id or a name such as web@acme, its label and when it was created."""
    if (node := session.node()) is not None:
        answer = node.get("resources", session.name_for_node(resource))
        shown, errors = answer.result, answer.warnings
    else:
        from aqua_compat.schema.shapes import key_as_json

        resource_id = session.resource_id(resource)
        key, errors = session.run(lambda client: client.getResource(resource_id))
        if key is None:
            raise Failure(f"the resource {one_line(resource)} wasn't found: {reasons(errors)}")
        shown = key_as_json(key, session.names)
    warn(errors)
    if as_json:
        click.echo(json_line(shown))
        return
    for name, text in (
        ("name", shown["name"]),
        ("id", shown["id"]),
        ("label", shown["label"]),
        ("owner", shown["owner_peer_id"]),
        ("created", moment(shown["timestamp_created"])),
    ):
        click.echo(f"{name:8} {one_line(text)}")


@resource.command("list", short_help="Print an owner's resources.")
@click.argument("owner", default="me")
@json_option
@network_options()
def list_resources(session: CommandSession, owner: str, as_json: bool) -> None:
    """Print the resources of OWNER, an alias, a peer id, or `me` for your key, the default.

    A line for each, in order of the labels: its name, `live`, `expired` or `removed`, when its owner last created,
    renewed or removed it, and its id. An expired one wasn't renewed for a day, and lasts only where something is
    registered on it.
    """
    pages = _pages_through_node if session.node() is not None else _pages
    found: list[dict[str, Any]] = []
    warnings: dict[str, None] = {}
    for page, errors in pages(session, owner):
        found += page
        warnings.update(dict.fromkeys(errors))
    warn(tuple(warnings))
    if as_json:
        print_json({"resources": found, "after": None})
        return
    if not found:
        click.echo(f"no resources of {one_line(owner)} are listed", err=True)
    width = max((len(one_line(each["name"])) for each in found), default=0)
    for each in found:
        shown = f"{one_line(each['name']):{min(width, WIDEST)}}"
        click.echo(f"{shown}  {each['standing']:7}  {moment(each['time'])}  {each['resource_id']}")


def _pages(session: CommandSession, owner: str) -> Iterator[tuple[list[dict[str, Any]], Sequence[str]]]:
    from aqua_compat.schema.shapes import listed_as_json

    owner_peer_id = session.owner(owner)

    async def all_pages(client: AquaClient) -> list[tuple[Any, Sequence[str]]]:
        pages: list[tuple[Any, Sequence[str]]] = []
        after = None
        while after is not None or not pages:
            page = await client.registry.list_resources(owner_peer_id, after=after, timeout=session.timeout)
            if page.resources is None:
                raise Failure(f"the resources of {one_line(owner)} weren't listed: {reasons(page.errors)}")
            pages.append((listed_as_json(page.resources, page.after, session.names)["resources"], page.errors))
            after = page.after
        return pages

    yield from session.run(all_pages)


def _pages_through_node(session: CommandSession, owner: str) -> Iterator[tuple[list[dict[str, Any]], Sequence[str]]]:
    node = session.node()
    assert node is not None
    after = None
    while True:
        asked: dict[str, object] = {} if after is None else {"after": after}
        answer = node.get("owners", session.owner_for_node(owner), "resources", **asked)
        yield answer.result["resources"], answer.warnings
        after = answer.result["after"]
        if after is None:
            return


@resource.command("id", short_help="Print the id of a resource from its label.")
@click.argument("label")
@click.option("--owner", metavar="OWNER", help="Alias or peer id of its owner, or `me`.  [default: me]")
@json_option
@network_options(acts=True)
def resource_id(session: CommandSession, label: str, owner: str | None, as_json: bool) -> None:
    """Print the id that the resource LABEL has, whether it exists or not. Asks no other machine.

    For that of the name web@acme give the label web and --owner acme. `me` is whom other commands act as: the node on
    this machine, or your key where none runs, or with --relay or --key.
    """
    first, _, last = label.rpartition("@")
    if first and owner is None:
        its = f"aqua-registry resource id {shlex.quote(first)} --owner {shlex.quote(last)}"
        click.echo(f"note: {one_line(label)} is taken as a label; for the name: {one_line(its)}", err=True)
    if not _is_peer_id(owner) and (node := session.node()) is not None:
        print_id_through(node, label, session.owner_for_node(owner or "me"), as_json=as_json)
        return
    name = f"{label}@{owner or 'me'}"
    found = session.resource_id(name)
    if as_json:
        print_json({"resource_id": found, "name": name})
    else:
        click.echo(found)


def _is_peer_id(owner: str | None) -> bool:
    """Whether an owner is given so that nobody need be asked who it is."""
    if owner is None:
        return False
    from overlay.identity import is_peer_id

    return is_peer_id(owner)
