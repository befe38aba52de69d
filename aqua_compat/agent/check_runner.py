"""Runs the checks of all services: a task each, so that one that hangs holds up none."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import structlog
import trio

from aqua_compat.agent.check_state import Check, CheckResult, CheckState, worst_of
from aqua_compat.agent.definitions import (
    AliasCheck,
    CheckDefinition,
    CheckTiming,
    GrpcCheck,
    HttpCheck,
    ScriptCheck,
    ServiceDefinition,
    TcpCheck,
    TtlCheck,
)
from aqua_compat.agent.probes.connection import forget_certificates
from aqua_compat.agent.probes.http_probe import probe_http
from aqua_compat.agent.probes.script_probe import probe_script
from aqua_compat.agent.probes.tcp_probe import probe_tcp
from overlay.tasks import TaskOwner, TaskStatus, Wakeup
from registry.errors import InvalidValue

_KINDS: Final = {
    HttpCheck: "http",
    TcpCheck: "tcp",
    GrpcCheck: "grpc",
    ScriptCheck: "script",
    TtlCheck: "ttl",
    AliasCheck: "alias",
}
_Probed = HttpCheck | TcpCheck | GrpcCheck | ScriptCheck

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class CheckKey(NamedTuple):
    """Which check: of which service and instance, and its name."""

    service: str
    instance: str
    check: str


class CheckStatus(NamedTuple):
    """What is told of a check now. `kind`: such as `http`; `lasted`: seconds for which it is in this state."""

    key: CheckKey
    kind: str
    shown: CheckResult
    lasted: float


class _RunningCheck:
    def __init__(self, definition: CheckDefinition, check: Check) -> None:
        self.definition = definition
        self.check = check
        self.scope = trio.CancelScope()
        self.reported = Wakeup()


class CheckRunner:
    """The checks that run now. `on_change` is called for each whose state changed, or whose reason while it fails."""

    def __init__(
        self, on_change: Callable[[CheckKey, CheckResult], None], *, randomness: random.Random | None = None
    ) -> None:
        self._on_change = on_change
        self._random = (randomness or random.Random()).random  # noqa: S311 - jitter, not secrets
        self._running: dict[CheckKey, _RunningCheck] = {}
        self._by_instance: dict[tuple[str, str], list[_RunningCheck]] = {}
        self._services: frozenset[str] = frozenset()
        self._tasks = TaskOwner()

    def update(self, services: Iterable[ServiceDefinition]) -> None:
        """Runs the checks of these services and no others; one that is as before goes on, with its state.

        Only while `run` does.
        """
        forget_certificates()
        services = tuple(services)
        self._services = frozenset(service.id for service in services)
        wanted = {
            CheckKey(service.id, one.instance.id, check.name): check
            for service in services
            for one in service.instances
            for check in one.checks
        }
        for key, running in list(self._running.items()):
            if wanted.get(key) != running.definition:
                running.scope.cancel()
                del self._running[key]
        for key, definition in wanted.items():
            if key not in self._running:
                running = _RunningCheck(definition, Check(_timing_of(definition), trio.current_time(), self._random))
                self._running[key] = running
                self._tasks.start_soon(self._run, key, running)
        self._by_instance = {}
        for key, running in self._running.items():
            self._by_instance.setdefault((key.service, key.instance), []).append(running)
        for service_id in {check.probe.service for check in wanted.values() if isinstance(check.probe, AliasCheck)}:
            self._tell_aliases(service_id)

    def shown(self, key: CheckKey) -> CheckResult | None:
        """What is told of a check now; None for one that isn't run."""
        running = self._running.get(key)
        return None if running is None else running.check.shown

    def of_instance(self, service_id: str, instance_id: str) -> CheckResult:
        """The worst check of an instance; passing where it has none."""
        return worst_of(running.check.shown for running in self._by_instance.get((service_id, instance_id), ()))

    def states(self) -> list[CheckStatus]:
        """All checks, by their keys."""
        now = trio.current_time()
        return [
            CheckStatus(key, _KINDS[type(running.definition.probe)], running.check.shown, now - running.check.since)
            for key, running in sorted(self._running.items())
        ]

    def reported_by(self, text: str) -> CheckKey:
        """The `ttl` check that is called SERVICE, SERVICE/CHECK or SERVICE/INSTANCE/CHECK by its ids. Raises
        InvalidValue, with those that there are, where it is none or several."""
        keys = sorted(key for key, running in self._running.items() if isinstance(running.definition.probe, TtlCheck))
        found = [key for key in keys if text in (key.service, f"{key.service}/{key.check}", "/".join(key))]
        if len(found) == 1:
            return found[0]
        there = ", ".join("/".join(key) for key in (found or keys)[:10]) or "none"
        shown = text[:80]
        if found:
            raise InvalidValue(f"{shown!r} is several checks of kind ttl; name one of {there}")
        raise InvalidValue(f"{shown!r} is no service with a check of kind ttl; of these there are: {there}")

    def report(self, key: CheckKey, result: CheckResult) -> bool:
        """Takes what a program says of itself, for a `ttl` check. False where there is no such check."""
        running = self._running.get(key)
        if running is None or not isinstance(running.definition.probe, TtlCheck):
            return False
        running.reported.set()
        self._take(key, running, result)
        return True

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the checks until cancelled."""
        await self._tasks.run(task_status=task_status)

    async def _run(self, key: CheckKey, running: _RunningCheck) -> None:
        with running.scope:
            probe = running.definition.probe
            if isinstance(probe, AliasCheck):
                return  # it is told of
            while True:
                if isinstance(probe, TtlCheck):
                    with trio.move_on_after(probe.ttl) as silence:
                        await running.reported.wait()
                    if silence.cancelled_caught:
                        result = CheckResult(CheckState.CRITICAL, f"nothing reported for {probe.ttl:g} s")
                        self._take(key, running, result)
                    continue
                await trio.sleep_until(running.check.due)
                deadline = running.check.start(trio.current_time())
                result = await _probed(probe, deadline, running.definition.timing.timeout)
                self._take(key, running, result)

    def _take(self, key: CheckKey, running: _RunningCheck, result: CheckResult) -> None:
        if running.check.take(result, trio.current_time()):
            self._on_change(key, running.check.shown)
            self._tell_aliases(key.service)

    def _tell_aliases(self, service_id: str) -> None:
        """Gives the state of a service to the checks that are its alias. Definitions have no circles of these."""
        told = [
            (key, running)
            for key, running in self._running.items()
            if isinstance(running.definition.probe, AliasCheck) and running.definition.probe.service == service_id
        ]
        if not told:
            return
        worst = worst_of(one.check.shown for key, one in self._running.items() if key.service == service_id)
        if service_id not in self._services:  # it was lent, by somebody else than this one
            worst = CheckResult(CheckState.CRITICAL, "there is no such service any more")
        followed = CheckResult(worst.state, f"{service_id}: {worst.note or worst.state}")
        for key, running in told:
            if running.check.follow(followed, trio.current_time()):
                self._on_change(key, running.check.shown)
                self._tell_aliases(key.service)


def _timing_of(definition: CheckDefinition) -> CheckTiming:
    probe = definition.probe
    if isinstance(probe, TtlCheck):  # each report counts, and how often they come says when it flaps
        return CheckTiming(interval=probe.ttl)
    return definition.timing


async def _probed(probe: _Probed, deadline: float, timeout: float) -> CheckResult:
    result = CheckResult(CheckState.CRITICAL, f"no answer within {timeout:g} s")
    with trio.move_on_at(deadline):
        try:
            match probe:
                case HttpCheck():
                    result = await probe_http(probe)
                case TcpCheck():
                    result = await probe_tcp(probe)
                case GrpcCheck():
                    from aqua_compat.agent.probes.grpc_probe import probe_grpc  # noqa: PLC0415 - 1.5 MB of h2

                    result = await probe_grpc(probe)
                case ScriptCheck():
                    result = await probe_script(probe)
        except Exception as error:  # one check's fault, whoever's that is, isn't the others'
            _log.warning("a check failed by itself", probe=repr(probe)[:200], exc_info=True)
            result = CheckResult(CheckState.CRITICAL, f"the check failed: {type(error).__name__}: {error}")
    return result
