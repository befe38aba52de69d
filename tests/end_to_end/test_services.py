"""Services served by light clients and nodes, called through real node processes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import reduce
from typing import Protocol

import msgspec
import pytest
import trio

from aqua_compat import AquaClient, ServiceLimits, caller, connect
from aqua_compat.rpc.errors import (
    BadAnswer,
    BadArguments,
    NoProvider,
    NoSuchFunction,
    NoSuchService,
    PeerOverloaded,
    PeerUnreachable,
    RaisedByService,
    TooSlow,
)
from overlay.errors import CallRefused
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.model.values import RecordMetadata
from registry.replica.countersign import sign_record
from tests.end_to_end.network import MAJORITY, SEEN_BY_A_MAJORITY, Network


class Point(msgspec.Struct):
    x: int
    y: int


DEEP: list[object] = reduce(lambda inner, _: [inner], range(40), [])
UNREADABLE: dict[str, object] = {"integer": 2**64, "key": {1: 2}, "depth": DEEP}
"""What CBOR can say, and peers don't read."""


class Echo:
    def __init__(self) -> None:
        self.started = trio.Event()
        self.cancelled = trio.Event()

    async def echo(self, text: str) -> str:
        return text

    def shout(self, text: str) -> str:
        return text.upper()

    async def who(self) -> str:
        return caller()

    def blocking_who(self) -> str:
        return caller()

    async def swap(self, point: Point) -> Point:
        return Point(point.y, point.x)

    async def fail(self) -> None:
        raise ValueError("no such luck")

    async def long(self, length: int) -> bytes:
        return b"x" * length

    async def mutable(self, given: bytes) -> bytearray:
        return bytearray(given)

    async def unreadable(self, which: str) -> object:
        return UNREADABLE[which]

    async def never(self) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.set()
            raise

    def _hidden(self) -> None:
        raise AssertionError


class Echoing(Protocol):
    """What a caller knows of Echo."""

    async def echo(self, text: str) -> str: ...

    async def swap(self, point: Point) -> Point: ...


@asynccontextmanager
async def resource(network: Network, label: str) -> AsyncIterator[tuple[AquaClient, str]]:
    """A client behind the first node that owns a new resource."""
    async with connect(network.nodes[0].address, constants=SEEN_BY_A_MAJORITY) as owner:
        resource_id, errors = await owner.createResource(label)
        assert resource_id is not None, errors
        yield owner, resource_id


async def test_a_light_client_serves_and_is_called_through_its_relay_or_the_callers_node(network: Network) -> None:
    async with resource(network, "relayed") as (provider, resource_id), connect(network.nodes[1].address) as user:
        async with provider.provide(resource_id, "echo", Echo(), value="v"):
            [record] = (await user.resolveResource(resource_id, MAJORITY))[0] or []
            assert list(record.metadata.relay_id) == [network.nodes[0].peer_id]
            there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
            assert await there.call("echo", "echo", "hi") == "hi"
            assert await there.call("echo", "shout", "hi") == "HI"
            assert await there.call("echo", "who") == user.peer_id
            assert await there.call("echo", "blocking_who") == user.peer_id
            assert await there.call("echo", "swap", Point(1, 2), returns=Point) == Point(2, 1)
            assert await there.service("echo").echo("by proxy") == "by proxy"
            with pytest.raises(ValueError, match="already"):
                await provider.provide(resource_id, "second", {"echo": Echo().echo}).__aenter__()
            echo = there.service("echo", Echoing)
            assert await echo.echo(text="typed") == "typed"
            assert await echo.swap(Point(1, 2)) == Point(2, 1)
            assert not hasattr(echo, "shout")
            assert sorted(await there.services()) == ["echo", "kad", "op", "peer", "sig", "trust-graph"]
            [called] = await user.call_all(resource_id, "echo", "all", ack=MAJORITY)
            assert (called.result, called.error) == ("all", None)
            assert await user.call_any(resource_id, "echo", "any", ack=MAJORITY) == "any"
        assert (await user.resolveResource(resource_id, 6))[0] == []
        with pytest.raises(NoSuchService):
            await there.call("echo", "echo", "hi")


async def test_a_record_whose_relay_is_any_text_is_called_all_the_same(network: Network) -> None:
    """The original's rule: `relay_id` is whatever its issuer wrote there."""
    async with resource(network, "odd relays") as (provider, resource_id), connect(network.nodes[1].address) as user:
        provider.serve("echo", Echo())
        for relay in ("some_relay", "0OIl", Identity.generate().peer_id):
            me, now = provider.peer_id, int(time.time())
            unsigned = RecordMetadata(resource_id, me, me, now, b"", "", (relay,), ("echo",), b"")
            signature = provider.registry.identity.sign(unsigned.signed_bytes())
            record = sign_record(
                provider.registry.identity, msgspec.structs.replace(unsigned, issuer_signature=signature), now
            )
            there = user.on(record)
            assert await there.call("echo", "echo", "found all the same") == "found all the same"


