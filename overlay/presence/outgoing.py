"""Says presence's messages on links: at once, gathered with others to the same peer, or over a link made for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
import trio

from overlay.errors import CallFailed
from overlay.presence.actions import SendTo
from overlay.presence.messages import TOPIC, AskAbout, Message, SubscribeTo, notices
from overlay.rpc.links import Links

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

GATHERING: Final = 0.02  # seconds for which what is said to one peer gathers, after something was said to it
_LINKING: Final = 2.0  # seconds for a link that a message needs
_MOST_LINKING: Final = 64  # peers that are linked to for a message at the same time
_MOST_WAITING: Final = 1024  # messages that wait for one link
_MOST_REMEMBERED: Final = 256  # peers to which something was said just now


class OutgoingNotices:
    """Messages to other peers. Those that ask for something are worth a link; the others go where there is one."""

    def __init__(
        self,
        links: Links,
        *,
        start: Callable[..., None],
        unreached: Callable[[str], None],
    ) -> None:
        """`start(function, argument)` runs a task. `unreached(peer)` is told when no link could be made."""
        self._links = links
        self._start = start
        self._unreached = unreached
        self._waiting: dict[str, list[Message]] = {}
        self._gathered: dict[str, list[SendTo]] = {}
        self._said_at: dict[str, float] = {}
        self.say_at = math.inf
        """When to call `say_gathered`."""

    def say(self, outgoing: Mapping[str, Sequence[SendTo]], now: float, *, may_wait: bool) -> None:
        """At once to a peer to which nothing was said just now; else it gathers: many hosts may die together."""
        for peer_id, said in outgoing.items():
            is_quiet = now - self._said_at.get(peer_id, -math.inf) >= GATHERING and peer_id not in self._gathered
            if is_quiet or not may_wait:
                self._note_said(peer_id, now)
                self._send(peer_id, said)
            else:
                self._gathered.setdefault(peer_id, []).extend(said)
                self.say_at = min(self.say_at, now + GATHERING)

    def say_gathered(self, now: float) -> None:
        """Say what has gathered, if it is time to."""
        if now < self.say_at:
            return
        gathered, self._gathered, self.say_at = self._gathered, {}, math.inf
        for peer_id, said in gathered.items():
            self._note_said(peer_id, now)
            self._send(peer_id, said)

    def _note_said(self, peer_id: str, now: float) -> None:
        if len(self._said_at) >= _MOST_REMEMBERED:
            self._said_at = {name: at for name, at in self._said_at.items() if now - at < GATHERING}
        self._said_at[peer_id] = now

    def _send(self, peer_id: str, said: Sequence[SendTo]) -> None:
        if self._notify(peer_id, [each.message for each in said]):
            return
        asking = [each.message for each in said if each.needs_link or isinstance(each.message, AskAbout | SubscribeTo)]
        waiting = self._waiting.get(peer_id)
        if waiting is not None:
            waiting += asking[: _MOST_WAITING - len(waiting)]
        elif asking and len(self._waiting) < _MOST_LINKING:
            self._waiting[peer_id] = asking
            self._start(self._link_and_send, peer_id)
        elif any(isinstance(message, SubscribeTo) for message in asking):
            self._start(self._tell_unreached, peer_id)

    def _notify(self, peer_id: str, messages: Sequence[Message]) -> bool:
        return all(self._links.notify(peer_id, TOPIC, notice) for notice in notices(messages))

    async def _link_and_send(self, peer_id: str) -> None:
        try:
            await self._links.ensure_link(peer_id, timeout=_LINKING)
        except CallFailed as error:
            log.debug("a keeper wasn't reached", peer_id=peer_id, error=str(error))
        if not self._notify(peer_id, self._waiting.pop(peer_id)):
            self._unreached(peer_id)

    async def _tell_unreached(self, peer_id: str) -> None:
        await trio.lowlevel.checkpoint()  # whoever said it is in the midst of deciding
        self._unreached(peer_id)
