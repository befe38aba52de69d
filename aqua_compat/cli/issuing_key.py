"""The settings `agent.key` and `agent.certificates`: under which key a node's agent registers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aqua_compat.agent.agent_key import AgentKey, ForeignCertificate, check_certificates, earlier_keys, read_agent_key
from aqua_compat.cli.failures import Failure, Misuse
from aqua_compat.cli.keys import key_path, user_data_folder
from registry.client.certificate_files import CertificateFiles, UnusableCertificate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aqua_compat.agent.memory import AgentMemory
    from aqua_compat.cli.config import SettingsOrigin
    from aqua_compat.settings import Settings
    from overlay.identity import Identity
    from registry.client.registry import Registry


def keys_of_agent(
    settings: Settings, origin: SettingsOrigin, own: str, memory: AgentMemory
) -> tuple[AgentKey | None, list[Identity]]:
    """What `issuing_key` gives, and with it all keys besides the node's own that are needed here: that one, and those
    of what was registered before. Blocks. Raises as `issuing_key`."""
    key = issuing_key(settings, origin, own)
    now = [] if key is None else [key.identity]
    return key, [*now, *earlier_keys(memory.read(), but=(own, *(each.peer_id for each in now)))]


def issuing_key(settings: Settings, origin: SettingsOrigin, own: str) -> AgentKey | None:
    """The key; None where the node registers under its own, whose peer id is `own`. Blocks. Raises IdentityError, and
    Failure for a certificate that it can't show."""
    given, certificates = settings.agent.key, settings.agent.certificates
    place = origin.of("agent", "certificates")
    key = read_agent_key(_file(given, origin.of("agent", "key")), origin.of("agent", "key")) if given else None
    if key is None or key.identity.peer_id == own:
        if certificates:
            raise Failure(
                f"{place}: agent.certificates: they are for agent.key, and services are registered under the node's"
                " own key here; name its certificates by the setting `certificates`"
            )
        return None
    if certificates:
        try:
            check_certificates(Path(certificates), key.identity.peer_id, place)
        except UnusableCertificate as error:
            raise Failure(f"{place}: agent.certificates: {error}") from None
        except ForeignCertificate as error:
            raise Failure(str(error)) from None
    return key


def use_certificates_of_key(registries: Mapping[str, Registry], key: AgentKey | None, settings: Settings) -> None:
    """Has the registry of `key`, if there is one, show its certificates. `registries`: by their keys' peer ids."""
    if key is None:
        return
    named = settings.agent.certificates or settings.certificates
    folder = user_data_folder() / "certificates"
    paths = [*([Path(named)] if named else []), *([folder] if folder.is_dir() else [])]
    if paths:
        registries[key.identity.peer_id].use_certificates(CertificateFiles(paths))


def _file(given: str, place: str) -> Path:
    if "/" in given or given.endswith(".json"):
        return Path(given)
    try:
        return key_path(given)
    except Misuse as error:
        raise Failure(f"{place}: agent.key: {error.format_message()}; or give the path of its file") from None
