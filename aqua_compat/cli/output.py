"""What commands print: for scripts JSON, one value per line; for people records, and moments in time."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import click

from aqua_compat.cli.failures import one_line

if TYPE_CHECKING:
    from registry.model.values import Record

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_SCHEMA: Final = "aqua-registry.endpoints/1"
"""`registry.model.endpoints.SCHEMA`, whose module takes long to import."""


def json_line(value: object, *, default: Callable[[Any], Any] | None = None) -> str:
    """One JSON value on one line; characters that don't show are escaped, wherever they come from.

    A terminal obeys some of them, and others turn the text around them about: labels and values are other peers' texts.
    `default`: as json.dumps has it.
    """
    return _UNPRINTABLE.sub(_shown, json.dumps(value, ensure_ascii=False, default=default))


def print_json(value: object) -> None:
    """One JSON value on one line, as the API's JSON shapes have it."""
    from aqua_compat.schema.json_codec import to_json  # noqa: PLC0415 - 0.1 s that `--help` needn't pay

    click.echo(json_line(to_json(value)))


def identified(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the id of its shape in front (docs/command-line.md), which is that of the native API where that
    has it."""
    return {"schema": f"aqua-registry.{name}/1", **value}


def print_lines(lines: str) -> None:
    """Lines for people. A terminal that is narrower gets each in several, broken between words, the later ones
    indented: ids stay whole, and can be copied. Others, such as scripts, get them as they are."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else len(lines)
    click.echo("\n".join(part for line in lines.splitlines() for part in wrapped(line, width)))


def wrapped(line: str, width: int) -> list[str]:
    """A line in as many as it takes, where it's longer than `width` (characters)."""
    if len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def describe(record: Record) -> str:
    """A record on one line for people."""
    from aqua_compat.schema.json_codec import to_json  # noqa: PLC0415 - as above

    return describe_json(cast("Mapping[str, Any]", to_json(record)))


def describe_json(record: Mapping[str, Any]) -> str:
    """A record in its JSON shape on one line for people."""
    metadata = record["metadata"]
    parts = [metadata["peer_id"]]
    if metadata["service_id"]:
        parts.append(f"service {one_line(metadata['service_id'][0])}")
    if metadata["value"]:
        parts.append(f"value {one_line(metadata['value'])}")
    if metadata["relay_id"]:
        parts.append(f"via {one_line(metadata['relay_id'][0])}")
    parts.append(f"since {moment(metadata['timestamp_issued'])}")
    if metadata["issued_by"] != metadata["peer_id"]:
        parts.append(f"issued by {metadata['issued_by']}")
    return "  ".join(parts)


def print_resolved(
    shown: Sequence[Mapping[str, Any]], *, reachable: bool, is_chosen: bool, is_sorted: bool = False
) -> None:
    """For people what `resolve` found, in its JSON shape. `reachable`: those whose peer answers were asked for;
    `is_chosen`: only instances with some tags and metadata; `is_sorted`: in an order that was asked for."""
    lines = _instance_lines(shown) if is_chosen and not is_sorted and not (shown and "health" in shown[0]) else []
    if not lines:
        for one in shown:
            record = one.get("record", one)
            is_told = is_chosen or _SCHEMA in record["metadata"]["value"]
            told = _instance_lines([record]) if is_told else []
            state = f"  ({describe_health(one['health'])})" if "health" in one else ""
            lines += [f"{line}{state}" for line in told or [describe_json(record)]]
    nothing = "no service whose peer answers" if reachable else "no services"
    for line in lines or [f"{nothing}, or none with these tags and metadata" if is_chosen else nothing]:
        print_lines(line)


def _instance_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each instance, the heaviest first, as `registry.model.endpoints.by_weight` has it."""
    pairs = [(record["metadata"], instance) for record in records for instance in record["instances"]]
    pairs.sort(key=lambda each: (-each[1]["weight"], each[0]["peer_id"], each[0]["issued_by"], each[1]["id"]))
    return [_describe_instance(instance, metadata) for metadata, instance in pairs]


def _describe_instance(instance: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """An instance and whose it is, on one line for people."""
    host = f"[{instance['address']}]" if ":" in instance["address"] else instance["address"]
    location = f"{host}:{instance['port']}" if host and instance["port"] else host
    parts = [location or metadata["peer_id"], one_line(instance["id"]), instance["protocol"]]
    parts += [f"tags {one_line(', '.join(instance['tags']))}"] if instance["tags"] else []
    parts += [one_line(f"{key}={value}") for key, value in sorted(instance["metadata"].items())]
    parts += [f"weight {instance['weight']}"] if instance["weight"] != 1 else []
    parts += [f"on {metadata['peer_id']}"] if location else []
    parts += [f"issued by {metadata['issued_by']}"] if metadata["issued_by"] != metadata["peer_id"] else []
    return "  ".join(part for part in parts if part)


def describe_health(health: Mapping[str, Any]) -> str:
    """How a record is, for people: `down for ...` where its host isn't there, and by whose word; else its state, and
    for how long its host has been there. `health`: in its JSON shape."""
    parts = []
    lasted = f" for {health['up_or_down_for']:.0f} s" if health["up_or_down_for"] is not None else ""
    if not health["up"]:
        parts.append(f"down{lasted}")
        if health.get("stopped"):  # which a node of a release before doesn't tell
            parts.append("stopped by its own word")
        elif health["accusers"]:
            say = "says" if len(health["accusers"]) == 1 else "say"
            parts.append(f"as {' and '.join(map(one_line, health['accusers']))} {say}")
    state, since, note = health["state"], health["since"], health["note"]
    if state != "passing":
        parts.append(
            f"{state}" + (f" since {moment(since)}" if since else "") + (f": {one_line(note)}" if note else "")
        )
    if health["up"]:
        parts = parts or ["passing"]
        parts += [f"up{lasted}"] if lasted else []
    return ", ".join(parts)


def counted(count: int, what: str) -> str:
    """So many of something, in words: `1 member`, `4 members`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def moment(seconds: int) -> str:
    """Seconds since 1970 as a date and a time of day, for people."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"


def _shown(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]
