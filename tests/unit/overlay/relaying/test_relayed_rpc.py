"""Relayed calls: what arrives, and what lying relays and callers can't achieve."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from overlay.errors import (
    AnswerDropped,
    AnswerTooLarge,
    BodyTooLarge,
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    NoSuchMethod,
    Overloaded,
    ProtocolError,
    Refusal,
    Unreachable,
)
from overlay.identity import Identity
from overlay.relaying.relay import METHODS, RELAY_METHOD, Purpose, Relay
from overlay.relaying.relayed_rpc import RelayedRpc
from overlay.relaying.secure_channel import PendingSession
from overlay.rpc.decoded_items import DecodedItems
from overlay.rpc.framing import decode_item, encode_item
from overlay.settings import RelayLimits

NOW = 1_700_000_000.0


class Wire:
    """Links of several peers, in memory; `tamper` is what a relay does to what it passes on."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Any] = {}
        self.linked = True
        self.tamper: Any = lambda body: body
        self.tamper_opening: Any = lambda body: body
        self.refuse_after: str | None = None
        self.fail_after: type[CallFailed] | None = None
        self.tamper_answer: Any = lambda body: body

    def of(self, peer_id: str) -> WireEnd:
        return WireEnd(self, peer_id)


class WireEnd:
    """The links of one peer; satisfies `RelayLinks`."""

    def __init__(self, wire: Wire, peer_id: str) -> None:
        self.wire, self.peer_id = wire, peer_id

    def serve(self, method: str, handler: Any) -> None:
        self.wire.handlers[self.peer_id, method] = handler

    def is_linked(self, peer_id: str) -> bool:
        return self.wire.linked

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        await trio.lowlevel.checkpoint()
        if (peer_id, method) not in self.wire.handlers:
            raise NoSuchMethod(peer_id, method)
        carried = decode_item(encode_item(body))
        if method == METHODS[Purpose.REQUEST]:
            carried = self.wire.tamper(carried)
        elif method == METHODS[Purpose.OPENING]:
            carried = self.wire.tamper_opening(carried)
        answer: object = None
        try:
            with trio.move_on_after(timeout) as deadline:
                answer = decode_item(encode_item(await self.wire.handlers[peer_id, method](self.peer_id, carried)))
        except Refusal as refusal:
            raise CallRefused(peer_id, method, refusal.code, refusal.message) from refusal
        if deadline.cancelled_caught:
            raise CallTimeout(peer_id, method)
        if method == METHODS[Purpose.REQUEST] and self.wire.fail_after is not None:
            raise self.wire.fail_after(peer_id, method)
        if method == METHODS[Purpose.REQUEST] and self.wire.refuse_after is not None:
            raise CallRefused(peer_id, method, self.wire.refuse_after, "says the relay")
        return self.wire.tamper_answer(answer) if method in METHODS.values() else answer


