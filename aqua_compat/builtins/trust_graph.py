"""`trust-graph`: whom this node's operator trusts, whom those trust, and what that makes peers weigh.

The functions and types are those of trust-graph 0.4.10's `trust-graph.aqua`, the texts of errors its service's where
that has the same ones. `timestamp_sec` is taken and not used: this peer's own clock counts, since whoever gives another
time could have what isn't expired deleted, or what is expired counted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import base58

from aqua_compat.builtins.trust_values import (
    AddTrustResult,
    AllCertsResult,
    AquaCertificate,
    AquaRevocation,
    AquaTrust,
    BytesResult,
    DoneResult,
    ExportRevocationsResult,
    IssueRevocationResult,
    IssueTrustResult,
    PeerId,
    Seconds,
    _Signature,
    _Text,
)
from aqua_compat.rpc.server import caller
from overlay.identity import public_key_of
from registry.errors import InvalidValue, RegistryError, RegistryRefusal
from registry.model.service_results import WeightResult
from registry.replica.trust_keeper import TrustKeeper
from registry.replica.weights import Weights
from registry.trust.errors import RootsByOwnerOnly, TrustExpired, TrustForm, TrustSignature
from registry.trust.statements import (
    KEY_TYPE,
    MAX_CHAIN,
    SIGNATURE_BYTES,
    U64_MAX,
    Chain,
    TrustRevocation,
    TrustStatement,
    bytes_of_base58,
    chain_from_text,
    chain_of,
    revocation_digest,
    trust_digest,
)

Result = TypeVar("Result")

_ADDING: Final = "Trust verification error: "
_REVOKING: Final = "Error on revoking a trust: Signature is incorrect: "


class TrustGraph:
    """The graph as `keeper` has it; what the operator configured of weights comes before it."""

    def __init__(self, keeper: TrustKeeper, weights: Weights, host_peer_id: str, operators: Sequence[str] = ()) -> None:
        """`operators` may set roots, and the host itself."""
        self._keeper = keeper
        self._weights = weights
        self._host_peer_id = host_peer_id
        self._operators = frozenset((host_peer_id, *operators))

    async def set_root(self, peer_id: PeerId, max_chain_len: Seconds) -> DoneResult:
        """Makes a peer a root that lends weight down to so many steps; only the operator may."""

        async def act() -> DoneResult:
            if caller() not in self._operators:
                raise RootsByOwnerOnly
            _check_peer_id(peer_id)
            await self._keeper.set_root(peer_id, max_chain_len)
            return DoneResult()

        return await _told(DoneResult, act)

    async def get_trust_bytes(
        self, issued_for_peer_id: PeerId, expires_at_sec: Seconds, issued_at_sec: Seconds
    ) -> BytesResult:
        """What the issuer of a trust signs."""

        async def act() -> BytesResult:
            return BytesResult(result=list(trust_digest(issued_for_peer_id, expires_at_sec, issued_at_sec)))

        return await _told(BytesResult, act)

    async def issue_trust(
        self, issued_for_peer_id: PeerId, expires_at_sec: Seconds, issued_at_sec: Seconds, trust_bytes: _Signature
    ) -> IssueTrustResult:
        """Makes a trust of its fields and its signature."""

        async def act() -> IssueTrustResult:
            _check_peer_id(issued_for_peer_id)
            signature = base58.b58encode(_signature(trust_bytes)).decode()
            trust = AquaTrust(issued_for_peer_id, expires_at_sec, signature, KEY_TYPE, issued_at_sec)
            return IssueTrustResult(trust=trust)

        return await _told(IssueTrustResult, act)

    async def verify_trust(self, trust: AquaTrust, issuer_peer_id: PeerId, timestamp_sec: Seconds) -> DoneResult:  # noqa: ARG002
        """Whether the issuer signed a trust, and it hasn't ended."""

        async def act() -> DoneResult:
            _check_peer_id(issuer_peer_id)
            await self._keeper.verify(_trust(trust, issuer_peer_id))
            return DoneResult()

        return await _told(DoneResult, act)

    async def add_trust(self, trust: AquaTrust, issuer_peer_id: PeerId, timestamp_sec: Seconds) -> AddTrustResult:  # noqa: ARG002
        """Takes a trust in, when its issuer has weight to lend."""

        async def act() -> AddTrustResult:
            _check_peer_id(issuer_peer_id)
            return AddTrustResult(weight=await self._keeper.add((_trust(trust, issuer_peer_id),)))

        return await _told(AddTrustResult, act, _ADDING)

    async def insert_cert(self, certificate: AquaCertificate, timestamp_sec: Seconds) -> DoneResult:  # noqa: ARG002
        """Takes in all trusts of a certificate, or none."""

        async def act() -> DoneResult:
            if len(certificate.chain) > MAX_CHAIN:
                raise TrustForm(f"the certificate has {len(certificate.chain)} trusts, more than {MAX_CHAIN}")
            await self._keeper.add(chain_of([_trust(trust) for trust in certificate.chain]))
            return DoneResult()

        return await _told(DoneResult, act, _ADDING)

    async def insert_cert_raw(self, certificate: _Text, timestamp_sec: Seconds) -> DoneResult:  # noqa: ARG002
        """`insert_cert` of a certificate's text."""

        async def act() -> DoneResult:
            await self._keeper.add(chain_from_text(certificate))
            return DoneResult()

        return await _told(DoneResult, act, _ADDING)

    async def get_weight(self, peer_id: PeerId, timestamp_sec: Seconds) -> WeightResult:  # noqa: ARG002
        """A peer's weight."""

        async def act() -> WeightResult:
            _check_peer_id(peer_id)
            return self._weights.get_weight(peer_id)

        return await _told(_no_weight, act)

    async def get_weight_from(self, peer_id: PeerId, issuer: PeerId, timestamp_sec: Seconds) -> WeightResult:  # noqa: ARG002
        """The weight that a peer has through another one."""

        async def act() -> WeightResult:
            _check_peer_id(peer_id)
            _check_peer_id(issuer)
            return WeightResult(True, await self._keeper.weight_from(peer_id, issuer), peer_id)

        return await _told(_no_weight, act)

    async def get_all_certs(self, issued_for: PeerId, timestamp_sec: Seconds) -> AllCertsResult:  # noqa: ARG002
        """The certificates of a peer that are known here."""
        return await self._certificates(issued_for)

    async def get_all_certs_from(self, issued_for: PeerId, issuer: PeerId, timestamp_sec: Seconds) -> AllCertsResult:  # noqa: ARG002
        """The certificates for a peer that another peer is part of."""
        return await self._certificates(issued_for, issuer)

    async def get_host_certs(self, timestamp_sec: Seconds) -> AllCertsResult:  # noqa: ARG002
        """The certificates of this peer."""
        return await self._certificates(self._host_peer_id)

    async def get_host_certs_from(self, issuer: PeerId, timestamp_sec: Seconds) -> AllCertsResult:  # noqa: ARG002
        """The certificates for this host that another peer is part of."""
        return await self._certificates(self._host_peer_id, issuer)

    async def get_revocation_bytes(self, revoked_peer_id: PeerId, revoked_at: Seconds) -> BytesResult:
        """What the issuer of a revocation signs."""

        async def act() -> BytesResult:
            return BytesResult(result=list(revocation_digest(revoked_peer_id, revoked_at)))

        return await _told(BytesResult, act)

    async def issue_revocation(
        self,
        revoked_by_peer_id: PeerId,
        revoked_peer_id: PeerId,
        revoked_at_sec: Seconds,
        signature_bytes: _Signature,
    ) -> IssueRevocationResult:
        """A revocation from its signature."""

        async def act() -> IssueRevocationResult:
            _check_peer_id(revoked_peer_id)
            _check_peer_id(revoked_by_peer_id)
            signature = base58.b58encode(_signature(signature_bytes)).decode()
            revocation = AquaRevocation(revoked_peer_id, revoked_at_sec, signature, KEY_TYPE, revoked_by_peer_id)
            return IssueRevocationResult(revocation=revocation)

        return await _told(IssueRevocationResult, act)

    async def revoke(self, revoke: AquaRevocation, timestamp_sec: Seconds) -> DoneResult:  # noqa: ARG002
        """Takes a revocation in, of an issuer who has weight."""

        async def act() -> DoneResult:
            _check_peer_id(revoke.revoked_by)
            signature = _signature_of(revoke.signature, revoke.sig_type)
            await self._keeper.revoke(
                TrustRevocation(revoke.revoked_by, revoke.revoked_peer_id, revoke.revoked_at, signature)
            )
            return DoneResult()

        return await _told(DoneResult, act, _REVOKING)

    async def export_revocations(self, issued_for: PeerId) -> ExportRevocationsResult:
        """The revocations of a peer that are kept here, in the original's order: by the text of who revoked's key."""

        async def act() -> ExportRevocationsResult:
            _check_peer_id(issued_for)
            found = await self._keeper.revocations(issued_for)
            return ExportRevocationsResult(
                revocations=[
                    AquaRevocation(
                        revocation.issued_for,
                        revocation.issued_at,
                        base58.b58encode(revocation.signature).decode(),
                        KEY_TYPE,
                        revocation.issued_by,
                    )
                    for revocation in sorted(found, key=lambda one: base58.b58encode(public_key_of(one.issued_by)))
                ]
            )

        return await _told(ExportRevocationsResult, act)

    async def _certificates(self, issued_for: str, issuer: str | None = None) -> AllCertsResult:
        async def act() -> AllCertsResult:
            _check_peer_id(issued_for)
            if issuer is not None:
                _check_peer_id(issuer)
            found = await self._keeper.certificates(issued_for, issuer)
            return AllCertsResult(certificates=[_certificate(chain) for chain in found])

        return await _told(AllCertsResult, act)


