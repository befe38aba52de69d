"""Who may link to a peer of a private network, and until when. Pure: the clock comes in, in seconds since 1970.

Rules:
1. A peer shows a chain of certificates from a root of the network to its own key. The last one permits `member` to who
   says that it is one, `client` or `member` to a light client; those before permit the same, and `admit`. All are of
   the scope of private networks, so that none given for something else passes.
2. Where light clients are free they show nothing; nobody else comes in without.
3. A chain is good from the latest `not_before` until the first `expires_at`, unless a root revoked it
   (`overlay.membership.revocation`). For fixed certificates and roots, time and entries only ever end that.
4. A chain that would be good at the time that its peer takes for the present, and not at ours, says that one of both
   clocks is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, Literal, NamedTuple

import msgspec

from overlay.identity import Identity, public_key_of
from overlay.membership.certificate import (
    Certificate,
    CertificateError,
    CertificateFault,
    decode_chain,
    encode_chain,
)
from overlay.membership.chain import chain_fault, ends_at
from overlay.membership.revocation import Revocation, Revocations

MEMBER: Final = "member"
CLIENT: Final = "client"
ADMIT: Final = "admit"
SCOPE: Final = b"network/1"
"""Of certificates for private networks; narrower ones may come, and aren't taken for this."""

LONGEST: Final = 2
"""Certificates of a chain: a root's for an invitation key, and that one's for a peer."""

MOST_ROOTS: Final = 8
CLOCKS_DIFFER: Final = 30
"""Seconds from which on two clocks count as different."""


class LinkFault(StrEnum):
    """Why a peer isn't let into a private network. The values travel; `LINK_FAULTS` says what to do."""

    NO_CERTIFICATE = "no-certificate"
    OTHER_ROOT = "other-root"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    WRONG_SUBJECT = "wrong-subject"
    NOT_PERMITTED = "not-permitted"
    REVOKED = "revoked"
    CLOCK = "clock"
    INVALID = "invalid-certificate"


LINK_FAULTS: Final[dict[LinkFault, str]] = {
    LinkFault.NO_CERTIFICATE: "this is a private network, and no certificate was shown: have its owner run"
    " `aqua-registry network invite`, and give what it prints to `--join`",
    LinkFault.OTHER_ROOT: "the certificate is by the root of another network: check that the token and the addresses"
    " are of the same one",
    LinkFault.EXPIRED: "the certificate has ended: have the network's owner run `aqua-registry network invite` again,"
    " and give what it prints to `--join`",
    LinkFault.NOT_YET_VALID: "the certificate begins later: wait until then, or have the network's owner give another",
    LinkFault.WRONG_SUBJECT: "the certificate is for another peer: have one given for this one,"
    " with `aqua-registry network invite --for` and its peer id",
    LinkFault.NOT_PERMITTED: "the certificate is for light clients, and this is a node: have the network's owner run"
    " `aqua-registry network invite --member`",
    LinkFault.REVOKED: "the network's owner revoked the certificate, or the invitation that it came by: ask the owner",
    LinkFault.CLOCK: "by one clock the certificate is good, by the other it isn't: set the clock that is wrong",
    LinkFault.INVALID: "what was shown is no certificate that this version takes, or isn't signed by its issuer:"
    " have it given anew",
}

_FAULTS: Final = {
    CertificateFault.ROOT: LinkFault.OTHER_ROOT,
    CertificateFault.SUBJECT: LinkFault.WRONG_SUBJECT,
    CertificateFault.PERMISSION: LinkFault.NOT_PERMITTED,
    CertificateFault.NOT_YET_VALID: LinkFault.NOT_YET_VALID,
    CertificateFault.EXPIRED: LinkFault.EXPIRED,
}

Chain = tuple[Certificate, ...]


class ShownChain(msgspec.Struct, frozen=True):
    """What a peer showed when it greeted: its chain as it travels, and whether it says that it is a member."""

    chain: bytes
    member: bool


class _Guest(NamedTuple):
    shown: ShownChain
    ends_at: float


