"""Writing to the network through the node acted through, and how that went in the words of a result."""

from __future__ import annotations

from typing import Final, NamedTuple

import trio

from registry.client.node_api import NodeApi
from registry.client.results import Done
from registry.codes import Code
from registry.errors import RegistryError
from registry.protocol.error_info import texts
from registry.protocol.messages import Item, WriteOutcome
from registry.watch.watches import Watches

TOLD_BEFORE: Final = 0.05  # seconds before its deadline at which a write tells how far it came


class Written(NamedTuple):
    """How a write went: for the caller, and why replicas refused it."""

    done: Done
    codes: frozenset[Code] = frozenset()


class NodeWriter:
    """Writes items and tells the watches of this process what was stored."""

    def __init__(self, node_api: NodeApi, watches: Watches) -> None:
        self._node_api = node_api
        self._watches = watches

    async def write(self, item: Item, factor: int, timeout: float, failure: str) -> Written:
        """Writes to at least `factor` replicas within `timeout` seconds; `failure` says what hasn't come about."""
        try:
            before = timeout - min(TOLD_BEFORE, timeout / 20)
            outcome: WriteOutcome = await self._node_api.write(item, factor=factor, timeout=before)
        except RegistryError as error:
            return refused(error, failure)
        if outcome.stored > 0:
            self._watches.note_own(item)
        codes = frozenset(error.known_code for error in outcome.errors)
        if outcome.stored >= factor and outcome.stored > 0:
            return Written(Done(True, texts(outcome.errors)), codes)
        told = optional(f"{outcome.stored} of {outcome.targets} replicas took it" if outcome.stored else None)
        return Written(Done(False, (*texts(outcome.errors), *told, failure)), codes)


def refused(error: RegistryError, failure: str) -> Written:
    """What became of a write that this node refused."""
    return Written(Done(False, (str(error), failure)), frozenset({error.code}))


def until(deadline: float) -> float:
    """Seconds that are left until a time of Trio's clock."""
    return max(deadline - trio.current_time(), 0.0)


def optional(text: str | None) -> tuple[str, ...]:
    """Aqua's form of an optional: none or one of it."""
    return () if text is None else (text,)
