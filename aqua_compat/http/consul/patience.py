"""Queries that wait for a change: how long each does, and how many may."""

from __future__ import annotations

import ipaddress
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from aqua_compat.http.consul.query import JITTER, Query
from aqua_compat.http.problems import Problem

PER_CLIENT: Final = 2  # a client elsewhere has this part of the open watches at most


class Patience:
    """How long one query waits for a change."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._scope: trio.CancelScope | None = None
        self.is_over = deadline == -math.inf
        """Whether it is to be answered with what there is."""

    async def wait(self, change: Callable[[], Awaitable[None]]) -> None:
        """Waits for a change, or until it is over."""
        with trio.CancelScope(deadline=self._deadline) as self._scope:
            await change()
        self.is_over = self.is_over or self._scope.cancelled_caught

    def end(self) -> None:
        """Is over now."""
        self.is_over = True
        if self._scope is not None:
            self._scope.cancel()


class WaitingQueries:
    """Those that wait on one node."""

    def __init__(self, most: int, others: Callable[[], int]) -> None:
        """`most`: how many wait at the same time, together with the watches that `others` counts."""
        self._most = most
        self._others = others
        self._waiting: Counter[str] = Counter()
        self._patient: set[Patience] = set()
        self._is_stopping = False

    def __len__(self) -> int:
        return self._waiting.total()

    def stop(self) -> None:
        """Has all end waiting, now and from now on."""
        self._is_stopping = True
        for patience in self._patient:
            patience.end()

    @asynccontextmanager
    async def patience(self, client: str, query: Query) -> AsyncIterator[Patience]:
        """What a query has, none where it is none that waits. Raises Problem where as many wait as may."""
        if not query.known or self._is_stopping:
            yield Patience(-math.inf)
            return
        total = self._others() + self._waiting.total()
        if total >= self._most:
            raise Problem(503, "overloaded", f"{total} watches are open, as many as may be", retry_after=10.0)
        if not _is_near(client) and self._waiting[client] >= max(self._most // PER_CLIENT, 1):
            raise Problem(429, "overloaded", f"{self._waiting[client]} queries of yours wait already", retry_after=10.0)
        wait = query.wait * (1 + JITTER * random.random())  # noqa: S311 - jitter, not secrets
        patience = Patience(trio.current_time() + wait)
        self._waiting[client] += 1
        self._patient.add(patience)
        try:
            yield patience
        finally:
            self._patient.discard(patience)
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]


def _is_near(client: str) -> bool:
    """Whether a client is on this machine, where all share one address."""
    try:
        return not client or ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False