class Three:
    """A caller, a relay and a target that serves `who` and `refuse`."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.wire = Wire()
        self.ids = [Identity.generate() for _ in range(3)]
        self.clock = NOW
        self.served = 0
        self.limits = limits or RelayLimits()
        self.items = DecodedItems(50_000, 50_000)
        self.caller = self._end(0)
        self.relay = Relay(self.wire.of(self.ids[1].peer_id), self.limits)
        self.restart_target()

    def _end(self, place: int) -> RelayedRpc:
        identity = self.ids[place]
        return RelayedRpc(
            identity,
            self.wire.of(identity.peer_id),
            self.limits,
            decoded_items=self.items,
            clock=lambda: self.clock,
        )

    def restart_target(self) -> None:
        self.target = self._end(2)
        self.target.serve("who", self._who)
        self.target.serve("refuse", self._refuse)

    def restart_caller(self) -> None:
        self.caller = self._end(0)

    async def _who(self, caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        self.served += 1
        return [caller, body]

    async def _refuse(self, caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        raise Refusal("no", "never")

    async def call(self, method: str = "who", body: object = "x", timeout: float = 5) -> object:
        relay, target = self.ids[1].peer_id, self.ids[2].peer_id
        return await self.caller.call(target, [relay], method, body, timeout=timeout)


async def test_the_called_peer_learns_who_calls_and_refuses_by_itself() -> None:
    three = Three()
    assert await three.call() == [three.ids[0].peer_id, "x"]
    with pytest.raises(CallRefused, match="never"):
        await three.call("refuse")
    with pytest.raises(NoSuchMethod):
        await three.call("nothing")


async def test_what_is_decoded_of_relayed_calls_counts_for_who_made_them(autojump_clock: MockClock) -> None:
    three, large = Three(), [0] * 30_000
    serving = trio.Event()
    outcomes: list[object] = []

    async def block(caller: str, body: object) -> object:
        serving.set()
        await trio.sleep_forever()

    async def call(timeout: float) -> None:
        try:
            outcomes.append(await three.call("block", large, timeout))
        except CallRefused as error:
            outcomes.append(error.code)
        except CallTimeout:
            outcomes.append("timeout")

    three.target.serve("block", block)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, 50)
        await serving.wait()
        await call(3)
        assert outcomes == ["timeout"], "the caller's first call takes all of its room"
        with three.items.opened("another", lambda: None) as others:
            others.count(25_000)
            await trio.sleep(1)
            assert outcomes[1:] == ["gave-way"], "of the two it has most"
        with three.items.opened("another", lambda: None) as one, three.items.opened("third", lambda: None) as other:
            one.count(25_000)
            other.count(25_000)
            await call(3)
        assert outcomes[2:] == ["overloaded"]
    assert three.items.total == 0


async def test_an_altered_request_is_not_served() -> None:
    three = Three()
    await three.call()
    for place in range(1, 40, 3):
        three.wire.tamper = lambda sealed, place=place: (
            sealed[:-place] + bytes([sealed[-place] ^ 1]) + (sealed[len(sealed) - place + 1 :])
        )
        with pytest.raises(ConnectionLost):
            await three.call()
    for garbage in (b"", bytes(100), None, [], 5, encode_item([bytes(16), 0, b""]), encode_item([b"", -1, b""])):
        three.wire.tamper = lambda _, garbage=garbage: garbage
        with pytest.raises(ConnectionLost):
            await three.call()
    assert three.served == 1


async def test_a_relay_sees_neither_what_is_asked_nor_what_is_answered() -> None:
    three = Three()
    seen: list[Any] = []
    three.wire.tamper = three.wire.tamper_opening = lambda sealed: seen.append(sealed) or sealed
    three.wire.tamper_answer = lambda sealed: seen.append(sealed) or sealed
    secret = "a secret of some length"
    assert await three.call(body=secret) == [three.ids[0].peer_id, secret]
    assert len(seen) == 4
    assert all(isinstance(sealed, bytes) and secret.encode() not in sealed and b"who" not in sealed for sealed in seen)


async def test_a_request_of_another_session_is_the_other_ones() -> None:
    three, other = Three(), Three()
    captured: list[Any] = []
    other.wire.tamper = lambda sealed: captured.append(sealed) or sealed
    await other.call()
    three.wire.tamper = lambda _: captured[0]
    with pytest.raises(ConnectionLost):
        await three.call()
    assert three.served == 0


async def test_a_repeated_request_is_served_once() -> None:
    three = Three()
    captured: list[Any] = []
    three.wire.tamper = lambda sealed: captured.append(sealed) or captured[0]
    await three.call()
    with pytest.raises(ConnectionLost, match="already"):
        await three.call()
    assert three.served == 1


async def test_a_request_that_a_relay_held_back_is_not_served_after_its_time() -> None:
    three = Three()

    def hold_back(sealed: object) -> object:
        three.clock += 120
        return sealed

    three.wire.tamper = hold_back
    with pytest.raises(ConnectionLost, match="expired"):
        await three.call()
    assert three.served == 0


async def test_a_forged_or_older_answer_is_not_taken() -> None:
    three = Three()
    answers: list[Any] = []
    three.wire.tamper_answer = lambda sealed: answers.append(sealed) or answers[0]
    with pytest.raises(ProtocolError):  # the acceptance, for an answer
        await three.call(body="first")
    three.wire.tamper_answer = lambda sealed: sealed
    await three.call(body="first")
    answers.clear()
    three.wire.tamper_answer = lambda sealed: answers.append(sealed) or answers[0]
    await three.call(body="first")
    with pytest.raises(ProtocolError, match="not sealed by the peer"):
        await three.call(body="second")
    for forged in (None, [], b"", bytes(64), answers[0][:-1], 5):
        three.wire.tamper_answer = lambda _, forged=forged: forged
        with pytest.raises(ProtocolError):
            await three.call()


async def test_a_relay_can_open_no_session_in_the_name_of_others() -> None:
    three, forger = Three(), Three()
    captured: list[Any] = []
    forger.wire.tamper_opening = lambda sealed: captured.append(sealed) or sealed
    await forger.call()
    # An opening of another caller for another target, a caller's of itself with other words, and garbage.
    signed = decode_item(captured[0])
    assert isinstance(signed, list)
    altered = encode_item([signed[0][:-1] + b"x", signed[1]])
    for opening in (
        captured[0],
        altered,
        b"",
        None,
        encode_item([signed[0], bytes(64)]),
        encode_item([b"", bytes(64)]),
    ):
        three.wire.tamper_opening = lambda _, opening=opening: opening
        with pytest.raises(Unreachable):
            await three.call()
    assert three.served == 0


async def test_a_session_accepted_by_another_is_not_believed() -> None:
    three, forger = Three(), Three()
    acceptances: list[Any] = []
    forger.wire.tamper_answer = lambda sealed: acceptances.append(sealed) or sealed
    await forger.call()
    three.wire.tamper_answer = lambda _: acceptances[0]
    with pytest.raises(Unreachable, match="not signed by"):
        await three.call()


async def test_a_relay_that_opens_an_old_session_again_gets_nothing_served() -> None:
    three = Three()
    captured: list[Any] = []
    three.wire.tamper_opening = lambda sealed: captured.append(sealed) or captured[0]
    await three.call()
    three.restart_caller()
    with pytest.raises(Unreachable, match="another session"):
        await three.call()
    three.clock += 120
    with pytest.raises(Unreachable, match="old"):
        await three.call()
    assert three.served == 1


async def test_what_a_relay_says_for_the_peer_is_not_believed() -> None:
    """What the peer says comes sealed: a relay can't have a call that was done told as refused, and so done again."""
    three = Three()
    await three.call()
    for code in ("no-service", "raised", "bad-arguments", "no-session", "malformed", "internal", ""):
        three.wire.refuse_after = code
        with pytest.raises(ConnectionLost):
            await three.call()
        three.wire.refuse_after = None
        await three.call()


