"""Whether a chain of certificates, from a root to a subject, permits something. Pure: the clock is an argument.

Rules: the first issuer is a root; each next certificate is by the subject of the one before; each may be handed on as
often as others follow it, and is for what is asked; each begins no later than what was signed under it, and none has
ended; the last one is for the subject, and permits it. Signatures are checked last, and there are at most as many as a
chain may be long (`MAX_CHAIN` of `overlay.membership.certificate`). As time goes on a chain only ever stops to permit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise

from overlay.membership.certificate import MAX_CHAIN, Certificate, CertificateFault, is_genuine


def chain_fault(
    chain: Sequence[Certificate],
    *,
    roots: Collection[bytes],
    subject: bytes,
    permission: str,
    fits: Callable[[bytes], bool],
    signed_at: int,
    now: int,
    longest: int = MAX_CHAIN,
) -> CertificateFault | None:
    """Why `chain`, which isn't empty, doesn't permit `subject` what `permission` names; None if it does.

    `fits(scope)`: whether that is a scope with what is asked in it. `signed_at`: when the subject signed what it shows
    the chain for; `now`: the present; both in seconds since 1970.
    """
    cheap = _broken_links(chain, roots, subject, permission, longest)
    found = next(cheap, None) or next(_unfitting(chain, fits, signed_at, now), None)
    if found is None and not all(is_genuine(certificate) for certificate in chain):
        return CertificateFault.SIGNATURE
    return found


def _broken_links(
    chain: Sequence[Certificate], roots: Collection[bytes], subject: bytes, permission: str, longest: int
) -> Iterator[CertificateFault]:
    first, last = chain[0], chain[-1]
    if len(chain) > longest:
        yield CertificateFault.TOO_LONG
    if first.issuer not in roots:
        yield CertificateFault.ROOT
    if any(after.issuer != before.subject for before, after in pairwise(chain)):
        yield CertificateFault.LINK
    if last.subject != subject:
        yield CertificateFault.SUBJECT
    if permission not in last.permits:
        yield CertificateFault.PERMISSION
    if any(certificate.depth < below for below, certificate in enumerate(reversed(chain))):
        yield CertificateFault.DEPTH


def _unfitting(
    chain: Sequence[Certificate], fits: Callable[[bytes], bool], signed_at: int, now: int
) -> Iterator[CertificateFault]:
    if not all(fits(certificate.scope) for certificate in chain):
        yield CertificateFault.SCOPE
    if any(certificate.not_before > signed_at for certificate in chain):
        yield CertificateFault.NOT_YET_VALID
    if now >= ends_at(chain):
        yield CertificateFault.EXPIRED


def ends_at(chain: Sequence[Certificate]) -> int:
    """When the first of a chain's certificates ends (seconds since 1970)."""
    return min(certificate.expires_at for certificate in chain)


def begins_at(chain: Sequence[Certificate]) -> int:
    """When the last of a chain's certificates begins (seconds since 1970): what is signed before isn't permitted."""
    return max(certificate.not_before for certificate in chain)
