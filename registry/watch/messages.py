"""The bodies of the calls with which watchers subscribe and replicas announce."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Name

SUBSCRIBE: Final = "registry.subscribe"
ANNOUNCE: Final = "registry.announce"

MAX_SUBSCRIPTIONS_IN_CALL: Final = 512
SUBSCRIPTION_SECONDS: Final = 45.0  # life of a subscription; whoever watches renews it three times as often

Digest = Annotated[bytes, msgspec.Meta(max_length=32)]


class SubscriptionRequest(msgspec.Struct, frozen=True, array_like=True):
    """Asks to be told of changes of a resource, or, with `ends`, ends the subscription. `on_topic`: the watcher is in
    the resource's topic."""

    key_id: Name
    on_topic: bool
    ends: bool = False


class SubscribeBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.subscribe`: what one watcher asks for, for `SUBSCRIPTION_SECONDS` from now."""

    requests: Annotated[tuple[SubscriptionRequest, ...], msgspec.Meta(max_length=MAX_SUBSCRIPTIONS_IN_CALL)]


class SubscriptionReply(msgspec.Struct, frozen=True, array_like=True):
    """The watcher is subscribed, unless `error` says why not. `digest`: of what the replica knows now."""

    error: ErrorInfo | None = None
    digest: Digest = b""


class SubscribeAnswer(msgspec.Struct, frozen=True, array_like=True):
    """One reply per request, in their order."""

    replies: Annotated[tuple[SubscriptionReply, ...], msgspec.Meta(max_length=MAX_SUBSCRIPTIONS_IN_CALL)]


class AnnounceBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.announce`: [resource id, payload] each, as on topics, for a watcher with which no topic is shared."""

    items: Annotated[
        tuple[tuple[Name, Annotated[bytes, msgspec.Meta(max_length=512 * 1024)]], ...], msgspec.Meta(max_length=512)
    ]
