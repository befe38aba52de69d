"""The rows of the trust graph."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from registry.errors import RegistryError
from registry.trust.graph import StatementChange
from registry.trust.statements import Statement, TrustRevocation, TrustStatement, is_genuine

_BODY: Final = struct.Struct("<BQQ64s")  # whether it is a revocation, when issued, when it expires, signature


class TrustTable:
    """What the trust graph keeps on disk. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def roots(self) -> dict[str, int]:
        """The roots that were set while a node ran, and their steps."""
        return dict(self._connection.execute("SELECT peer_id, steps FROM trust_roots"))

    def set_root(self, peer_id: str, steps: int) -> None:
        """Stores a root over whatever is there."""
        self._connection.execute("INSERT OR REPLACE INTO trust_roots VALUES (?, ?)", (peer_id, steps))

    def statements(self) -> Iterator[tuple[tuple[str, str], Statement | None]]:
        """All, by issuer and whom they are for; None for those that aren't what was stored there, by their signature.

        Takes about 0.1 ms for each.
        """
        rows = self._connection.execute("SELECT issued_by, issued_for, CAST(body AS BLOB) FROM trust_statements")
        for issued_by, issued_for, body in rows:
            yield (issued_by, issued_for), _statement(issued_by, issued_for, body)

    def apply(self, changes: Iterable[StatementChange]) -> None:
        """Has changes come about."""
        for change in changes:
            if change.after is not None:
                self._connection.execute(
                    "INSERT OR REPLACE INTO trust_statements VALUES (?, ?, ?)", (*change.pair, _body(change.after))
                )
            else:
                self.drop(*change.pair)

    def drop(self, issued_by: str, issued_for: str) -> None:
        """Deletes the statement of a pair."""
        self._connection.execute(
            "DELETE FROM trust_statements WHERE issued_by = ? AND issued_for = ?", (issued_by, issued_for)
        )


def _body(statement: Statement) -> bytes:
    expires_at = statement.expires_at if isinstance(statement, TrustStatement) else 0
    return _BODY.pack(isinstance(statement, TrustRevocation), statement.issued_at, expires_at, statement.signature)


def _statement(issued_by: str, issued_for: str, body: bytes) -> Statement | None:
    try:
        is_revocation, issued_at, expires_at, signature = _BODY.unpack(body)
        statement = (
            TrustRevocation(issued_by, issued_for, issued_at, signature)
            if is_revocation
            else TrustStatement(issued_by, issued_for, issued_at, expires_at, signature)
        )
        return statement if is_genuine(statement) else None
    except (struct.error, TypeError, RegistryError):
        return None
