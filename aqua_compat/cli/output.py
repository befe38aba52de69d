"""What commands print for scripts: JSON, one value per line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import click

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


def _shown(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]
