"""Bodies that register services and checks, read as the forms that service files have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from aqua_compat.agent.consul_files import InvalidCheck, translate
from aqua_compat.agent.file_form import CheckForm, ServiceForm, unknown_keys
from aqua_compat.http.consul.entries import STATES
from aqua_compat.http.problems import Problem
from registry.errors import InvalidValue

DEEPEST: Final = 16  # levels of a body; what Consul's clients write has five
_ANYWHERE: Final = ("0.0.0.0", "::", "[::]")  # noqa: S104 - where programs listen, and nobody calls them


class ConsulRegistration(msgspec.Struct, frozen=True):
    """A service that a program registered. `places`: of each of its checks the place in its registration, from 1, where
    nothing else tells which it is; 0 for one with an id, or that was registered by itself."""

    form: ServiceForm
    places: tuple[int, ...]

    def after(self, before: ConsulRegistration) -> ConsulRegistration:
        """With those checks of what was registered before that this one doesn't replace, as Consul has it: of other
        ids, which are names here, and of other places."""
        names = {check.name for check in self.form.check} - {""}
        kept = [
            (check, place)
            for check, place in zip(before.form.check, before.places, strict=True)
            if check.name not in names and (not place or place not in self.places)
        ]
        return self.with_checks([*zip(self.form.check, self.places, strict=True), *kept])

    def with_check(self, check: CheckForm) -> ConsulRegistration:
        """With a check that is registered by itself, in place of the one of its name."""
        pairs = zip(self.form.check, self.places, strict=True)
        others = [(one, place) for one, place in pairs if not check.name or one.name != check.name]
        return self.with_checks([*others, (check, 0)])

    def with_checks(self, checks: Sequence[tuple[CheckForm, int]]) -> ConsulRegistration:
        """With these checks, each with its place, instead."""
        form = msgspec.structs.replace(self.form, check=tuple(check for check, _ in checks))
        return ConsulRegistration(form, tuple(place for _, place in checks))


def registration_of(body: dict[str, Any]) -> ConsulRegistration:
    """What Consul's clients register by one body. A `Check` that says nothing is none, as there. Raises Problem."""
    body = {key: value for key, value in body.items() if plain(key) != "check" or value != {}}
    form = form_of(body)
    places = [0 if _id_of(check) is not None else place for place, check in enumerate(_checks_in(body), 1)]
    return ConsulRegistration(form, tuple(places))


def check_registration_of(body: Mapping[str, Any]) -> tuple[str, CheckForm]:
    """A check that is registered by itself, and the id of the service that it is of. Raises Problem."""
    given = {key: value for key, value in body.items() if plain(key) != "serviceid"}
    if not any(plain(key) == "name" and value for key, value in given.items()):
        raise Problem.invalid("Missing check name")
    service_id = next((value for key, value in body.items() if plain(key) == "serviceid"), "")
    if not isinstance(service_id, str) or not service_id:
        raise Problem.invalid("ServiceID is missing: there are checks of services here, none of nodes")
    [check] = form_of({"Name": service_id, "Check": given}).check
    return service_id, check


def form_of(body: dict[str, Any]) -> ServiceForm:
    """A service as Consul's clients write it, in our form. Raises Problem."""
    try:
        content, _ = translate({"service": _with_check_ids(body)})
        if not content["service"][0].get("name"):
            raise Problem.invalid("Missing service name")
        if content["service"][0].get("address") in _ANYWHERE:
            raise Problem.invalid("Invalid service address: it has to be one that others can call")
        for check in _checks_in(body):
            if any(plain(key) == "status" and value not in STATES for key, value in check.items()):
                raise Problem.invalid(f"Bad check status: it is one of {', '.join(STATES)}")
        if wrong := list(islice(unknown_keys(content), 5)):
            raise Problem.invalid("; ".join(wrong))
        [form] = msgspec.convert(content["service"], tuple[ServiceForm, ...], strict=True)
    except InvalidCheck as error:
        raise Problem.invalid(f"Invalid check: {error}") from None
    except (InvalidValue, msgspec.ValidationError) as error:
        raise Problem.invalid(f"Request decode failed: {error}") from None
    if any(check.script is not None for check in form.check):
        raise Problem.invalid("Args: checks that run programs are taken from service files alone")
    return form


def _checks_in(body: Mapping[str, Any]) -> list[Any]:
    """The checks of a service, in the order in which `translate` goes through them."""
    found: list[Any] = []
    for key, value in body.items():
        found += [value] if plain(key) == "check" else value if plain(key) == "checks" else []
    return found


def _with_check_ids(body: dict[str, Any]) -> dict[str, Any]:
    """With the ids of checks as their names, where they have some: here a check has one name."""

    def with_id(check: object) -> object:
        if not isinstance(check, dict):
            return check
        given = _id_of(check)
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


def _id_of(check: Mapping[str, Any]) -> Any:
    return next((value for key, value in check.items() if plain(key) in ("checkid", "id") and value), None)


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
