"""What a peer keeps of the trust graph: in memory, and on a node in its database too.

The rules are `registry.trust.graph`'s. What is taken in is on disk before that is answered; the peers that ask pay for
signatures and searches with their turns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import structlog
import trio

from overlay.limits.time_slices import turn
from registry.protocol.network import Clock
from registry.storage import Store, Transaction
from registry.trust.graph import StatementChange, WebOfTrust, check_trust
from registry.trust.statements import Chain, TrustRevocation, TrustStatement

_TAKING: Final = 0.005  # seconds for a signature, and for what follows from what changed
_SEARCHING: Final = 0.005  # seconds for all paths to a peer, among some thousands of statements

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class TrustKeeper:
    """Takes statements in, and tells what follows from them."""

    def __init__(
        self,
        clock: Clock,
        configured: Mapping[str, int],
        store: Store | None = None,
        clock_skew: int = 0,
        graph: WebOfTrust | None = None,
    ) -> None:
        """`configured`: roots to the steps down to which they lend weight; they come before those that were set.
        `clock_skew`: seconds by which others' clocks may be ahead. `graph`: what `store` has of it; without a store
        nothing outlives the process."""
        self._clock = clock
        self._configured = dict(configured)
        self._store = store
        self._clock_skew = clock_skew
        self._changing = trio.Lock()
        self._graph = WebOfTrust(self._configured) if graph is None else graph

    @property
    def now(self) -> int:
        """The present, in seconds since 1970."""
        return int(self._clock())

    def weight(self, peer_id: str) -> int:
        """The weight of a peer; 0 for strangers."""
        return self._graph.weight(peer_id, self.now)

    async def weight_from(self, peer_id: str, through: str) -> int:
        """The weight that paths through another peer lend."""
        await turn(_SEARCHING)
        return self._graph.weight_from(peer_id, through, self.now)

    async def certificates(self, peer_id: str, through: str | None = None) -> list[Chain]:
        """The heaviest paths to a peer, through another one if given."""
        await turn(_SEARCHING)
        return self._graph.certificates(peer_id, self.now, through)

    async def revocations(self, peer_id: str) -> list[TrustRevocation]:
        """The revocations of a peer that are kept."""
        await turn(0.0)
        return self._graph.revocations(peer_id, self.now)

    async def verify(self, trust: TrustStatement) -> None:
        """Whether a trust counts by itself. Raises RegistryRefusal."""
        await turn(_TAKING)
        check_trust(trust, self.now)

    async def set_root(self, peer_id: str, steps: int) -> None:
        """Makes a peer a root, unless that is configured otherwise. Raises RegistryRefusal, StorageError."""
        async with self._changing:
            before = dict(self._graph.roots)
            kept = self._graph.set_root(peer_id, steps)
            if peer_id in self._configured:
                self._graph.set_root(peer_id, before[peer_id])
            try:
                await self._write(lambda transaction: transaction.trust.set_root(peer_id, kept))
            except BaseException:
                self._graph = WebOfTrust(before, self._graph.statements())
                raise

    async def add(self, chain: Chain) -> int:
        """Takes in the trusts of a chain, or a single one; the weight that the last one lends.

        All or nothing. Raises RegistryRefusal, StorageError.
        """
        for trust in chain:  # whoever waits for its turn mustn't keep others from theirs
            await turn(_TAKING)
            check_trust(trust, self.now)
        async with self._changing:
            weight = 0
            changes: list[StatementChange] = []
            try:
                for trust in chain:
                    await trio.lowlevel.checkpoint()
                    weight, changed = self._graph.take_trust(trust, self.now, self._clock_skew)
                    self._graph.apply(changed)
                    changes += changed
                await self._save(changes)
            except BaseException:
                self._undo(changes)
                raise
            return weight

    async def revoke(self, revocation: TrustRevocation) -> None:
        """Takes a revocation in. Raises RegistryRefusal, StorageError."""
        await turn(_TAKING)
        async with self._changing:
            changes = self._graph.take_revocation(revocation, self.now, self._clock_skew)
            self._graph.apply(changes)
            try:
                await self._save(changes)
            except BaseException:
                self._undo(changes)
                raise

    def _undo(self, changes: Collection[StatementChange]) -> None:
        self._graph.apply([StatementChange(after, before) for before, after in reversed(list(changes))])

    async def _save(self, changes: Collection[StatementChange]) -> None:
        if changes:
            await self._write(lambda transaction: transaction.trust.apply(changes))

    async def _write(self, decide: Callable[[Transaction], None]) -> None:
        if self._store is not None:
            with trio.CancelScope(shield=True):  # else nobody knew what is on disk
                await self._store.write(decide)


async def loaded_trust(clock: Clock, configured: Mapping[str, int], store: Store, clock_skew: int) -> TrustKeeper:
    """The keeper of what a database has. Raises StorageError."""
    rows, roots = await store.read(
        lambda transaction: (list(transaction.trust.statements()), transaction.trust.roots())
    )
    damaged = [pair for pair, statement in rows if statement is None]
    if damaged:
        _log.error("dropped damaged rows of the trust graph: is the disk failing?", rows=len(damaged))
        await store.write(lambda transaction: _drop(transaction, damaged))
    graph = WebOfTrust({**roots, **configured}, [statement for _, statement in rows if statement is not None])
    return TrustKeeper(clock, configured, store, clock_skew, graph)


def _drop(transaction: Transaction, pairs: Collection[tuple[str, str]]) -> None:
    for pair in pairs:
        transaction.trust.drop(*pair)
