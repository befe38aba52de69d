"""What a peer has to do for presence, as its step machines say to the task that drives them, or to a simulation."""

from __future__ import annotations

import enum

from msgspec import Struct

from overlay.presence.messages import Message
from overlay.presence.statements import Version


class Role(enum.Enum):
    """In which of its roles a peer dials another one."""

    HOST = enum.auto()
    """To reach a keeper of its own presence; the link is to stay."""
    WITNESS = enum.auto()
    """To see whether a host that it witnesses is there; not over the link that there is."""
    REPLICA = enum.auto()
    """The same of a host that it follows."""


class SendTo(Struct, frozen=True):
    """Say a message on the link to a peer; without a link it is lost, unless one is to be made for it."""

    to: str
    message: Message
    needs_link: bool = False


class Dial(Struct, frozen=True):
    """Dial a peer within so many seconds, and tell `PresenceNode.dialled` in any case."""

    peer_id: str
    timeout: float
    role: Role


class PingLink(Struct, frozen=True):
    """Send a peer something that its machine has to acknowledge, and tell `PresenceNode.answered` when it does."""

    peer_id: str


class FindKeepers(Struct, frozen=True):
    """Look up the members nearest to a light client, and tell `PresenceNode.found`."""

    client: str


class Changed(Struct, frozen=True):
    """A followed host is listed from now on, or isn't."""

    peer_id: str
    is_listed: bool
    version: Version


class Learnt(Struct, frozen=True):
    """What a followed host says of itself is known from now on, or is something else than before."""

    peer_id: str


Action = SendTo | Dial | PingLink | FindKeepers | Changed | Learnt
