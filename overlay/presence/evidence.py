"""Why a host counts as up or down, for a peer that follows it through another one, such as a light client's node.

It holds what the host said of itself last, and the words of witnesses that it is down since then: each signed by who
said it, so that whoever passes it on can leave things out, and make up nothing. Pure.
"""

from __future__ import annotations

from typing import Annotated, Final

import cbor2
import msgspec
from msgspec import Meta, Struct

from overlay.limits.decoder import DecodeError, decode
from overlay.presence.statements import NEVER, Presence, Version, Word, is_genuine
from overlay.presence.timings import KEEPERS, MOST_EXCEPTIONS

MOST_BYTES: Final = MOST_EXCEPTIONS + 4096
"""Of one host's evidence."""


class Evidence(Struct, frozen=True, array_like=True):
    """What signed statements there are of one host; none where nothing is known of it."""

    presence: Presence | None = None
    words: Annotated[tuple[Word, ...], Meta(max_length=KEEPERS)] = ()

    @property
    def version(self) -> Version:
        """The latest version that the host told."""
        return self.presence.version if self.presence is not None else NEVER

    @property
    def has_left(self) -> bool:
        """Whether the host said that it stops."""
        return self.presence is not None and self.presence.is_leaving

    @property
    def exceptions(self) -> bytes:
        """What doesn't pass of that which the host hosts, as it says."""
        return self.presence.exceptions if self.presence is not None else b""

    @property
    def accusers(self) -> tuple[str, ...]:
        """The witnesses that say it is down."""
        return tuple(word.witness for word in self.words)


def encode_evidence(evidence: Evidence) -> bytes:
    """Its bytes."""
    return cbor2.dumps(msgspec.to_builtins(evidence, builtin_types=(bytes,)))


def genuine_evidence(peer_id: str, encoded: bytes) -> Evidence:
    """What is genuine of the evidence about a peer that somebody passed on; takes 0.1 ms for each statement.

    Words count that are of the version that the host told.
    """
    try:
        told = msgspec.convert(decode(encoded, max_bytes=MOST_BYTES), Evidence, builtin_types=(bytes,))
    except (DecodeError, msgspec.ValidationError):
        return Evidence()
    presence = told.presence
    if presence is None or presence.peer_id != peer_id or not is_genuine(presence):
        return Evidence()
    words = {
        word.witness: word
        for word in told.words
        if word.accused == peer_id and word.is_down and word.version == presence.version and is_genuine(word)
    }
    return Evidence(presence, tuple(words.values()))
