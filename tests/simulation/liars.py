"""A member that lies: it acknowledges what it doesn't keep, forges, and replays what is outdated."""

from __future__ import annotations

import random

import msgspec
import trio

from overlay.errors import CallFailed, Refusal
from overlay.identity import Identity
from registry.codes import Code
from registry.errors import InvalidValue
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.values import Key, Record, Tombstone, decode_key_or_tombstone, decode_state, encode
from registry.protocol.messages import (
    HOLDS,
    PUT,
    READ,
    HoldsAnswer,
    HoldsBody,
    PutAnswer,
    PutBody,
    StatePage,
    build,
    parse,
)
from registry.replication.messages import (
    COMPARE,
    COMPARE_RANGES,
    REPLICATE,
    CompareAnswer,
    CompareBody,
    RangesAnswer,
    RangesBody,
    ReplicateBody,
    Summary,
)
from tests.simulation.simulated_network import SimulatedNetwork

KEPT = 500


class Liar:
    """Use `run`."""

    def __init__(self, network: SimulatedNetwork, identity: Identity, randomness: random.Random) -> None:
        self.peer_id = identity.peer_id
        self._network = network
        self._random = randomness
        self._seen: list[tuple[bytes, bytes]] = []
        self._peer = network.add(identity.peer_id)
        for method, handler in (
            (PUT, self._put),
            (REPLICATE, self._replicate),
            (READ, self._read),
            (COMPARE, self._compare),
            (HOLDS, self._holds),
            (COMPARE_RANGES, self._compare_ranges),
        ):
            self._peer.serve(method, handler)

    async def run(self) -> None:
        """Pushes forgeries and replays to others."""
        while True:
            await trio.sleep(self._random.uniform(1, 10))
            others = self._peer.members()
            if not self._seen or not others:
                continue
            key_or_tombstone, state = self._random.choice(self._seen)
            items = ((key_or_tombstone, state), (key_or_tombstone, self._forged(state)))
            method = self._random.choice((PUT, REPLICATE))
            body = PutBody(items) if method == PUT else ReplicateBody(items, last=True)
            try:
                await self._peer.call(self._random.choice(sorted(others)), method, build(body), timeout=5)
            except CallFailed:
                continue

    async def _put(self, caller: str, body: object) -> object:
        return self._pretend(parse(body, PutBody).items)

    async def _replicate(self, caller: str, body: object) -> object:
        return self._pretend(parse(body, ReplicateBody).items)

    def _pretend(self, items: tuple[tuple[bytes, bytes], ...]) -> object:
        key_or_tombstone = b""
        for new_key_or_tombstone, state in items:
            key_or_tombstone = new_key_or_tombstone or key_or_tombstone
            if state and len(self._seen) < KEPT:
                self._seen.append((key_or_tombstone, state))
        return build(PutAnswer((None,) * len(items)))

    async def _read(self, caller: str, body: object) -> object:
        if self._random.random() < 0.2:
            raise Refusal(Code.INTERNAL, "not today")
        if not self._seen:
            return build(StatePage(holds_key=False, same=False, key=b"", states=(), more=False))
        key_or_tombstone, state = self._random.choice(self._seen)
        key = key_or_tombstone if isinstance(decode_key_or_tombstone(key_or_tombstone), Key) else b""
        return build(StatePage(True, same=False, key=key, states=(state, self._forged(state)), more=False))

    async def _holds(self, caller: str, body: object) -> object:
        return build(HoldsAnswer((True,) * len(parse(body, HoldsBody).entries)))

    async def _compare(self, caller: str, body: object) -> object:
        try:
            request = parse(body, CompareBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        horizon = self._random.choice((request.horizon, ExpiryHorizon(2**60, 2**60, 2**60, 2**60, 2**60)))
        summaries = tuple(Summary(number, wanted=True, digest=b"x" * 32) for number in range(len(request.entries)))
        return build(CompareAnswer(horizon, len(request.entries), summaries))

    async def _compare_ranges(self, caller: str, body: object) -> object:
        try:
            request = parse(body, RangesBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        node = self._random.choice(
            ((True, b""), (False, self._random.randbytes(256)), (True, self._random.randbytes(48)))
        )
        return build(
            self._random.choice(
                (
                    RangesAnswer(True),
                    RangesAnswer(False, (node,) * max(len(request.prefixes), 1)),
                    RangesAnswer(False, horizon=ExpiryHorizon(2**60, 2**60, 2**60, 2**60, 2**60)),
                    RangesAnswer(False, ranges=((b"", b"\x80"),)),
                )
            )
        )

    def _forged(self, blob: bytes) -> bytes:
        state = decode_state(blob) if blob else None
        if isinstance(state, Record):
            later = state.metadata.timestamp_issued + 1
            return encode(
                msgspec.structs.replace(
                    state, metadata=msgspec.structs.replace(state.metadata, timestamp_issued=later, value="forged")
                )
            )
        if isinstance(state, Tombstone):
            return encode(msgspec.structs.replace(state, timestamp_issued=state.timestamp_issued + 1))
        return blob
