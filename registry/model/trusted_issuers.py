"""Whom a caller believes on a resource that is open to all: issuers, roots whose certificates count, or a function.

That is the caller's own choice, beside what the owner's policy permits: it narrows what the caller is shown, nothing
else. Pure: the clock is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from overlay.errors import PeerIdError
from overlay.identity import public_key_of
from overlay.membership.certificate import decode_chain
from overlay.membership.chain import ends_at
from registry.errors import InvalidValue
from registry.model.policy_withholding import claim_of
from registry.model.values import Key, Record, Slot
from registry.permission.permitted import why_not_certified


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to believe, by peer ids: records of `issuers`, and of whom `roots` certified, in a chain that is shown with
    the record. Nobody else, the resource's owner neither."""

    issuers: Iterable[str] = ()
    roots: Iterable[str] = ()


TrustChoice = Trusted | Iterable[str] | Callable[[Record], bool]
"""A `Trusted`, the peer ids of issuers, or a function that tells of a record whether to believe it."""


class TrustRule:
    """Applies a choice to records. Raises InvalidValue for what is no peer id, TypeError for what is no choice."""

    def __init__(self, choice: TrustChoice) -> None:
        self._function: Callable[[Record], bool] | None = None
        if isinstance(choice, str):
            named = Trusted(issuers=(choice,))
        elif isinstance(choice, Trusted):
            named = choice
        elif callable(choice):
            self._function, named = choice, Trusted()
        else:
            named = Trusted(issuers=choice)
        self._issuers = frozenset(named.issuers)
        try:
            for issuer in self._issuers:
                public_key_of(issuer)
            self._roots = frozenset(map(public_key_of, named.roots))
        except PeerIdError as error:
            raise InvalidValue(f"trusted: {error}") from error

    def believes(self, key: Key, record: Record, now: int) -> bool:
        """Whether to believe a record of the resource of `key` at `now` (seconds)."""
        if self._function is not None:
            return bool(self._function(record))
        if record.metadata.issued_by in self._issuers:
            return True
        return bool(self._roots) and why_not_certified(claim_of(key, record), self._roots, now) is None

    def believed(self, key: Key | None, records: dict[Slot, Record], now: int) -> dict[Slot, Record]:
        """The ones among `records`, by slot, that are believed at `now` (seconds)."""
        if key is None:
            return {}
        return {slot: record for slot, record in records.items() if self.believes(key, record, now)}

    def until(self, record: Record) -> int | None:
        """When a record that is believed won't be any more though nothing changes (seconds); None for never."""
        if self._function is not None or record.metadata.issued_by in self._issuers:
            return None
        return ends_at(decode_chain(record.metadata.solution))