async def test_each_kind_of_failure_is_told_apart(network: Network) -> None:
    async with resource(network, "failures") as (provider, _), connect(network.nodes[1].address) as user:
        provider.serve("echo", Echo())
        provider.serve("slow", Echo(), limits=ServiceLimits(timeout=0.2))
        there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
        with pytest.raises(NoSuchService):
            await there.call("nothing", "echo", "hi")
        with pytest.raises(NoSuchFunction, match="echo"):
            await there.call("echo", "_hidden")
        for wrong in ((), ("a", "b"), (5,), (object(),)):
            with pytest.raises(BadArguments):
                await there.call("echo", "echo", *wrong)
        with pytest.raises(RaisedByService, match="ValueError: no such luck") as raised:
            await there.call("echo", "fail")
        assert "Traceback" not in str(raised.value)
        with pytest.raises(BadAnswer, match="the answer is too large"):  # it was served, which no BadArguments is
            await there.call("echo", "long", 2**21)
        with pytest.raises(TooSlow):
            await there.call("slow", "never")
        with pytest.raises(TooSlow):
            await there.call("echo", "never", timeout=0.3)
        with pytest.raises(PeerUnreachable):
            await user.on(Identity.generate().peer_id, via=network.nodes[0].peer_id).call("echo", "echo", "hi")


@pytest.mark.parametrize(("which", "cause"), [("integer", "64 bits"), ("key", "map key"), ("depth", "nesting depth")])
async def test_what_no_peer_reads_is_told_with_its_cause(network: Network, which: str, cause: str) -> None:
    """Arguments as BadArguments, wherever it is noticed; an answer never so, for its call was done."""
    async with (
        connect(network.nodes[0].address) as provider,
        connect(network.nodes[1].address) as user,
    ):
        provider.serve("echo", Echo())
        there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
        for peer in (provider.on(provider.peer_id), there):
            with pytest.raises(BadArguments, match=f"can't be sent: .*{cause}"):
                await peer.call("echo", "echo", UNREADABLE[which])
            with pytest.raises(BadAnswer, match=cause):
                await peer.call("echo", "unreadable", which)
        with pytest.raises(BadArguments, match=f"can't be sent: .*{cause}"):
            async with there.stream("echo", "echo", UNREADABLE[which]) as results:
                await anext(results)


async def test_a_bytearray_is_bytes(network: Network) -> None:
    async with (
        connect(network.nodes[0].address) as provider,
        connect(network.nodes[1].address) as user,
    ):
        provider.serve("echo", Echo())
        there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
        assert await there.call("echo", "mutable", bytearray(b"raw")) == b"raw"


async def test_cancelling_a_call_cancels_the_function_behind_the_relay(network: Network) -> None:
    async with resource(network, "cancelled") as (provider, _), connect(network.nodes[1].address) as user:
        echo = Echo()
        provider.serve("echo", echo)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
                nursery.start_soon(there.call, "echo", "never")
                await echo.started.wait()
                nursery.cancel_scope.cancel()
            await echo.cancelled.wait()


async def test_calls_beyond_a_services_limits_are_turned_away(network: Network) -> None:
    async with resource(network, "full") as (provider, _), connect(network.nodes[1].address) as user:
        echo = Echo()
        provider.serve("echo", echo, limits=ServiceLimits(concurrency=1, queue=0))
        there = user.on(provider.peer_id, via=network.nodes[0].peer_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.call, "echo", "never")
            await echo.started.wait()
            nursery.start_soon(_turned_away, there, nursery)


async def _turned_away(there: object, nursery: trio.Nursery) -> None:
    with pytest.raises(PeerOverloaded):
        await there.call("echo", "never")  # type: ignore[attr-defined]
    nursery.cancel_scope.cancel()


async def test_calls_go_on_while_a_provider_is_left(network: Network) -> None:
    async with resource(network, "available") as (first, resource_id), connect(network.nodes[2].address) as user:
        async with connect(network.nodes[1].address, constants=SEEN_BY_A_MAJORITY) as second:
            assert (await second.registerService(resource_id, "", second.peer_id, "echo"))[0]
            second.serve("echo", {"name": lambda: "second"})
            async with first.provide(resource_id, "echo", {"name": lambda: "first"}):
                turns = [
                    await user.call_any(resource_id, "name", strategy="round robin", ack=MAJORITY) for _ in range(4)
                ]
                assert set(turns) == {"first", "second"}
        # The second is gone without a word; its record isn't.
        async with first.provide(resource_id, "again", {"name": lambda: "first"}):
            for _ in range(6):
                assert await user.call_any(resource_id, "name", ack=MAJORITY) == "first"
        with pytest.raises(NoProvider):
            await user.call_any(resource_id, "name", ack=MAJORITY)


