"""Giving certificates: what an owner, a root, or whoever may hand on does, offline."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from overlay.identity import Identity
from overlay.membership.certificate import Certificate
from registry.model.signing import is_key_id
from registry.permission.certificate_text import text_of
from registry.permission.permitted import REGISTER
from registry.permission.policy import key_of
from registry.permission.scope import Scope, ScopeKind

BEFORE: Final = 60
"""Seconds by which a certificate begins before it is issued, for clocks that are behind."""


def scope_of(place: str, owner: str) -> Scope:
    """The resources that a text names: those of the peer `owner` with that label, or labels that begin so
    (`payments*`), or all (`*`); or the one with that id, whoever owns it. Raises ValueError."""
    if is_key_id(place):
        return Scope(ScopeKind.RESOURCE, b"", place)
    if place == "*":
        return Scope(ScopeKind.ALL, key_of(owner))
    if place.endswith("*"):
        return Scope(ScopeKind.PREFIX, key_of(owner), place[:-1])
    return Scope(ScopeKind.LABEL, key_of(owner), place)


def certify(
    issuer: Identity, subject: str, scope: Scope, *, now: float, lasts: float, delegate: int = 0
) -> Certificate:
    """Permits the peer `subject` to register within `scope`, from `now` (seconds since 1970) for `lasts` seconds.

    `delegate`: how often it may be handed on. The chain to show is the issuer's own and this one, or this one alone if
    the issuer owns the resource or is a root of its policy. Raises ValueError for what no certificate can hold.
    """
    unsigned = Certificate(
        key_of(issuer.peer_id),
        key_of(subject),
        (REGISTER,),
        delegate,
        scope.encoded(),
        max(int(now) - BEFORE, 0),
        int(now + lasts),
    )
    return unsigned.signed_by(issuer)


def save_chain(path: Path, chain: Sequence[Certificate]) -> None:
    """Puts a chain into a file, in place of what is there, with its mode: whoever reads meanwhile sees the one or the
    other. Blocks. Raises OSError."""
    target = path.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text_of(chain) + "\n")
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(temporary).replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)
