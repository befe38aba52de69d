"""Selects the path of a call to a peer: directly or through a relay, and which path is next when one fails.

Paths are tried in this order:
1. A link that is open.
2. The relays that the caller gave, such as a record's `relay_id`.
3. A dial, at addresses that are known or found.
4. For a light client, its nodes as relays: they may be linked to the peer.
5. The relays and addresses in the peer's own record: what the caller gave may be older than that.

The next path is tried only after one on which the call surely didn't arrive. Reaching the peer, or a relay, takes at
most half of the time that is left, so that one that doesn't answer leaves time for the next.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple, Protocol

import trio

from overlay.discovery.peer_record import PeerRecord
from overlay.errors import AnswerDropped, CallFailed, CallTimeout, ConnectionLost, Overloaded, Unreachable

FIND_TIMEOUT: Final = 2.0  # seconds
REACH_TIMEOUT: Final = 3.0  # seconds

Path = str
"""The id of a relay, or empty for a link of one's own."""

Body = Callable[[Path], object]
"""Makes the body of a call for the path that it takes."""


class Dialer(Protocol):
    """What selecting a path needs of this peer: satisfied by `overlay.peer.OverlayPeer`."""

    @property
    def peer_id(self) -> str:
        """Our own id."""
        ...

    def nodes(self) -> list[str]:
        """The nodes that a light client acts through; none for a member."""
        ...

    def is_linked(self, peer_id: str) -> bool:
        """Whether a call needs no dialling."""
        ...

    def addresses_of(self, peer_id: str) -> list[str]:
        """Where a peer can be dialled, as far as known."""
        ...

    async def find(self, peer_id: str, *, timeout: float) -> list[str]:
        """Where a peer can be dialled, asking others when nothing is known."""
        ...

    async def find_peer_record(self, peer_id: str, *, timeout: float) -> PeerRecord | None:
        """What the peer said lately of where it can be reached."""
        ...

    async def link(self, peer_id: str) -> None:
        """Link to a peer whose addresses are known. Raises `CallFailed`."""
        ...

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Call a peer directly. Raises `CallFailed`."""
        ...

    async def call_via(
        self, relays: Sequence[str], peer_id: str, method: str, body: object, *, timeout: float
    ) -> object:
        """Call a peer through relays, nearest first. Raises `CallFailed`."""
        ...


class _Until(NamedTuple):
    """Times by Trio's clock: when the call ends, and after when no other path is tried."""

    deadline: float
    patience: float


class PathSelection:
    """Calls one peer on the first path that leads there."""

    def __init__(self, dialer: Dialer, peer_id: str, via: Sequence[str] = ()) -> None:
        """`via`: relays that the caller knows of, best first."""
        self._dialer = dialer
        self._peer_id = peer_id
        self._via = [relay for relay in dict.fromkeys(via) if relay not in (dialer.peer_id, peer_id)]

    async def call(self, method: str, body: Body, timeout: float, *, reach: float = math.inf) -> object:
        """Call `method` within `timeout` seconds; after `reach` seconds of them no other path is tried.

        Raises the `CallFailed` of the first path that failed, and `FrameError` for a body that CBOR can't hold.
        """
        now = trio.current_time()  # each step keeps the deadline itself: one more scope would cost 5 us
        until = _Until(now + timeout, min(now + reach, now + timeout))
        failure: CallFailed | None = None
        for path in self._known():
            answer = await self._attempt(path, method, body(path), until)
            if not isinstance(answer, CallFailed):
                return answer
            failure = failure or answer
        async with aclosing(self._found(until.patience)) as paths:
            async for path in paths:
                if until.patience <= trio.current_time():
                    break
                answer = await self._attempt(path, method, body(path), until)
                if not isinstance(answer, CallFailed):
                    return answer
                failure = failure or answer
        if trio.current_time() >= until.deadline:
            raise CallTimeout(self._peer_id, method)
        raise failure or Unreachable(self._peer_id, method)

    def _known(self) -> Iterator[Path]:
        if self._dialer.is_linked(self._peer_id):
            yield ""
        yield from self._via

    async def _found(self, patience: float) -> AsyncGenerator[Path, None]:
        tried = {self._dialer.peer_id, self._peer_id, *self._via}
        if not self._dialer.addresses_of(self._peer_id):
            await self._dialer.find(self._peer_id, timeout=min(FIND_TIMEOUT, _left(patience) / 2))
        known = set(self._dialer.addresses_of(self._peer_id))
        if known:
            yield ""
        for node in self._dialer.nodes():
            if node not in tried:
                tried.add(node)
                yield node
        peer_record = await self._dialer.find_peer_record(self._peer_id, timeout=min(FIND_TIMEOUT, _left(patience) / 2))
        if peer_record is None:
            return
        for relay in peer_record.relays:
            if relay not in tried:
                yield relay
        if set(peer_record.addresses) - known:
            yield ""

    async def _attempt(self, path: Path, method: str, body: object, until: _Until) -> object | CallFailed:
        """The answer, or why the call surely wasn't made. Raises `CallFailed`."""
        try:
            return await self._on(path, method, body, until)
        except (ConnectionLost, AnswerDropped):
            raise
        except Unreachable as error:
            return error
        except Overloaded as error:  # a relay; another may have room
            if not path:
                raise
            return error

    async def _on(self, path: Path, method: str, body: object, until: _Until) -> object:
        first = path or self._peer_id
        if not self._dialer.is_linked(first):
            await self._reach(first, method, min(REACH_TIMEOUT, _left(until.patience) / 2))
        left = _left(until.deadline)
        if path:
            return await self._dialer.call_via([path], self._peer_id, method, body, timeout=left)
        return await self._dialer.call(self._peer_id, method, body, timeout=left)

    async def _reach(self, peer_id: str, method: str, timeout: float) -> None:
        with trio.move_on_after(timeout):
            if not self._dialer.addresses_of(peer_id):
                await self._dialer.find(peer_id, timeout=timeout)
            try:
                await self._dialer.link(peer_id)
            except CallFailed as error:  # whatever it is, nothing was called
                raise Unreachable(peer_id, method, detail=error.detail) from error
            return
        raise Unreachable(peer_id, method, detail=f"no link within {timeout:.1f} s")


def _left(until: float) -> float:
    return max(until - trio.current_time(), 0.0)
