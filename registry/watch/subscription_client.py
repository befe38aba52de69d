"""Asks replicas, and other watchers, for subscriptions: as many of one peer in a call as fit.

`registry.watch.subscriptions` is the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import outcome
import trio

from overlay.errors import CallFailed
from overlay.tasks import TaskOwner
from registry.errors import InvalidValue
from registry.protocol.messages import MAX_PAGE, build, parse
from registry.protocol.network import Network
from registry.watch.messages import (
    MAX_SUBSCRIPTIONS_IN_CALL,
    SUBSCRIBE,
    SubscribeAnswer,
    SubscribeBody,
    SubscriptionReply,
    SubscriptionRequest,
)
from registry.watch.source_machine import TIMEOUT

REQUEST_OVERHEAD: Final = 8  # bytes of a request beside the resource's id
APPLIED_AT_ONCE: Final = 64  # renewals, after which other tasks get their turn


class SubscriptionClient:
    """Asks for the subscriptions of all resources that one peer watches."""

    def __init__(self, network: Network, tasks: TaskOwner) -> None:
        """`tasks` runs what sends requests; while it isn't open, they fail."""
        self._network = network
        self._tasks = tasks
        self._requests: dict[str, list[_PendingRequest]] = {}  # by peer, while a task sends them

    async def renew(
        self,
        peer_id: str,
        requests: Sequence[SubscriptionRequest],
        renewed: Callable[[int, SubscriptionReply | None], None],
    ) -> None:
        """Renews subscriptions at one peer. `renewed(number, reply)` is called for each request, with None where that
        failed."""
        start = 0
        while start < len(requests):
            batch = requests[start : start + _fitting(requests[start:])]
            try:
                replies: list[SubscriptionReply | None] = [*await self._call(peer_id, batch)]
            except (CallFailed, InvalidValue):
                replies = [None] * len(batch)
            for number, reply in enumerate(replies):
                renewed(start + number, reply)
                if number % APPLIED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            start += len(batch)

    async def subscribe(self, peer_id: str, request: SubscriptionRequest) -> SubscriptionReply:
        """Asks a peer for a subscription, or ends one; requests to one peer that come together travel together.

        Raises CallFailed, InvalidValue.
        """
        mine = _PendingRequest(request)
        waiting = self._requests.get(peer_id)
        if waiting is not None:
            waiting.append(mine)
        elif not self._tasks.is_open:
            raise InvalidValue("this peer isn't open any more")
        else:
            self._requests[peer_id] = [mine]
            self._tasks.start_soon(self._send_requests, peer_id)
        await mine.done.wait()
        assert mine.outcome is not None
        return mine.outcome.unwrap()

    async def _send_requests(self, peer_id: str) -> None:
        await trio.lowlevel.checkpoint()  # until all who woke up at the same time have said what they want
        try:
            while self._requests[peer_id]:
                waiting = self._requests[peer_id]
                batch = waiting[: _fitting([each.request for each in waiting])]
                del waiting[: len(batch)]
                await self._send_batch(peer_id, batch)
        finally:
            for request in self._requests.pop(peer_id):
                request.settle(outcome.Error(InvalidValue("this peer isn't open any more")))

    async def _send_batch(self, peer_id: str, batch: list[_PendingRequest]) -> None:
        failure: Exception = InvalidValue("cancelled")
        replies: Sequence[SubscriptionReply] = ()
        try:
            replies = await self._call(peer_id, [each.request for each in batch])
        except (CallFailed, InvalidValue) as error:
            failure = error
        finally:
            for number, request in enumerate(batch):
                request.settle(outcome.Value(replies[number]) if replies else outcome.Error(failure))

    async def _call(self, peer_id: str, requests: Sequence[SubscriptionRequest]) -> Sequence[SubscriptionReply]:
        """One reply per request. Raises CallFailed, InvalidValue."""
        body = build(SubscribeBody(tuple(build(request) for request in requests)))
        answer = parse(await self._network.call(peer_id, SUBSCRIBE, body, timeout=TIMEOUT), SubscribeAnswer)
        if len(answer.replies) != len(requests):
            raise InvalidValue(f"{len(answer.replies)} answers to {len(requests)} requests")
        return answer.replies


def _fitting(requests: Sequence[SubscriptionRequest]) -> int:
    """How many of the first requests fit into one call."""
    size = 0
    for number, request in enumerate(requests[:MAX_SUBSCRIPTIONS_IN_CALL]):
        size += len(request.key_id.encode()) + REQUEST_OVERHEAD
        if number and size > MAX_PAGE:
            return number
    return min(len(requests), MAX_SUBSCRIPTIONS_IN_CALL)


class _PendingRequest:
    """A request for a subscription that is under way."""

    def __init__(self, request: SubscriptionRequest) -> None:
        self.request = request
        self.done = trio.Event()
        self.outcome: outcome.Outcome[SubscriptionReply] | None = None

    def settle(self, result: outcome.Outcome[SubscriptionReply]) -> None:
        self.outcome = result
        self.done.set()
