"""The bodies of the calls around announcements."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from registry.messages import Name

LEASE: Final = "registry.lease"
ANNOUNCE: Final = "registry.announce"

MAX_LEASES_IN_CALL: Final = 512
LEASE_SECONDS: Final = 45.0  # life of a lease; whoever watches renews it three times as often

Digest = Annotated[bytes, msgspec.Meta(max_length=32)]


class LeaseWish(msgspec.Struct, frozen=True, array_like=True):
    """Tell me of changes of this resource; `on_topic`: I am in its topic. With `ends`, don't any more."""

    key_id: Name
    on_topic: bool
    ends: bool = False


class LeaseBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.lease`: wishes of one watcher, for `LEASE_SECONDS` from now."""

    wishes: Annotated[tuple[LeaseWish, ...], msgspec.Meta(max_length=MAX_LEASES_IN_CALL)]


class LeaseGrant(msgspec.Struct, frozen=True, array_like=True):
    """Granted unless `error` says why not. `digest` is of all that this replica knows of the resource now."""

    error: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    digest: Digest = b""


class LeaseAnswer(msgspec.Struct, frozen=True, array_like=True):
    """One grant per wish, in their order."""

    grants: Annotated[tuple[LeaseGrant, ...], msgspec.Meta(max_length=MAX_LEASES_IN_CALL)]


class AnnounceBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.announce`: [resource id, payload] each, as on topics, for a watcher with which no topic is shared."""

    items: Annotated[
        tuple[tuple[Name, Annotated[bytes, msgspec.Meta(max_length=512 * 1024)]], ...], msgspec.Meta(max_length=512)
    ]
