"""Which rows are too old to be good any more."""

from __future__ import annotations

import sqlite3

from registry.model.values import Slot

_EXPIRED_BY_HOST, _EXPIRED_BY_ISSUER = (
    f"""
    SELECT states.key_id, issued_by, peer_id FROM resources CROSS JOIN states USING (key_id)
    WHERE {oldest} <= ? AND is_tombstone = 0 AND (timestamp_created <= ? OR timestamp_issued <= ?) LIMIT ?
    """  # noqa: S608 - two names of columns
    for oldest in ("hosted", "issued")
)


class ExpiredRows:
    """What may be collected. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def slots(self, created_until: int, records_issued_until: int, limit: int) -> list[Slot]:
        """Slots of records whose host or issuer signed no later than these (seconds), `limit` at most."""
        found: dict[Slot, None] = {}
        for query, until in ((_EXPIRED_BY_HOST, created_until), (_EXPIRED_BY_ISSUER, records_issued_until)):
            rows = self._connection.execute(query, (until, created_until, records_issued_until, limit))
            found.update(dict.fromkeys(Slot(*row) for row in rows))
        return list(found)[:limit]

    def foreign_slots(self, key_id: str, host_peer_id: str, created_until: int, issued_until: int) -> list[Slot]:
        """Of a key's records that other peers host, those signed by host or issuer no later than these (seconds)."""
        rows = self._connection.execute(
            "SELECT key_id, issued_by, peer_id FROM states WHERE key_id = ? AND is_tombstone = 0 AND peer_id != ?"
            " AND (timestamp_created <= ? OR timestamp_issued <= ?)",
            (key_id, host_peer_id, created_until, issued_until),
        )
        return [Slot(*row) for row in rows.fetchall()]

    def tombstones(self, issued_until: int, limit: int) -> list[Slot]:
        """Slots of tombstones issued no later than this (seconds), `limit` at most."""
        rows = self._connection.execute(
            "SELECT states.key_id, issued_by, peer_id FROM resources CROSS JOIN states USING (key_id)"
            " WHERE ended <= ? AND is_tombstone = 1 AND timestamp_issued <= ? LIMIT ?",
            (issued_until, issued_until, limit),
        )
        return [Slot(*row) for row in rows]

    def empty_keys(self, created_until: int, policies_until: int, limit: int) -> list[str]:
        """Ids of keys created at `created_until` (seconds) or before that nothing lives under, `limit` at most; those
        that have policies, if they were created at `policies_until` or before."""
        return [
            key_id
            for (key_id,) in self._connection.execute(
                "SELECT keys.key_id FROM resources CROSS JOIN keys USING (key_id)"
                " WHERE records = 0 AND tombstones = 0 AND timestamp_created <= ?"
                " AND (timestamp_created <= ? OR NOT has_policy) LIMIT ?",
                (created_until, policies_until, limit),
            )
        ]
