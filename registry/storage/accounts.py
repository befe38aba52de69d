"""Who is charged for what is stored, and what of it may give way where the disk or a key is full."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from registry.model.values import Slot
from registry.storage.migrations import ROW_BYTES


class Charged(NamedTuple):
    """What would free some of the disk: a slot's state, or the key (`is_tombstone`: its tombstone) of this id.

    `bytes`: what its owner or issuer is charged for it. `listed`: (owner, label), where it is an entry of an index.
    """

    slot: Slot | None
    key_id: str
    is_tombstone: bool
    bytes: int
    listed: tuple[str, str] | None = None


class Account(NamedTuple):
    """What a peer, which had this weight, is charged for as owner and issuer."""

    peer_id: str
    weight: int
    bytes: int


class Accounts:
    """The accounts of owners and issuers, which triggers keep. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def bytes_of(self, peer_id: str) -> int:
        """What a peer is charged for as owner and issuer."""
        (amount,) = self._connection.execute(
            "SELECT coalesce(sum(bytes), 0) FROM accounts WHERE peer_id = ?", (peer_id,)
        ).fetchone()
        return int(amount)

    def named_bytes(self) -> int:
        """What is charged for of keys with a policy, and of states of issuers that one names or that are certified."""
        return self._total("named")

    def all_bytes(self) -> int:
        """What all are charged for together. On the disk it takes more."""
        return self._total("charged")

    def _total(self, name: str) -> int:
        (amount,) = self._connection.execute("SELECT amount FROM totals WHERE name = ?", (name,)).fetchone()
        return int(amount)

    def heaviest(self, weight: int, limit: int) -> list[Account]:
        """Up to so many accounts of each weight up to `weight`, the lightest weight first, who has most first."""
        found: list[Account] = []
        after = -1
        while True:
            (after,) = self._connection.execute(
                "SELECT min(weight) FROM accounts WHERE weight > ? AND weight <= ?", (after, weight)
            ).fetchone()
            if after is None:
                return found
            found += map(
                Account._make,
                self._connection.execute(
                    "SELECT peer_id, weight, bytes FROM accounts WHERE weight = ? ORDER BY bytes DESC LIMIT ?",
                    (after, limit),
                ),
            )

    def idle_tombstones(
        self, weight: int, now_until: tuple[int, int], host_peer_id: str, limit: int, *, spares_named: bool
    ) -> list[Charged]:
        """Key tombstones and tombstones of peers other than this host that ended nothing here that can still be good.

        `now_until`: the times (seconds) until which ended keys, and records, were signed that can't. Up to `limit` of
        each, of peers that weigh `weight` at most. `spares_named`: without those that `named_bytes` counts.
        """
        keys = self._connection.execute(
            "SELECT key_id, length(body) + length(latest) FROM key_tombstones"
            " WHERE victim <= ? AND weight <= ? AND owner_peer_id != ? ORDER BY victim LIMIT ?",
            (now_until[0], weight, host_peer_id, limit),
        )
        found = [Charged(None, key_id, True, size + ROW_BYTES) for key_id, size in keys]
        slots = self._connection.execute(
            "SELECT key_id, issued_by, peer_id, length(body) FROM states"
            " WHERE is_tombstone = 1 AND victim <= ? AND weight <= ? AND issued_by != ? AND is_named <= ?"
            " ORDER BY victim LIMIT ?",
            (now_until[1], weight, host_peer_id, int(not spares_named), limit),
        )
        found += [Charged(Slot(*slot), slot[0], True, size + ROW_BYTES) for *slot, size in slots]
        return found

    def newest_of(self, account: Account, host_peer_id: str, limit: int, *, spares_named: bool) -> list[Charged]:
        """Up to `limit` states that a peer issued and this host has no part in, none of which followed something that
        was ended here; then, of the owner's newest `limit` keys, those that nothing lies under. The newest first.
        `spares_named`: without those that `named_bytes` counts."""
        states = self._connection.execute(
            "SELECT key_id, issued_by, peer_id, is_tombstone, length(body) FROM states"
            " WHERE issued_by = ? AND victim = -1 AND weight = ? AND peer_id != ? AND is_named <= ?"
            " ORDER BY timestamp_issued DESC LIMIT ?",
            (account.peer_id, account.weight, host_peer_id, int(not spares_named), limit),
        )
        found = [
            Charged(Slot(*slot), slot[0], bool(is_tombstone), size + ROW_BYTES) for *slot, is_tombstone, size in states
        ]
        keys = self._connection.execute(
            "SELECT key_id, size FROM (SELECT key_id, weight, length(body) AS size FROM keys"
            " WHERE owner_peer_id = ? AND has_policy <= ? ORDER BY timestamp_created DESC LIMIT ?)"
            " JOIN resources USING (key_id) WHERE records = 0 AND tombstones = 0 AND weight = ?",
            (account.peer_id, int(not spares_named), limit, account.weight),
        )
        found += [Charged(None, key_id, False, size + ROW_BYTES) for key_id, size in keys]
        return found

    def lightest_foreign_record(
        self, key_id: str, host_peer_id: str, owner: str, victims_until: int, besides: Collection[Slot] = ()
    ) -> tuple[int, Slot] | None:
        """(weight, slot) of the lightest of a key's records that neither this host nor the resource's owner has a part
        in, of equals the oldest of the issuer that has most; None if there is none.

        Records that followed an ended one of a time later than `victims_until` (seconds) hold that down, and don't
        count; nor do the slots `besides`.
        """
        rows = self._connection.execute(
            "SELECT states.weight, states.key_id, states.issued_by, states.peer_id"
            " FROM states JOIN issuers USING (key_id, issued_by)"
            " WHERE states.key_id = ?1 AND is_tombstone = 0 AND peer_id != ?2 AND states.issued_by NOT IN (?2, ?3)"
            " AND victim <= ?4"
            " ORDER BY states.weight, records DESC, timestamp_issued, states.issued_by, peer_id LIMIT ?5",
            (key_id, host_peer_id, owner, victims_until, 1 + len(besides)),
        )
        return next(((weight, Slot(*slot)) for weight, *slot in rows if Slot(*slot) not in besides), None)

    def idle_tombstone(
        self, key_id: str, victims_until: int, host_peer_id: str, owner: str, issuer: str = ""
    ) -> Slot | None:
        """The slot of a tombstone under a key (`issuer`: only of this one) that ended here at most what was issued at
        `victims_until` (seconds) or before, neither this host's nor the resource's owner's, unless it is `issuer`.

        Of several the one of the issuer that has most, and of those the one whose victim is the oldest.
        """
        row = self._connection.execute(
            "SELECT states.key_id, states.issued_by, states.peer_id FROM states JOIN issuers USING (key_id, issued_by)"
            " WHERE states.key_id = ?1 AND is_tombstone = 1 AND victim <= ?2 AND"
            " CASE ?5 WHEN '' THEN states.issued_by NOT IN (?3, ?4) ELSE states.issued_by = ?5 END"
            " ORDER BY tombstones DESC, victim, timestamp_issued LIMIT 1",
            (key_id, victims_until, host_peer_id, owner, issuer),
        ).fetchone()
        return Slot(*row) if row else None
