"""A node's side: it follows hosts for its light clients, and tells them at once what changes.

1. A client names the hosts that it reads of, and is told what is known of each, with the evidence.
2. For as long as it asked, `FOLLOWED_FOR` at most, changes are told it by calls: of each host the latest state, one
   call at a time. A client that doesn't take one is forgotten; it asks again when it needs to.
3. A client follows `MOST_OF_CLIENT` hosts at most, all clients together `MOST_IN_ALL`. What a client ends following is
   followed here for as long as others would be, so of hosts that are new here it may name as many in `FOLLOWED_FOR`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import structlog
import trio

from overlay.errors import CallFailed
from overlay.limits.token_bucket import TokenBuckets
from overlay.tasks import TaskOwner, TaskStatus
from registry.errors import HostingRefused
from registry.health.health_of_hosts import FOLLOWED_FOR, HealthOfHosts
from registry.health.messages import HOSTS_CHANGED, MOST_HOSTS, HostsChangedBody, ToldStanding
from registry.protocol.messages import LONGEST_TIME, build
from registry.protocol.network import Network

MOST_OF_CLIENT: Final = 1024
MOST_IN_ALL: Final = 65_536
SETTLES_WITHIN: Final = 0.4  # seconds; less than a client waits for a host of which nothing is known
TELL_TIMEOUT: Final = 5.0  # seconds for a client to take what it is told
COMPLAINTS: Final = (1.0, 20.0)  # of one client, a second and at once

_TOO_MANY: Final = "too many hosts are followed for light clients"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HostsForClients:
    """Follows hosts for light clients. `run` owns the tasks that tell them."""

    def __init__(self, network: Network, health: HealthOfHosts) -> None:
        self._network = network
        self._health = health
        self._until: dict[str, dict[str, float]] = {}  # of each client, the hosts that it follows
        self._clients: dict[str, dict[str, None]] = {}  # of each host, those who follow it
        self._changed: dict[str, dict[str, None]] = {}  # of each client, the hosts that it has yet to be told of
        self._telling: set[str] = set()
        self._count = 0  # pairs of a client and a host
        self._complaints = TokenBuckets(*COMPLAINTS)
        self._new = TokenBuckets(MOST_OF_CLIENT / FOLLOWED_FOR, MOST_OF_CLIENT)
        self._tasks = TaskOwner()
        health.on_change(self._note_change)

    async def follow(
        self, client: str, hosts: Sequence[str], seconds: float, timeout: float
    ) -> tuple[ToldStanding, ...]:
        """What is known of hosts, after a moment in which that may be learnt; and have the client told what changes.

        Raises HostingRefused where the client, or all of them, follow too many.
        """
        now = trio.current_time()
        if seconds > 0:
            for host in hosts:
                self._check_may_follow(client, host, now)
                self._health.follow([host], client=client)
            await self._health.settle(hosts, min(timeout, SETTLES_WITHIN), client=client)
        for host in hosts:
            if seconds <= 0:
                self._forget(client, host)
                continue
            is_new = host not in self._until.get(client, ())
            if is_new and not self._has_room(client):
                raise HostingRefused(_TOO_MANY)
            self._count += is_new
            self._until.setdefault(client, {})[host] = now + min(seconds, FOLLOWED_FOR)
            self._clients.setdefault(host, {})[client] = None
        return tuple(self._standing(host) for host in hosts)

    def may_complain(self, client: str, host: str) -> bool:
        """Whether a client's complaint of a host counts: of one that it follows, and not too often."""
        return host in self._until.get(client, ()) and self._complaints.take(client, trio.current_time())

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Has clients told, and what they don't follow any more forgotten, until cancelled."""
        async with self._tasks.opened():
            task_status.started()
            while True:
                await trio.sleep(FOLLOWED_FOR / 10)
                self._forget_ended(trio.current_time())

    def _standing(self, host: str) -> ToldStanding:
        standing = self._health.standing_of(host)
        if standing is None:
            return ToldStanding(host, True, False, LONGEST_TIME, b"")
        since = standing.since if math.isfinite(standing.since) else LONGEST_TIME
        return ToldStanding(host, standing.is_up, standing.is_known, since, self._health.evidence_of(host))

    def _check_may_follow(self, client: str, host: str, now: float) -> None:
        """Raises HostingRefused."""
        if host in self._until.get(client, ()):
            return
        if not self._has_room(client):
            raise HostingRefused(_TOO_MANY)
        if not self._health.follows(host) and not self._new.take(client, now):
            raise HostingRefused("this light client has had too many hosts followed lately")

    def _has_room(self, client: str) -> bool:
        if len(self._until.get(client, ())) >= MOST_OF_CLIENT or self._count >= MOST_IN_ALL:
            self._forget_ended(trio.current_time())
        return len(self._until.get(client, ())) < MOST_OF_CLIENT and self._count < MOST_IN_ALL

    def _note_change(self, host: str) -> None:
        now = trio.current_time()
        for client in list(self._clients.get(host, ())):
            if self._until[client][host] <= now:
                self._forget(client, host)
                continue
            self._changed.setdefault(client, {})[host] = None
            if client not in self._telling and self._tasks.is_open:
                self._telling.add(client)
                self._tasks.start_soon(self._tell, client)

    async def _tell(self, client: str) -> None:
        try:
            while hosts := list(self._changed.get(client, ()))[:MOST_HOSTS]:
                for host in hosts:
                    del self._changed[client][host]
                body = build(HostsChangedBody(tuple(self._standing(host) for host in hosts)))
                await self._network.call(client, HOSTS_CHANGED, body, timeout=TELL_TIMEOUT)
        except CallFailed as error:
            _log.debug("a light client isn't told of hosts any more", client=client, error=error.reason)
            for host in list(self._until.get(client, ())):
                self._forget(client, host)
        finally:
            self._changed.pop(client, None)
            self._telling.discard(client)

    def _forget(self, client: str, host: str) -> None:
        followed = self._until.get(client, {})
        self._count -= followed.pop(host, None) is not None
        if not followed:
            self._until.pop(client, None)
        clients = self._clients.get(host, {})
        clients.pop(client, None)
        if not clients:
            self._clients.pop(host, None)

    def _forget_ended(self, now: float) -> None:
        for client, followed in list(self._until.items()):
            for host in [host for host, until in followed.items() if until <= now]:
                self._forget(client, host)
            if followed:  # still read of: it is followed here for as long
                self._health.follow(followed, client=client)
