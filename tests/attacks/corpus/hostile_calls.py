"""Attacks by calls: each is one that peers may make, as large, and as often, as nobody needs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from overlay import Identity, OverlayPeer, OverlaySettings, open_peer
from overlay.errors import CallFailed
from overlay.libp2p.kad_messages import encoded
from registry.client.node_operations import READ as NODE_READ
from registry.client.node_operations import SERVICE, WRITE, CallBody, ReadRequest, ServiceRequest, WriteRequest
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.signing import key_id_of
from registry.protocol.messages import PUT, READ, Item, PutBody, ReadBody, build
from registry.replication.messages import COMPARE, COMPARE_RANGES, CompareBody, RangesBody
from registry.settings import RegistrySettings
from registry.watch.messages import SUBSCRIBE, SubscribeBody, SubscriptionRequest
from tests.attacks.corpus.target import Target
from tests.attacks.corpus.wire import open_wire
from tests.unit.registry.builders import a_key, a_key_tombstone, a_record, a_tombstone

_TIMEOUT = 10.0
_KAD = OverlaySettings().kad_protocol_id

Call = Callable[[str, object], Awaitable[object]]
"""Calls a method of the node; whatever it answers is counted and forgotten."""


@asynccontextmanager
async def _caller(target: Target) -> AsyncIterator[tuple[OverlayPeer, Call]]:
    """A new light client of the node."""
    settings = OverlaySettings(listen=(), member=False)
    async with open_peer(Identity.generate(), settings) as peer:
        await peer.connect(target.address, timeout=20)

        async def call(method: str, body: object) -> object:
            try:
                answer = await peer.call(target.peer_id, method, body, timeout=_TIMEOUT)
            except CallFailed as error:
                target.done[f"{method} {type(error).__name__}"] += 1
                return None
            target.done[method] += 1
            return answer

        yield peer, call


async def _repeat(target: Target, method: str, body: Callable[[], object], per_second: float, workers: int = 8) -> None:
    """Calls a method with such bodies, so often, by several calls at a time."""
    async with _caller(target) as (_, call), trio.open_nursery() as nursery:

        async def work() -> None:
            async for _ in target.paced(per_second / workers):
                await call(method, body())

        for _ in range(workers):
            nursery.start_soon(work)


async def put_flood(target: Target) -> None:
    """Stores large records under resources of its own."""
    me, now = Identity.generate(), int(time.time())
    numbers = iter(range(10**9))

    def body() -> object:
        key = a_key(f"flood {next(numbers)}", me, now)
        value = target.random.randbytes(25_000).hex()
        return build(PutBody.of(Item(key, a_record(key.id, me, host, now, value=value)) for host in _hosts(8)))

    await _repeat(target, PUT, body, 1)


async def small_puts(target: Target) -> None:
    """Stores as many small resources as fit into calls, each with signatures to be checked."""
    me, now = Identity.generate(), int(time.time())
    numbers = iter(range(10**9))

    def body() -> object:
        keys = [a_key(f"small {next(numbers)}", me, now) for _ in range(100)]
        return build(PutBody.of(Item(key) for key in keys))

    await _repeat(target, PUT, body, 3)


async def tombstone_flood(target: Target) -> None:
    """Ends what never was, of its own and of others' resources."""
    me, now = Identity.generate(), int(time.time())
    numbers = iter(range(10**9))
    key = a_key("tombstones", me, now)

    def body() -> object:
        ends = [Item(key, a_tombstone(key.id, me, host, now, solution=bytes(2000))) for host in _hosts(40)]
        removals = [Item(a_key_tombstone(f"{next(numbers)}", me, now)) for _ in range(40)]
        return build(PutBody.of([*ends, *removals]))

    await _repeat(target, PUT, body, 2)


async def writes_through_the_node(target: Target) -> None:
    """Has the node write, look up and fan out for it, with large records."""
    me, now = Identity.generate(), int(time.time())
    numbers = iter(range(10**9))

    def body() -> object:
        key = a_key(f"through {next(numbers)}", me, now)
        value = target.random.randbytes(20_000).hex()
        item = Item(key, a_record(key.id, me, me, now, value=value))
        return build(CallBody(_TIMEOUT, build(WriteRequest.of(item, 100))))

    await _repeat(target, WRITE.name, body, 8)


async def forged_puts(target: Target) -> None:
    """Stores what others never signed: each signature has to be checked to be refused."""
    me, now = Identity.generate(), int(time.time())
    key = a_key("forged", Identity.generate(), now)
    forged = [Item(a_key(f"forged {number}", me, now)) for number in range(100)]
    blobs = build(PutBody.of(forged))
    keys, *rest = blobs
    broken = [[blob[:-1] + bytes([blob[-1] ^ 1]), state] for blob, state in keys]
    records = build(PutBody.of(Item(key, a_record(key.id, me, host, now)) for host in _hosts(8)))

    def body() -> object:
        return target.random.choice([[broken, *rest], records])

    await _repeat(target, PUT, body, 5)


