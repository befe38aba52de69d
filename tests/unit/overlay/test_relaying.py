"""What a relay that lies, and callers who do, can't achieve."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
import trio.testing

from overlay.errors import CallRefused, NoSuchMethod, Overloaded, ProtocolError, Refusal, Unreachable
from overlay.frames import decode_item, encode_item
from overlay.identity import Identity
from overlay.relaying import RELAY_METHOD, RELAYED_METHOD, Relaying
from overlay.settings import RelayLimits

NOW = 1_700_000_000.0


class Wire:
    """Links of several peers, in memory; `tamper` is what a relay does to what it passes on."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Any] = {}
        self.linked = True
        self.tamper: Any = lambda body: body
        self.tamper_answer: Any = lambda body: body

    def of(self, peer_id: str) -> WireEnd:
        return WireEnd(self, peer_id)


class WireEnd:
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
        if method == RELAYED_METHOD:
            carried = self.wire.tamper(carried)
        try:
            answer = decode_item(encode_item(await self.wire.handlers[peer_id, method](self.peer_id, carried)))
        except Refusal as refusal:
            raise CallRefused(peer_id, method, refusal.code, refusal.message) from refusal
        return self.wire.tamper_answer(answer) if method == RELAYED_METHOD else answer


class Three:
    """A caller, a relay and a target that serves `who` and `refuse`."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.wire = Wire()
        self.ids = [Identity.generate() for _ in range(3)]
        self.clock = NOW
        self.served = 0
        self.caller, self.relay, self.target = (
            Relaying(
                identity,
                cast("Any", self.wire.of(identity.peer_id)),
                limits or RelayLimits(),
                relays=place == 1,
                clock=lambda: self.clock,
            )
            for place, identity in enumerate(self.ids)
        )
        self.target.serve("who", self._who)
        self.target.serve("refuse", self._refuse)

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


async def test_an_altered_request_is_not_served() -> None:
    three = Three()
    three.wire.tamper = lambda sealed: [sealed[0].replace(b"who", b"wha"), sealed[1]]
    with pytest.raises(CallRefused):
        await three.call()
    assert three.served == 0


async def test_a_request_sealed_by_the_relay_is_the_relays_own() -> None:
    three = Three()
    forger = Three()
    captured: list[Any] = []
    forger.wire.tamper = lambda sealed: captured.append(sealed) or sealed
    await forger.call()
    three.wire.tamper = lambda _: captured[0]  # for another target
    with pytest.raises(CallRefused):
        await three.call()
    assert three.served == 0


async def test_a_repeated_request_is_served_once() -> None:
    three = Three()
    captured: list[Any] = []
    three.wire.tamper = lambda sealed: captured.append(sealed) or captured[0]
    await three.call()
    with pytest.raises(CallRefused, match="already"):
        await three.call()
    three.clock += 120
    with pytest.raises(CallRefused, match="expired"):
        await three.call()
    assert three.served == 1


async def test_a_forged_or_older_answer_is_not_taken() -> None:
    three = Three()
    answers: list[Any] = []
    three.wire.tamper_answer = lambda sealed: answers.append(sealed) or answers[0]
    await three.call(body="first")
    with pytest.raises(ProtocolError, match="isn't signed"):
        await three.call(body="second")
    for forged in (None, [], [b"", bytes(64)], [answers[0][0], bytes(64)], [5, 5]):
        three.wire.tamper_answer = lambda _, forged=forged: forged
        with pytest.raises(ProtocolError):
            await three.call()


async def test_what_is_remembered_of_requests_is_bounded_and_forgotten_in_time() -> None:
    three = Three(RelayLimits(max_remembered=2))
    await three.call()
    await three.call()
    with pytest.raises((CallRefused, Overloaded)):
        await three.call()
    three.clock += 120
    await three.call()


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
