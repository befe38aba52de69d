"""The errors of the overlay, as one hierarchy.

What libp2p, trio and the codecs raise is mapped to these at the edge; nothing above sees a foreign exception.
"""

from __future__ import annotations


class OverlayError(Exception):
    """Base of everything that the overlay raises for what the network, a peer or a file did."""


class PeerIdError(OverlayError, ValueError):
    """A string that should be a base58 peer id with an inlined Ed25519 key isn't one."""


class AddressError(OverlayError, ValueError):
    """A string isn't a multiaddr that this peer can listen on or dial."""


class IdentityError(OverlayError):
    """The identity file can't be used; the text names the path and the remedy."""


class StreamBroken(OverlayError):
    """The stream was reset, or its connection ended, while bytes were under way."""


class BootstrapFailed(OverlayError):
    """What the operator gave to join through leads to nobody; the text says why, and what to do."""


class CallFailed(OverlayError):
    """A call, or the dialling that it needed, failed.

    `peer_id` is the remote peer (base58; for `connect`, what the address claims); `method` the called method,
    or the protocol id where no method was called yet. `reason` may be told to anybody; `detail` is for our own logs and
    users, since what it tells of ports and addresses would help strangers to scan with us.
    """

    def __init__(self, peer_id: str, method: str, reason: str = "", *, detail: str = "") -> None:
        self.peer_id = peer_id
        self.method = method
        self.reason = reason or self.default_reason
        self.detail = detail or self.reason
        super().__init__(f"{method} on {peer_id}: {self.detail}")

    default_reason = "failed"


class Unreachable(CallFailed):
    """The peer isn't connected and can't be dialled, or the connection ended before the answer came."""

    default_reason = "unreachable"


class PeerFull(Unreachable):
    """The peer has no place for another link. `others`: members that it named, whose addresses are remembered."""

    default_reason = "the peer has no place for another link"

    def __init__(
        self, peer_id: str, method: str, reason: str = "", others: tuple[str, ...] = (), *, detail: str = ""
    ) -> None:
        super().__init__(peer_id, method, reason, detail=detail)
        self.others = others


class NotAdmitted(Unreachable):
    """One side doesn't let the other into its private network. `code`: why, a value of
    `overlay.membership.gatekeeper.LinkFault`, or empty for one that this version doesn't know."""

    default_reason = "not admitted to the network"

    def __init__(self, peer_id: str, method: str, reason: str = "", code: str = "", *, detail: str = "") -> None:
        super().__init__(peer_id, method, reason, detail=detail)
        self.code = code


class ConnectionLost(Unreachable):
    """The connection ended before the answer came: the peer may have served the call."""

    default_reason = "the connection was lost"


class CallTimeout(CallFailed):
    """The deadline passed before the answer came."""

    default_reason = "timeout exceeded"


class Overloaded(CallFailed):
    """The remote peer, or our own queue to it, is full; later may work. `retry_after`: in how many seconds, as far as
    the peer told; 0 when it didn't."""

    default_reason = "overloaded"

    def __init__(self, peer_id: str, method: str, reason: str = "", retry_after: float = 0.0) -> None:
        self.retry_after = retry_after
        told = f"; come back in {retry_after:.1f} s" if retry_after else ""
        super().__init__(peer_id, method, (reason or self.default_reason) + told)


class AnswerDropped(Overloaded):
    """The remote peer served the call, and then had no memory for its answer: only what may be done twice may be called
    again."""

    default_reason = "it was served, but memory was too short for its answer"


class NoSuchMethod(CallFailed):
    """The remote peer serves no such method."""

    default_reason = "no such method"


class ProtocolNotSupported(CallFailed):
    """The remote peer doesn't speak the protocol; `method` is the protocol id."""

    default_reason = "protocol not supported"


class ProtocolError(CallFailed):
    """The remote peer broke the rules of the protocol; the link to it was closed."""

    default_reason = "broke the protocol"


class BodyTooLarge(CallFailed):
    """The request, or its answer, doesn't fit into a frame; a too large request wasn't sent."""

    default_reason = "too large for a frame"


class AnswerTooLarge(BodyTooLarge):
    """The answer doesn't fit into a frame: the call was served."""

    default_reason = "the answer is too large for a frame"


class BadFrame(ProtocolError):
    """A frame was too large, wasn't CBOR, or had no known form."""

    default_reason = "bad frame"


class CallRefused(CallFailed):
    """The remote handler refused: `code` is for programs, `message` for people. `retry_after`: in how many seconds it
    may take the same, as far as it told; 0 when it didn't."""

    def __init__(self, peer_id: str, method: str, code: str, message: str, retry_after: float = 0.0) -> None:
        self.code = code
        self.message = message
        self.retry_after = retry_after
        super().__init__(peer_id, method, f"{code}: {message}")


class Refusal(OverlayError):
    """Raised by a handler to answer a call with an error; the caller gets it as `CallRefused`.

    `retry_after`: in how many seconds the same may be taken; 0 where the time has nothing to do with it.
    """

    def __init__(self, code: str, message: str, retry_after: float = 0.0) -> None:
        self.code = code
        self.message = message
        self.retry_after = retry_after
        super().__init__(f"{code}: {message}")
