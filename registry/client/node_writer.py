"""Writing to the network through the node acted through, and how that went in the words of a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import trio

from overlay.tracing import TRACING
from registry.client.node_api import NodeApi
from registry.client.patience import patiently
from registry.client.results import Done, code_of
from registry.codes import Code
from registry.errors import RegistryError, TooFewReplicas
from registry.protocol.error_info import texts
from registry.protocol.messages import Item, WriteOutcome
from registry.replica.countersign import SignedStates
from registry.watch.watches import Watches

TOLD_BEFORE: Final = 0.05  # seconds before its deadline at which a write tells how far it came
TIME_IS_UP: Final = "timeout exceeded"


class Written(NamedTuple):
    """How a write went: for the caller, and why replicas refused it."""

    done: Done
    codes: frozenset[Code] = frozenset()


class NodeWriter:
    """Writes items and tells the watches of this process what was stored."""

    def __init__(self, node_api: NodeApi, watches: Watches, signed: SignedStates) -> None:
        """`signed` is told of what has reached a replica."""
        self._node_api = node_api
        self._signed = signed
        self._watches = watches

    async def write(self, item: Item, factor: int, timeout: float, failure: str) -> Written:
        """Writes to at least `factor` replicas within `timeout` seconds; `failure` says what hasn't come about."""
        deadline = trio.current_time() + timeout
        before = deadline - min(TOLD_BEFORE, timeout / 20)

        async def write(remaining: float) -> WriteOutcome:
            return await self._node_api.write(item, factor=factor, timeout=remaining)

        try:
            with TRACING.span("write", resource=item.key_id, factor=factor):
                outcome = await patiently(write, until(before))
        except RegistryError as error:
            return refused(error, failure, timed_out=trio.current_time() >= before)
        if outcome.stored > 0:
            self._watches.note_own(item)
            self._signed.settle([item])
        codes = frozenset(error.known_code for error in outcome.errors)
        if outcome.stored >= factor and outcome.stored > 0:
            return Written(Done(True, texts(outcome.errors), outcome.stored), codes)
        causes = (*texts(outcome.errors), *_too_few(outcome, factor))
        errors = failed(causes, failure, timed_out=outcome.timed_out)
        # Too few on disk, or whatever is known of why.
        known = [Code.TOO_FEW_REPLICAS] if outcome.stored else [error.known_code for error in outcome.errors]
        otherwise = Code.TOO_FEW_REPLICAS if outcome.targets < factor else Code.FAILED
        code = code_of(known, timed_out=outcome.timed_out, otherwise=otherwise)
        return Written(Done(False, errors, outcome.stored, code=code), codes)


def refused(error: RegistryError, failure: str, *, timed_out: bool = False) -> Written:
    """What became of a write that this node refused."""
    done = Done(False, failed((str(error),), failure, timed_out=timed_out), code=error.code)
    return Written(done, frozenset({error.code}))


def failed(causes: tuple[str, ...], failure: str, *, timed_out: bool) -> tuple[str, ...]:
    """The causes of a failure, and behind them the original's text where the time was up, as it always was there."""
    if timed_out:
        return (*causes, f"{failure}: {TIME_IS_UP}" if failure else TIME_IS_UP)
    return causes or (failure,)


def until(deadline: float) -> float:
    """Seconds that are left until a time of Trio's clock."""
    return max(deadline - trio.current_time(), 0.0)


def optional(text: str | None) -> tuple[str, ...]:
    """Aqua's form of an optional: none or one of it."""
    return () if text is None else (text,)


def _too_few(outcome: WriteOutcome, factor: int) -> Iterator[str]:
    """How far a write came that reached fewer replicas than asked for."""
    if 0 < outcome.targets < factor:
        yield str(TooFewReplicas(outcome.targets, factor))
    if outcome.stored:
        yield f"{outcome.stored} of {factor} replicas have it on disk, and the write goes on"
