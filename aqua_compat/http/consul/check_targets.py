"""Where checks may ask that a program registers which may write, and no more.

The node makes them, again and again, by any method and with any headers, and tells what came of it: whoever may only
write could look through it at what it alone reaches. So for such it asks at this machine alone, unless
`http.consul.checks_anywhere` is set; whoever may operate the node may have it ask anywhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aqua_compat.agent.check_forms import check_of
from aqua_compat.agent.definitions import GrpcCheck, HttpCheck, TcpCheck
from aqua_compat.agent.file_form import CheckForm, FormError
from aqua_compat.http.message import AccessLevel
from aqua_compat.http.problems import Problem

_ANY_PORT: Final = 9


def check_targets(checks: Iterable[CheckForm], grant: AccessLevel, *, anywhere: bool) -> None:
    """Raises Problem for a check that asks elsewhere than its maker may have it. `anywhere`: the setting."""
    if anywhere or grant >= AccessLevel.OPERATE:
        return
    for check in checks:
        host = _host_of(check)
        if host is not None and not is_here(host):
            raise Problem(
                403,
                "not-permitted",
                f"the token may {grant.name.lower()}, so its checks ask at this machine's addresses alone, and"
                f" {host[:100]!r} is none: have one registered that may operate, or set http.consul.checks_anywhere",
            )


def is_here(host: str) -> bool:
    """Whether a host is this machine: an address of its own, `localhost`, or its own name. What other names lead to
    may be another machine the next time."""
    if host.lower() in ("localhost", socket.gethostname().lower()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as tried:
        try:
            tried.connect((host, _ANY_PORT))  # sends nothing; the system says from where it would
        except OSError:
            return False
        return ipaddress.ip_address(tried.getsockname()[0]) == address


def _host_of(check: CheckForm) -> str | None:
    """Whom a check asks; None for one that asks nobody, or is refused since it can't be read."""
    try:
        probe = check_of(check, (), allow_scripts=True).probe
    except FormError:
        return None
    if isinstance(probe, HttpCheck):
        return urlsplit(probe.url).hostname or ""
    return probe.host if isinstance(probe, (TcpCheck, GrpcCheck)) else None
