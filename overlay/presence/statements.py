"""What peers sign about who is alive: a host's presence, a witness's word, and the proof that a host is there now.

Each kind is signed under its own domain, over its deterministic CBOR without the signature. Pure.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, Final, TypeVar, cast

import cbor2
import msgspec
from msgspec import Meta, Struct

from overlay.errors import PeerIdError
from overlay.identity import Identity, public_key_of, verify
from overlay.presence.timings import MOST_EXCEPTIONS, MOST_VIA

NONCE_BYTES: Final = 8
PeerName = Annotated[str, Meta(min_length=1, max_length=64)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Signature = Annotated[bytes, Meta(max_length=64)]
Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Version(Struct, frozen=True, order=True, array_like=True):
    """Orders all that one host says of itself; whatever is said of a lower one doesn't count."""

    incarnation: Count = 0
    """Which run of its process: milliseconds since 1970, greater in each."""
    sequence: Count = 0
    """Rises within the run, whenever the host has to say that it is there."""


NEVER: Final = Version()
"""Before all that a host says."""


class Presence(Struct, frozen=True, array_like=True):
    """A host says that it is up, or leaves."""

    peer_id: PeerName
    version: Version
    is_leaving: bool = False
    """Whether it stops now, and is off the list at once."""
    exceptions: Annotated[bytes, Meta(max_length=MOST_EXCEPTIONS)] = b""
    """What doesn't pass of that which it hosts; for those who read it, not for the overlay."""
    via: Annotated[tuple[PeerName, ...], Meta(max_length=MOST_VIA)] = ()
    """The nodes through which a light client is reached; empty for a member."""
    signature: Signature = b""

    @property
    def signer(self) -> str:
        """Who has to have signed it."""
        return self.peer_id


class Word(Struct, frozen=True, array_like=True):
    """A witness says that a host is down, or that it isn't any more."""

    witness: PeerName
    accused: PeerName
    version: Version
    """The last that the witness has of the host: a higher one voids the word."""
    is_down: bool
    number: Count
    """Rises with each word of the witness."""
    ttl: Annotated[int, Meta(ge=0)]
    """Seconds for which it counts."""
    signature: Signature = b""

    @property
    def signer(self) -> str:
        """Who has to have signed it."""
        return self.witness


class Proof(Struct, frozen=True, array_like=True):
    """A host proves to a replica that it is there, by the number that the replica drew."""

    peer_id: PeerName
    version: Version
    nonce: Nonce
    replica: PeerName
    signature: Signature = b""

    @property
    def signer(self) -> str:
        """Who has to have signed it."""
        return self.peer_id


Statement = TypeVar("Statement", Presence, Word, Proof)

_DOMAINS: Final[dict[type, bytes]] = {
    Presence: b"aqua-registry/presence/1:",
    Word: b"aqua-registry/presence-word/1:",
    Proof: b"aqua-registry/presence-proof/1:",
}


def signed_bytes(statement: Presence | Word | Proof) -> bytes:
    """What is signed. 32 bytes."""
    fields = cast("list[Any]", msgspec.to_builtins(statement, builtin_types=(bytes,)))[:-1]
    return sha256(_DOMAINS[type(statement)] + cbor2.dumps(fields, canonical=True)).digest()


def sign(identity: Identity, statement: Statement) -> Statement:
    """The statement with its signature, by `identity`, which is its signer."""
    return msgspec.structs.replace(statement, signature=identity.sign(signed_bytes(statement)))


def is_genuine(statement: Presence | Word | Proof) -> bool:
    """Whether it is signed by its signer, and names peers for nodes: messages are to be sent to these."""
    try:
        for node in statement.via if isinstance(statement, Presence) else ():
            public_key_of(node)
        return verify(statement.signer, signed_bytes(statement), statement.signature)
    except PeerIdError:
        return False
