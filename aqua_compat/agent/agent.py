"""Keeps the services of a machine registered, on the node, under its own key or another, and their checks running.

Rules:
1. All services of one resource are one record, on this node: its value tells of their instances.
2. A resource that isn't there is made if this node's key owns it, or it holds the owner's, or a registrar does and lets
   it; otherwise its owner has to make it, and is awaited.
3. What couldn't be registered is tried again, after longer and longer times. The node itself renews what is registered.
4. Reading again changes all or nothing: where anything is wrong, what was read before goes on.
5. What it registered it remembers on disk: what isn't defined any more after a restart ends then, and so does what it
   registered under another key, while that is there.
6. What the checks say is the health of the instances (docs/health.md). Where any is checked, the record has a time to
   live, so that none passes before it was looked at, nor when this agent stands still.
7. Services may be lent, for as long as whoever runs them holds on to it: such a one is registered once it passes.
8. On a clean stop registrations end, but for resources of which a service says `on_stop = "stay"`.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec
import structlog
import trio

from aqua_compat.agent.check_runner import CheckKey, CheckRunner
from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.definitions import ServiceDefinition
from aqua_compat.agent.memory import AgentMemory, Remembered
from aqua_compat.agent.service_files import (
    BadDefinitions,
    Definitions,
    check_together,
)
from aqua_compat.agent.told_health import TTL, HealthTeller
from aqua_compat.agent.wanted import Registration, registrations_of
from overlay.tasks import TaskStatus, Wakeup, in_thread
from registry.codes import Code
from registry.model.endpoints import instances_in
from registry.model.names import Names

if TYPE_CHECKING:
    from aqua_compat.agent.agent_key import AgentKey
    from registry.client.registry import Registry
    from registry.client.results import Done
    from registry.health.state import HealthState

FIRST_RETRY: Final = 1.0  # seconds
LONGEST_RETRY: Final = 60.0
LEAVE_FACTOR: Final = 3
"""Replicas that have to know that a registration ended, where there are as many: this node, which is about to stop, may
be one of them."""
LEAVE_TIMEOUT: Final = 3.0  # seconds for ending all registrations when the agent stops

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Changes(NamedTuple):
    """What reading again changed: ids of services, and aliases."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    """Those that mean another owner than before, or none."""


MakeFor = Callable[[str, str], Awaitable[Sequence[str]]]
"""Makes the resource with a label of an owner's peer id; why it isn't made, or nothing."""


class ServiceSource(Protocol):
    """Where services are defined. Blocking: for threads."""

    def read(self) -> Definitions:
        """The definitions that there are now. Raises BadDefinitions."""
        ...

    def read_text(self, name: str, text: str) -> Definitions:
        """The definitions in the text of a file called `name`. Raises BadDefinitions."""
        ...


class Agent:
    """The agent of a machine."""

    def __init__(
        self,
        registry: Registry,
        defined: ServiceSource,
        addresses: Callable[[], Sequence[str]],
        memory: AgentMemory,
        wait_joined: Callable[[], Awaitable[None]],
        make_for: MakeFor | None = None,
        names: Names | None = None,
        *,
        registries: Mapping[str, Registry] | None = None,
        key: AgentKey | None = None,
    ) -> None:
        """`addresses`: the node's own multiaddrs, for instances that have a port and no address. `wait_joined` waits
        until the node takes writes. `make_for` makes the resources of other owners, where somebody here may. `names`:
        what they mean until the services are read. `registries`: under other keys, by their peer ids; `key`: the one
        under which it registers, None for the process's own. Resources are made under the process's own key."""
        self._registry = registry
        self._registries = {"": registry, **(registries or {})}
        self._issuer, self._key_file = ("", "") if key is None else (key.identity.peer_id, key.file)
        self._issuing = self._registries[self._issuer]
        self._source = defined
        self._addresses = addresses
        self._memory = memory
        self._wait_joined = wait_joined
        self._make_for = make_for
        self._remembering = trio.Lock()
        self._reading = trio.Lock()
        self.is_running = False
        """Whether it has read its services, so that it may read them again."""
        self.names = names or Names()
        """What names mean by the last reading: whoever translates names here asks for them each time."""
        self.warnings: tuple[str, ...] = ()
        """What of the last reading doesn't count."""
        self._defined: tuple[ServiceDefinition, ...] = ()
        self._lent: dict[object, tuple[ServiceDefinition, ...]] = {}
        self._awaited: set[str] = set()
        """Ids of services that were lent, and haven't passed yet."""
        self._services: dict[str, ServiceDefinition] = {}
        self._registered: dict[str, Registration] = {}
        self._begun: dict[str, Remembered] = {}
        """What may be registered: what is, what was cut off on the way, and what was before the last start."""
        self._earlier: list[Remembered] = []
        """What other keys registered before the last start."""
        self._scope = trio.CancelScope()
        self._changed = Wakeup()
        self.checks = CheckRunner(self._note)
        self._health = HealthTeller(self._report, self._state_of)

    @property
    def services(self) -> Mapping[str, ServiceDefinition]:
        """The services that it keeps registered, by their ids."""
        return self._services

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the services registered until it is stopped or cancelled. Raises BadDefinitions at the start."""
        services = await in_thread(self._source.read)
        self._recall(await in_thread(self._memory.read))
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.checks.run)
                self._take(services)
                for one in self._wanted().values():
                    if one.key_id in self._begun:  # its record may be on disk, with what was read of it before
                        self._tell_health(one)
                nursery.start_soon(self._health.run)
                self.is_running = True
                task_status.started()
                await self._wait_joined()
                await self._keep_registered()

    async def stop(self) -> None:
        """Ends `run`, and what it registered, but for what stays. Within seconds; the node has to run yet."""
        self.is_running = False
        self._scope.cancel()
        with trio.move_on_after(LEAVE_TIMEOUT):
            await self._leave([*(one for one in self._begun.values() if not one.stays), *self._to_end()])

    def _recall(self, remembered: Iterable[Remembered]) -> None:
        for one in remembered:
            if one.issued_by == self._issuer:
                self._begun[one.key_id] = one
                continue
            self._earlier.append(one)
            if one.issued_by not in self._registries:
                unregister = ("service", "unregister", one.key_id, "--peer", self._registry.peer_id)
                _log.warning(
                    "what another key registered can't be ended",
                    service=self.names.name(one.label, one.owner),
                    issuer=one.issued_by,
                    key_file=one.key_file,
                    remedy=f"start the node while that file has the key, or its owner {one.owner} ends it by"
                    f" `aqua-registry {' '.join(unregister)} --issuer {one.issued_by}`",
                )

    def _to_end(self) -> list[Remembered]:
        """What other keys registered, and can be ended."""
        return [one for one in self._earlier if one.issued_by in self._registries]

    async def reload(self) -> Changes:
        """Reads everything again, while `run` runs. What changed, or which faults kept all as it was, is in the log,
        too. Raises BadDefinitions."""
        async with self._reading:  # the last is the latest
            try:
                definitions = await in_thread(self._source.read)
                check_together([*definitions.services, *chain(*self._lent.values())])
            except BadDefinitions as error:
                for one in error.errors:
                    _log.error("services are as before, since a definition is wrong", error=one)
                raise
            changes = self._take(definitions)
            _log.info("services were read again", **changes._asdict())
            return changes

    @property
    def leases(self) -> int:
        """How many files of services are lent now."""
        return len(self._lent)

    async def check_lent(self, name: str, text: str) -> None:
        """Raises BadDefinitions where `lent` would."""
        await self._read_lent(name, text)

    @asynccontextmanager
    async def lent(self, name: str, text: str) -> AsyncIterator[tuple[ServiceDefinition, ...]]:
        """The services in the text of a file called `name`, kept registered while the block runs, and `run` does: each
        once its checks pass. Raises BadDefinitions."""
        definitions = await self._read_lent(name, text)
        if not self.is_running:
            raise BadDefinitions(["the node is stopping"])
        services = definitions.services
        _warn(definitions)
        lease = object()
        self._lent[lease] = services
        self._awaited |= {service.id for service in services if any(one.checks for one in service.instances)}
        self._apply()
        try:
            yield services
        finally:
            del self._lent[lease]
            if self.is_running:
                self._apply()

    async def _read_lent(self, name: str, text: str) -> Definitions:
        definitions = await in_thread(self._source.read_text, name, text)
        check_together([*self._services.values(), *definitions.services])
        return definitions

    def _take(self, definitions: Definitions) -> Changes:
        _warn(definitions)
        self.warnings = definitions.warnings
        self._defined = definitions.services
        before, self.names = self.names.aliases, definitions.names
        aliases = sorted(dict(before.items() ^ self.names.aliases.items()))
        return self._apply()._replace(aliases=tuple(aliases))

    def _apply(self) -> Changes:
        services = [*self._defined, *chain(*self._lent.values())]
        before, self._services = self._services, {service.id: service for service in services}
        self._awaited &= self._services.keys()
        self.checks.update(services)
        self._health.note_change()
        self._changed.set()
        return _changes(before, self._services)

    def _note(self, key: CheckKey, result: CheckResult) -> None:
        _log.info("a check changed", **key._asdict(), state=str(result.state), note=result.note)
        self._health.note_change()
        if key.service in self._awaited and self._passes(self._services[key.service]):
            self._awaited.discard(key.service)
            self._changed.set()

    def _passes(self, service: ServiceDefinition) -> bool:
        states = (self.checks.of_instance(service.id, one.instance.id).state for one in service.instances)
        return any(state is not CheckState.CRITICAL for state in states)

    def _state_of(self, service_id: str, instance_id: str) -> CheckResult | None:
        return self.checks.of_instance(service_id, instance_id) if service_id in self._services else None

    async def _report(self, key_id: str, state: HealthState, note: str, *, instance: str) -> Done:
        return await self._issuing.report_health(key_id, state, note, instance=instance)

    def _tell_health(self, one: Registration) -> None:
        self._health.begin(one.key_id, dict(one.services), is_checked=one.is_checked)

    def _wanted(self) -> dict[str, Registration]:
        due = (service for service in self._services.values() if service.id not in self._awaited)
        return registrations_of(due, self._own_address())

    async def _keep_registered(self) -> None:
        retry = FIRST_RETRY
        while True:
            self._changed.clear()
            wanted = self._wanted()
            ended = [one for key_id, one in self._begun.items() if key_id not in wanted]
            await self._leave([*self._to_end(), *ended])
            due = [one for one in wanted.values() if self._registered.get(one.key_id) != one]
            async with trio.open_nursery() as nursery:
                for one in due:
                    nursery.start_soon(self._register, one)
            is_left = self._begun.keys() <= wanted.keys() and not self._to_end()
            is_done = is_left and all(self._registered.get(key_id) == one for key_id, one in wanted.items())
            with trio.move_on_after(float("inf") if is_done else retry) as waiting:
                await self._changed.wait()
            retry = min(retry * 2, LONGEST_RETRY) if waiting.cancelled_caught else FIRST_RETRY

    async def _register(self, wanted: Registration) -> None:
        known = self._registered.get(wanted.key_id)
        if known is not None and known.value == wanted.value:
            # Only what becomes of it when the agent stops is another, or which of its services an instance is of.
            self._registered[wanted.key_id] = wanted
            self._tell_health(wanted)
            await self._remember(wanted)
            return
        errors = await self._made(wanted)
        if not errors:
            await self._remember(wanted)
            registry = self._issuing
            ttl = TTL if wanted.is_checked else None
            done = await registry.register_service(wanted.key_id, wanted.value, registry.peer_id, None, ttl=ttl)
            errors = () if done.success else done.errors
            if not done.success and done.code.is_by_policy:
                allow = f"resource policy {wanted.key_id} --allow {registry.identity.peer_id}"
                errors += (f"its owner permits it by `aqua-registry {allow}`",)
            if done.success or done.stored:
                self._registered[wanted.key_id] = wanted
                self._tell_health(wanted)
        name = self.names.name(wanted.label, wanted.owner)
        if errors:
            files = ", ".join(wanted.sources)
            _log.warning("a service isn't registered yet", service=name, defined_in=files, errors=list(errors))
        else:
            _log.info("a service is registered", service=name, key_id=wanted.key_id)

    async def _made(self, wanted: Registration) -> tuple[str, ...]:
        """Makes the resource if it isn't there and is this node's own; why there is none."""
        found = await self._registry.get_resource(wanted.key_id)
        if found.key is not None:
            return ()
        if wanted.owner != self._registry.identity.peer_id:
            failures: Sequence[str] = ()
            if self._make_for is not None and found.code is Code.KEY_NOT_EXISTS:
                asked = await self._make_for(wanted.label, wanted.owner)
                if not asked:
                    return ()
                failures = asked
            remedy = f"its owner {wanted.owner} makes it by `aqua-registry resource create {shlex.quote(wanted.label)}`"
            return (*found.errors, *failures, remedy)
        created = await self._registry.create_resource(wanted.label)
        return () if created.resource_id is not None else created.errors

    async def _remember(self, one: Registration) -> None:
        remembered = Remembered(one.key_id, one.label, one.owner, one.stays, self._issuer, self._key_file)
        if self._begun.get(one.key_id) != remembered:
            self._begun[one.key_id] = remembered
            await self._keep()

    async def _keep(self) -> None:
        async with self._remembering:  # the last is the latest
            await in_thread(self._memory.keep, [*self._begun.values(), *self._earlier])

    async def _leave(self, registrations: Iterable[Remembered]) -> None:
        async def leave(one: Remembered) -> None:
            done = await self._registries[one.issued_by].unregister_service(
                one.key_id, self._registry.peer_id, factor=LEAVE_FACTOR, timeout=LEAVE_TIMEOUT
            )
            if done.success or done.stored:
                self._forget(one)
                await self._keep()
            else:
                name = self.names.name(one.label, one.owner)
                _log.warning("a service isn't unregistered", service=name, errors=list(done.errors))

        async with trio.open_nursery() as nursery:
            for one in list(registrations):
                nursery.start_soon(leave, one)

    def _forget(self, one: Remembered) -> None:
        if one in self._earlier:
            self._earlier.remove(one)
            return
        self._registered.pop(one.key_id, None)
        self._begun.pop(one.key_id, None)
        self._health.end(one.key_id)

    def _own_address(self) -> str:
        found = [instance.address for address in self._addresses() for instance in instances_in(address)]
        return next((one for one in found if not one.startswith("127.") and one != "::1"), found[0] if found else "")


def _warn(definitions: Definitions) -> None:
    for warning in definitions.warnings:
        _log.warning("part of a service's definition doesn't count", what=warning)


def _changes(before: Mapping[str, ServiceDefinition], after: Mapping[str, ServiceDefinition]) -> Changes:
    return Changes(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(one for one in after.keys() & before.keys() if _differ(after[one], before[one]))),
        tuple(sorted(before.keys() - after.keys())),
    )


def _differ(one: ServiceDefinition, other: ServiceDefinition) -> bool:
    """Whether they are other services, wherever they are defined by now."""
    return msgspec.structs.replace(one, source=other.source) != other
