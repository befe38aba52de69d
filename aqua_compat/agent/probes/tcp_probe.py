"""`tcp`: connects, and hangs up."""

from __future__ import annotations

import trio

from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.definitions import TcpCheck
from aqua_compat.agent.probes.connection import connected, reason_of


async def probe_tcp(check: TcpCheck) -> CheckResult:
    """Whether a connection comes about."""
    try:
        async with connected(check.host, check.port):
            return CheckResult(CheckState.PASSING, "connected")
    except (OSError, trio.BrokenResourceError) as error:
        return CheckResult(CheckState.CRITICAL, f"{check.host}:{check.port}: {reason_of(error)}")