def in_memory(host_peer_id: str) -> TrustGraph:
    """The graph of a peer that keeps nothing: without roots everybody weighs 0."""
    keeper = TrustKeeper(time.time, {})
    return TrustGraph(keeper, Weights({}, keeper), host_peer_id)


async def _told(result: Callable[..., Result], act: Callable[[], Awaitable[Result]], doing: str = "") -> Result:
    """What `act` comes to; a refusal as a result of its type, of a statement itself after what the original says."""
    try:
        return await act()
    except (TrustExpired, TrustSignature) as error:
        return result(success=False, error=f"{doing}{error}")
    except RegistryError as error:
        known = isinstance(error, RegistryRefusal | InvalidValue)
        return result(success=False, error=str(error) if known else "Internal error: the disk refused")


def _no_weight(**fields: Any) -> WeightResult:
    return WeightResult(weight=0, peer_id="", **fields)


def _check_peer_id(peer_id: str) -> None:
    trust_digest(peer_id, 0, 0)


def _trust(trust: AquaTrust, issued_by: str = "") -> TrustStatement:
    signature = _signature_of(trust.signature, trust.sig_type)
    if max(trust.expires_at, trust.issued_at) > U64_MAX:
        raise TrustForm(f"a time isn't whole seconds within 0 and {U64_MAX}")
    _check_peer_id(trust.issued_for)
    return TrustStatement(issued_by, trust.issued_for, trust.issued_at, trust.expires_at, signature)


