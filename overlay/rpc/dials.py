"""Dialling for links: one attempt for each peer at a time, whose outcome all calls learn that wait for it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from overlay.errors import (
    CallFailed,
    NotAdmitted,
    OverlayError,
    PeerFull,
    PeerIdError,
    ProtocolNotSupported,
    Unreachable,
)
from overlay.rpc.counters import Counters
from overlay.rpc.transport import ByteStream, Transport
from overlay.settings import OverlaySettings


class DialFailure(msgspec.Struct, frozen=True):
    """Why a dial failed, for each call that waited for it."""

    kind: type[CallFailed]
    reason: str
    others: tuple[str, ...] = ()
    fault: str = ""
    is_peer: bool = True
    """Whether there can be such a peer."""

    def of(self, peer_id: str, method: str) -> CallFailed:
        """The exception for one call."""
        if self.kind is NotAdmitted:
            return NotAdmitted(peer_id, method, code=self.fault, detail=self.reason)
        if self.kind is PeerFull:
            return PeerFull(peer_id, method, others=self.others, detail=self.reason)
        return self.kind(peer_id, method, detail=self.reason)


class LinkAttempt:
    """An attempt to link to a peer, shared by all calls that wait for the link."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: DialFailure | None = None


class Dials:
    """The attempts that are under way. An attempt ends with a link, also one that the peer opened, or a failure."""

    def __init__(self, transport: Transport, settings: OverlaySettings, counters: Counters) -> None:
        self._transport = transport
        self._settings = settings
        self._counters = counters
        self._dials: dict[str, LinkAttempt] = {}
        self._when_unreachable: list[Callable[[str], None]] = []

    def __contains__(self, peer_id: str) -> bool:
        return peer_id in self._dials

    def on_unreachable(self, callback: Callable[[str], None]) -> None:
        """Have `callback(peer_id)` called when dialling a peer failed, but where it answered without taking a link.

        Never for an id of no peer, which others may name."""
        self._when_unreachable.append(callback)

    def to(self, peer_id: str) -> LinkAttempt | None:
        """The attempt to link to a peer that is under way."""
        return self._dials.get(peer_id)

    def begin(self, peer_id: str) -> LinkAttempt:
        """A new attempt; none may be under way to the peer."""
        dial = self._dials[peer_id] = LinkAttempt()
        return dial

    async def open_stream(self, peer_id: str) -> ByteStream | DialFailure:
        """A stream for a link to the peer, within `dial_timeout`, or why there is none. Never raises for the peer."""
        stream: ByteStream | None = None
        try:
            with trio.move_on_after(self._settings.dial_timeout):
                stream = await self._transport.open_stream(peer_id, self._settings.protocol_id)
        except ProtocolNotSupported as error:
            return DialFailure(ProtocolNotSupported, error.detail)
        except PeerIdError as error:
            return DialFailure(Unreachable, f"that is no peer: {error}", is_peer=False)
        except OverlayError as error:
            return DialFailure(Unreachable, error.detail if isinstance(error, CallFailed) else str(error))
        late = f"dialling took longer than {self._settings.dial_timeout:g} s"
        return stream if stream is not None else DialFailure(Unreachable, late)

    def end(self, peer_id: str, dial: LinkAttempt, failure: DialFailure | None) -> None:
        """Tell all who wait for an attempt that it has ended, with a failure or with a link."""
        if self._dials.get(peer_id) is not dial:
            return  # the peer's own stream came first and ended this attempt
        del self._dials[peer_id]
        dial.failure = failure
        dial.done.set()
        if failure is not None:
            self._counters.dial_failures += 1
            if failure.is_peer and failure.kind is not ProtocolNotSupported and failure.kind is not PeerFull:
                for callback in self._when_unreachable:
                    callback(peer_id)

    def stop(self) -> None:
        """End all attempts: this peer is stopping."""
        for peer_id, dial in list(self._dials.items()):
            self.end(peer_id, dial, DialFailure(Unreachable, "this peer is stopping"))
