"""Errors as problem details (RFC 9457), with the registry's codes in them.

Rules:
1. A status follows from a code: what the asker did wrong is 4xx; what later may work is 503, or 504 where the time was
   up, with `Retry-After` where that is known. Nothing that is foreseen is a 500.
2. `type` is a URN that ends with the code; `kind` tells what asking again may come to (`registry.codes.Kind`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Self

import msgspec

from registry.codes import Code, Kind
from registry.errors import RegistryError, StorageError
from registry.protocol.folded_errors import folded

MEDIA_TYPE: Final = "application/problem+json"
TYPE: Final = "urn:aqua-registry:problem:"
MOST_TEXTS: Final = 16  # of what went wrong that are told
LONGEST_DETAIL: Final = 4096  # characters

_STATUS: Final[dict[Code, int]] = {
    Code.INVALID: 400,
    Code.UNKNOWN_KIND: 400,
    Code.PEER_ID: 400,
    Code.KEY_NOT_EXISTS: 404,
    Code.KEY_REMOVED: 410,
    Code.NEWER_KEY_EXISTS: 409,
    Code.NEWER_STATE_EXISTS: 409,
    Code.NOT_PERMITTED: 403,
    Code.HOSTING_REFUSED: 403,
    Code.TOO_LARGE: 413,
    Code.TIMEOUT: 504,
    Code.UNREACHABLE: 504,
    Code.QUOTA_EXCEEDED: 507,
    Code.DISK_FULL: 507,
}


def status_of(code: Code) -> int:
    """The HTTP status of what failed with a code."""
    if code in _STATUS:
        return _STATUS[code]
    if code.is_by_policy:
        return 403
    return 422 if code.kind is Kind.FINAL else 503


class Problem(Exception):
    """What is told instead of a result. `extra`: further members of the JSON object."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after: float = 0.0,
        headers: Sequence[tuple[str, str]] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """`code`: one of the registry's, or of HTTP's own (docs/http.md). `retry_after`: seconds."""
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after = status, code, detail[:LONGEST_DETAIL], retry_after
        self.headers = tuple(headers)
        self.extra = dict(extra or {})

    @classmethod
    def invalid(cls, detail: str) -> Self:
        """A request that isn't what it must be."""
        return cls(400, Code.INVALID, detail)

    @classmethod
    def failed(cls, code: Code, errors: Sequence[str], what: str, *, stored: int = 0) -> Self:
        """An operation of the registry that failed with these errors. `stored`: replicas that have the write all the
        same."""
        texts = list(dict.fromkeys(errors))[:MOST_TEXTS]
        told = "; ".join(folded(texts)[:5]) or "no reason was given"
        extra: dict[str, Any] = {"errors": texts}
        if stored:
            extra["stored"] = stored
        return cls(status_of(code), code, f"{what}: {told}", extra=extra)

    @classmethod
    def of(cls, error: RegistryError) -> Self:
        """What an exception of the registry tells. The texts of the disk's name this node's files, and stay here."""
        text = "this node's disk refused; its log says why" if isinstance(error, StorageError) else str(error)
        return cls(status_of(error.code), error.code, text, retry_after=error.retry_after)

    def body(self) -> bytes:
        """The JSON object."""
        known = Code.known(self.code)
        kind = known.kind if known == self.code else Kind.FINAL if self.status < 500 else Kind.LOAD
        members = {
            "type": TYPE + self.code,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": str(self.code),
            "kind": kind.value,
            **self.extra,
        }
        return msgspec.json.encode(members)

    def all_headers(self) -> list[tuple[str, str]]:
        """The headers that go with it."""
        told = [("Retry-After", str(max(math.ceil(self.retry_after), 1)))] if self.retry_after > 0 else []
        return [("Content-Type", MEDIA_TYPE), *told, *self.headers]
