"""Drives `PresenceNode` on the network: notices on links, dials, what the kernels know, and who lies near to whom.

It decides nothing. One task wakes the node when it wants to be woken, and looks at the kernels' figures then; dials run
in tasks of their own, each of which tells its outcome whatever happens. Messages to one peer in one turn share a
notice. Those that ask for something are worth a link; the others go where there is one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Final, Protocol

import structlog
import trio
from msgspec import Struct, field

from overlay.errors import CallFailed, PeerIdError
from overlay.identity import Identity, public_key_of
from overlay.limits.token_bucket import TokenBuckets
from overlay.presence.actions import Action, Changed, Dial, FindKeepers, Learnt, PingLink, Role, SendTo
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.evidence import Evidence, encode_evidence
from overlay.presence.host_hiding import ViewState
from overlay.presence.messages import TOPIC, Message, SubscribeTo, Told, encode, parse
from overlay.presence.node import PresenceNode
from overlay.presence.outgoing import OutgoingNotices
from overlay.presence.statements import NEVER, Presence, Version, sign
from overlay.presence.timings import KEEPERS, KERNEL_PING, MOST_LINKED
from overlay.rpc.links import Links
from overlay.rpc.protocol import Notice
from overlay.tasks import TaskOwner, TaskStatus, Wakeup

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SAYING: Final = 0.05  # seconds; links write what is queued within some turns of the loop
_LOOK_EVERY: Final = 2
_PING_ANSWERED: Final = 10.0  # seconds for which the answer to a ping is looked for
_LOOK_UP_AGAIN: Final = (
    2.0,
    600.0,
)  # seconds after which a followed host's keepers are looked up anew: rarer each time
_LOOK_UP_GROWS: Final = 4.0
_FEW_KNOWN_FOR: Final = 60.0  # seconds at most, where there are fewer than `KEEPERS`, as in a small network
_LOOK_UP_PAUSE: Final = 1.0  # seconds between two such lookups at least: others have to notice what changed, too
_NOTICES: Final = 100.0  # a second that are read of one peer
_NOTICES_AT_ONCE: Final = 1000.0
_NOTICE_BYTES: Final = 8192  # for which a large notice counts as one more; parsing 64 KiB may take 7 ms


class Probing(Protocol):
    """What is needed of the network below."""

    async def probe(self, peer_id: str, timeout: float) -> DialOutcome:
        """Dial a peer to see whether it is there, beside the connections that there are."""
        ...

    def silence(self, peer_id: str) -> float | None:
        """Seconds since a connected peer's machine sent anything; None where that isn't known."""
        ...


class NearbyMembers(Protocol):
    """Who lies near to whom."""

    def members_near(self, peer_id: str, count: int) -> Sequence[str]:
        """The members nearest to a peer but itself, ourselves among them, as far as known; asks nobody."""
        ...

    async def find_members_near(self, peer_id: str, count: int) -> Sequence[str]:
        """The same, after asking others where that is needed."""
        ...

    def home(self) -> Sequence[str]:
        """The linked members around our own position."""
        ...

    def nodes(self) -> Sequence[str]:
        """The nodes that a light client acts through; none for a member."""
        ...

    async def answers_through(self, nodes: Sequence[str], peer_id: str, timeout: float) -> bool:
        """Whether a light client answers through any of these nodes."""
        ...


class HostState(Struct, frozen=True):
    """Whether a peer is up, as this one says."""

    peer_id: str
    is_up: bool
    """Whether it is listed; so is each of which nothing is known."""
    is_known: bool
    """Whether it told its presence; those of an older release don't."""
    has_left: bool
    """Whether it said itself that it stops."""
    since: float
    """Seconds for which that is so; infinity where it always was."""
    accusers: tuple[str, ...]
    """The witnesses that say it is down; those that did when it went down, once their words have lapsed."""
    exceptions: bytes
    """What doesn't pass of that which it hosts, as it says."""


