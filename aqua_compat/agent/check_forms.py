"""What service files say of checks, read: each form of one becomes a definition, or an error that names the field."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from aqua_compat.agent.definitions import (
    AliasCheck,
    CheckDefinition,
    CheckTiming,
    GrpcCheck,
    HttpCheck,
    Probe,
    ScriptCheck,
    TcpCheck,
    TtlCheck,
)
from aqua_compat.agent.file_form import CheckForm, FormError

_KINDS: Final = ("http", "tcp", "grpc", "script", "ttl", "alias")
_WITH: Final = {
    "method": ("http",),
    "headers": ("http",),
    "status": ("http",),
    "body": ("http",),
    "tls": ("grpc",),
    "tls_verify": ("http", "grpc"),
    "tls_server_name": ("http", "grpc"),
    "tls_ca": ("http", "grpc"),
}
_URL: Final = re.compile(r"https?://(?P<host>\[[0-9a-fA-F:.]+\]|[^\s/?#\[\]:@]+)(:(?P<port>[0-9]{1,5}))?([/?]\S*)?")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check_of(
    form: CheckForm, taken: Sequence[str], *, allow_scripts: bool, given: Collection[str] = ()
) -> CheckDefinition:
    """The check that a service file writes as `form`, in an instance with checks of these names. `given`: those that
    any of its checks is given; one without a name gets another. Raises FormError."""
    kinds = [kind for kind in _KINDS if getattr(form, kind) is not None]
    if len(kinds) != 1:
        what = " and ".join(kinds) if kinds else "nothing that is known"
        raise FormError(f"it checks {what}; give exactly one of {', '.join(_KINDS)}")
    kind, plain = kinds[0], CheckForm()
    for field, of in _WITH.items():
        if kind not in of and getattr(form, field) != getattr(plain, field):
            raise FormError(f"{field}: it goes with {' and '.join(of)}, not with {kind}; take it out")
    name = form.name or next(one for one in _names_of(kind) if one not in taken and one not in given)
    if name in taken:
        raise FormError(f"name: another check of this instance is called {name!r}; choose another name")
    for field, number, least, most in (
        ("interval", form.interval, 0.1, 86_400.0),
        ("timeout", 1.0 if form.timeout is None else form.timeout, 0.05, 3_600.0),
        ("passes", form.passes, 1, 100),
        ("failures", form.failures, 1, 100),
        ("ttl", 1.0 if form.ttl is None else form.ttl, 0.1, 86_400.0),
    ):
        if not least <= number <= most:
            raise FormError(f"{field}: {number:g} isn't within {least:g} and {most:g}")
    timing = CheckTiming(
        interval=form.interval,
        timeout=form.timeout if form.timeout is not None else min(5.0, max(form.interval, 1.0)),
        passes=form.passes,
        failures=form.failures,
    )
    return CheckDefinition(name=name, probe=_probe(form, allow_scripts), timing=timing)


def _probe(form: CheckForm, allow_scripts: bool) -> Probe:
    if form.http is not None:
        return _http(form, form.http)
    if form.tcp is not None:
        host, port = _host_and_port("tcp", form.tcp)
        return TcpCheck(host=host, port=port)
    if form.grpc is not None:
        place, _, service = form.grpc.partition("/")
        host, port = _host_and_port("grpc", place)
        return GrpcCheck(
            host=host,
            port=port,
            service=service,
            tls=form.tls,
            tls_verify=form.tls_verify,
            tls_server_name=form.tls_server_name,
            tls_ca=_file("tls_ca", form.tls_ca),
        )
    if form.script is not None:
        return _script(form.script, allow_scripts)
    if form.ttl is not None:
        return TtlCheck(ttl=form.ttl)
    return AliasCheck(service=form.alias or "")


def _script(arguments: tuple[str, ...], allow_scripts: bool) -> ScriptCheck:
    if not allow_scripts:
        raise FormError(
            "script: scripts are off on this node; who may write service files could run programs as it."
            " Set `agent.scripts = true` in the settings to allow that"
        )
    if not arguments or not arguments[0] or any("\0" in argument for argument in arguments):
        raise FormError('script: it is a list of program and arguments, such as ["/usr/bin/check", "--fast"]')
    return ScriptCheck(arguments=arguments)


def _names_of(kind: str) -> Iterator[str]:
    """What checks of a kind are called that have no name: `http`, `http-2` and on."""
    yield kind
    yield from (f"{kind}-{number}" for number in count(2))


def _http(form: CheckForm, url: str) -> HttpCheck:
    match = _URL.fullmatch(url)
    if not match or not url.isascii() or (match["port"] and not 1 <= int(match["port"]) <= 65_535):
        raise FormError(f"http: {url[:200]!r} is no URL like http://127.0.0.1:8080/health, with a port of 1 to 65535")
    if not _HEADER.fullmatch(form.method):
        raise FormError(f"method: {form.method[:80]!r} is none; GET or HEAD, say")
    for name, value in form.headers.items():
        if not _HEADER.fullmatch(name) or not value.isprintable() or not value.isascii():
            raise FormError(f"headers: {name[:80]!r} can't be sent, or its value can't; both are printable ASCII")
    for status in form.status:
        if not 100 <= status <= 599:
            raise FormError(f"status: {status} isn't within 100 and 599")
    import regex  # noqa: PLC0415 - 1.3 MB that most nodes don't need

    try:
        regex.compile(form.body)
    except (regex.error, OverflowError, RecursionError) as error:
        raise FormError(f"body: it is no regular expression: {error}") from None
    return HttpCheck(
        url=url,
        method=form.method.upper(),
        headers=form.headers,
        status=form.status,
        body=form.body,
        tls_verify=form.tls_verify,
        tls_server_name=form.tls_server_name,
        tls_ca=_file("tls_ca", form.tls_ca),
    )


def _host_and_port(field: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise FormError(f"{field}: {text[:200]!r} isn't host:port like 127.0.0.1:5432, with a port of 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _file(field: str, path: str) -> str:
    if path and not Path(path).is_file():
        raise FormError(f"{field}: there is no file {path[:200]!r}")
    return path
