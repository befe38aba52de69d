"""Errors of calling services."""

from __future__ import annotations

from overlay.errors import (
    AnswerDropped,
    AnswerTooLarge,
    BodyTooLarge,
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    NoSuchMethod,
    Overloaded,
    ProtocolNotSupported,
    Unreachable,
)


class ServiceError(Exception):
    """A call failed. Base of all; `peer_id` is the called peer."""

    def __init__(self, peer_id: str, service_id: str, function: str, reason: str) -> None:
        self.peer_id = peer_id
        self.service_id = service_id
        self.function = function
        self.reason = reason
        super().__init__(f"{service_id}.{function} on {peer_id}: {reason}")


class PeerUnreachable(ServiceError):
    """The peer couldn't be reached, directly or through its relays: surely nothing was done."""


class CallInterrupted(PeerUnreachable):
    """The connection was lost before the answer came, or the peer had no memory for it: perhaps the service did its
    work."""


class NoSuchService(ServiceError):
    """The peer serves no service of that id."""


class NoSuchFunction(ServiceError):
    """The service has no such function."""


class BadArguments(ServiceError):
    """The arguments are too many, too few, of a wrong type, or can't be sent."""


class RaisedByService(ServiceError):
    """The function raised; `reason` is what it said."""


class TooSlow(ServiceError):
    """The deadline passed, the caller's or the service's own; the function was cancelled."""


class PeerOverloaded(ServiceError):
    """The call was refused before anything was done: too many are under way."""


class BadAnswer(ServiceError):
    """The answer broke the protocol, is too large to be sent, or isn't of the type that was asked for."""


class NoProvider(Exception):
    """Nobody on a resource could be called; the text tells for each why."""


class NotRegistered(Exception):
    """A service couldn't be registered; the text tells why."""


class NotReported(Exception):
    """What was said of a service's health didn't reach its host, or was refused there; the text tells why."""


CODES: dict[str, type[ServiceError]] = {
    "no-service": NoSuchService,
    "no-function": NoSuchFunction,
    "bad-arguments": BadArguments,
    "raised": RaisedByService,
    "too-slow": TooSlow,
    "overloaded": PeerOverloaded,
}

_KINDS: tuple[tuple[type[CallFailed], type[ServiceError]], ...] = (
    (ConnectionLost, CallInterrupted),
    (Unreachable, PeerUnreachable),
    (CallTimeout, TooSlow),
    (AnswerDropped, CallInterrupted),  # before `Overloaded`, of which it is a kind
    (Overloaded, PeerOverloaded),
    (AnswerTooLarge, BadAnswer),  # before `BodyTooLarge`, of which it is a kind
    (BodyTooLarge, BadArguments),
    (NoSuchMethod, NoSuchService),
    (ProtocolNotSupported, NoSuchService),
)


def service_error(error: CallFailed, peer_id: str, service_id: str, function: str) -> ServiceError:
    """The error of calling a service that a failed call of the overlay stands for."""
    if isinstance(error, CallRefused):
        return CODES.get(error.code, BadAnswer)(peer_id, service_id, function, error.message)
    kind = next((ours for theirs, ours in _KINDS if isinstance(error, theirs)), BadAnswer)
    return kind(peer_id, service_id, function, error.reason)
