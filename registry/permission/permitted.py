"""Who may register: a policy applied to what a record claims. Pure; replicas, hosts and readers ask the same.

Rules:
1. Without a policy anyone may, and the resource's owner always.
2. What is denied isn't permitted: an issuer on a host, or anywhere, and then also what it certified, however far down
   the chain. A denial is of what was issued until its end; the clock has no part in it, or old records would come back
   by themselves.
3. If the policy names hosts, the record is on one of them.
4. Then it is open, or the issuer is allowed by name, or by a chain of certificates (`overlay.membership.chain`) from
   the owner or a root, each of which covers the resource.
5. Under one policy, what isn't permitted now never will be: time only narrows.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from overlay.membership.certificate import (
    Certificate,
    CertificateError,
    CertificateFault,
    decode_chain,
)
from overlay.membership.chain import chain_fault, ends_at
from registry.codes import Code
from registry.permission.policy import ANY_HOST, LONGEST_CHAIN, AnyPolicy, Policy, UnknownPolicy, key_of
from registry.permission.scope import scope_in

REGISTER: Final = "register"
"""What a certificate permits whose subject may register."""

CODES: Final[dict[CertificateFault, Code]] = {
    CertificateFault.FORM: Code.CERTIFICATE_FORM,
    CertificateFault.UNKNOWN_FIELDS: Code.CERTIFICATE_UNKNOWN_FIELDS,
    CertificateFault.TOO_LONG: Code.CERTIFICATE_CHAIN_TOO_LONG,
    CertificateFault.ROOT: Code.CERTIFICATE_ROOT,
    CertificateFault.LINK: Code.CERTIFICATE_LINK,
    CertificateFault.SUBJECT: Code.CERTIFICATE_SUBJECT,
    CertificateFault.PERMISSION: Code.CERTIFICATE_PERMISSION,
    CertificateFault.DEPTH: Code.CERTIFICATE_DEPTH,
    CertificateFault.SCOPE: Code.CERTIFICATE_RESOURCE,
    CertificateFault.NOT_YET_VALID: Code.CERTIFICATE_NOT_YET_VALID,
    CertificateFault.EXPIRED: Code.CERTIFICATE_EXPIRED,
    CertificateFault.SIGNATURE: Code.CERTIFICATE_SIGNATURE,
}
"""What each fault of a chain is where somebody registers."""


class Claim(NamedTuple):
    """What a record, or a tombstone, says: that `issuer` may speak of `host` on a resource. Peers by their ids."""

    resource_id: str
    label: str
    owner: str
    issuer: str
    host: str
    issued_at: int
    """timestamp_issued, in seconds."""
    solution: bytes
    """A chain of certificates, or empty."""


def why_not_permitted(policy: AnyPolicy | None, claim: Claim, now: int) -> Code | None:
    """Why a policy doesn't permit what is claimed, at `now` (seconds); None if it does."""
    if policy is None or claim.issuer == claim.owner:
        return None
    if isinstance(policy, UnknownPolicy):
        return Code.POLICY_UNKNOWN
    if _is_denied(policy, claim):
        return Code.ISSUER_DENIED
    if policy.hosts and key_of(claim.host) not in policy.hosts:
        return Code.HOST_NOT_ALLOWED
    return None if policy.open else _why_not_named(policy, claim, now)


def is_named(policy: AnyPolicy | None, claim: Claim, now: int) -> bool:
    """Whether a policy permits what is claimed to its issuer rather than to anyone: by name or certificate."""
    if not isinstance(policy, Policy) or why_not_permitted(policy, claim, now) is not None:
        return False
    return claim.issuer == claim.owner or _why_not_named(policy, claim, now) is None


def permitted_until(policy: AnyPolicy | None, claim: Claim) -> int | None:
    """When what a policy permits isn't permitted any more unless the policy changes (seconds); None for never."""
    if not isinstance(policy, Policy) or claim.issuer == claim.owner or policy.open:
        return None
    return None if key_of(claim.issuer) in policy.allow else ends_at(decode_chain(claim.solution))


def why_not_certified(claim: Claim, roots: Collection[bytes], now: int, longest: int = LONGEST_CHAIN) -> Code | None:
    """Why the chain that is shown doesn't permit what is claimed, at `now` (seconds); None if it does.

    `roots`: the public keys by one of which its first certificate must be; `longest`: of how many it may be at most.
    """
    try:
        chain = decode_chain(claim.solution)
    except CertificateError as error:
        return CODES[error.fault]
    if not chain:
        return Code.ISSUER_NOT_ALLOWED
    owner = key_of(claim.owner)

    def fits(encoded: bytes) -> bool:
        scope = scope_in(encoded)
        return scope is not None and scope.covers(claim.resource_id, claim.label, owner)

    fault = chain_fault(
        chain,
        roots=roots,
        subject=key_of(claim.issuer),
        permission=REGISTER,
        fits=fits,
        signed_at=claim.issued_at,
        now=now,
        longest=longest,
    )
    return None if fault is None else CODES[fault]


def roots_shown(solution: bytes) -> tuple[bytes, ...]:
    """By whose key the first certificate of what is shown claims to be, if there is one."""
    return tuple(certificate.issuer for certificate in _shown(solution)[:1])


def _why_not_named(policy: Policy, claim: Claim, now: int) -> Code | None:
    if key_of(claim.issuer) in policy.allow:
        return None
    return why_not_certified(claim, (key_of(claim.owner), *policy.roots), now, policy.longest_chain)


def _is_denied(policy: Policy, claim: Claim) -> bool:
    if not policy.deny:
        return False
    issuer, host = key_of(claim.issuer), key_of(claim.host)
    through = {issuer, *(key for each in _shown(claim.solution) for key in (each.issuer, each.subject))}
    return any(
        claim.issued_at <= denial.until
        and (denial.issuer in through if denial.host == ANY_HOST else (denial.issuer, denial.host) == (issuer, host))
        for denial in policy.deny
    )


def _shown(solution: bytes) -> tuple[Certificate, ...]:
    try:
        return decode_chain(solution)
    except CertificateError:
        return ()
