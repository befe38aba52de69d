"""Presence as a light client has it: its node follows hosts for it, and hands over what was signed of them.

1. What a host says of itself counts if it signed it, whoever brought it; the latest version does.
2. Whether a host is up the node says. Words of witnesses count that are genuine; where there are none, the host is down
   by the node's own word, who could as well withhold its records.
3. Word that a host is down at an earlier version than is known here doesn't count.
4. When the client acts through another node it asks that one; until it answers all is as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, Protocol

import structlog
import trio
from msgspec import Struct

from overlay.errors import Refusal
from overlay.presence.evidence import Evidence, genuine_evidence
from overlay.tasks import TaskOwner, TaskStatus, Wakeup
from registry.errors import InvalidValue, RegistryError
from registry.health.messages import HOSTS_CHANGED, MOST_HOSTS, HostsChangedBody, ToldStanding
from registry.protocol.messages import LONGEST_TIME, parse
from registry.protocol.network import Network

FOLLOWED_FOR: Final = 300.0  # seconds that the node is asked to follow hosts for; asked again after half of that
ASK_TIMEOUT: Final = 5.0
ASKED_AGAIN: Final = (1.0, 60.0)  # seconds after a node didn't answer; doubles each time

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class FollowingNode(Protocol):
    """What is needed of the node: satisfied by `registry.client.remote_node.RemoteNode`."""

    @property
    def peer_id(self) -> str:
        """The node that answered last."""
        ...

    async def hosts(self, hosts: Sequence[str], seconds: float, *, timeout: float) -> tuple[ToldStanding, ...]:
        """What it knows of hosts. Raises RegistryError."""
        ...

    async def complain(self, host: str, *, timeout: float) -> None:
        """A host couldn't be reached. Raises RegistryError."""
        ...


class ClientStanding(Struct, frozen=True):
    """One host, as a light client knows it; see `registry.protocol.presence.HostStanding`."""

    peer_id: str
    is_up: bool = True
    is_known: bool = False
    has_left: bool = False
    since: float = math.inf
    accusers: tuple[str, ...] = ()
    exceptions: bytes = b""


class _FollowedHost(Struct):
    evidence: Evidence = Evidence()
    is_up: bool = True
    is_known: bool = False
    is_answered: bool = False
    changed_at: float = -math.inf
    accusers: tuple[str, ...] = ()


