"""Peers whose ids were ground close to a resource: members by all that a link shows, and of one attacker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Final

import msgspec
import trio

from overlay.discovery.home_view import METHOD as HOME
from overlay.discovery.keyspace import POSITION_BITS, peer_position
from overlay.discovery.recursive import METHOD as ROUTE
from overlay.discovery.vetting import METHOD as ADDRESSES
from overlay.errors import CallFailed, Refusal
from overlay.identity import Identity
from overlay.libp2p.host import open_host
from overlay.rpc.links import Links
from overlay.rpc.server import Handler
from overlay.settings import CallLimits, OverlaySettings
from registry.model.decoding import decode_key_or_tombstone, decode_state
from registry.model.values import Key, Record, encode
from registry.protocol.messages import (
    HOLDS,
    PASSED_ON,
    PUT,
    READ,
    HoldsAnswer,
    HoldsBody,
    PassedOnAnswer,
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
    ReplicateBody,
)

SILENT: Final = "silent"
"""Links live, and no call is ever answered."""
LYING: Final = "lying"
"""What is put is acknowledged and dropped, what is asked for is denied, outdated or forged, nobody else is known."""
KINDS: Final = (SILENT, LYING)

_KAD: Final = ("overlay/nearest", "overlay/lookup")
_AT_ONCE: Final = 3  # attackers that dial at the same time


def ground(target: int, members: Iterable[str], wanted: int) -> list[Identity]:
    """Identities nearer to a position than all these members."""
    nearest = min(peer_position(member) ^ target for member in members)
    found: list[Identity] = []
    for _ in count():
        identity = Identity.generate()
        if peer_position(identity.peer_id) ^ target < nearest:
            found.append(identity)
            if len(found) == wanted:
                break
    return found


class Attackers:
    """All ids of one attacker."""

    def __init__(self, identities: Sequence[Identity], kind: str) -> None:
        self.peer_ids = [identity.peer_id for identity in identities]
        self._identities = identities
        self.kind = kind
        self._taken: list[tuple[bytes, bytes]] = []  # keys and states, as they were put
        self._random = random.Random(1)

    async def join(self, victims: Sequence[tuple[str, Sequence[str]]], running: trio.Nursery) -> None:
        """Run them in a nursery, linked to all victims, (peer id, addresses)."""
        at_once = trio.CapacityLimiter(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for identity in self._identities:

                async def start(identity: Identity = identity) -> None:
                    async with at_once:
                        await running.start(self._run, identity, victims)

                nursery.start_soon(start)

    async def _run(
        self,
        identity: Identity,
        victims: Sequence[tuple[str, Sequence[str]]],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        settings = OverlaySettings(calls=CallLimits(ping_interval=3600))
        async with open_host(identity, settings) as host, trio.open_nursery() as nursery:
            links = Links(host, settings, True, keeps=lambda _: True)
            self.serve_by(links.serve)

            async def addresses(caller: str, body: object) -> object:
                await trio.lowlevel.checkpoint()
                return host.listen_addresses()

            links.serve(ADDRESSES, addresses)  # so that they count as members
            await nursery.start(links.run)
            for peer_id, addresses in victims:
                host.add_addresses(peer_id, addresses)
                for _ in range(3):
                    try:
                        await links.ensure_link(peer_id, timeout=20)
                    except CallFailed:
                        continue
                    break
            task_status.started()
            await trio.sleep_forever()

    def serve_by(self, serve: Callable[[str, Handler], None]) -> None:
        """Answers as attackers do."""
        lies = {
            PUT: self._put,
            REPLICATE: self._replicate,
            READ: self._read,
            HOLDS: self._holds,
            PASSED_ON: self._passed_on,
            COMPARE: self._compare,
            COMPARE_RANGES: self._compare_ranges,
            HOME: self._home,
            **dict.fromkeys(_KAD, self._nearest),
        }
        for method, lie in lies.items():
            serve(method, lie if self.kind == LYING else self._silence)
        serve(ROUTE, self._refuse if self.kind == LYING else self._silence)

    async def _silence(self, caller: str, body: object) -> object:
        await trio.sleep_forever()
        return None

    async def _refuse(self, caller: str, body: object) -> object:
        raise Refusal("overloaded", "too many lookups")

    async def _put(self, caller: str, body: object) -> object:
        return self._pretend(parse(body, PutBody).items)

    async def _replicate(self, caller: str, body: object) -> object:
        return self._pretend(parse(body, ReplicateBody).items)

    def _pretend(self, items: Sequence[tuple[bytes, bytes]]) -> object:
        key = b""
        for new_key, state in items:
            key = new_key or key
            if state and len(self._taken) < 100:
                self._taken.append((key, state))
        return build(PutAnswer((None,) * len(items)))

    async def _read(self, caller: str, body: object) -> object:
        """That there is nothing; or the oldest that is known, with something forged beside it."""
        if not self._taken or self._random.random() < 0.5:
            return build(StatePage(holds_key=False, same=False, key=b"", states=(), more=False))
        key, state = self._taken[0]
        key = key if isinstance(decode_key_or_tombstone(key), Key) else b""
        return build(StatePage(True, same=False, key=key, states=(state, forged(state)), more=False))

    async def _holds(self, caller: str, body: object) -> object:
        return build(HoldsAnswer((True,) * len(parse(body, HoldsBody).entries)))

    async def _passed_on(self, caller: str, body: object) -> object:
        return build(PassedOnAnswer(20))

    async def _compare(self, caller: str, body: object) -> object:
        request = parse(body, CompareBody)
        return build(CompareAnswer(request.horizon, len(request.entries), ()))

    async def _compare_ranges(self, caller: str, body: object) -> object:
        return build(RangesAnswer(same=True))

    async def _home(self, caller: str, body: object) -> object:
        return [POSITION_BITS, True, []]

    async def _nearest(self, caller: str, body: object) -> object:
        return [[peer_id, []] for peer_id in self.peer_ids[:20]]


def forged(state: bytes) -> bytes:
    """A state with another value, or a later time, under the signatures of this one."""
    decoded = decode_state(state)
    if isinstance(decoded, Record):
        later = decoded.metadata.timestamp_issued + 1
        metadata = msgspec.structs.replace(decoded.metadata, timestamp_issued=later, value="forged")
        return encode(msgspec.structs.replace(decoded, metadata=metadata))
    return encode(msgspec.structs.replace(decoded, timestamp_issued=decoded.timestamp_issued + 1))
