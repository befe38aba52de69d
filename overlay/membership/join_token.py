"""A token: all that a peer needs to join a private network, on one line of text.

It holds the network's roots, addresses of members, and a chain of certificates, which ends at the key of one peer or at
an invitation key, whose seed is in the token then. Such a token is a secret: whoever has it may join, until it ends or
is revoked. `joined` makes of it what the peer keeps, which isn't secret: the invitation key certifies the peer's own.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import cbor2
import msgspec

from overlay.errors import OverlayError
from overlay.identity import Identity, public_key_of
from overlay.limits.decoder import DecodeError, decode
from overlay.membership.certificate import KEY_BYTES, Certificate, CertificateError, decode_chain
from overlay.membership.chain import begins_at, ends_at
from overlay.membership.gatekeeper import (
    ADMIT,
    LINK_FAULTS,
    MEMBER,
    MOST_ROOTS,
    Gatekeeper,
    LinkFault,
    ShownChain,
    certificate_for,
    encoded,
)

PREFIX: Final = "aqua-network-1:"
MOST_ADDRESSES: Final = 16
MOST_REGISTRARS: Final = 8
LONGEST_ADDRESS: Final = 256  # characters
LONGEST_ALIAS: Final = 64  # characters
LONGEST_TOKEN: Final = 16 * 1024  # characters
_SEED_BYTES: Final = 32


class TokenError(OverlayError, ValueError):
    """A text is no token, or none for this peer; the text says what to do. `fault`: the code."""

    def __init__(self, fault: LinkFault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class JoinToken(msgspec.Struct, frozen=True):
    """`roots`: public keys; `addresses`: multiaddrs with peer ids; `seed`: of the invitation key, or empty."""

    roots: tuple[bytes, ...]
    addresses: tuple[str, ...]
    chain: tuple[Certificate, ...]
    seed: bytes = b""
    owner: bytes = b""
    """Public key of the owner whose names are the network's, or empty."""
    registrars: tuple[bytes, ...] = ()
    """Public keys of the nodes that make resources of that owner's."""
    alias: str = ""
    """The network's word for that owner, or empty. What form it has is for whoever takes names."""

    def __repr__(self) -> str:
        return f"JoinToken({'an invitation' if self.seed else 'for one peer'})"

    @property
    def is_secret(self) -> bool:
        """Whether whoever has it may join."""
        return bool(self.seed)

    @property
    def ends_at(self) -> int:
        """When it ends, in seconds since 1970."""
        return ends_at(self.chain)

    def joined(self, identity: Identity) -> JoinToken:
        """The token of one peer alone, without a secret. Raises `TokenError` if it is for another."""
        key = public_key_of(identity.peer_id)
        last = self.chain[-1]
        if self.seed:
            # The times are those of the invitation: this peer's clock doesn't matter.
            own = certificate_for(
                Identity.from_seed(self.seed),
                key,
                next(name for name in last.permits if name != ADMIT),
                not_before=last.not_before,
                expires_at=last.expires_at,
            )
            return msgspec.structs.replace(self, chain=(*self.chain, own), seed=b"")
        if last.subject != key:
            raise TokenError(
                LinkFault.WRONG_SUBJECT,
                f"the token isn't for this peer, {identity.peer_id}: {LINK_FAULTS[LinkFault.WRONG_SUBJECT]}",
            )
        return self

    def check(self, peer_id: str, now: int) -> None:
        """Raises `TokenError` if nobody with the token's roots would let a peer in that joined by it, whatever the time
        is, as where a letter of it is wrong; or not at `now` (seconds) any more."""
        shown = ShownChain(encoded(self.chain), self.is_for_member)
        if Gatekeeper(self.roots).fault_of(peer_id, shown, begins_at(self.chain)) is not None:
            raise _malformed()
        if self.ends_at <= now:
            fault = LinkFault.EXPIRED
            raise TokenError(fault, f"the token is of no use: {LINK_FAULTS[fault]} ({fault.value})")

    def is_older_than(self, other: JoinToken) -> bool:
        """Whether another token of the same network was given later."""
        return {*self.roots} == {*other.roots} and begins_at(self.chain) < begins_at(other.chain)

    @property
    def is_for_member(self) -> bool:
        """Whether it is for a node, not for a light client alone."""
        return MEMBER in self.chain[-1].permits

    def text(self) -> str:
        """The token as it is given on."""
        parts: list[object] = [list(self.roots), list(self.addresses), encoded(self.chain), self.seed]
        if self.owner:  # versions before this refuse such a token, and one with an alias
            parts += [self.owner, list(self.registrars)]
        if self.alias:
            parts.append(self.alias)
        raw = cbor2.dumps(parts, canonical=True)
        return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def parse_token(text: str) -> JoinToken:
    """The token that a text is, with whatever white space is around it. Raises `TokenError`, which tells no part of
    it."""
    stripped = text.strip()
    if not stripped.startswith(PREFIX) or len(stripped) > LONGEST_TOKEN:
        raise _malformed()
    body = stripped.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        parts = decode(raw, max_bytes=LONGEST_TOKEN, max_items=64)
        if isinstance(parts, list) and len(parts) == 4:
            parts = [*parts, b"", []]
        if isinstance(parts, list) and len(parts) == 6:
            parts = [*parts, ""]
        roots, addresses, chain, seed, owner, registrars, alias = msgspec.convert(
            parts,
            tuple[tuple[bytes, ...], tuple[str, ...], bytes, bytes, bytes, tuple[bytes, ...], str],
            strict=True,
            builtin_types=(bytes,),
        )
        token = JoinToken(roots, addresses, decode_chain(chain), seed, owner, registrars, alias)
    except (binascii.Error, ValueError, DecodeError, msgspec.ValidationError, CertificateError):
        raise _malformed() from None
    is_invitation = bool(token.chain) and ADMIT in token.chain[-1].permits
    if (
        not 0 < len(roots) <= MOST_ROOTS
        or any(len(root) != KEY_BYTES for root in roots)
        or len(addresses) > MOST_ADDRESSES
        or any(len(address) > LONGEST_ADDRESS for address in addresses)
        or len(owner) not in (0, KEY_BYTES)
        or len(registrars) > MOST_REGISTRARS
        or any(len(registrar) != KEY_BYTES for registrar in registrars)
        or ((registrars or alias) and not owner)
        or len(alias) > LONGEST_ALIAS
        or not token.chain
        or is_invitation != bool(seed)
        or (seed and not _opens(token))
    ):
        raise _malformed()
    return token


def _opens(token: JoinToken) -> bool:
    """Whether the seed is that of the invitation key, and somebody can be admitted by it."""
    if len(token.seed) != _SEED_BYTES:
        return False
    last = token.chain[-1]
    return public_key_of(Identity.from_seed(token.seed).peer_id) == last.subject and len(last.permits) > 1


def _malformed() -> TokenError:
    return TokenError(
        LinkFault.INVALID,
        "that is no token of a private network; give the whole line that `aqua-registry network invite` printed",
    )