def _signature_of(text: str, kind: str) -> bytes:
    if kind != KEY_TYPE:
        raise TrustForm(f"{kind} Key format is not supported")
    signature = bytes_of_base58(text, "signature")
    if len(signature) != SIGNATURE_BYTES:
        raise TrustForm(f"the signature has {len(signature)} bytes, not {SIGNATURE_BYTES}")
    return signature


def _signature(given: list[int] | bytes) -> bytes:
    try:
        return bytes(given)
    except ValueError:
        raise TrustForm("a signature is bytes") from None


def _certificate(chain: Chain) -> AquaCertificate:
    return AquaCertificate(
        [
            AquaTrust(
                trust.issued_for,
                trust.expires_at,
                base58.b58encode(trust.signature).decode(),
                KEY_TYPE,
                trust.issued_at,
            )
            for trust in chain
        ]
    )


class TimeArgument(NamedTuple):
    """Which argument of a function is the present; and the function's result where a script has it from elsewhere."""

    position: int
    refused: Callable[..., object]


TIMES: Final = {
    "add_trust": TimeArgument(2, AddTrustResult),
    "get_all_certs": TimeArgument(1, AllCertsResult),
    "get_all_certs_from": TimeArgument(2, AllCertsResult),
    "get_host_certs": TimeArgument(0, AllCertsResult),
    "get_host_certs_from": TimeArgument(1, AllCertsResult),
    "get_weight": TimeArgument(1, _no_weight),
    "get_weight_from": TimeArgument(2, _no_weight),
    "insert_cert": TimeArgument(1, DoneResult),
    "insert_cert_raw": TimeArgument(1, DoneResult),
    "revoke": TimeArgument(1, DoneResult),
    "verify_trust": TimeArgument(2, DoneResult),
}
"""Of the functions that have the present given."""
