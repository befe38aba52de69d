"""What commands print: for scripts JSON, one value per line; for people records, and moments in time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import click

from aqua_compat.cli.failures import one_line

if TYPE_CHECKING:
    from registry.model.values import Record

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


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


def moment(seconds: int) -> str:
    """Seconds since 1970 as a date and a time of day, for people."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"


def _shown(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]
