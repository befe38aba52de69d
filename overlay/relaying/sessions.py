"""Sessions that a peer has with those that it calls, and with those that call it, through relays: bounded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from overlay.relaying.sealing import Session

LIFETIME: Final = 600.0  # seconds for which a session is accepted
RENEWED_AFTER: Final = 540.0  # seconds after which its caller opens another
IDLE: Final = 30.0  # seconds without a call after which its caller opens another: the peer may have been restarted


class _Open(NamedTuple):
    session: Session
    opened: float
    used: float


class OwnSessions:
    """One per called peer, the least recently used forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sessions: OrderedDict[str, _Open] = OrderedDict()

    def get(self, peer_id: str, now: float) -> Session | None:
        """The session to call the peer with, if there is a good one. `now`: seconds of a clock that only goes on."""
        known = self._sessions.get(peer_id)
        if known is None or now - known.opened > RENEWED_AFTER or now - known.used > IDLE:
            return None
        self._sessions[peer_id] = known._replace(used=now)
        self._sessions.move_to_end(peer_id)
        return known.session

    def put(self, session: Session, now: float) -> None:
        self._sessions[session.peer_id] = _Open(session, now, now)
        self._sessions.move_to_end(session.peer_id)
        if len(self._sessions) > self._most:
            self._sessions.popitem(last=False)

    def forget(self, session: Session) -> None:
        """It's of no use any more."""
        known = self._sessions.get(session.peer_id)
        if known is not None and known.session is session:
            del self._sessions[session.peer_id]


class AcceptedSessions:
    """Of callers. When there are too many, those that were never used go first, then the least recently used."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._unused: OrderedDict[bytes, _Open] = OrderedDict()
        self._used: OrderedDict[bytes, _Open] = OrderedDict()

    def __len__(self) -> int:
        return len(self._unused) + len(self._used)

    def get(self, session_id: bytes, now: float) -> Session | None:
        known = self._unused.get(session_id) or self._used.get(session_id)
        if known is None or now - known.opened > LIFETIME:
            return None
        return known.session

    def note_used(self, session_id: bytes) -> None:
        """Its caller proved that it has the key."""
        known = self._unused.pop(session_id, None) or self._used.get(session_id)
        if known is not None:
            self._used[session_id] = known
            self._used.move_to_end(session_id)

    def put(self, session: Session, now: float) -> None:
        self._unused[session.id] = _Open(session, now, now)
        if len(self) > self._most:
            self._forget_expired(now)
        if len(self) > self._most:
            # All but the newcomer: one that nobody could use yet mustn't be forgotten for it.
            (self._unused if len(self._unused) > 1 else self._used).popitem(last=False)

    def _forget_expired(self, now: float) -> None:
        for sessions in (self._unused, self._used):
            for session_id in [one for one, known in sessions.items() if now - known.opened > LIFETIME]:
                del sessions[session_id]
