"""The recursive lookup on the network: serves `overlay/route` as one of the hops, and begins lookups of our own.

Deciding is done by `overlay.discovery.recursive_machine`; here are messages, deadlines, and what others may ask of us.
An answer is signed by whoever gives it, over the request's id, its target and the names, so those who pass it on can
alter nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Final

import msgspec
import structlog
import trio
from cachetools import TTLCache
from msgspec import Meta, Struct

from overlay.discovery.home import Home
from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES, peer_position
from overlay.discovery.recursive_machine import (
    MOST_FORWARDS,
    MOST_HOPS,
    MOST_NAMED,
    Hop,
    RouteAnswer,
    RouteRequest,
    RouteResult,
    first_contacts,
    requests,
)
from overlay.errors import CallFailed, PeerIdError, Refusal
from overlay.identity import Identity, verify
from overlay.limits.token_bucket import TokenBuckets
from overlay.rpc.links import Links

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

METHOD: Final = "overlay/route"
_DOMAIN: Final = b"aqua-registry/route/1"
_RATE: Final = 50.0  # requests a second that one peer may have passed on
_BURST: Final = 500.0
_SEEN: Final = 16_384  # requests whose ids are remembered, so that each is passed on once
_SEEN_FOR: Final = 30.0
LEARNT_AT_ONCE: Final = 8  # members of an answer, until others get their turn: each takes up to a millisecond
_LONGEST: Final = 3.0  # seconds that a hop spends on one request
_OTHER_PATHS: Final = 0.05  # seconds at least that the other paths get after the first answer

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Address = Annotated[str, Meta(max_length=512)]


class KnownMember(Struct, frozen=True, array_like=True):
    """A member, and where it can be dialled as far as the teller knows."""

    peer_id: Name
    addresses: Annotated[tuple[Address, ...], Meta(max_length=16)]


class _LookupRequest(Struct, frozen=True, array_like=True):
    """`RouteRequest` on the wire; later versions may add fields."""

    id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    target: Annotated[bytes, Meta(min_length=POSITION_BYTES, max_length=POSITION_BYTES)]
    count: Annotated[int, Meta(ge=1, le=MOST_NAMED)]
    hops: Annotated[int, Meta(ge=0, le=MOST_HOPS)]
    forwards: Annotated[int, Meta(ge=0, le=MOST_FORWARDS)]


class _LookupAnswer(Struct, frozen=True, array_like=True):
    """`RouteAnswer` on the wire, with whose it is."""

    members: Annotated[tuple[KnownMember, ...], Meta(max_length=MOST_NAMED)]
    is_exact: bool
    height: Annotated[int, Meta(ge=0, le=POSITION_BITS)]
    answerer: Name
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class RecursiveLookup:
    """One peer's part in recursive lookups. `home`, `links`: what it knows; addresses come from and go to `tell`."""

    def __init__(
        self,
        identity: Identity,
        links: Links,
        home: Home,
        described: Callable[[str], KnownMember],
        learn: Callable[[KnownMember, str], object],
    ) -> None:
        """`described(peer id)`: a member as others are told of it; `learn`: what a peer tells of one is remembered."""
        self._identity = identity
        self._links = links
        self._home = home
        self._described = described
        self._learn = learn
        self._rates = TokenBuckets(_RATE, _BURST)
        self._seen: TTLCache[bytes, None] = TTLCache(_SEEN, _SEEN_FOR, timer=trio.current_time)

    def linked(self) -> dict[str, int]:
        """Members with an open link, and their positions."""
        return {peer: peer_position(peer) for peer, is_member in self._links.linked_peers().items() if is_member}

    async def find(self, target: int, count: int, *, timeout: float) -> RouteResult:
        """Who is nearest to `target`, as the paths' answers say; nothing when none came within `timeout` seconds."""
        links = self.linked()
        begins = first_contacts(target, links)
        request = requests(secrets.token_bytes(16), target, count, len(begins))
        self._seen[request.id] = None  # it doesn't come back to us
        result = RouteResult(target, count, links)
        first = trio.Event()
        began = trio.current_time()

        async def along(contact: str) -> None:
            answer = await self._pass(contact, request, timeout)
            if answer is not None and _is_genuine(answer, request):
                for number, member in enumerate(answer.members, start=1):
                    self._learn(member, answer.answerer)
                    if number % LEARNT_AT_ONCE == 0:
                        await trio.lowlevel.checkpoint()
                names = tuple(member.peer_id for member in answer.members)
                told = RouteAnswer(names, answer.is_exact, answer.height)
                if result.add(told, map(peer_position, names)):
                    first.set()

        async def others() -> None:
            """The other paths get as long again as the first took."""
            await first.wait()
            await trio.sleep(max(trio.current_time() - began, _OTHER_PATHS))
            nursery.cancel_scope.cancel()

        with trio.move_on_after(timeout) as scope:
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as paths:
                    nursery.start_soon(others)
                    for contact in begins:
                        paths.start_soon(along, contact)
                nursery.cancel_scope.cancel()
        result.is_cut_short = scope.cancelled_caught and not first.is_set()
        return result

    async def serve(self, caller: str, body: object) -> object:
        """The handler of `overlay/route`. Raises `Refusal`."""
        try:
            wire = msgspec.convert(body, _LookupRequest, strict=True)
        except msgspec.ValidationError as error:
            raise Refusal("malformed", str(error)) from error
        if not self._rates.take(caller, trio.current_time()):
            raise Refusal("overloaded", "too many lookups")
        if wire.id in self._seen:
            raise Refusal("seen", "this lookup has come this way before")
        self._seen[wire.id] = None
        request = RouteRequest(wire.id, int.from_bytes(wire.target, "big"), wire.count, wire.hops, wire.forwards)
        hop = Hop(request, self._home, self.linked(), own_name=self._links.peer_id, avoid=[caller])
        deadline = trio.current_time() + _LONGEST
        while True:
            step = hop.next_step(is_confirmed=self._home.is_confirmed(trio.current_time()))
            if isinstance(step, RouteAnswer):
                return self._signed(request, step)
            # Half of what is left, so that one that doesn't answer leaves time for the next.
            answer = await self._pass(step.to, step.request, (deadline - trio.current_time()) / 2)
            if answer is not None:
                return msgspec.to_builtins(answer, builtin_types=(bytes,))

    async def _pass(self, to: str, request: RouteRequest, timeout: float) -> _LookupAnswer | None:
        target = request.target.to_bytes(POSITION_BYTES, "big")
        body = [request.id, target, request.count, request.hops, request.forwards]
        try:
            answer = await self._links.call(to, METHOD, body, timeout=max(timeout, 0.0))
            return msgspec.convert(answer, _LookupAnswer, strict=True)
        except CallFailed as error:
            log.debug("a lookup wasn't passed on", peer_id=to, error=str(error))
        except msgspec.ValidationError as error:
            log.debug("an answer to a lookup is malformed", peer_id=to, error=str(error))
        return None

    def _signed(self, request: RouteRequest, answer: RouteAnswer) -> object:
        members = tuple(self._described(name) for name in answer.names)
        signature = self._identity.sign(_statement(request, answer))
        return msgspec.to_builtins(
            _LookupAnswer(members, answer.is_exact, answer.height, self._identity.peer_id, signature),
            builtin_types=(bytes,),
        )


def _statement(request: RouteRequest, answer: RouteAnswer) -> bytes:
    digest = sha256(_DOMAIN + request.id + request.target.to_bytes(POSITION_BYTES, "big"))
    digest.update(bytes([answer.is_exact]) + answer.height.to_bytes(2, "big"))
    for name in answer.names:
        encoded = name.encode()
        digest.update(bytes([len(encoded)]) + encoded)
    return digest.digest()


def _is_genuine(answer: _LookupAnswer, request: RouteRequest) -> bool:
    """Whether it is of whoever says so, and all that it names are peer ids."""
    names = [member.peer_id for member in answer.members]
    try:
        for name in names:
            peer_position(name)
        told = RouteAnswer(tuple(names), answer.is_exact, answer.height)
        return verify(answer.answerer, _statement(request, told), answer.signature)
    except PeerIdError:
        return False
