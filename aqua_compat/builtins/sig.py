"""`sig`: a peer's signature."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from aqua_compat.rpc.server import caller
from overlay.identity import Identity, verify

_LONGEST = 131_072  # bytes whose signature is verified

Signature = Annotated[list[int], Meta(max_length=64)] | bytes
Message = Annotated[list[int], Meta(max_length=_LONGEST)] | bytes


class SignResult(Struct, frozen=True):
    """The option types of the original: arrays of one or none."""

    success: bool
    error: list[str]
    signature: list[list[int]]


class Sig:
    """Signs for the peer itself only: whatever a stranger could have signed would count as said by it.

    Records are signed by the call `registry.countersign`, under the hosting policy.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def sign(self, data: list[int] | bytes) -> SignResult:
        """The signature of bytes, for the peer itself; a refusal for everybody else."""
        if caller() != self._identity.peer_id:
            return SignResult(False, ["only the peer itself may have it sign"], [])
        return SignResult(True, [], [list(self._identity.sign(bytes(data)))])

    async def verify(self, signature: Signature, message: Message) -> bool:
        """Whether it is this peer's signature of the message, of at most 131,072 bytes."""
        return verify(self._identity.peer_id, bytes(message), bytes(signature))

    async def get_peer_id(self) -> str:
        """Whose signatures these are."""
        return self._identity.peer_id