async def test_the_originals_builtins_answer_on_any_peer(network: Network) -> None:
    node, members = network.nodes[3], {node.peer_id for node in network.nodes}
    async with connect(network.nodes[1].address) as user:
        there = user.on(node.peer_id)
        assert await there.call("op", "concat", [1], [2, 3]) == [1, 2, 3]
        assert await there.call("op", "string_from_b58", await there.call("op", "string_to_b58", "grün")) == "grün"
        assert abs(await there.call("peer", "timestamp_sec") - time.time()) < 5
        assert await there.call("peer", "timeout", 10, "later") == "later"
        assert (await there.call("peer", "identify"))["external_addresses"] == node.addresses
        assert await there.call("peer", "is_connected", network.nodes[0].peer_id) is True
        assert await there.call("peer", "connect", Identity.generate().peer_id, ["/ip4/127.0.0.1/tcp/1"]) is False
        key = await there.call("op", "string_to_b58", "some resource")
        near = await there.call("kad", "neighborhood", key, [], [])
        assert set(near) == members - {node.peer_id}
        assert await there.call("kad", "merge", key, near[3:], near[:4], [4]) == near[:4]
        assert await there.call("sig", "get_peer_id") == node.peer_id
        assert (await there.call("sig", "sign", b"I owe you"))["success"] is False
        own = user.on(user.peer_id)
        signed = await own.call("sig", "sign", b"mine")
        assert await own.call("sig", "verify", signed["signature"][0], b"mine") is True
        assert await there.call("sig", "verify", signed["signature"][0], b"mine") is False
        weight = await there.call("trust-graph", "get_weight", user.peer_id, 0)
        assert weight == {"success": True, "weight": 0, "peer_id": user.peer_id, "error": ""}


async def test_peers_give_each_other_trust_by_calls(network: Network) -> None:
    issuer, now = Identity.generate(), int(time.time())
    async with connect(network.nodes[1].address) as user:
        there, own = user.on(network.nodes[3].peer_id), user.on(user.peer_id)
        bytes_ = (await there.call("trust-graph", "get_trust_bytes", issuer.peer_id, now + 100, now))["result"]
        signature = issuer.sign(bytes(bytes_))
        issued = await there.call("trust-graph", "issue_trust", issuer.peer_id, now + 100, now, signature)
        trust = issued["trust"]
        assert (await there.call("trust-graph", "verify_trust", trust, issuer.peer_id, 0))["success"]
        assert not (await there.call("trust-graph", "verify_trust", trust, user.peer_id, 0))["success"]
        assert not (await there.call("trust-graph", "set_root", issuer.peer_id, 3))["success"], "only its operator may"
        for peer, weight in ((there, 0), (own, 8)):
            if peer is own:
                assert (await own.call("trust-graph", "set_root", issuer.peer_id, 3))["success"]
            added = await peer.call("trust-graph", "add_trust", trust, issuer.peer_id, 0)
            assert added == {"success": True, "error": "", "weight": weight}
            found = await peer.call("trust-graph", "get_weight", issuer.peer_id, 0)
            assert found == {"success": True, "weight": weight, "peer_id": issuer.peer_id, "error": ""}


async def test_a_relay_refuses_what_is_too_large_or_no_request(network: Network) -> None:
    async with open_light_client(Identity.generate(), [network.nodes[0].address]) as user:
        peer, relay, stranger = user.peer, network.nodes[0].peer_id, Identity.generate().peer_id
        for body in (None, [], ["x"], [peer.peer_id, [], 1, b"", -1.0], [peer.peer_id, [], 7, b"", 1.0]):
            with pytest.raises(CallRefused, match="malformed"):
                await peer.call(relay, "overlay/relay", body, timeout=5)
        for purpose in (0, 1):
            with pytest.raises(CallRefused, match="malformed"):
                await peer.call(relay, "overlay/relay", [peer.peer_id, [], purpose, b"garbage", 1.0], timeout=5)
        large = [peer.peer_id, [], 1, bytes(600_000), 1.0]
        with pytest.raises(CallRefused, match="bytes are relayed"):
            await peer.call(relay, "overlay/relay", large, timeout=5)
        began = time.monotonic()
        with pytest.raises(CallRefused, match="unreachable"):
            await peer.call(relay, "overlay/relay", [stranger, [], 1, b"", 1.0], timeout=5)
        assert time.monotonic() - began < 4
