"""The bodies of the calls with which watchers subscribe, and with which replicas and other watchers announce."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from overlay.identity import is_peer_id
from registry.codes import Code
from registry.errors import InvalidValue
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Digest, Name, parse

SUBSCRIBE: Final = "registry.subscribe"
ANNOUNCE: Final = "registry.announce"
READ_WATCHED: Final = "registry.read_watched"
"""As `registry.read`, of what a subscription's holder announces, be it a replica or not."""

MAX_SUBSCRIPTIONS_IN_CALL: Final = 2048
MAX_ANNOUNCEMENTS_IN_CALL: Final = 512
MAX_SERVERS: Final = 8  # named in one reply
MAX_ADDRESSES: Final = 8  # of one of them
MAX_DEPTH: Final = 4  # watchers between a replica and a watcher
SUBSCRIPTION_SECONDS: Final = 45.0  # life of a subscription; whoever watches renews it three times as often
LONGEST_AGE: Final = 3600.0  # seconds; also of what was never compared with a replica


class SubscriptionRequest(msgspec.Struct, frozen=True, array_like=True):
    """Asks to be told of changes of a resource, or, with `ends`, ends the subscription. `on_topic`: the watcher is in
    the resource's topic. `serves`: it may be named to other watchers, for whom there is no place. `through`: it is a
    client of the node that it asks, which is to follow the resource for it."""

    key_id: Name
    on_topic: bool
    ends: bool = False
    serves: bool = False
    through: bool = False


class SubscribeBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.subscribe`: what one watcher asks for, for `SUBSCRIPTION_SECONDS` from now."""

    requests: Annotated[tuple[Any, ...], msgspec.Meta(max_length=MAX_SUBSCRIPTIONS_IN_CALL)]

    def decoded(self) -> list[SubscriptionRequest | ErrorInfo]:
        """Each request, or why it is none that this version takes."""
        return [_request_or_error(entry) for entry in self.requests]


class Server(msgspec.Struct, frozen=True, array_like=True):
    """A watcher that serves others, and where it can be reached (multiaddrs)."""

    peer_id: Name
    addresses: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_ADDRESSES)] = ()


class SubscriptionReply(msgspec.Struct, frozen=True, array_like=True):
    """The watcher is subscribed, unless `error` says why not.

    `digest`: of what is known here now; empty while that isn't enough to be shown. `depth`: how many watchers it passes
    before it gets here, 0 at a replica. `age`: seconds since it was last as good as what a replica knows. `servers`:
    watchers that may have a place where there is none here; those that are no peers are left out.
    """

    error: ErrorInfo | None = None
    digest: Digest = b""
    depth: int = 0
    age: float = 0.0
    servers: tuple[Server, ...] = ()

    def __post_init__(self) -> None:
        age = LONGEST_AGE if math.isnan(self.age) else min(max(self.age, 0.0), LONGEST_AGE)
        msgspec.structs.force_setattr(self, "age", age)
        msgspec.structs.force_setattr(self, "depth", min(max(self.depth, 0), MAX_DEPTH + 1))
        servers = (server for server in self.servers[:MAX_SERVERS] if is_peer_id(server.peer_id))
        msgspec.structs.force_setattr(self, "servers", tuple(servers))


class SubscribeAnswer(msgspec.Struct, frozen=True, array_like=True):
    """One reply per request, in their order."""

    replies: Annotated[tuple[SubscriptionReply, ...], msgspec.Meta(max_length=MAX_SUBSCRIPTIONS_IN_CALL)]


class DirectAnnouncement(NamedTuple):
    """An announcement that came by a call."""

    key_id: str
    payload: bytes


class AnnounceBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.announce`: [resource id, payload] each, as on topics, for a watcher with which no topic is shared."""

    items: Annotated[tuple[Any, ...], msgspec.Meta(max_length=MAX_ANNOUNCEMENTS_IN_CALL)]

    def decoded(self) -> list[DirectAnnouncement]:
        """The announcements of kinds that this version understands."""
        decoded: list[DirectAnnouncement] = []
        for entry in self.items:
            match entry:
                case [str(key_id), bytes(payload), *_]:
                    decoded.append(DirectAnnouncement(key_id, payload))
        return decoded


def _request_or_error(entry: object) -> SubscriptionRequest | ErrorInfo:
    try:
        return parse(entry, SubscriptionRequest)
    except InvalidValue as error:
        return ErrorInfo(Code.INVALID, str(error))
