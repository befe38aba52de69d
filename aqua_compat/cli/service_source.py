"""Where a node's services are defined: its settings, and the folder that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aqua_compat.agent.file_form import ServiceForm
from aqua_compat.agent.service_files import BadDefinitions, Definitions, read_services, read_text
from aqua_compat.cli.failures import Misuse
from aqua_compat.settings import Settings
from registry.model.names import OWN, Names


class SettingsOfServices:
    """Reads settings and files as they are at the moment."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        peer_id: str,
        owner: str = "",
        *,
        registered: Callable[[], Sequence[ServiceForm]] = tuple,
    ) -> None:
        """`settings` raises Misuse; `peer_id`: who `me` is; `owner`: the network's, if it has one; `registered`: what
        programs registered here."""
        self._settings = settings
        self._peer_id = peer_id
        self._owner = owner
        self._registered = registered

    def read(self) -> Definitions:
        """See `ServiceSource.read`."""
        settings = self._now()
        folder = Path(settings.agent.services) if settings.agent.services else None
        return read_services(
            folder,
            self._names(settings),
            in_settings=(*settings.service, *self._registered()),
            allow_scripts=settings.agent.scripts,
            owner=settings.agent.owner or self._owner or OWN,
        )

    def read_text(self, name: str, text: str) -> Definitions:
        """See `ServiceSource.read_text`."""
        settings = self._now()
        owner = settings.agent.owner or self._owner or OWN
        return read_text(name, text, self._names(settings), allow_scripts=settings.agent.scripts, owner=owner)

    def read_form(self, form: ServiceForm) -> Definitions:
        """One service as a file would define it. Raises BadDefinitions."""
        settings = self._now()
        owner = settings.agent.owner or self._owner or OWN
        return read_services(
            None, self._names(settings), in_settings=(form,), allow_scripts=settings.agent.scripts, owner=owner
        )

    def _now(self) -> Settings:
        try:
            return self._settings()
        except Misuse as error:
            raise BadDefinitions([error.format_message()]) from None

    def _names(self, settings: Settings) -> Names:
        return Names(settings.names, self._peer_id)
