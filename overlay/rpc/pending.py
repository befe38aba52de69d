"""Own calls that wait for their answers."""

from __future__ import annotations

from typing import Final

import outcome
import trio

from overlay.errors import (
    AnswerDropped,
    AnswerTooLarge,
    CallFailed,
    CallRefused,
    CallTimeout,
    NoSuchMethod,
    Overloaded,
    ProtocolError,
)
from overlay.rpc.protocol import Failed, Fault, Refused, Response, seconds, shortened

Answer = Response | Refused | Failed
"""The frames that settle a call."""


_FAULTS: Final[dict[int, tuple[type[CallFailed], str]]] = {
    Fault.NO_SUCH_METHOD: (NoSuchMethod, ""),
    Fault.TIMEOUT: (CallTimeout, ""),
    Fault.ANSWER_TOO_LARGE: (AnswerTooLarge, ""),
    Fault.BAD_BODY: (ProtocolError, "the peer couldn't decode the request's body"),
}
"""What each fault is for the caller; a reason of its own where the error's doesn't tell all."""


class LinkLost(Exception):
    """The link ended before the answer came."""


class PendingCall:
    """One call, for whose answer one task waits.

    An event of Trio's would cost as much as all else of a call, hence the task is parked and woken by hand.
    """

    __slots__ = ("_answer", "_task")

    def __init__(self) -> None:
        self._answer: outcome.Outcome[Answer] | None = None
        self._task: trio.lowlevel.Task | None = None

    async def wait(self) -> Answer:
        """Wait for the answer. Raises `LinkLost`."""
        if self._answer is None:
            self._task = trio.lowlevel.current_task()
            answer: Answer = await trio.lowlevel.wait_task_rescheduled(self._abort)
            return answer
        return self._answer.unwrap()

    def settle(self, answer: outcome.Outcome[Answer]) -> None:
        """Hand over the answer, or `LinkLost`, and wake the waiting task. To be called once."""
        self._answer = answer
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, answer)
            self._task = None

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class PendingCalls:
    """All own calls on one link, by their ids."""

    def __init__(self) -> None:
        self._calls: dict[int, PendingCall] = {}
        self._next_id = 0

    def __len__(self) -> int:
        return len(self._calls)

    def add(self) -> tuple[int, PendingCall]:
        """A new call and its id."""
        call_id = self._next_id
        self._next_id += 1
        call = self._calls[call_id] = PendingCall()
        return call_id, call

    def settle(self, answer: Answer) -> None:
        """Hand an answer to its call; ignores one whose caller gave up."""
        call = self._calls.pop(answer.id, None)
        if call is not None:
            call.settle(outcome.Value(answer))

    def give_up(self, call_id: int) -> bool:
        """Forget a call; tells whether it was still waiting for its answer."""
        return self._calls.pop(call_id, None) is not None

    def lose(self) -> None:
        """Fail all calls with `LinkLost`."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.settle(outcome.Error(LinkLost()))


def failure(peer_id: str, method: str, answer: Refused | Failed) -> CallFailed:
    """The exception that an answer other than `Response` is for the caller."""
    if isinstance(answer, Refused):
        code, message = shortened(answer.code), shortened(answer.message)
        return CallRefused(peer_id, method, code, message, seconds(answer.retry_after))
    if answer.fault == Fault.OVERLOADED:
        return Overloaded(peer_id, method, retry_after=seconds(answer.retry_after))
    if answer.fault == Fault.ANSWER_DROPPED:
        return AnswerDropped(peer_id, method, retry_after=seconds(answer.retry_after))
    kind, reason = _FAULTS.get(answer.fault, (CallFailed, f"failed, as only newer peers know ({answer.fault})"))
    return kind(peer_id, method, reason)
