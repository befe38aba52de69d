"""The services that programs registered on this node, beside those of its service files: kept on disk, and given to its
agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from aqua_compat.agent.agent import Agent
from aqua_compat.agent.check_runner import CheckKey
from aqua_compat.agent.check_state import CheckResult
from aqua_compat.agent.definitions import ServiceDefinition
from aqua_compat.agent.file_form import ServiceForm
from aqua_compat.agent.service_files import BadDefinitions, Definitions
from aqua_compat.http.consul.registrations import ConsulRegistration
from overlay.private_file import write_private
from overlay.tasks import in_thread

FILE: Final = "agent-registered.json"
_MOST_BYTES: Final = 4 * 2**20

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _RegisteredFile(msgspec.Struct, frozen=True):
    """What the file has. `places`: of checks, by the services' ids; files of before name none."""

    service: tuple[ServiceForm, ...] = ()
    places: dict[str, tuple[int, ...]] = {}

    def registrations(self) -> dict[str, ConsulRegistration]:
        by_id: dict[str, ConsulRegistration] = {}
        for form in self.service:
            places = self.places.get(form.id or form.name, ())
            if len(places) != len(form.check):
                places = tuple(range(1, len(form.check) + 1))
            by_id[form.id or form.name] = ConsulRegistration(form, places)
        return by_id


class RegisteredServices:
    """What programs registered, by id."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self.registrations: dict[str, ConsulRegistration] = self._read()

    def all(self) -> tuple[ServiceForm, ...]:
        """All of them."""
        return tuple(one.form for one in self.registrations.values())

    def keep(self) -> None:
        """Writes them to the disk. Blocking. Raises BadDefinitions when that fails, or they are too many."""
        places = {service_id: one.places for service_id, one in self.registrations.items()}
        content = msgspec.json.encode(_RegisteredFile(self.all(), places))
        if len(content) > _MOST_BYTES:
            raise BadDefinitions([f"what is registered has more than {_MOST_BYTES} bytes; use service files"])
        try:
            write_private(self._path, content)
        except OSError as error:
            raise BadDefinitions([f"it can't be kept: {error.strerror}"]) from None

    def _read(self) -> dict[str, ConsulRegistration]:
        try:
            with self._path.open("rb") as file:
                kept = msgspec.json.decode(file.read(_MOST_BYTES + 1), type=_RegisteredFile)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("what programs registered can't be read", file=str(self._path), error=str(error))
            return {}
        return kept.registrations()


class RunningAgent:
    """The agent, with what programs registered on it."""

    def __init__(
        self,
        agent: Agent,
        registered: RegisteredServices,
        check: Callable[[ServiceForm], Definitions],
        owner: str = "",
    ) -> None:
        """`agent` reads what is in `registered` with everything else. `check` reads one service, and raises
        BadDefinitions. `owner`: whose resources services are that name nobody else, an alias or a peer id."""
        self.owner = owner
        self.agent = agent
        self._registered = registered
        self._check = check

    @property
    def services(self) -> Mapping[str, ServiceDefinition]:
        """The services that it keeps, by their ids."""
        return self.agent.services

    @property
    def registered(self) -> Mapping[str, ConsulRegistration]:
        """Those of them that programs registered."""
        return self._registered.registrations

    def shown(self, key: CheckKey) -> CheckResult | None:
        """The state of a check."""
        return self.agent.checks.shown(key)

    def report(self, key: CheckKey, result: CheckResult) -> bool:
        """Takes what a program says for a `ttl` check; False for no such check."""
        return self.agent.checks.report(key, result)

    async def put(self, service_id: str, registration: ConsulRegistration) -> None:
        """Registers a service, in place of what was registered by that id. Raises BadDefinitions."""
        await in_thread(self._check, registration.form)
        await self._change({**self._registered.registrations, service_id: registration})

    async def remove(self, service_id: str) -> None:
        """Ends what was registered. Raises BadDefinitions."""
        await self._change({key: one for key, one in self._registered.registrations.items() if key != service_id})

    async def _change(self, registrations: dict[str, ConsulRegistration]) -> None:
        before, self._registered.registrations = self._registered.registrations, registrations
        try:
            await self.agent.reload()
            await in_thread(self._registered.keep)
        except BadDefinitions:
            self._registered.registrations = before
            with suppress(BadDefinitions):  # of what else there is; it is in the log
                await self.agent.reload()
            raise
