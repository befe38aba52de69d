"""How files write services: TOML or JSON with a list `service`, each entry as `ServiceForm` (docs/agent.md)."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from aqua_compat.agent.definitions import OnStop

_EXPECTED: Final = re.compile(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_KINDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "a table",
    "str": "a text",
}


class FormError(Exception):
    """A fault in what is looked at; the text says where in it, and the remedy."""


class CheckForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A check: exactly one of `http`, `tcp`, `grpc`, `script`, `ttl`, `alias`, and what goes with it."""

    name: str = ""
    http: str | None = None
    tcp: str | None = None
    grpc: str | None = None
    script: tuple[str, ...] | None = None
    ttl: float | None = None
    alias: str | None = None
    method: str = "GET"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    status: tuple[int, ...] = ()
    body: str = ""
    tls: bool = False
    tls_verify: bool = True
    tls_server_name: str = ""
    tls_ca: str = ""
    interval: float = 10.0
    timeout: float | None = None
    passes: int = 1
    failures: int = 1


class InstanceForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several instances of a service; tags, metadata and checks come on top of the service's."""

    id: str
    address: str = ""
    port: int = 0
    protocol: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    weight: int = 1
    check: tuple[CheckForm, ...] = ()


class ServiceForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service, with its only instance in the same table, or several under `instance`."""

    name: str
    id: str = ""
    owner: str = ""
    address: str = ""
    port: int = 0
    protocol: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    weight: int = 1
    check: tuple[CheckForm, ...] = ()
    instance: tuple[InstanceForm, ...] = ()
    on_stop: OnStop = OnStop.LEAVE


class FileForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file of services."""

    service: tuple[ServiceForm, ...] = ()


def unknown_keys(content: object, form: Any = FileForm, place: str = "") -> Iterator[str]:
    """Each key of `content` that `form` doesn't have: where it is, and what may have been meant."""
    form = _without_none(form)
    if get_origin(form) is tuple and isinstance(content, list):
        for index, item in enumerate(content, 1):
            yield from unknown_keys(item, get_args(form)[0], f"{place} {index}")
    if not (isinstance(form, type) and issubclass(form, msgspec.Struct) and isinstance(content, dict)):
        return
    hints = get_type_hints(form)
    for key, value in content.items():
        within = f"{place}, {key}" if place else key
        if key in hints:
            yield from unknown_keys(value, hints[key], within)
        else:
            near = difflib.get_close_matches(key[:64], hints, 1)
            yield f"{within[:200]}: there is no such key; " + (
                f"did you mean {near[0]}?" if near else f"known here: {', '.join(hints)}"
            )


def readable(error: str) -> str:
    """msgspec's text with places as people count: `Expected int - at $.service[0].port` names service 1. What is wrong
    there is told by what it has to be."""
    what, _, place = error.rpartition(" - at `$")
    if not what:
        return error
    if wrong := _EXPECTED.fullmatch(what):
        what = f"it has to be {_KINDS.get(wrong[1], wrong[1])}, not {_KINDS.get(wrong[2], wrong[2])}"
    elif missing := _MISSING.fullmatch(what):
        what = f"{missing[1]} isn't given, which it has to have"
    elif "enum value" in what:
        what = f"it has to be one of {', '.join(one.value for one in OnStop)}"
    place = place.rstrip("`").replace("[...]", ", one of them")
    place = re.sub(r"\[(\d+)\]", lambda index: f" {int(index[1]) + 1}", place)
    return f"{place.strip('.').replace('.', ', ')}: {what}"


def _without_none(form: Any) -> Any:
    if get_origin(form) in (Union, types.UnionType):
        return next(part for part in get_args(form) if part is not type(None))
    return form
