"""A refusal as it travels: its code beside its text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

import msgspec
import structlog

import registry.errors
import registry.permission.errors
import registry.trust.errors
from overlay.errors import (
    BodyTooLarge,
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    NoSuchMethod,
    Overloaded,
    ProtocolError,
    Unreachable,
)
from registry.codes import Code, Kind
from registry.errors import RegistryError, RegistryRefusal, StorageError

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LONGEST_TEXT: Final = 1024  # characters of a text that somebody else wrote, where it is passed on or remembered


class ErrorInfo(msgspec.Struct, frozen=True, array_like=True):
    """Why something was refused: `code` for programs (one of `registry.codes.Code`, or a later version's), `text` for
    people, in the original's words where it has some."""

    code: str
    text: str

    @classmethod
    def of(cls, error: RegistryError | CallFailed) -> Self:
        """What an exception tells."""
        if isinstance(error, StorageError):  # its text names this node's files: for the log, not for peers
            _log.error("the disk refused", error=str(error))
            return cls(error.code, "the disk refused")
        if isinstance(error, RegistryError):
            return cls(error.code, str(error))
        if isinstance(error, CallRefused):
            return cls(Code.known(error.code), error.reason)
        code = next((code for kind, code in _CODES_OF_CALLS if isinstance(error, kind)), Code.FAILED)
        return cls(code, error.reason)

    @property
    def known_code(self) -> Code:
        """The code; `FAILED` for one that this version doesn't know."""
        return Code.known(self.code)

    @property
    def kind(self) -> Kind:
        """What asking again may come to."""
        return self.known_code.kind

    def on(self, peer_id: str) -> ErrorInfo:
        """The same with the peer that refused in its text, which is shortened."""
        return ErrorInfo(self.known_code, f"{self.text[:LONGEST_TEXT]} on {peer_id}")

    def exception(self, retry_after: float = 0.0) -> RegistryRefusal:
        """The exception to raise for what somebody else refused, and in how many seconds it may take it, if it said."""
        error = _REFUSALS.get(self.code, RegistryRefusal).told(self.text)
        error.code, error.retry_after = self.known_code, retry_after
        return error


def retry_after(error: RegistryError | CallFailed) -> float:
    """In how many seconds the same may be taken, as whoever refused it for its load told; 0 when it didn't."""
    return error.retry_after if isinstance(error, RegistryError | CallRefused | Overloaded) else 0.0


def texts(errors: Iterable[ErrorInfo]) -> tuple[str, ...]:
    """What people are told of these."""
    return tuple(error.text for error in errors)


_CODES_OF_CALLS: Final[tuple[tuple[type[CallFailed], Code], ...]] = (
    (ConnectionLost, Code.CONNECTION_LOST),  # before its base
    (Unreachable, Code.UNREACHABLE),
    (CallTimeout, Code.TIMEOUT),
    (Overloaded, Code.OVERLOADED),
    (NoSuchMethod, Code.NO_SUCH_METHOD),
    (BodyTooLarge, Code.TOO_LARGE),
    (ProtocolError, Code.BAD_ANSWER),
)


_REFUSALS: Final[dict[str, type[RegistryRefusal]]] = {
    refusal.code: refusal
    for module in (registry.errors, registry.permission.errors, registry.trust.errors)
    for refusal in vars(module).values()
    if isinstance(refusal, type) and issubclass(refusal, RegistryRefusal)
}
