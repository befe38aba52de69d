"""The sessions of relayed calls that one peer remembers: with peers that it calls, and with peers that call it."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from cachetools import LRUCache

from overlay.relaying.secure_channel import SecureSession

LIFETIME: Final = 600.0  # seconds for which a session is accepted
RENEWED_AFTER: Final = 540.0  # seconds after which its caller opens another
IDLE: Final = 30.0  # seconds without a call after which its caller opens another: the peer may have been restarted

OF_ONE_CALLER: Final = 4  # sessions that are accepted of one caller
JUST_OPENED: Final = 5.0  # seconds within which a session's first request may be on its way


class _Open(NamedTuple):
    """A session, and when it was opened and last used."""

    session: SecureSession
    opened: float
    used: float


class OwnSessions:
    """The sessions that this peer opened: one per called peer, the least recently used forgotten first."""

    def __init__(self, most: int) -> None:
        """`most`: peers whose sessions are remembered."""
        self._sessions: LRUCache[str, _Open] = LRUCache(most)

    def get(self, peer_id: str, now: float) -> SecureSession | None:
        """The session to call the peer with, if there is a good one. `now`: seconds of a clock that only goes on."""
        known = self._sessions.get(peer_id)
        if known is None or now - known.opened > RENEWED_AFTER or now - known.used > IDLE:
            return None
        self._sessions[peer_id] = known._replace(used=now)
        return known.session

    def put(self, session: SecureSession, now: float) -> None:
        """Remember a session that was opened just now, in place of the one before it."""
        self._sessions[session.peer_id] = _Open(session, now, now)

    def forget(self, session: SecureSession) -> None:
        """Use a session no more."""
        known = self._sessions.get(session.peer_id)
        if known is not None and known.session is session:
            del self._sessions[session.peer_id]


class AcceptedSessions:
    """The sessions that other peers opened with this one, a few of each.

    When there are too many, those that are idle are forgotten first, then those that were never used, then the least
    recently used. So a peer that only opens sessions displaces no caller that uses its own.
    """

    def __init__(self, most: int) -> None:
        """`most`: sessions that are remembered, of all callers together."""
        self._most = most
        self._unused: OrderedDict[bytes, _Open] = OrderedDict()
        self._used: OrderedDict[bytes, _Open] = OrderedDict()
        self._of_caller: dict[str, deque[bytes]] = {}

    def __len__(self) -> int:
        return len(self._unused) + len(self._used)

    def get(self, session_id: bytes, now: float) -> SecureSession | None:
        """The session of that id, unless it is unknown or too old."""
        known = self._unused.get(session_id) or self._used.get(session_id)
        if known is None or now - known.opened > LIFETIME:
            return None
        return known.session

    def note_used(self, session_id: bytes, now: float) -> None:
        """Note that the caller of a session has just proved that it has the key."""
        known = self._unused.pop(session_id, None) or self._used.get(session_id)
        if known is not None:
            self._used[session_id] = known._replace(used=now)
            self._used.move_to_end(session_id)

    def put(self, session: SecureSession, now: float) -> None:
        """Remember a session that was accepted just now."""
        of_caller = self._of_caller.setdefault(session.peer_id, deque())
        if len(of_caller) >= OF_ONE_CALLER:
            self._forget(of_caller[0])
        while len(self) >= self._most:
            self._forget(self._least_wanted(now))
        self._unused[session.id] = _Open(session, now, now)
        self._of_caller.setdefault(session.peer_id, deque()).append(session.id)

    def _least_wanted(self, now: float) -> bytes:
        unused, used = next(iter(self._unused.items()), None), next(iter(self._used.items()), None)
        if used is not None and (unused is None or now - used[1].used > 2 * IDLE):
            return used[0]
        if unused is not None and (used is None or now - unused[1].opened > JUST_OPENED):
            return unused[0]
        assert used is not None
        return used[0] if len(self._used) > len(self._unused) else next(iter(self._unused))

    def _forget(self, session_id: bytes) -> None:
        known = self._unused.pop(session_id, None) or self._used.pop(session_id)
        of_caller = self._of_caller[known.session.peer_id]
        of_caller.remove(session_id)
        if not of_caller:
            del self._of_caller[known.session.peer_id]
