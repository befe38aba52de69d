"""What commands print: for scripts JSON, one value per line; for people records, and moments in time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from aqua_compat.cli.failures import one_line

if TYPE_CHECKING:
    from registry.health.reading import RecordHealth
    from registry.model.endpoints import Endpoint
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
    metadata = record.metadata
    parts = [metadata.peer_id]
    if metadata.service_id:
        parts.append(f"service {one_line(metadata.service_id[0])}")
    if metadata.value:
        parts.append(f"value {one_line(metadata.value)}")
    if metadata.relay_id:
        parts.append(f"via {one_line(metadata.relay_id[0])}")
    parts.append(f"since {moment(metadata.timestamp_issued)}")
    if metadata.issued_by != metadata.peer_id:
        parts.append(f"issued by {metadata.issued_by}")
    return "  ".join(parts)


def describe_endpoint(endpoint: Endpoint) -> str:
    """An instance and whose it is, on one line for people."""
    instance, metadata = endpoint.instance, endpoint.record.metadata
    parts = [instance.location or metadata.peer_id, one_line(instance.id), instance.protocol]
    parts += [f"tags {one_line(', '.join(instance.tags))}"] if instance.tags else []
    parts += [one_line(f"{key}={value}") for key, value in sorted(instance.metadata.items())]
    parts += [f"weight {instance.weight}"] if instance.weight != 1 else []
    parts += [f"on {metadata.peer_id}"] if instance.location else []
    parts += [f"issued by {metadata.issued_by}"] if metadata.issued_by != metadata.peer_id else []
    return "  ".join(part for part in parts if part)


def describe_health(known: RecordHealth) -> str:
    """How a record is, for people: `down for ...` where its host isn't there, and its state unless that passes."""
    parts = []
    if not known.is_up:
        parts.append("down" + (f" for {known.up_or_down_for:.0f} s" if known.up_or_down_for < math.inf else ""))
    state, since, note = known.health.state, known.health.since, known.health.note
    if str(state) != "passing":
        parts.append(
            f"{state}" + (f" since {moment(since)}" if since else "") + (f": {one_line(note)}" if note else "")
        )
    return ", ".join(parts) or "passing"


def health_as_json(known: RecordHealth) -> dict[str, object]:
    """The same for programs. `up_or_down_for` in seconds, null where it isn't known; `since` in seconds since 1970."""
    health = known.health
    return {
        "up": known.is_up,
        "up_or_down_for": round(known.up_or_down_for, 1) if known.up_or_down_for < math.inf else None,
        "accusers": list(known.accusers),
        "state": str(health.state),
        "since": health.since,
        "note": health.note,
    }


def moment(seconds: int) -> str:
    """Seconds since 1970 as a date and a time of day, for people."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"


def _shown(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]