async def large_comparisons(target: Target) -> None:
    """Compares all that a replica has, in as many ranges, and of as many resources, as may be asked for."""
    now = int(time.time())
    horizon = ExpiryHorizon.at(now, RegistrySettings())
    step = 2**256 // 1024

    def bodies() -> tuple[str, object]:
        offset = target.random.randrange(step // 2)
        ranges = tuple(
            ((step * number + offset).to_bytes(32, "big"), (step * number + step).to_bytes(32, "big").rstrip(b"\0"))
            if number < 1023
            else ((step * number + offset).to_bytes(32, "big"), b"")
            for number in range(1024)
        )
        ranges_body = RangesBody(now - now % 60, horizon, ranges, bytes(16), tuple(_prefixes(target, 512)), last=False)
        entries = tuple((_any_id(target), target.random.randbytes(32)) for _ in range(512))
        return target.random.choice(
            [(COMPARE_RANGES, build(ranges_body)), (COMPARE, build(CompareBody(now, horizon, entries)))]
        )

    async with _caller(target) as (_, call), trio.open_nursery() as nursery:

        async def work() -> None:
            async for _ in target.paced(1.5):
                await call(*bodies())

        for _ in range(4):
            nursery.start_soon(work)


async def reads_of_nothing(target: Target) -> None:
    """Has the node read resources that nobody has from all others, for as long as it may."""

    def body() -> object:
        return build(CallBody(3600.0, build(ReadRequest(_any_id(target), 2**15))))

    await _repeat(target, NODE_READ.name, body, 40, workers=64)


async def large_reads(target: Target) -> None:
    """Fills a resource of its own, and reads all of it again and again."""
    me, now = Identity.generate(), int(time.time())
    key = a_key("large", me, now)
    async with _caller(target) as (_, call), trio.open_nursery() as nursery:
        for _ in range(4):
            value = target.random.randbytes(25_000).hex()
            items = [Item(key, a_record(key.id, me, host, now, value=value)) for host in _hosts(8)]
            await call(PUT, build(PutBody.of(items)))

        async def work() -> None:
            async for _ in target.paced(2.5):
                await call(READ, build(ReadBody(key.id)))

        for _ in range(8):
            nursery.start_soon(work)


async def huge_arguments(target: Target) -> None:
    """Calls functions of the node's service with as many forged records, and as deep nonsense, as a frame holds."""
    me, now = Identity.generate(), int(time.time())
    record = a_record(key_id_of("x", me.peer_id), me, me, now)
    metadata = record.metadata
    plain = {
        "metadata": {
            "key_id": metadata.key_id, "issued_by": me.peer_id, "peer_id": me.peer_id, "timestamp_issued": now,
            "solution": b"", "value": "", "relay_id": [], "service_id": ["s"],
            "issuer_signature": metadata.issuer_signature,
        },
        "timestamp_created": now, "signature": bytes(64),
    }  # fmt: skip
    many = [plain] * 1000

    def body() -> object:
        function, arguments = target.random.choice(
            [
                ("merge", ([many],)),
                ("merge_two", (many, many[:10])),
                ("merge_keys", ([{"x": 1}] * 12_000,)),
                ("get_key_id", ("x" * 900_000, me.peer_id)),
                ("register_key", tuple([[[]] * 4_000] * 8)),
            ]
        )
        return build(CallBody(_TIMEOUT, build(ServiceRequest(function, arguments))))

    await _repeat(target, SERVICE.name, body, 3, workers=4)


async def subscriptions(target: Target) -> None:
    """Subscribes to thousands of resources that aren't there."""

    def body() -> object:
        requests = tuple(SubscriptionRequest(_any_id(target), False, through=True) for _ in range(2000))
        return build(SubscribeBody(requests))

    await _repeat(target, SUBSCRIBE, body, 2, workers=2)


async def lookups(target: Target) -> None:
    """Has the node look for positions and peers that nobody has."""
    async with _caller(target) as (_, call), trio.open_nursery() as nursery:

        async def work() -> None:
            async for _ in target.paced(5):
                if target.random.random() < 0.5:
                    body = [target.random.randbytes(16), target.random.randbytes(32), 48, 12, 32]
                    await call("overlay/route", body)
                else:
                    await call("overlay/find", Identity.generate().peer_id)

        for _ in range(16):
            nursery.start_soon(work)


async def kad_queries(target: Target) -> None:
    """Asks for peers by libp2p's Kad-DHT, over as many streams as there are."""
    async with open_wire(target) as wire, trio.open_nursery() as nursery:

        async def ask() -> None:
            async for _ in target.paced(5):
                stream = await wire.open(_KAD)
                key = target.random.randbytes(32)
                for kind in (Message.FIND_NODE, Message.GET_PROVIDERS, Message.PUT_VALUE):
                    await wire.send(stream, encoded(Message(type=kind, key=key)))
                    target.done["queries"] += 1
                await trio.sleep(0.1)
                wire.session.reset(stream)
                await wire.flush()

        for _ in range(8):
            nursery.start_soon(ask)


def _hosts(count: int) -> list[Identity]:
    return [Identity.generate() for _ in range(count)]


def _any_id(target: Target) -> str:
    return hashlib.sha256(target.random.randbytes(16)).hexdigest()


def _prefixes(target: Target, count: int) -> list[bytes]:
    return [bytes(target.random.randrange(16) for _ in range(3)) for _ in range(count)]
