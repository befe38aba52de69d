"""How the trust graph refuses a statement. The texts are the original's, but where it says else."""

from __future__ import annotations

from registry.codes import Code
from registry.errors import RegistryRefusal


class TrustForm(RegistryRefusal):
    """What was given to the trust graph is no trust, revocation or certificate."""

    code = Code.TRUST_FORM


class TrustSignature(RegistryRefusal):
    """A statement for the trust graph wasn't signed by its issuer. `signature` in base58."""

    code = Code.TRUST_SIGNATURE

    def __init__(self, signature: str, issued_by: str) -> None:
        super().__init__(f"Failed to verify signature {signature} with the key of {issued_by}")


class TrustExpired(RegistryRefusal):
    """A statement for the trust graph has ended; both times in seconds."""

    code = Code.TRUST_EXPIRED

    def __init__(self, ends_at: int, now: int) -> None:
        super().__init__(f"Trust is expired at: '{ends_at}s', current time: '{now}s'")


class TrustFromFuture(RegistryRefusal):
    """A statement for the trust graph is issued later than the present; `what` is the original's word for it."""

    code = Code.TRUST_FROM_FUTURE

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} can't be issued later than the current timestamp")


class RootsByOwnerOnly(RegistryRefusal):
    """Only the node's operator says whom the trust graph trusts first."""

    code = Code.TRUST_OWNER

    def __init__(self) -> None:
        super().__init__("Root could add only by trust graph service owner")


class RevokedByStranger(RegistryRefusal):
    """Ours: whoever has no weight in the trust graph ends nobody's paths."""

    code = Code.TRUST_STRANGER

    def __init__(self, peer_id: str) -> None:
        super().__init__(f"{peer_id} revokes and has no weight here, so that it ends nothing")
