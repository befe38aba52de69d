"""All links of a peer: one per pair of peers, made when a call needs it, closed when neither of the two keeps it.

`link_choice` says which stays of two, `places` which are closed and for whom there is a place. A link that was closed
on purpose tells nothing about its peer: it is no loss.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import structlog
import trio

from overlay.errors import (
    BodyTooLarge,
    CallFailed,
    CallTimeout,
    NotAdmitted,
    PeerFull,
    ProtocolError,
    Unreachable,
)
from overlay.limits.time_slices import TimeSlices
from overlay.membership.gatekeeper import LINK_FAULTS, LinkFault
from overlay.rpc.bodies import encoded
from overlay.rpc.counters import Counters, LinkStatistics
from overlay.rpc.decoded_items import DecodedItems
from overlay.rpc.dials import DialFailure, Dials, LinkAttempt
from overlay.rpc.greetings import Greetings
from overlay.rpc.link import Link, NoticeHandler, NotSent
from overlay.rpc.link_choice import Choice, choose
from overlay.rpc.link_state import Cause
from overlay.rpc.membership import Membership, Vet
from overlay.rpc.places import Places
from overlay.rpc.product import PeerVersion, agent_version
from overlay.rpc.protocol import METHOD_MAX_LENGTH, MINOR_VERSION, Bye, Hello, Notice, Reason
from overlay.rpc.server import Handler
from overlay.rpc.transport import ByteStream, Transport
from overlay.settings import OverlaySettings
from overlay.tasks import TaskOwner, TaskStatus

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_MAX_STREAMS_PER_PEER = 4  # one that lives, one that is retired, and room for a peer that dials again meanwhile
_PARTING = 1.0  # seconds after the end of a link in which a new one may come over its connection


def _everyone(_peer_id: str) -> bool:
    """Whom a peer keeps that knows no rule."""
    return True


class Links:
    """Calls any peer, and serves the calls of all."""

    def __init__(
        self,
        transport: Transport,
        settings: OverlaySettings,
        member: bool,
        *,
        keeps: Callable[[str], bool] = _everyone,
        randomness: random.Random | None = None,
        greetings: Greetings | None = None,
        vet: Vet | None = None,
    ) -> None:
        """`member`: whether this peer tells others that it is a member of the network. `greetings`: who is let in;
        everybody by default.

        `vet`: whether a peer that says it is a member counts as one; called over its link. Without it each does.

        `keeps(peer_id)`: whether a link to the peer is kept though nobody uses it; asked often, and anew after
        `note_keeping`. Where it is false, a link lasts as long as the other side keeps it, as `hold` asks,
        or as calls go over it.
        """
        self.peer_id = transport.peer_id
        self._transport = transport
        self._settings = settings
        self._hello = Hello(MINOR_VERSION, member, secrets.token_bytes(8), version=agent_version())
        self._greetings = greetings or Greetings()
        self._handlers: dict[str, Handler] = {}
        self._notices: dict[str, NoticeHandler] = {}
        self._last_notice: Callable[[str], Notice | None] = lambda _: None
        self._tasks = TaskOwner()
        self._current: dict[str, Link] = {}
        self._membership = Membership(self.peer_id, self._current, self._note_proven, vet)
        self._streams: dict[str, set[Link]] = {}  # also those that shake hands or are retired
        self._places = Places(
            transport,
            settings.links,
            keeps,
            randomness or random.Random(),  # noqa: S311 - who is named to others, no secrets
            current=self._current,
            counts=self._membership.counts,
            streams=self._streams,
        )
        self._counters = Counters()
        self._dials = Dials(transport, settings, self._counters)
        self._time_slices = TimeSlices()
        self.decoded_items = DecodedItems(settings.calls.max_decoded, settings.calls.max_decoded_per_peer)
        """What is decoded of all that peers call with."""
        self._when_up: list[Callable[[str, bool], None]] = []
        self._when_down: list[Callable[[str], None]] = []
        self._when_closed: list[Callable[[str], None]] = []

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept, dial and serve until cancelled; then end all links. Owns every task of theirs."""
        async with self._tasks.opened():
            self._transport.set_stream_handler(self._settings.protocol_id, self._accept)
            task_status.started()
            try:
                await self._places.run()
            finally:
                self._dials.stop()

    def serve(self, method: str, handler: Handler) -> None:
        """Answer calls of `method`. Raises ValueError when it is served already, or its name is empty or too long."""
        if method in self._handlers or not 0 < len(method) <= METHOD_MAX_LENGTH:
            raise ValueError(f"method {method!r} is served already, or is no name of 1 to {METHOD_MAX_LENGTH} letters")
        self._handlers[method] = handler

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Call `method` of a peer and return the answer's body; dials when there is no link.

        `timeout`: seconds for all of it. The peer's handler is cancelled when they have passed, and when this is
        cancelled. Raises subclasses of `CallFailed`, and `FrameError` for a body that CBOR can't hold. A call that may
        have reached the peer is never repeated.
        """
        self._counters.calls_made += 1
        try:
            with trio.move_on_after(timeout) as scope:
                encoded_body = await encoded(body)
                if len(encoded_body) > self._settings.calls.max_frame:
                    raise BodyTooLarge(peer_id, method)
                while True:
                    link = self._current.get(peer_id)
                    if link is None or not link.usable:
                        link = await self._link(peer_id, method)
                    try:
                        return await link.call(method, encoded_body, scope.deadline)
                    except NotSent:
                        await trio.lowlevel.checkpoint()  # the link ended just now: its successor, or a new one
            raise CallTimeout(peer_id, method)
        except CallFailed:
            self._counters.calls_failed += 1
            raise

    def on_notice(self, topic: str, read: NoticeHandler) -> None:
        """Have notices of a topic read. Raises ValueError when they are already."""
        if topic in self._notices:
            raise ValueError(f"notices of topic {topic!r} are read already")
        self._notices[topic] = read

    def notify_at_last(self, last_notice: Callable[[str], Notice | None]) -> None:
        """Have `last_notice(peer id)` said on each link when this peer stops, also where its tasks are cancelled."""
        self._last_notice = last_notice

    def _say_at_last(self, peer_id: str) -> Notice | None:
        return self._last_notice(peer_id)

    def notify(self, peer_id: str, topic: str, body: bytes) -> bool:
        """Say something that wants no answer to a linked peer; whether it was taken. Older peers pass it over."""
        link = self._current.get(peer_id)
        return link is not None and link.notify(topic, body)

    def ping(self, peer_id: str) -> None:
        """Send a linked peer something that its machine acknowledges."""
        link = self._current.get(peer_id)
        if link is not None:
            link.ping()

    async def ensure_link(self, peer_id: str, *, timeout: float) -> bool:
        """Link to a peer unless there is a link, and tell whether the peer counts as a member.

        `timeout` is in seconds. Concurrent calls share one dial. Raises `Unreachable`, `ProtocolNotSupported`,
        `ProtocolError`, `CallTimeout`.
        """
        with trio.move_on_after(timeout):
            await self._link(peer_id, self._settings.protocol_id)
            return await self._membership.decided(peer_id)
        raise CallTimeout(peer_id, self._settings.protocol_id)

    def linked_peers(self) -> Mapping[str, bool]:
        """The peers with a link, each with whether it counts as a member."""
        return dict(self._membership.known)

    def is_linked(self, peer_id: str) -> bool:
        """Whether a call to the peer needs no dialling."""
        return peer_id in self._current

    def on_up(self, callback: Callable[[str, bool], None]) -> None:
        """Have `callback(peer_id, member)` called when a peer is linked, also anew after it was restarted, and once it
        counts as a member."""
        self._when_up.append(callback)

    def on_down(self, callback: Callable[[str], None]) -> None:
        """Have `callback(peer_id)` called when a peer's link is lost and no other replaces it."""
        self._when_down.append(callback)

    def on_closed(self, callback: Callable[[str], None]) -> None:
        """Have `callback(peer_id)` called when a peer's link was closed on purpose: it may be linked again any time."""
        self._when_closed.append(callback)

    def on_unreachable(self, callback: Callable[[str], None]) -> None:
        """Have `callback(peer_id)` called when dialling a peer failed."""
        self._dials.on_unreachable(callback)

    def statistics(self) -> LinkStatistics:
        """Links and counts as of now."""
        return LinkStatistics(
            links=len(self._current),
            members=sum(self._membership.known.values()),
            **msgspec.structs.asdict(self._counters) | {"refusals": dict(self._counters.refusals)},
        )

    def minor_version(self, peer_id: str) -> int | None:
        """The minor version of the protocol that a linked peer and this one both speak; None without a link."""
        link = self._current.get(peer_id)
        return link.minor if link is not None else None

    def version_of(self, peer_id: str) -> PeerVersion | None:
        """What a linked peer runs, as it says itself; None without a link."""
        link = self._current.get(peer_id)
        if link is None or link.remote is None:
            return None
        return PeerVersion(link.remote.version, f"{self._major}.{link.remote.minor}")

    @property
    def own_version(self) -> PeerVersion:
        """What this peer runs."""
        return PeerVersion(self._hello.version, f"{self._major}.{self._hello.minor}")

    @property
    def _major(self) -> str:
        return self._settings.protocol_id.rpartition("/")[2]

    async def put_out(self, peer_id: str, fault: LinkFault) -> None:
        """End all links to a peer that isn't let in any more, tell it why, and close its connections."""
        bye = self._greetings.refusal(peer_id, fault)
        for link in tuple(self._streams.get(peer_id, ())):
            link.turn_away(bye)
        await self._shut_out(peer_id)

    def hold(self, peer_id: str) -> None:
        """Keep a link to the peer, if there is one, until `release`; for what uses it without calling all the time."""
        self._places.hold(peer_id)

    def release(self, peer_id: str) -> None:
        """Undo one `hold`."""
        self._places.release(peer_id)

    def note_keeping(self) -> None:
        """To be called when `keeps` may say something else than before."""
        self._places.note_change()

    async def _link(self, peer_id: str, method: str) -> Link:
        """The link to a peer, made when there is none. Waits as long as a dial may take."""
        while True:
            link = self._current.get(peer_id)
            if link is not None and link.usable:
                return link
            if link is not None and link.asking:
                await link.wait_decided()
                continue
            if peer_id == self.peer_id:
                raise Unreachable(peer_id, method, "that is this peer itself")
            dial = self._dials.to(peer_id)
            if dial is None:
                if not self._tasks.is_open:
                    raise Unreachable(peer_id, method, "this peer isn't running")
                dial = self._dials.begin(peer_id)
                self._tasks.start_soon(self._dial, peer_id, dial)
            await dial.done.wait()
            if dial.failure is not None:
                raise dial.failure.of(peer_id, method)

    async def _dial(self, peer_id: str, dial: LinkAttempt) -> None:
        stream = await self._dials.open_stream(peer_id)
        if isinstance(stream, DialFailure):
            self._dials.end(peer_id, dial, stream)
        else:
            await self._run(self._add(peer_id, stream, opened_by=self.peer_id), dial)

    async def _accept(self, peer_id: str, stream: ByteStream) -> None:
        """Run a link on a stream that a peer opened, until it ends."""
        if not self._tasks.is_open or len(self._streams.get(peer_id, ())) >= _MAX_STREAMS_PER_PEER:
            await stream.reset()
            return
        link = self._add(peer_id, stream, opened_by=peer_id)
        self._tasks.start_soon(self._run, link)
        try:
            await link.wait_ended()
        finally:
            link.end("the connection ended")

    def _add(self, peer_id: str, stream: ByteStream, *, opened_by: str) -> Link:
        is_private = self._greetings.is_private
        listens = (is_private and opened_by != self.peer_id) or self._places.is_short(opened_by)
        link = Link(
            peer_id,
            stream,
            opened_by=opened_by,
            hello=self._greetings.hello(self._hello),
            handlers=self._handlers,
            limits=self._settings.calls,
            counters=self._counters,
            when_free=self._places.note_change,
            admit=partial(self._admit, peer_id, may_be_full=listens) if listens or is_private else None,
            listens=listens,
            ping_interval=self._ping_interval,
            time_slices=self._time_slices,
            decoded_items=self.decoded_items,
            notices=self._notices,
            last_notice=self._say_at_last,
        )
        self._streams.setdefault(peer_id, set()).add(link)
        self._greetings.began(peer_id)
        return link

    def _admit(self, peer_id: str, hello: Hello, *, may_be_full: bool) -> Bye | None:
        """The bye for a peer that said hello, if it isn't let in, or there is no place for it."""
        return self._greetings.check(peer_id, hello) or (self._places.admit(peer_id, hello) if may_be_full else None)

    async def _run(self, link: Link, dial: LinkAttempt | None = None) -> None:
        """Run a link to its end; `dial` is told when it ended before it was up."""
        try:
            await link.run(self._up, self._forget)
        except Exception:
            log.exception("a link failed", peer_id=link.peer_id)
            link.end("the link failed")
            self._forget(link)
        finally:
            if dial is not None and not link.was_up:
                self._dials.end(link.peer_id, dial, self._failure_of(link))

    def _failure_of(self, link: Link) -> DialFailure:
        """Why a link that we dialled ended before it was up."""
        if link.said is Reason.FULL:
            return DialFailure(PeerFull, link.loss, self._places.remember(link.peer_id, link.others))
        if link.said is Reason.NOT_ADMITTED:
            text = LINK_FAULTS[link.fault] if link.fault is not None else "for a reason that this version doesn't know"
            return DialFailure(NotAdmitted, f"{link.loss}: {text}", fault=link.fault or "")
        return DialFailure(ProtocolError if link.cause is Cause.BROKE_PROTOCOL else Unreachable, link.loss)

    def _up(self, link: Link) -> None:
        """The peer said hello: choose the link that stays, and tell who waits for one."""
        peer_id, current = link.peer_id, self._current.get(link.peer_id)
        self._greetings.ended(peer_id)
        choice = choose(link, current, self._settings.calls.hello_timeout)
        if choice is Choice.KEEP:
            link.retire()
            return
        self._current[peer_id] = link
        self._membership.note_up(link)
        if current is not None and choice is Choice.REPLACE:
            current.retire()
        else:
            if current is not None:
                current.end("the peer was started anew")
                self._tell_down(peer_id, current.loss)
            self._tell_up(link)
            if self._tasks.is_open:
                self._membership.begin(link, self._tasks)
        self._places.mark(peer_id)
        self._places.note_change()
        dial = self._dials.to(peer_id)
        if dial is not None:
            self._dials.end(peer_id, dial, None)

    def _note_proven(self, link: Link) -> None:
        """The peer of a link counts as a member from now on."""
        self._tell_up(link)
        self._places.mark(link.peer_id)

    def _forget(self, link: Link) -> None:
        """Forget a link that has ended, and tell so when no other replaced it."""
        peer_id = link.peer_id
        streams = self._streams.get(peer_id, set())
        if link not in streams:
            return
        streams.discard(link)
        if not streams:
            del self._streams[peer_id]
        if not link.was_up:
            self._greetings.ended(peer_id)
        is_closed = link.said in {Reason.IDLE, Reason.FULL} and link.cause is not Cause.CLOSED
        self._counters.turned_away += link.cause is Cause.REFUSED
        if link.said is Reason.NOT_ADMITTED and link.cause is Cause.LEFT:
            self._greetings.note_refused(peer_id, link.fault)
        if self._tasks.is_open and link.said is Reason.NOT_ADMITTED:
            self._tasks.start_soon(self._shut_out, peer_id)
        elif self._tasks.is_open and not streams:
            if link.cause is Cause.SILENT:
                # Nothing comes through the connection any more; over it, every attempt to link would time out.
                self._tasks.start_soon(self._transport.disconnect, peer_id)
            elif is_closed:
                self._tasks.start_soon(self._part_from, peer_id)
        if self._current.get(peer_id) is link:
            del self._current[peer_id]
            self._membership.note_down(peer_id)
            self._counters.closed += is_closed
            self._places.remember(peer_id, link.others)  # where it had to give way
            if is_closed:
                self._tell_closed(peer_id)
            else:
                self._tell_down(peer_id, link.loss)

    def _ping_interval(self) -> float:
        """Seconds of silence after which a link is asked for a sign of life: more with more links."""
        limits = self._settings.calls
        shared = min(len(self._current) / limits.pings_per_second, limits.max_ping_interval)
        return max(limits.ping_interval, shared)

    async def _part_from(self, peer_id: str) -> None:
        """Close the connection to a peer whose link was closed on purpose, unless it is linked again."""
        await trio.sleep(_PARTING)
        if peer_id not in self._streams and peer_id not in self._dials:
            await self._transport.disconnect(peer_id)

    async def _shut_out(self, peer_id: str) -> None:
        """Close the connections to a peer that isn't let in, after a moment for what is said to it at last."""
        await trio.sleep(_PARTING)
        if not self._greetings.is_in(peer_id):
            await self._transport.disconnect(peer_id)

    def _tell_up(self, link: Link) -> None:
        member = self._membership.counts(link.peer_id)
        log.debug("peer linked", peer_id=link.peer_id, is_member=member, opened_by=link.opened_by)
        for callback in self._when_up:
            callback(link.peer_id, member)

    def _tell_down(self, peer_id: str, reason: str) -> None:
        log.debug("peer no longer linked", peer_id=peer_id, reason=reason)
        for callback in self._when_down:
            callback(peer_id)

    def _tell_closed(self, peer_id: str) -> None:
        log.debug("link closed, as neither side keeps it", peer_id=peer_id)
        for callback in self._when_closed:
            callback(peer_id)
