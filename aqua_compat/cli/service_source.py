"""Where a node's services are defined: its settings, the folder that they name, and what programs registered.

What programs registered gives way: a file or the settings may define the same later, or what it is an alias of may go.
Then it doesn't count, which is a warning, for as long as that is so. It never keeps a node from starting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aqua_compat.agent.definitions import ServiceDefinition
from aqua_compat.agent.file_form import ServiceForm
from aqua_compat.agent.service_files import (
    BadDefinitions,
    Definitions,
    check_together,
    read_form,
    read_services,
    read_text,
)
from aqua_compat.agent.service_places import ServicePlaces
from aqua_compat.api.invited_names import network_owner, with_invited
from aqua_compat.cli.config import SettingsOrigin
from aqua_compat.cli.failures import Misuse
from aqua_compat.settings import Settings
from registry.errors import InvalidValue
from registry.model.names import OWN, Names

if TYPE_CHECKING:
    from aqua_compat.agent.settings import AgentSettings
    from overlay.membership.join_token import JoinToken

REGISTERED: Final = "what programs registered"
"""Where that is said to be defined."""
_AT_START: Final = ("key", "certificates")
"""Settings of the agent that are read at the node's start alone."""


class SettingsOfServices:
    """Reads settings and files as they are at the moment."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        peer_id: str,
        token: JoinToken | None = None,
        *,
        origin: SettingsOrigin = SettingsOrigin(),  # noqa: B008 - it is immutable
        registered: Callable[[], Sequence[ServiceForm]] = tuple,
        started: AgentSettings | None = None,
    ) -> None:
        """`settings` raises Misuse; `peer_id`: who `me` is; `token`: by which the node joined its network;
        `origin`: where the settings come from; `registered`: what programs registered here; `started`: the settings by
        which the agent was started, None where that doesn't matter."""
        self._started = started
        self._origin = origin
        self._settings = settings
        self._peer_id = peer_id
        self._token = token
        self._registered = registered

    def read(self) -> Definitions:
        """See `ServiceSource.read`."""
        settings = self._now()
        folder = Path(settings.agent.services) if settings.agent.services else None
        defined = read_services(
            folder,
            self._names(settings),
            in_settings=settings.service,
            settings=self._origin.of_services() if settings.service else ServicePlaces(""),
            allow_scripts=settings.agent.scripts,
            owner=self.owner(settings),
        )
        return self._with_registered(defined, settings)

    def read_text(self, name: str, text: str) -> Definitions:
        """See `ServiceSource.read_text`."""
        settings = self._now()
        names, scripts = self._names(settings), settings.agent.scripts
        return read_text(name, text, names, allow_scripts=scripts, owner=self.owner(settings))

    def read_form(self, form: ServiceForm) -> Definitions:
        """A service that a program is about to register, in place of what has its id. Raises BadDefinitions, also where
        it doesn't fit what else is defined."""
        definitions = self._one(form, self._now())
        known = self.read().services
        replaced = {service.id for service in definitions.services}
        for service in known:
            if service.id in replaced and service.source != REGISTERED:
                raise BadDefinitions([f"the service {service.id!r} is defined in {service.source}; change it there"])
        check_together([*(service for service in known if service.id not in replaced), *definitions.services])
        return definitions

    def _one(self, form: ServiceForm, settings: Settings) -> Definitions:
        names, scripts = self._names(settings), settings.agent.scripts
        return read_form(form, REGISTERED, names, allow_scripts=scripts, owner=self.owner(settings))

    def _with_registered(self, defined: Definitions, settings: Settings) -> Definitions:
        """`defined`, and of what programs registered all that fits."""
        sources = {service.id: service.source for service in defined.services}
        registered, warnings = list[ServiceDefinition](), list(defined.warnings)
        for form in self._registered():
            service_id = form.id or form.name
            if service_id in sources:
                warnings.append(f"{REGISTERED}: service {service_id!r}: {sources[service_id]} defines it by now")
                continue
            try:
                registered += self._one(form, settings).services
            except BadDefinitions as error:
                warnings += error.errors
        services, faults = _fitting([*defined.services], registered)
        warnings += [*faults, *self._waiting(settings)]
        return defined._replace(services=tuple(services), warnings=tuple(warnings))

    def _waiting(self, settings: Settings) -> Iterator[str]:
        """What of the settings counts only from the node's next start on."""
        for name in () if self._started is None else _AT_START:
            if getattr(settings.agent, name) != getattr(self._started, name):
                yield f"{self._origin.of('agent', name)}: agent.{name} was another at the start: restart the node"

    def _now(self) -> Settings:
        try:
            return self._settings()
        except Misuse as error:
            raise BadDefinitions([error.format_message()]) from None

    def _names(self, settings: Settings) -> Names:
        return Names(with_invited(settings.names, self._token), self._peer_id)

    def owner(self, settings: Settings) -> str:
        """Whose the services are that name no owner: an alias, a peer id, or `me`. Raises BadDefinitions where the
        settings say one that is none."""
        given = settings.agent.owner
        if not given:
            return network_owner(self._token) or OWN
        try:
            self._names(settings).owner(given)
        except InvalidValue as error:
            raise BadDefinitions([f"{self._origin.of('agent', 'owner')}: agent.owner: {error}"]) from None
        return given


def _fitting(
    services: list[ServiceDefinition], more: list[ServiceDefinition]
) -> tuple[list[ServiceDefinition], Sequence[str]]:
    """The services, and those of `more` that fit them and one another; why the others don't."""
    try:
        check_together([*services, *more])
    except BadDefinitions as error:
        left, faults = more, error.errors
    else:
        return [*services, *more], ()
    while left:
        apart: list[ServiceDefinition] = []
        for service in left:
            try:
                check_together([*services, service])
            except BadDefinitions:
                apart.append(service)
            else:
                services.append(service)
        if len(apart) == len(left):
            return services, faults
        left = apart
    return services, faults
