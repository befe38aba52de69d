"""The types of the original's `trust-graph.aqua`: what its functions take and return."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

PeerId = Annotated[str, Meta(max_length=128)]
Seconds = Annotated[int, Meta(ge=0)]
_Short = Annotated[str, Meta(max_length=256)]
_Text = Annotated[str, Meta(max_length=16_384)]
_Signature = Annotated[list[int], Meta(max_length=1024)] | bytes


class AquaTrust(Struct, frozen=True):
    """A trust as it travels: without its issuer."""

    issued_for: PeerId
    expires_at: Seconds
    signature: _Short
    sig_type: _Short
    issued_at: Seconds


class AquaCertificate(Struct, frozen=True):
    """From a root's trust in itself to whom it is for."""

    chain: Annotated[list[AquaTrust], Meta(max_length=256)]


class AquaRevocation(Struct, frozen=True):
    """A revocation as it travels."""

    revoked_peer_id: PeerId
    revoked_at: Seconds
    signature: _Short
    sig_type: _Short
    revoked_by: PeerId


class DoneResult(Struct, frozen=True):
    """What a function comes to that returns nothing else."""

    success: bool = True
    error: str = ""


class AddTrustResult(Struct, frozen=True):
    """The weight that a trust lends; 0 for one that wasn't taken, since its issuer has none to lend."""

    success: bool = True
    error: str = ""
    weight: int = 0


class AllCertsResult(Struct, frozen=True):
    """Certificates, the heaviest first."""

    success: bool = True
    certificates: list[AquaCertificate] = []
    error: str = ""


class ExportRevocationsResult(Struct, frozen=True):
    """Revocations of a peer."""

    success: bool = True
    revocations: list[AquaRevocation] = []
    error: str = ""


class BytesResult(Struct, frozen=True):
    """Bytes to be signed."""

    success: bool = True
    error: str = ""
    result: list[int] = []


class IssueTrustResult(Struct, frozen=True):
    """The trust made of what was given; its signature is judged when it is verified or added."""

    success: bool = True
    error: str = ""
    trust: AquaTrust = AquaTrust("", 0, "", "", 0)


class IssueRevocationResult(Struct, frozen=True):
    """A revocation, as `IssueTrustResult`."""

    success: bool = True
    error: str = ""
    revocation: AquaRevocation = AquaRevocation("", 0, "", "", "")
