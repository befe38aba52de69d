"""A registrar: a node that holds an owner's key, and makes resources of that owner's for agents that may ask.

So that an owner's names can be used by many machines, and its key is on few.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

import trio

from aqua_compat.agent.owner_keys import OwnerKeys
from aqua_compat.agent.service_files import BadDefinitions
from aqua_compat.agent.settings import AgentSettings
from aqua_compat.rpc.client import OnPeer
from aqua_compat.rpc.errors import ServiceError
from aqua_compat.rpc.server import ServiceLimits, caller
from overlay.errors import PeerIdError
from overlay.identity import public_key_of
from overlay.limits.token_bucket import TokenBuckets
from registry.client.registry import DEFAULT_TIMEOUT, Registry
from registry.codes import Code
from registry.model.signing import key_id_of

SERVICE: Final = "aqua-registry.registrar"
ANYONE: Final = "anyone"
LIMITS: Final = ServiceLimits(concurrency=16, timeout=2 * DEFAULT_TIMEOUT)
_RATE: Final = 2.0  # resources a second that one agent may have made
_BURST: Final = 200.0


def check_registrars(settings: AgentSettings, place_of: Callable[[str], str]) -> None:
    """Raises BadDefinitions for settings of registrars that can't be meant. `place_of` tells where one of the agent's
    settings was given."""
    errors = list[tuple[str, str]]()
    if settings.makes_for and not settings.owner_keys:
        errors.append(("makes_for", "this node has no owner's key to make resources with; give agent.owner_keys"))
    for field, peer_ids in (("registrars", settings.registrars), ("makes_for", settings.makes_for)):
        for peer_id in peer_ids:
            if peer_id == ANYONE and field == "makes_for":
                continue
            try:
                public_key_of(peer_id)
            except PeerIdError as error:
                errors.append((field, f"{error}; `aqua-registry peers` prints a node's peer id"))
    if errors:
        raise BadDefinitions([f"{place_of(field)}: agent.{field}: {error}" for field, error in errors])


class Registrar:
    """What a registrar serves."""

    def __init__(self, registry: Registry, keys: OwnerKeys, makes_for: Collection[str]) -> None:
        """`makes_for`: peer ids, or `anyone`."""
        self._registry = registry
        self._keys = keys
        self._makes_for = makes_for
        self._asked = TokenBuckets(_RATE, _BURST)

    async def make(self, label: str, owner: str) -> list[str]:
        """Has a resource of an owner be there; why it isn't, or nothing."""
        agent = caller()
        if ANYONE not in self._makes_for and agent not in self._makes_for:
            return [f"this registrar makes no resources for {agent}; its operator adds that to agent.makes_for"]
        if owner not in self._keys:
            return [f"this registrar doesn't hold the key of the owner {owner}"]
        if not self._asked.take(agent, trio.current_time()):
            return ["too many resources were asked for; later ones are made later"]
        found = await self._registry.get_resource(key_id_of(label, owner))
        if found.key is not None:
            return []
        if found.code is not Code.KEY_NOT_EXISTS:
            return list(found.errors)
        return list(await self._keys.make(label, owner))


async def ask_registrars(
    on: Callable[[str], OnPeer], registrars: Sequence[str], label: str, owner: str
) -> tuple[str, ...]:
    """Has a resource made by the first registrar that does; why none did, or nothing. `on` gives a peer to call."""
    if not registrars:
        return ("no registrar is known that would make it (agent.registrars, or an invitation's)",)
    failures: list[str] = []
    for registrar in registrars:
        try:
            told = await on(registrar).call(SERVICE, "make", label, owner)
        except ServiceError as error:
            failures.append(f"the registrar {registrar}: {error}")
            continue
        if not told:
            return ()
        failures += [f"the registrar {registrar}: {str(each)[:500]}" for each in told[:3]]
    return tuple(failures)
