"""Queries that wait for a change: how long each does, and how many may."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from aqua_compat.http.consul.query import JITTER, Query
from aqua_compat.http.places import WatchPlaces


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

    def __init__(self, places: WatchPlaces) -> None:
        """`places`: those that they take, together with watches."""
        self._places = places
        self._patient: set[Patience] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """Has all end waiting, now and from now on."""
        self._is_stopping = True
        for patience in self._patient:
            patience.end()

    @asynccontextmanager
    async def patience(self, client: str, query: Query, index: int) -> AsyncIterator[Patience]:
        """What a query has, none where it needn't wait, since the answer's `index` isn't the one that it knows. Raises
        Problem where as many wait as may."""
        if index != query.known or self._is_stopping:
            yield Patience(-math.inf)
            return
        with self._places.taken(client):
            wait = query.wait * (1 + JITTER * random.random())  # noqa: S311 - jitter, not secrets
            patience = Patience(trio.current_time() + wait)
            self._patient.add(patience)
            try:
                yield patience
            finally:
                self._patient.discard(patience)
