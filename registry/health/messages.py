"""The bodies of the calls about health: reports to a host, the list of what doesn't pass there, and what a node tells
its light clients of hosts."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from registry.health.exceptions import MOST_IN_PAGE
from registry.health.state import HostedService
from registry.protocol.messages import Blob, Digest, bounded_time

REPORT_HEALTH: Final = "registry.report_health"
EXCEPTIONS: Final = "registry.exceptions"
HOSTS_CHANGED: Final = "registry.hosts_changed"
MOST_HOSTS: Final = 64
"""Hosts in one call. The evidence of one has 8 KiB at most."""

_Text = Annotated[str, msgspec.Meta(max_length=128)]


class ReportBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.report_health`: the signed report of an issuer to the host of its record. Answered with
    `ReportAnswer`."""

    report: Blob


class ReportAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Tells that the report counts, and that a time to live is on disk."""


class ExceptionsBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.exceptions`: asks a host for the entries of its list that follow `after`, by resource, issuer and
    instance; from the first one on where that is missing. Answered with `ExceptionsPage`."""

    after: tuple[_Text, _Text, _Text] | None = None

    @property
    def service(self) -> HostedService | None:
        """The service that `after` names."""
        return None if self.after is None else HostedService(*self.after)


class ExceptionsPage(msgspec.Struct, frozen=True, array_like=True):
    """Entries of a host's list, encoded one by one; `digest` of the whole list, which may be another one by now than
    the presence told of."""

    digest: Digest
    entries: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=1024)], ...], msgspec.Meta(max_length=MOST_IN_PAGE)
    ]


class ToldStanding(msgspec.Struct, frozen=True, array_like=True):
    """What a node knows of one host, with the signed evidence for it (`overlay.presence.evidence`)."""

    peer_id: _Text
    is_up: bool
    is_known: bool
    since: float
    """Seconds for which it is up or down; as long as can be said where it always was."""
    evidence: Annotated[bytes, msgspec.Meta(max_length=16 * 1024)]

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "since", bounded_time(self.since))


class HostsChangedBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.hosts_changed`: a node tells a light client of hosts that it follows there. Answered with nothing."""

    standings: Annotated[tuple[ToldStanding, ...], msgspec.Meta(max_length=MOST_HOSTS)]