async def test_an_opening_that_nobody_answers_leaves_time_for_the_next_relay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    three = Three()
    relay, target = three.ids[1].peer_id, three.ids[2].peer_id

    async def swallow(caller: str, body: object) -> object:
        await trio.sleep_forever()
        raise AssertionError

    three.wire.handlers["swallows", RELAY_METHOD] = swallow
    async with trio.open_nursery() as nursery:

        async def stall() -> None:
            with pytest.raises(Unreachable):
                await three.caller.call(target, ["swallows"], "who", "x", timeout=3600)

        began = trio.current_time()
        for _ in range(5):
            nursery.start_soon(stall)
        await trio.testing.wait_all_tasks_blocked()
        assert await three.caller.call(target, [relay], "who", "x", timeout=1) == [three.ids[0].peer_id, "x"]
    assert trio.current_time() - began <= 4


async def test_a_request_too_large_for_relays_is_not_sent() -> None:
    three = Three(RelayLimits(max_bytes=10_000))
    with pytest.raises(BodyTooLarge):
        await three.call(body="x" * 10_000)
    assert await three.call(body="x" * 8_000) == [three.ids[0].peer_id, "x" * 8_000]


@pytest.mark.parametrize("kind", [AnswerTooLarge, AnswerDropped])
async def test_an_answer_that_did_not_come_is_told_from_a_request_that_did_not(kind: type[CallFailed]) -> None:
    """The call was served: who takes it for one that wasn't has it done twice."""
    three = Three()
    await three.call()
    three.wire.fail_after = kind
    with pytest.raises(kind):
        await three.call()
    assert three.served == 2


async def test_calls_at_once_share_one_session() -> None:
    three = Three()
    opened: list[Any] = []
    three.wire.tamper_opening = lambda sealed: opened.append(sealed) or sealed
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(three.call)
    assert (len(opened), three.served) == (1, 20)


