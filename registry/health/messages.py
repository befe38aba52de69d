"""The bodies of the calls about health: reports to a host, and the list of what doesn't pass there."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from registry.health.exceptions import MOST_IN_PAGE
from registry.health.state import HostedService
from registry.protocol.messages import Blob, Digest

REPORT_HEALTH: Final = "registry.report_health"
EXCEPTIONS: Final = "registry.exceptions"

_Text = Annotated[str, msgspec.Meta(max_length=128)]


class ReportBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.report_health`: the signed report of an issuer to the host of its record. Answered with
    `ReportAnswer`."""

    report: Blob


class ReportAnswer(msgspec.Struct, frozen=True, array_like=True):
    """It counts; a time to live is on disk."""


class ExceptionsBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.exceptions`: asks a host for the entries of its list that follow `after`, by resource, issuer and
    instance; from the first one on where that is missing. Answered with `ExceptionsPage`."""

    after: tuple[_Text, _Text, _Text] | None = None

    @property
    def service(self) -> HostedService | None:
        """What `after` names."""
        return None if self.after is None else HostedService(*self.after)


class ExceptionsPage(msgspec.Struct, frozen=True, array_like=True):
    """Entries of a host's list, encoded one by one; `digest` of the whole list, which may be another one by now than
    the presence told of."""

    digest: Digest
    entries: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=1024)], ...], msgspec.Meta(max_length=MOST_IN_PAGE)
    ]
