"""What one member knows of a part of the keyspace, told to another by digest: `overlay/home`.

1. Whoever asks names an aligned subtree around the member that it asks, and the digest of those whom it knows in it.
   An equal view is answered with a word; a different one with all who are known there, the nearest first.
2. The answer tells of how much around itself the answerer knows everybody: of its home, as far as that is confirmed.
   So whoever asks sees which part of its own home the answer covers, and asks others about the rest (`uncovered`). A
   home that has just grown, as members died, covers what it was before: those who widen theirs together would else
   confirm to each other that nobody is missing, without one having asked those who live there.
3. Whoever is asked with another view is told of its difference, too: it may be the one who lacks somebody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from typing import Annotated, Final, Protocol

import msgspec
import trio
from msgspec import Meta, Struct

from overlay.discovery.home import MOST_HOME, Home
from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES
from overlay.discovery.recursive import LEARNT_AT_ONCE, KnownMember
from overlay.errors import Refusal

METHOD: Final = "overlay/home"
DIGEST_BYTES: Final = 8
_DOMAIN: Final = b"aqua-registry/home/1"
_TIMEOUT: Final = 2.0  # seconds

Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class _Question(Struct, frozen=True, array_like=True):
    """Whom do you know in this subtree? Later versions may add fields."""

    around: Annotated[bytes, Meta(min_length=POSITION_BYTES, max_length=POSITION_BYTES)]
    height: Annotated[int, Meta(ge=0, le=POSITION_BITS)]
    digest: Digest


class _ViewAnswer(Struct, frozen=True, array_like=True):
    """`height`: of the subtree that the answerer knows completely. `members`: none when the views are equal."""

    height: Annotated[int, Meta(ge=0, le=POSITION_BITS)]
    is_equal: bool
    members: Annotated[tuple[KnownMember, ...], Meta(max_length=MOST_HOME)]


class HomeView(Struct, frozen=True):
    """What a member said: how high the subtree around it is that it knows completely, and whom it knows, unless that is
    whom we know."""

    height: int
    is_equal: bool
    names: tuple[str, ...]


class Calling(Protocol):
    """What views need of the links over which they are told: satisfied by `overlay.rpc.links.Links`."""

    peer_id: str

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Call a method of a peer. Raises `CallFailed`."""
        ...


class HomeViews:
    """Tells others of this member's home, and asks them for theirs."""

    def __init__(
        self,
        links: Calling,
        home: Home,
        described: Callable[[str], KnownMember],
        learn: Callable[[KnownMember, str], bool],
        on_difference: Callable[[str], None],
    ) -> None:
        """`described(peer id)`: a member as others are told of it. `learn`: remembers where one is, as a peer says.

        `on_difference(caller)`: a member asked with a view that isn't ours.
        """
        self._links = links
        self._home = home
        self._described = described
        self._learn = learn
        self._on_difference = on_difference

    async def ask(self, member: str, around: int, height: int, names: Iterable[str] | None = None) -> HomeView:
        """What `member` knows of the subtree of `height` around `around`. Raises `CallFailed`.

        `names`: those whom we take to be there; else those that we are linked to.
        """
        digest = digest_of(self._known(around, height) if names is None else names)
        question = [around.to_bytes(POSITION_BYTES, "big"), height, digest]
        answer = await self._links.call(member, METHOD, question, timeout=_TIMEOUT)
        try:
            told = msgspec.convert(answer, _ViewAnswer, strict=True)
        except msgspec.ValidationError:
            return HomeView(0, False, ())
        learnt: list[str] = []
        for number, known in enumerate(told.members, start=1):
            if self._learn(known, member):
                learnt.append(known.peer_id)
            if number % LEARNT_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return HomeView(told.height, told.is_equal, tuple(learnt))

    async def serve(self, caller: str, body: object) -> object:
        """The handler of `overlay/home`. Raises `Refusal`."""
        try:
            question = msgspec.convert(body, _Question, strict=True)
        except msgspec.ValidationError as error:
            raise Refusal("malformed", str(error)) from error
        around = int.from_bytes(question.around, "big")
        known, height = self._known(around, question.height), self._home.confirmed_height(trio.current_time())
        if digest_of(known) == question.digest:
            return [height, True, []]
        self._on_difference(caller)
        nearest = sorted(known, key=lambda name: known[name] ^ around)[:MOST_HOME]
        described = [self._described(name) for name in nearest if name != caller]
        return [height, False, [[member.peer_id, list(member.addresses)] for member in described]]

    def _known(self, around: int, height: int) -> dict[str, int]:
        known = self._home.inside(around, height)
        if (self._home.own ^ around).bit_length() <= height:
            known[self._links.peer_id] = self._home.own
        return known


def digest_of(names: Iterable[str]) -> bytes:
    """8 bytes that stand for a set of members; hashed together, so that nobody can make two sets look alike."""
    return sha256(b"\0".join([_DOMAIN, *sorted(name.encode() for name in names)])).digest()[:DIGEST_BYTES]


def uncovered(members: Mapping[str, int], covered: Collection[tuple[int, int]]) -> list[str]:
    """Those of `members` (with positions) who lie in none of the subtrees, each (a position in it, its height)."""
    return [
        name
        for name, position in members.items()
        if not any((position ^ around).bit_length() <= height for around, height in covered)
    ]