async def test_a_caller_goes_on_when_the_called_peer_was_started_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    three = Three()
    await three.call()
    three.restart_target()
    with pytest.raises(ConnectionLost):  # it can't know whether this one was served before
        await three.call()
    assert await three.call() == [three.ids[0].peer_id, "x"]
    three.restart_target()
    await trio.sleep(60)  # after a pause it asks first
    assert await three.call() == [three.ids[0].peer_id, "x"]


async def test_sessions_are_renewed_in_time(autojump_clock: trio.testing.MockClock) -> None:
    three = Three()
    for _ in range(100):
        await three.call()
        await trio.sleep(20)
        three.clock += 20
    assert three.served == 100


async def test_sessions_that_nobody_uses_make_room_for_those_that_are_used() -> None:
    three = Three(RelayLimits(max_sessions=3))
    await three.call()
    for _ in range(20):  # opened by callers that never call
        offer = PendingSession(Identity.generate(), three.ids[2].peer_id, NOW)
        await three.wire.of("flood").call(three.ids[2].peer_id, METHODS[Purpose.OPENING], offer.sealed, timeout=1)
    assert await three.call() == [three.ids[0].peer_id, "x"]


async def test_a_relay_passes_on_only_to_peers_that_are_connected_to_it() -> None:
    three = Three()
    three.wire.linked = False
    with pytest.raises(Unreachable, match="isn't connected to this relay"):
        await three.call()


async def test_what_is_no_relay_is_told_as_unreachable() -> None:
    three = Three()
    del three.wire.handlers[three.ids[1].peer_id, RELAY_METHOD]
    with pytest.raises(Unreachable, match="is no relay"):
        await three.call()


async def test_calls_of_one_peer_that_a_relay_passes_on_are_bounded() -> None:
    three = Three(RelayLimits(max_by_caller=1))

    async def never(caller: str, body: object) -> object:
        await trio.sleep_forever()
        raise AssertionError

    three.target.serve("never", never)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(three.call, "never")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await three.call()
        nursery.cancel_scope.cancel()
    assert await three.call() == [three.ids[0].peer_id, "x"]


async def test_calls_between_two_peers_and_to_one_that_a_relay_passes_on_are_bounded() -> None:
    for limits in (RelayLimits(max_between=1), RelayLimits(max_to_target=1)):
        three = Three(limits)
        entered = trio.Event()

        async def never(caller: str, body: object, entered: trio.Event = entered) -> object:
            entered.set()
            await trio.sleep_forever()
            raise AssertionError

        three.target.serve("never", never)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(three.call, "never")
            await entered.wait()
            with pytest.raises(Overloaded):
                await three.call()
            nursery.cancel_scope.cancel()
        assert await three.call() == [three.ids[0].peer_id, "x"]


@pytest.mark.parametrize(
    "limits",
    [
        RelayLimits(opened_by_caller=1, opened_by_caller_burst=3),
        RelayLimits(opened_via_relay=1, opened_via_relay_burst=3),
    ],
)
async def test_sessions_that_are_opened_through_a_relay_are_limited(
    autojump_clock: trio.testing.MockClock, limits: RelayLimits
) -> None:
    three = Three(limits)

    async def call_anew() -> None:
        three.restart_caller()
        await three.call()

    for _ in range(3):
        await call_anew()
    with pytest.raises(Overloaded, match="too many sessions"):
        await call_anew()
    await trio.sleep(2)
    await call_anew()
    for _ in range(10):  # what is open isn't an opening
        await three.call()


async def test_a_relay_passes_on_to_a_further_one_only_when_that_is_connected_to_it() -> None:
    three, further = Three(), Identity.generate().peer_id
    Relay(three.wire.of(further), three.limits)
    relays = [three.ids[1].peer_id, further]
    assert await three.caller.call(three.ids[2].peer_id, relays, "who", "x", timeout=5) == [three.ids[0].peer_id, "x"]
    three.wire.linked = False
    three.restart_caller()
    with pytest.raises(Unreachable, match="isn't connected to this relay"):
        await three.caller.call(three.ids[2].peer_id, relays, "who", "x", timeout=5)
