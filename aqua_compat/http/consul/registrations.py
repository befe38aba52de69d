"""Bodies that register services and checks, read as the forms that service files have."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import msgspec

from aqua_compat.agent.consul_files import translate
from aqua_compat.agent.file_form import ServiceForm, unknown_keys
from aqua_compat.http.problems import Problem
from registry.errors import InvalidValue

DEEPEST: Final = 16  # levels of a body; what Consul's clients write has five


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


def without_nulls(value: Any, deepest: int = DEEPEST, *, keeps_empty: bool = False) -> Any:
    """Without what a client writes as null, or as an empty text: Go's writes all fields. In metadata an empty text is
    one like any other. `deepest`: levels that it may have. Raises Problem for more."""
    if not isinstance(value, (dict, list)):
        return value
    if not deepest:
        raise Problem.invalid(f"Request decode failed: the body is nested deeper than {DEEPEST}")
    if isinstance(value, list):
        return [without_nulls(each, deepest - 1) for each in value]
    return {
        key: without_nulls(each, deepest - 1, keeps_empty=plain(key) == "meta")
        for key, each in value.items()
        if each is not None and (keeps_empty or each != "")
    }


def plain(key: str) -> str:
    """A key without case or underscores, as Consul compares them."""
    return key.replace("_", "").lower()
