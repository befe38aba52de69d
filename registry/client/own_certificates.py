"""The certificates of one identity: where they come from, and which of them a record shows.

Rules:
1. Of the chains that permit what is issued, that is shown which ends last. One that covers the resource is shown also
   where the policy doesn't ask for it, so that callers may choose by it whom they trust.
2. What is issued under a chain isn't from before the chain begins: it is dated to that time, where other peers would
   accept that date by now.
3. The source is asked for each record that is issued, and while this identity runs. If it fails, what it gave last
   counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from inspect import isawaitable
from typing import Final, NamedTuple

import msgspec
import structlog
import trio

from overlay.identity import Identity
from overlay.membership.certificate import Certificate, encode_chain
from overlay.membership.chain import begins_at, ends_at
from overlay.tasks import Wakeup
from registry.codes import Code
from registry.model.policy_withholding import shows_permission, why_withheld
from registry.model.values import Key, RecordMetadata, Slot
from registry.permission.errors import RefusedByPolicy
from registry.permission.policy import key_of

Chain = Sequence[Certificate]
CertificateSource = Callable[[], Iterable[Chain] | Awaitable[Iterable[Chain]]]
"""Gives the chains that there are now, in any order; it may be an async function."""

MAX_CHAINS: Final = 1024  # that are looked at
PATIENCE: Final = 3.0  # seconds for the source to answer

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ShownSolution(NamedTuple):
    """What a record carries to be permitted, and from when (seconds) it may be dated."""

    solution: bytes
    from_time: int


class OwnCertificates:
    """Chooses which of this identity's certificates a record shows; asks the source for those that there are."""

    def __init__(self, identity: Identity, clock_skew: int) -> None:
        """`clock_skew`: seconds by which others' clocks may differ."""
        self._me = key_of(identity.peer_id)
        self._lead = clock_skew // 2
        self._source: CertificateSource | None = None
        self._last: list[Chain] = []
        self._noted: dict[Slot, None] = {}  # in order, so that a run can be repeated
        self.changed = Wakeup()
        """Set when there is another source."""

    @property
    def has_source(self) -> bool:
        """Whether certificates may come from anywhere."""
        return self._source is not None

    def use(self, source: CertificateSource) -> None:
        """Has chains come from `source` from now on."""
        self._source = source
        self._last = []
        self.changed.set()

    def note(self, slot: Slot) -> None:
        """Something was issued in `slot`, perhaps under another chain than before."""
        if self._source is not None:
            self._noted[slot] = None

    def take_noted(self) -> list[Slot]:
        """The slots that were noted since the last call."""
        noted, self._noted = list(self._noted), {}
        return noted

    async def chains(self) -> list[Chain]:
        """The chains that there are, this identity's own first, and of these the one first that ends last."""
        if self._source is None:
            return []
        with trio.move_on_after(PATIENCE) as patience:
            try:
                given = self._source()
                found = [chain for chain in (await given if isawaitable(given) else given) if chain]
                self._last = sorted(found[:MAX_CHAINS], key=self._order)
            except Exception:  # the user's own function: nothing of what it raises ends what runs
                _log.warning("certificates can't be had: their source failed", exc_info=True)
        if patience.cancelled_caught:
            _log.warning("certificates can't be had: their source is too slow", seconds=PATIENCE)
        return self._last

    async def shown(self, key: Key, metadata: RecordMetadata, now: int) -> ShownSolution:
        """What a record of `metadata`, which is issued at `now` (seconds), shows. Raises RefusedByPolicy."""
        bare = msgspec.structs.replace(metadata, solution=b"", timestamp_issued=now)
        why = why_withheld(key, bare, now)
        if metadata.issued_by == key.owner_peer_id:
            return ShownSolution(b"", now)
        reasons: list[Code] = []
        for chain in await self.chains():
            begin = max(now, begins_at(chain))
            if begin > now + self._lead:
                begin = now
            each = msgspec.structs.replace(bare, solution=encode_chain(chain), timestamp_issued=begin)
            reason = why_withheld(key, each, now)
            if reason is None and shows_permission(key, each, now):
                return ShownSolution(each.solution, begin)
            reasons += [reason] if reason is not None else []
        if why is None:
            return ShownSolution(b"", now)
        raise RefusedByPolicy(
            key.id,
            reasons[0] if reasons and why is Code.ISSUER_NOT_ALLOWED else why,
            metadata.issued_by,
            metadata.peer_id,
        )

    def _order(self, chain: Chain) -> tuple[bool, int]:
        return chain[-1].subject != self._me, -ends_at(chain)