class _Keepers(Struct):
    """Those of a followed host, as looked up."""

    names: tuple[str, ...] = ()
    changed: Wakeup = field(default_factory=Wakeup)
    """They may be others by now, or the host isn't followed any more."""


class Liveness:
    """Who is alive. `run` owns all tasks."""

    def __init__(
        self,
        identity: Identity,
        links: Links,
        probing: Probing,
        nearby: NearbyMembers,
        *,
        incarnation: int,
        clock: Callable[[], float],
        randomness: random.Random,
        is_member: bool = True,
    ) -> None:
        """`incarnation`: milliseconds since 1970, above those of all earlier runs. `clock`: seconds; it doesn't go back
        and runs on while the machine sleeps. `is_member`: whether we tell our presence to those nearest to us; a light
        client tells it to its nodes, from `advertise` on."""
        self._links = links
        self._probing = probing
        self._nearby = nearby
        self._clock = clock
        self._is_member = self._is_host = is_member
        self._near: dict[str, _Keepers] = {}  # of followed hosts
        self._said_down: dict[str, tuple[str, ...]] = {}  # who did, of those that are down
        self._node = PresenceNode(
            Presence(identity.peer_id, Version(incarnation)),
            clock(),
            near=self._near_of,
            sign_presence=lambda presence: sign(identity, presence),
            sign_word=lambda word: sign(identity, word),
            sign_proof=lambda proof: sign(identity, proof),
            randomness=randomness,
        )
        self._wakeup = Wakeup()
        self._wakes_at = math.inf
        self._home_changed = True
        self._callbacks: list[Callable[[HostState], None]] = []
        self._outgoing = OutgoingNotices(links, start=self._start, unreached=self._note_unreached)
        self._held: dict[str, None] = {}
        self._looks = 0
        self._pinged: dict[str, float] = {}
        self._notices = TokenBuckets(_NOTICES, _NOTICES_AT_ONCE)
        self._tasks = TaskOwner()
        self._is_leaving = False
        links.on_notice(TOPIC, self._read)
        links.on_up(self._note_up)
        links.on_down(self._note_down)
        links.on_closed(self._note_closed)
        links.notify_at_last(self._say_at_last)

    # For those above.

    def follow(self, peer_ids: Iterable[str]) -> None:
        """Know from now on whether these peers are up, and tell changes, until `unfollow`.

        Raises PeerIdError for what is no peer's id.
        """
        for peer_id in peer_ids:
            if peer_id != self._node.own_id and self._tasks.is_open and peer_id not in self._near:
                public_key_of(peer_id)
                keepers = self._near[peer_id] = _Keepers()
                self._tasks.start_soon(self._follow, peer_id, keepers)

    def unfollow(self, peer_ids: Iterable[str]) -> None:
        """Follow them no more."""
        for peer_id in peer_ids:
            keepers = self._near.pop(peer_id, None)
            if keepers is not None:
                keepers.changed.set()
            self._said_down.pop(peer_id, None)
            self._node.following.unfollow(peer_id)

    def state_of(self, peer_id: str) -> HostState:
        """What is known of a peer; one that isn't followed is up."""
        if peer_id == self._node.own_id:
            own = self._node.host.presence
            return HostState(peer_id, True, self._is_host, own.is_leaving, math.inf, (), own.exceptions)
        view, presence = self._node.view_of(peer_id), self._node.following.presence_of(peer_id)
        if view is None:
            return HostState(peer_id, True, False, False, math.inf, (), b"")
        now = self._clock()
        accusers = () if view.is_listed else tuple(view.accusing(now))
        if view.state is ViewState.HIDDEN and not accusers:
            accusers = self._said_down.get(peer_id, ())
        exceptions = presence.exceptions if presence is not None else b""
        has_left = view.state is ViewState.LEFT
        return HostState(
            peer_id, view.is_listed, view.version > NEVER, has_left, now - view.since, accusers, exceptions
        )

    def is_settled(self, peer_id: str) -> bool:
        """Whether a followed peer's presence is known, and nobody doubts it; of one that has none that is never
        certain."""
        view = self._node.view_of(peer_id)
        return self.state_of(peer_id).is_known and (view is None or view.state is not ViewState.DOUBTED)

    def evidence_of(self, peer_id: str) -> bytes:
        """What was signed of a followed peer, for those who follow it through us; see `overlay.presence.evidence`."""
        presence = self._node.following.presence_of(peer_id)
        if peer_id == self._node.own_id:
            presence = self._node.host.presence
        return encode_evidence(Evidence(presence, self._node.following.words_of(peer_id, self._clock())))

    def on_change(self, callback: Callable[[HostState], None]) -> None:
        """Have `callback(state)` called when a followed peer goes down or comes up, is known, or says something else.

        It must be cheap and not raise.
        """
        self._callbacks.append(callback)

    def complain(self, peer_id: str) -> None:
        """A caller couldn't reach a followed peer."""
        self._do(self._node.complained(peer_id, self._clock()))

    def look_for(self, peer_ids: Iterable[str]) -> None:
        """Somebody reads of these: see whether those are there of which nobody would tell."""
        for peer_id in peer_ids:
            actions = self._node.looked_for(peer_id, self._clock())
            if actions:
                self._do(actions)

    def advertise(self) -> None:
        """Tell our own presence from now on; members do anyway."""
        if not self._is_host:
            self._is_host = self._home_changed = True
            self._wakeup.set()

    def note_exceptions(self, exceptions: bytes) -> None:
        """Tell from now on what doesn't pass of that which we host."""
        if exceptions != self._node.host.presence.exceptions:
            self._do(self._node.host.change(self._clock(), exceptions=exceptions))

    async def leave(self) -> None:
        """Say that we stop, for good, and give that a moment to go out."""
        if self._is_host and not self._is_leaving:
            self._is_leaving = True
            self._do(self._node.leave(self._clock()))
            await trio.sleep(_SAYING)

    def note_members(self) -> None:
        """Members came or went."""
        self._home_changed = True
        self._wakeup.set()

    def _say_at_last(self, peer_id: str) -> Notice | None:
        """What a peer is told before this one stops: that it leaves."""
        if not self._is_host or peer_id not in self._node.host.keepers:
            return None
        if not self._is_leaving:
            self._is_leaving = True
            self._node.leave(self._clock())
        return Notice(TOPIC, encode([Told(self._node.host.presence)]))

    # Tasks.

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part in presence until cancelled."""
        async with self._tasks.opened():
            task_status.started()
            while True:
                self._wakes_at = min(self._node.wake_at, self._outgoing.say_at)
                with trio.move_on_after(max(self._wakes_at - self._clock(), 0.0)):
                    await self._wakeup.wait()
                await trio.lowlevel.checkpoint()  # what came meanwhile is read first
                self._look()

    def _look(self) -> None:
        now = self._clock()
        self._outgoing.say_gathered(now)
        if self._home_changed and not self._is_leaving:
            self._home_changed = False
            self._look_up_again(peer_id for peer_id, known in self._near.items() if len(known.names) < KEEPERS)
            keepers = self._nearby.members_near(self._node.own_id, KEEPERS) if self._is_member else ()
            nodes = tuple(self._nearby.nodes()) if self._is_host and not self._is_member else ()
            if nodes:
                keepers = nodes
                if nodes != self._node.host.presence.via:
                    self._do(self._node.host.change(now, via=nodes))
            self._do(self._node.note_home(self._nearby.home(), keepers, now))
        if self._node.is_time_to_look(now):
            self._look_at_kernels(now)
            self._hold_links()
        if self._node.wake_at <= now:
            self._do(self._node.wake(now))

    def _look_up_again(self, hosts: Iterable[str]) -> None:
        """Those near to these followed hosts may be others by now."""
        for host in hosts:
            if host in self._near:
                self._near[host].changed.set()

    def _look_at_kernels(self, now: float) -> None:
        """Those that matter every second time; all of the home as long as one of them is silent, or was pinged.

        Each takes 0.02 ms, and a home may have a hundred members.
        """
        self._looks += 1
        is_alarmed = self._node.hears_silence or self._pinged
        if self._looks % _LOOK_EVERY and not is_alarmed:
            return
        home = self._nearby.home() if is_alarmed else ()
        for peer_id in dict.fromkeys([*self._node.watched(), *home]):
            silence = self._probing.silence(peer_id) if self._links.is_linked(peer_id) else None
            if silence is None:
                self._node.forget_silence(peer_id)
                continue
            if silence >= KERNEL_PING:
                self._do(self._node.silent(peer_id, now - silence, now))
                continue
            if self._node.is_silent(peer_id):
                self._do(self._node.acknowledged(peer_id, now))
            pinged = self._pinged.get(peer_id)
            if pinged is not None and now - silence > pinged:
                del self._pinged[peer_id]
                self._do(self._node.answered(peer_id, now))
        self._pinged = {peer_id: at for peer_id, at in self._pinged.items() if now - at < _PING_ANSWERED}

    def _note_up(self, peer_id: str, member: bool) -> None:  # noqa: ARG002 - what links tell
        self._do(self._node.link_up(peer_id, self._clock()))
        self._home_changed = True

    def _note_down(self, peer_id: str) -> None:
        self._pinged.pop(peer_id, None)
        self._home_changed = True
        self._look_up_again(self._node.following.subscribed_at(peer_id))
        if not self._is_leaving:
            self._do(self._node.link_ended(peer_id, self._clock()))

    def _note_closed(self, peer_id: str) -> None:
        self._pinged.pop(peer_id, None)
        if not self._is_leaving:
            self._do(self._node.link_closed(peer_id, self._clock()))

    def _note_unreached(self, peer_id: str) -> None:
        self._look_up_again(self._node.following.subscribed_at(peer_id))
        self._do(self._node.unreached(peer_id, self._clock()))

    def _hold_links(self) -> None:
        """Keep the links to the witnesses at which we subscribe, as many as may be."""
        needed = dict.fromkeys(islice(self._node.following.witnesses, MOST_LINKED))
        for peer_id in needed:
            if peer_id not in self._held:
                self._links.hold(peer_id)
        for peer_id in self._held:
            if peer_id not in needed:
                self._links.release(peer_id)
        self._held = needed

    def _read(self, peer_id: str, body: bytes) -> None:
        now = self._clock()
        if self._notices.take(peer_id, now, 1.0 + len(body) // _NOTICE_BYTES):
            self._do(self._node.receive(peer_id, parse(body), now))

    def _near_of(self, peer_id: str) -> Sequence[str]:
        known = self._near.get(peer_id)
        try:
            return (known.names if known is not None else ()) or self._nearby.members_near(peer_id, KEEPERS)
        except PeerIdError:  # peers name whom they like
            return ()

    # Doing.

    def _do(self, actions: Sequence[Action]) -> None:
        outgoing: dict[str, list[SendTo]] = {}
        for action in actions:
            match action:
                case SendTo():
                    outgoing.setdefault(action.to, []).append(action)
                case FindKeepers():
                    self._start(self._find_keepers, action.client)
                case Dial() if not self._tasks.is_open:  # not yet, or not any more
                    now = self._clock()
                    self._do(self._node.dialled(action.peer_id, action.role, DialOutcome.OWN_FAULT, now, now))
                case Dial():
                    self._start(self._dial, action)
                case PingLink():
                    self._pinged[action.peer_id] = self._clock()
                    self._links.ping(action.peer_id)
                case Changed():
                    self._note_accusers(action)
                    log.info("a peer is up again" if action.is_listed else "a peer is down", peer_id=action.peer_id)
                    self._tell(action.peer_id)
                case Learnt():
                    self._tell(action.peer_id)
        own = outgoing.pop(self._node.own_id, None)
        if own is not None:
            self._start(self._read_own, [each.message for each in own])
        if outgoing:
            may_wait = not self._is_leaving and self._tasks.is_open
            self._outgoing.say(outgoing, self._clock(), may_wait=may_wait)
        if min(self._node.wake_at, self._outgoing.say_at) < self._wakes_at:
            self._wakeup.set()

    def _note_accusers(self, change: Changed) -> None:
        view = self._node.view_of(change.peer_id)
        if change.is_listed or view is None:
            self._said_down.pop(change.peer_id, None)
        else:
            self._said_down[change.peer_id] = tuple(view.accusing(self._clock()))

    def _tell(self, peer_id: str) -> None:
        state = self.state_of(peer_id)
        for callback in self._callbacks:
            callback(state)

    def _start(self, do: Callable[..., Awaitable[object]], *arguments: object) -> None:
        if self._tasks.is_open:
            self._tasks.start_soon(do, *arguments)

    async def _read_own(self, messages: list[Message]) -> None:
        await trio.lowlevel.checkpoint()
        self._do(self._node.receive(self._node.own_id, messages, self._clock()))

    async def _dial(self, dial: Dial) -> None:
        began, outcome = self._clock(), DialOutcome.OWN_FAULT
        presence = self._node.following.presence_of(dial.peer_id)
        via = presence.via if presence is not None and dial.role is Role.REPLICA else ()
        try:
            if dial.role is Role.HOST:
                with trio.move_on_after(dial.timeout):
                    await self._links.ensure_link(dial.peer_id, timeout=dial.timeout)
                    outcome = DialOutcome.ALIVE
            elif via:
                answers = await self._nearby.answers_through(via, dial.peer_id, dial.timeout)
                # Whatever else its nodes say doesn't count: it may be on its way to another one.
                outcome = DialOutcome.ALIVE if answers else DialOutcome.MUTE
            else:
                outcome = await self._probing.probe(dial.peer_id, dial.timeout)
        except CallFailed as error:
            log.debug("a dial failed", peer_id=dial.peer_id, error=str(error))
        self._do(self._node.dialled(dial.peer_id, dial.role, outcome, began, self._clock()))

    async def _find_keepers(self, client: str) -> None:
        keepers = tuple(await self._nearby.find_members_near(client, KEEPERS))
        self._do(self._node.found(client, keepers, self._clock()))

    async def _follow(self, peer_id: str, keepers: _Keepers) -> None:
        """Look up a host's keepers, now, when they may have changed, and from time to time, while it is followed.

        What is found just after joining, or while links come and go, may be too few, or wrong.
        """
        pause, longest = _LOOK_UP_AGAIN
        while self._near.get(peer_id) is keepers:
            found = tuple(await self._nearby.find_members_near(peer_id, KEEPERS))
            if self._near.get(peer_id) is not keepers:
                return
            keepers.names = found
            self._do(self._node.follow(peer_id, found, self._clock()))
            if self._node.own_id in found and not self.state_of(peer_id).is_known:
                # As one of its keepers we may know what we would ask others for; in a network of two there is nobody.
                self._do(self._node.receive(self._node.own_id, [SubscribeTo((peer_id,), 0)], self._clock()))
            await trio.sleep(_LOOK_UP_PAUSE)
            with trio.move_on_after(min(pause, longest if len(found) >= KEEPERS else _FEW_KNOWN_FOR)) as waiting:
                await keepers.changed.wait()
            pause = pause * _LOOK_UP_GROWS if waiting.cancelled_caught else _LOOK_UP_AGAIN[0]
