"""What peers say to each other about who is alive, one way, on their links; parsed at the edge into values.

A notice is a CBOR array of messages, each an array with its kind first. Messages of unknown kinds, or of bad form, are
passed over, fields behind the known ones are ignored. See docs/wire-protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import cbor2
import msgspec
from msgspec import Meta, Struct

from overlay.limits.decoder import DecodeError, decode
from overlay.presence.statements import Nonce, PeerName, Presence, Proof, Version, Word

TOPIC: Final = "presence"
"""Of the notices that carry these messages."""

MOST_BYTES: Final = 256 * 1024
"""Of one notice."""
MOST_MESSAGES: Final = 128
"""In one notice: where each holds a signature, checking them takes 13 ms."""
MOST_HOSTS: Final = 256
"""In one message."""


class Beat(Struct, frozen=True, array_like=True, tag=0):
    """A host to its witness: it is there."""

    version: Version


class Told(Struct, frozen=True, array_like=True, tag=1):
    """A host's own statement, from itself or passed on."""

    presence: Presence


class KnownVersion(Struct, frozen=True, array_like=True, tag=2):
    """A witness to a host: the latest version that it has of it; (0, 0) for none."""

    version: Version
    host: Annotated[str, Meta(max_length=64)] = ""
    """The light client that is meant, where this goes to its node."""


class Said(Struct, frozen=True, array_like=True, tag=3):
    """A witness's word, from itself or passed on."""

    word: Word


class Hint(Struct, frozen=True, array_like=True, tag=4):
    """A witness to subscribers: it began to doubt a host; look yourself."""

    host: PeerName


class Accused(Struct, frozen=True, array_like=True, tag=5):
    """A witness to a host: it holds it to be down at this version."""

    version: Version
    host: Annotated[str, Meta(max_length=64)] = ""
    """The light client that is meant, where this goes to its node, which passes it on."""


class AskAbout(Struct, frozen=True, array_like=True, tag=6):
    """A replica to a keeper: fetch a proof for this number, and tell what was said of the host since its version."""

    host: PeerName
    nonce: Nonce
    version: Version


class ProofWanted(Struct, frozen=True, array_like=True, tag=7):
    """A keeper to a host, or to a light client's node: prove to this replica that the host is there."""

    host: PeerName
    nonce: Nonce
    replica: PeerName


class Proven(Struct, frozen=True, array_like=True, tag=8):
    """The proof, on its way back."""

    proof: Proof


class SubscribeTo(Struct, frozen=True, array_like=True, tag=9):
    """A replica to a witness: tell all that you hear of these hosts for so many seconds; 0: only what you know now."""

    hosts: Annotated[tuple[PeerName, ...], Meta(max_length=MOST_HOSTS)]
    seconds: Annotated[int, Meta(ge=0)]


class ClientGone(Struct, frozen=True, array_like=True, tag=10):
    """A node to a light client's witness: the client isn't linked to it any more."""

    client: PeerName


Message = (
    Beat | Told | KnownVersion | Said | Hint | Accused | AskAbout | ProofWanted | Proven | SubscribeTo | ClientGone
)

_KINDS: Final[dict[object, type[Message]]] = {
    0: Beat,
    1: Told,
    2: KnownVersion,
    3: Said,
    4: Hint,
    5: Accused,
    6: AskAbout,
    7: ProofWanted,
    8: Proven,
    9: SubscribeTo,
    10: ClientGone,
}


def notices(messages: Sequence[Message]) -> list[bytes]:
    """The bytes of as many notices as messages need; subscriptions share messages."""
    return _in_notices(_put_together(messages))


def _put_together(messages: Sequence[Message]) -> list[Message]:
    hosts: dict[int, dict[str, None]] = {}
    for message in messages:
        if isinstance(message, SubscribeTo):
            hosts.setdefault(message.seconds, {}).update(dict.fromkeys(message.hosts))
    others = [message for message in messages if not isinstance(message, SubscribeTo)]
    shared = [
        SubscribeTo(tuple(names)[start : start + MOST_HOSTS], seconds)
        for seconds, names in hosts.items()
        for start in range(0, len(names), MOST_HOSTS)
    ]
    return [*others, *shared]


def _in_notices(messages: Sequence[Message]) -> list[bytes]:
    encoded = encode(messages)
    if len(messages) == 1 or (len(messages) <= MOST_MESSAGES and len(encoded) <= MOST_BYTES):
        return [encoded]
    half = len(messages) // 2
    return [*_in_notices(messages[:half]), *_in_notices(messages[half:])]


def encode(messages: Iterable[Message]) -> bytes:
    """The bytes of a notice."""
    return cbor2.dumps(msgspec.to_builtins(list(messages), builtin_types=(bytes,)))


def parse(encoded: bytes) -> list[Message]:
    """The messages of a notice; none where it isn't one."""
    try:
        items = decode(encoded, max_bytes=MOST_BYTES)
    except DecodeError:
        return []
    found: list[Message] = []
    for item in items[:MOST_MESSAGES] if isinstance(items, list) else ():
        kind = _KINDS.get(item[0]) if type(item) is list and item and type(item[0]) is int else None
        if kind is None:
            continue
        try:
            found.append(msgspec.convert(item, kind, builtin_types=(bytes,)))
        except msgspec.ValidationError:
            continue
    return found
