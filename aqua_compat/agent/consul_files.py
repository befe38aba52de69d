"""Reads Consul's service definition files: JSON with `service`, an object, or `services`, a list of them.

They become what our own files say; fields that mean nothing here are named, so that nobody believes that they count. A
check of a kind that isn't done here is a fault.
What is null isn't given, as with Consul.
Names are Consul's, in its lower case with underscores and in its capitals alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from registry.errors import InvalidValue

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|ns|s|m|h)")
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# Consul's field to ours.
_SERVICE: Final = {
    "id": "id",
    "name": "name",
    "tags": "tags",
    "address": "address",
    "port": "port",
    "meta": "metadata",
    "owner": "owner",
    "onstop": "on_stop",
    "protocol": "protocol",
}
_CHECK: Final = {
    "name": "name",
    "http": "http",
    "tcp": "tcp",
    "grpc": "grpc",
    "grpcusetls": "tls",
    "args": "script",
    "aliasservice": "alias",
    "method": "method",
    "tlsservername": "tls_server_name",
}
_DURATIONS: Final = {"interval": "interval", "timeout": "timeout", "ttl": "ttl"}
_ALL_KINDS: Final = ("http", "tcp", "grpc", "args", "ttl", "alias_service")
# Kinds of checks that Consul has besides; passed over, they would have a service pass unchecked.
_NOT_DONE: Final = frozenset({"aliasnode", "h2ping", "osservice", "script", "udp"})
_IN_CONTAINERS: Final = "dockercontainerid"
# Consul's 0 is its 1: the first result counts.
_TIMED: Final = ("http", "tcp", "grpc", "script")  # checks that the agent makes itself, again and again
_COUNTS: Final = {"successbeforepassing": "passes", "failuresbeforecritical": "failures"}


class InvalidCheck(InvalidValue):
    """A check is one that Consul refuses, too; the text says which and why."""


def is_consul(content: object) -> bool:
    """Whether a file's content is in Consul's form: ours has a list under `service`."""
    return isinstance(content, dict) and (isinstance(content.get("service"), dict) or "services" in content)


def translate(content: object) -> tuple[dict[str, Any], list[str]]:
    """A file's content in our form, and what of it is passed over. Raises InvalidValue for what can't be read, and
    InvalidCheck."""
    assert isinstance(content, dict)
    passed_over: list[str] = []
    services = _list("services", content.get("services", []))
    services += [content["service"]] if "service" in content else []
    for key in content:
        if key not in ("service", "services"):
            passed_over.append(f"Consul's {key[:80]!r} means nothing here and is passed over")
    return {"service": [_service(one, f"service {n}", passed_over) for n, one in enumerate(services, 1)]}, passed_over


def _service(given: object, place: str, passed_over: list[str]) -> dict[str, Any]:
    service: dict[str, Any] = {}
    checks: list[object] = []
    for key, value in _object(place, given).items():
        plain = _plain(key)
        if plain in _SERVICE:
            service[_SERVICE[plain]] = value
        elif plain == "weights":
            weights = {_plain(name): weight for name, weight in _object(f"{place}, weights", value).items()}
            service["weight"] = weights.get("passing", 1)
        elif plain == "check":
            checks.append(value)
        elif plain == "checks":
            checks += _list(f"{place}, checks", value)
        else:
            passed_over.append(f"{place}: Consul's {key[:80]!r} means nothing here and is passed over")
    if checks:
        service["check"] = [
            _check(check, f"{place}, check {number}", passed_over) for number, check in enumerate(checks, 1)
        ]
    return service


def _check(given: object, place: str, passed_over: list[str]) -> dict[str, Any]:
    check: dict[str, Any] = {}
    fields = _object(place, given)
    _refuse_what_isnt_done(fields, place)
    for key, value in fields.items():
        plain = _plain(key)
        if plain in _CHECK:
            check[_CHECK[plain]] = value
        elif plain in _DURATIONS:
            check[_DURATIONS[plain]] = seconds_of(f"{place}, {key}", value)
        elif plain in _COUNTS and type(value) is int:
            check[_COUNTS[plain]] = max(value, 1)
        elif plain == "tlsskipverify":
            check["tls_verify"] = value is not True
        elif plain == "header":
            headers = _object(f"{place}, {key}", value).items()
            check["headers"] = {name: ", ".join(map(str, _list(f"{place}, {key}", texts))) for name, texts in headers}
        else:
            passed_over.append(f"{place}: Consul's {key[:80]!r} means nothing here and is passed over")
    _check_timing(check, place)
    return check


def _refuse_what_isnt_done(check: Mapping[str, Any], place: str) -> None:
    is_done = any(_plain(key) in {_plain(kind) for kind in _ALL_KINDS} for key in check)
    for key in check:
        if _plain(key) == _IN_CONTAINERS or (not is_done and _plain(key) in _NOT_DONE):
            raise InvalidValue(
                f"{place}: Consul's checks by {key[:80]} aren't done here; check it by one of {', '.join(_ALL_KINDS)}"
            )


def _check_timing(check: Mapping[str, Any], place: str) -> None:
    """Ours have an interval by default; whoever writes Consul's form relies on its rules. Raises InvalidCheck."""
    is_timed, interval = any(kind in check for kind in _TIMED), check.get("interval")
    if is_timed and "ttl" not in check and not interval:
        what = "Interval must be > 0 for Script, HTTP, TCP or GRPC checks; give one, such as 10s"
        raise InvalidCheck(f"{place}, interval: {what}")
    if "ttl" in check and not is_timed and interval:
        raise InvalidCheck(f"{place}, interval: Interval and TTL cannot both be specified; take one out")


def _plain(key: str) -> str:
    """`TLSSkipVerify` and `tls_skip_verify` are one."""
    return key.replace("_", "").lower()


def seconds_of(place: str, value: object) -> float:
    """The seconds of a duration in Go's form, such as `1m30s`. Raises InvalidValue, which names the place."""
    text = str(value)
    parts = _DURATION.findall(text)
    if isinstance(value, bool) or not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidValue(f"{place}: {text[:80]!r} is no duration like 10s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _object(place: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(f"{place}: it must be an object")
    return {key: inner for key, inner in value.items() if inner is not None}


def _list(place: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidValue(f"{place}: it must be a list")
    return list(value)