class PresenceThroughNode:
    """A `PresenceNetwork` by way of a node. `run` owns the tasks."""

    def __init__(self, network: Network, node: FollowingNode, note_exceptions: Callable[[bytes], None]) -> None:
        """`note_exceptions`: has this client's own presence carry what doesn't pass of that which it hosts."""
        self._network = network
        self._node = node
        self.note_exceptions = note_exceptions
        self._followed: dict[str, _FollowedHost] = {}
        self._new: dict[str, None] = {}
        self._asked = ""  # the node that was asked for all of them
        self._is_asking = False
        self._callbacks: list[Callable[[Any], None]] = []
        self._tasks = TaskOwner()
        self._changed = Wakeup()
        network.serve(HOSTS_CHANGED, self._serve_changed)
        network.on_membership_change(self._changed.set)

    def follow(self, peer_ids: Iterable[str]) -> None:
        """See `PresenceNetwork.follow`."""
        for peer_id in peer_ids:
            if peer_id not in self._followed and peer_id != self._network.peer_id:
                self._followed[peer_id] = _FollowedHost()
                self._new[peer_id] = None
                self._changed.set()

    def unfollow(self, peer_ids: Iterable[str]) -> None:
        """See `PresenceNetwork.unfollow`. The node ends it by itself, in time."""
        for peer_id in peer_ids:
            self._followed.pop(peer_id, None)
            self._new.pop(peer_id, None)

    def state_of(self, peer_id: str) -> ClientStanding:
        """See `PresenceNetwork.state_of`."""
        known = self._followed.get(peer_id)
        if known is None or not known.is_known:
            return ClientStanding(peer_id)
        since = trio.current_time() - known.changed_at
        accusers = () if known.is_up else known.accusers
        said = known.evidence.presence
        has_left = not known.is_up and said is not None and said.is_leaving
        return ClientStanding(peer_id, known.is_up, True, has_left, since, accusers, known.evidence.exceptions)

    def is_settled(self, peer_id: str) -> bool:
        """See `PresenceNetwork.is_settled`: the node has waited for it."""
        known = self._followed.get(peer_id)
        return known is not None and known.is_answered

    def evidence_of(self, peer_id: str) -> bytes:  # noqa: ARG002 - nobody follows anything through a light client
        """See `PresenceNetwork.evidence_of`."""
        return b""

    def on_change(self, callback: Callable[[Any], None]) -> None:
        """See `PresenceNetwork.on_change`."""
        self._callbacks.append(callback)

    def look_for(self, peer_ids: Iterable[str]) -> None:
        """See `PresenceNetwork.look_for`: its node does when it follows them, and when others read there."""

    def complain(self, peer_id: str) -> None:
        """See `PresenceNetwork.complain`."""
        if self._tasks.is_open:
            self._tasks.start_soon(self._complain, peer_id)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Has the node follow what is followed here, until cancelled."""
        async with self._tasks.opened():
            task_status.started()
            all_at, retry = math.inf, ASKED_AGAIN[0]
            while True:
                with trio.move_on_at(all_at):
                    await self._changed.wait()
                is_linked = self._asked in self._network.members()
                asks_all = trio.current_time() >= all_at or (not is_linked and bool(self._followed))
                hosts, asked_before = list(self._followed if asks_all else self._new), self._asked
                if not hosts:
                    all_at = math.inf
                    continue
                self._new.clear()
                if await self._ask(hosts):
                    retry = ASKED_AGAIN[0]
                    if asks_all or all_at == math.inf:
                        all_at = trio.current_time() + FOLLOWED_FOR / 2
                    elif self._asked != asked_before:
                        all_at = trio.current_time()
                else:
                    all_at, retry = trio.current_time() + retry, min(2 * retry, ASKED_AGAIN[1])

    async def _ask(self, hosts: Sequence[str]) -> bool:
        self._is_asking = True
        try:
            return await self._ask_all(hosts)
        finally:
            self._is_asking = False

    async def _ask_all(self, hosts: Sequence[str]) -> bool:
        for start in range(0, len(hosts), MOST_HOSTS):
            try:
                told = await self._node.hosts(hosts[start : start + MOST_HOSTS], FOLLOWED_FOR, timeout=ASK_TIMEOUT)
            except RegistryError as error:
                _log.debug("the node doesn't tell of hosts", error=str(error))
                return False
            self._asked = self._node.peer_id
            self._take(told, self._asked)
        return True

    async def _complain(self, peer_id: str) -> None:
        try:
            await self._node.complain(peer_id, timeout=ASK_TIMEOUT)
        except RegistryError as error:
            _log.debug("the node doesn't take a complaint", host=peer_id, error=str(error))

    async def _serve_changed(self, caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        is_new = self._is_asking and caller in self._network.members()  # its answer is still under way
        if caller != self._asked and not is_new:
            raise Refusal("not-asked", "another node follows hosts for this client")
        try:
            standings = parse(body, HostsChangedBody).standings
        except InvalidValue as error:
            raise Refusal(error.code, str(error)) from error
        self._take(standings, caller)
        return None

    def _take(self, standings: Collection[ToldStanding], node: str) -> None:
        for told in standings:
            known = self._followed.get(told.peer_id)
            if known is None:
                continue
            is_first, known.is_answered = not known.is_answered, True
            if not told.is_known:
                if is_first:
                    self._tell(told.peer_id)
                continue
            before = known.is_known, known.is_up, known.evidence.exceptions
            evidence = genuine_evidence(told.peer_id, told.evidence)
            is_older = evidence.version < known.evidence.version
            if is_older and not told.is_up:
                continue
            if not is_older:
                known.evidence = evidence
            is_up = told.is_up and not known.evidence.has_left
            known.is_known = True
            known.accusers = evidence.accusers or (() if evidence.has_left else (node,))
            if is_up != known.is_up or not before[0]:
                lasts = told.since if told.since < LONGEST_TIME else math.inf
                known.is_up, known.changed_at = is_up, trio.current_time() - lasts
            if before != (True, known.is_up, known.evidence.exceptions):
                self._tell(told.peer_id)

    def _tell(self, peer_id: str) -> None:
        state = self.state_of(peer_id)
        for callback in self._callbacks:
            callback(state)