class Gatekeeper:
    """The rules of one peer, and the peers that it let in."""

    def __init__(
        self,
        roots: Iterable[bytes],
        own_chain: Chain = (),
        *,
        clients: Literal["certificate", "free"] = "certificate",
        revocations: Revocations | None = None,
    ) -> None:
        """`roots`: public keys; without any, the network isn't private. `clients`: what light clients need."""
        self.roots = frozenset(roots)
        self.own_chain = own_chain
        """What we show; it may be replaced."""
        self.clients = clients
        self.revocations = revocations or Revocations()
        """What roots took back, as far as known."""
        self._let_in: dict[str, _Guest] = {}
        self._has_news = False  # entries came since all were looked at

    @property
    def is_private(self) -> bool:
        """Whether peers have to be let in."""
        return bool(self.roots)

    def fault_of(self, peer_id: str, shown: ShownChain, now: int, *, told: int | None = None) -> LinkFault | None:
        """Why a peer that proved its id isn't let in; None if it is. `told`: what it takes for the present."""
        if not self.is_private or (not shown.member and self.clients == "free"):
            return None
        if not shown.chain:
            return LinkFault.NO_CERTIFICATE
        try:
            chain = decode_chain(shown.chain)
        except CertificateError:
            return LinkFault.INVALID
        if not chain:
            return LinkFault.NO_CERTIFICATE
        found = self._chain_fault(peer_id, chain, shown.member, now)
        if (
            found in (LinkFault.EXPIRED, LinkFault.NOT_YET_VALID)
            and told is not None
            and abs(told - now) > CLOCKS_DIFFER
            and self._chain_fault(peer_id, chain, shown.member, told) is None
        ):
            return LinkFault.CLOCK
        return found

    def let_in(self, peer_id: str, shown: ShownChain) -> None:
        """Note that a peer was let in by what it showed."""
        chain = decode_chain(shown.chain) if shown.member or self.clients != "free" else ()
        self._let_in[peer_id] = _Guest(shown, ends_at(chain) if chain else math.inf)

    def shown_by(self, peer_id: str) -> ShownChain | None:
        """What a peer showed that is in."""
        guest = self._let_in.get(peer_id)
        return guest.shown if guest is not None else None

    def is_in(self, peer_id: str) -> bool:
        """Whether a peer was let in, and is still."""
        return peer_id in self._let_in

    def forget(self, peer_id: str) -> None:
        """A peer has left, or was put out."""
        self._let_in.pop(peer_id, None)

    def put_out(self, now: int) -> list[tuple[str, LinkFault]]:
        """Forget the peers whose chains aren't good any more; each with why."""
        found = [
            (peer_id, self.fault_of(peer_id, guest.shown, now))
            for peer_id, guest in self._let_in.items()
            if self._has_news or guest.ends_at <= now
        ]
        self._has_news = False
        out = [(peer_id, fault) for peer_id, fault in found if fault is not None]
        for peer_id, _ in out:
            self.forget(peer_id)
        return out

    def next_end(self) -> float:
        """When the first chain of those let in ends; infinite where none does."""
        return min((guest.ends_at for guest in self._let_in.values()), default=math.inf)

    def take(self, entries: Iterable[Revocation]) -> tuple[Revocation, ...]:
        """Adds genuine entries to the list, and returns those that were news."""
        before = self.revocations
        self.revocations = before | entries
        news = self.revocations.beyond(before)
        self._has_news = self._has_news or bool(news)
        return news

    def _chain_fault(self, peer_id: str, chain: Chain, member: bool, now: int) -> LinkFault | None:
        permission = MEMBER if member or MEMBER in chain[-1].permits else CLIENT
        found = chain_fault(
            chain,
            roots=self.roots,
            subject=public_key_of(peer_id),
            permission=permission,
            fits=lambda scope: scope == SCOPE,
            signed_at=now,
            now=now,
            longest=LONGEST,
        )
        if found is None and not all({ADMIT, permission}.issubset(handed_on.permits) for handed_on in chain[:-1]):
            return LinkFault.NOT_PERMITTED
        if found is None and self.revocations.revokes(chain):
            return LinkFault.REVOKED
        return _FAULTS.get(found, LinkFault.INVALID) if found is not None else None


def certificate_for(
    issuer: Identity, subject: bytes, permission: str, *, not_before: int, expires_at: int, may_admit: bool = False
) -> Certificate:
    """The certificate by which `issuer` permits `subject` (a public key) to be a member or a client; `may_admit`: or
    to have others be that."""
    return Certificate(
        public_key_of(issuer.peer_id),
        subject,
        tuple(sorted({permission, ADMIT} if may_admit else {permission})),
        1 if may_admit else 0,
        SCOPE,
        not_before,
        expires_at,
    ).signed_by(issuer)


def encoded(chain: Sequence[Certificate]) -> bytes:
    """A chain as it travels; no bytes for none."""
    return encode_chain(chain) if chain else b""
