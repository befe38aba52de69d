"""Bodies that register services and checks, read as the forms that service files have."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

from aqua_compat.agent.consul_files import translate
from aqua_compat.agent.file_form import ServiceForm, unknown_keys
from aqua_compat.http.problems import Problem
from registry.errors import InvalidValue


def form_of(body: dict[str, Any]) -> ServiceForm:
    """A service as Consul's clients write it, in our form. Raises Problem."""
    try:
        content, _ = translate({"service": _with_check_ids(body)})
        if not content["service"][0].get("name"):
            raise Problem.invalid("Missing service name")
        if wrong := list(islice(unknown_keys(content), 5)):
            raise Problem.invalid("; ".join(wrong))
        [form] = msgspec.convert(content["service"], tuple[ServiceForm, ...], strict=True)
    except (InvalidValue, msgspec.ValidationError) as error:
        raise Problem.invalid(f"Request decode failed: {error}") from None
    if any(check.script is not None for check in form.check):
        raise Problem.invalid("Args: checks that run programs are taken from service files alone")
    return form


def _with_check_ids(body: dict[str, Any]) -> dict[str, Any]:
    """With the ids of checks as their names, where they have some: here a check has one name."""

    def with_id(check: object) -> object:
        if not isinstance(check, dict):
            return check
        given = next((value for key, value in check.items() if plain(key) in ("checkid", "id") and value), None)
        rest = {key: value for key, value in check.items() if plain(key) not in ("checkid", "id")}
        return rest if given is None else {key: v for key, v in rest.items() if plain(key) != "name"} | {"name": given}

    told: dict[str, Any] = {}
    for key, value in body.items():
        if plain(key) == "check":
            told[key] = with_id(value)
        elif plain(key) == "checks" and isinstance(value, list):
            told[key] = [with_id(check) for check in value]
        else:
            told[key] = value
    return told


def without_nulls(value: Any) -> Any:
    """Without what a client writes as null, or as an empty text: Go's writes all fields."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None and each != ""}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def plain(key: str) -> str:
    """A key without case or underscores, as Consul compares them."""
    return key.replace("_", "").lower()
