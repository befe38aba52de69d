"""How policies refuse: one that is malformed, and what one doesn't permit."""

from __future__ import annotations

from typing import Final

from registry.codes import Code
from registry.errors import InvalidValue, RegistryRefusal


class InvalidPolicy(InvalidValue):
    """A key whose challenge says that it is a policy, and is none."""

    code = Code.POLICY_FORM

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid policy: {reason} ({self.code})")


class UnknownPolicyFields(InvalidPolicy):
    """A policy with fields that its version doesn't have: they could narrow what the others permit."""

    code = Code.POLICY_UNKNOWN_FIELDS


class PolicyLocksOwnerOut(InvalidPolicy):
    """A policy with which its owner couldn't go on."""

    code = Code.POLICY_LOCKS_OWNER_OUT


class RefusedByPolicy(RegistryRefusal):
    """Ours: the owner of the resource doesn't let this issuer register there, or not on this host; `code` says why."""

    code = Code.ISSUER_NOT_ALLOWED

    def __init__(self, key_id: str, code: Code, issued_by: str, peer_id: str) -> None:
        super().__init__(f"{issued_by} may not register {peer_id} on {key_id}: {_WHY_NOT_PERMITTED[code]} ({code})")
        self.code = code


_WHY_NOT_PERMITTED: Final[dict[Code, str]] = {
    Code.ISSUER_NOT_ALLOWED: "its policy doesn't name the issuer; ask the owner to allow it, or for a certificate",
    Code.ISSUER_DENIED: "the owner denied what this issuer, or one who certified it, issued up to now; ask the owner",
    Code.HOST_NOT_ALLOWED: "its policy names other hosts; register on one of those",
    Code.POLICY_UNKNOWN: "its policy is of a later version than this peer knows; upgrade the peer",
    Code.CERTIFICATE_FORM: "what it shows isn't a chain of certificates; show the certificate as it was issued",
    Code.CERTIFICATE_UNKNOWN_FIELDS: "its certificate is of a later version; upgrade this peer, or issue it anew",
    Code.CERTIFICATE_CHAIN_TOO_LONG: "its chain has more certificates than the policy takes; get one nearer the root",
    Code.CERTIFICATE_ROOT: "its first certificate isn't by a root of the policy; ask the owner for the roots",
    Code.CERTIFICATE_LINK: "a certificate isn't by the subject of the one before; show the whole chain, in order",
    Code.CERTIFICATE_SUBJECT: "its certificate is for another peer; get one for this issuer",
    Code.CERTIFICATE_PERMISSION: "its certificate doesn't permit to register; get one that does",
    Code.CERTIFICATE_DEPTH: "a certificate was handed on that mustn't be; get one from its issuer",
    Code.CERTIFICATE_RESOURCE: "its certificate is for other resources; get one for this one",
    Code.CERTIFICATE_NOT_YET_VALID: "its certificate begins after the record was issued; check the clocks, issue again",
    Code.CERTIFICATE_EXPIRED: "its certificate has ended; get a new one, and register again",
    Code.CERTIFICATE_SIGNATURE: "a certificate isn't signed by its issuer; get it anew",
}


def why_not_permitted_in_words(code: Code) -> str:
    """What a code of `RefusedByPolicy` means, and what to do."""
    return _WHY_NOT_PERMITTED[code]
