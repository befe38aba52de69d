"""What went over all links since the start, counted."""

from __future__ import annotations

from typing import Final

import msgspec

MOST_CODES: Final = 64
"""Codes of refusals that are counted each; codes that others told may be passed on, so there could be any number."""
OTHER_CODES: Final = "other"


class Counters(msgspec.Struct, kw_only=True):
    """Running counts, shared by all links of a peer."""

    bytes_received: int = 0
    bytes_sent: int = 0
    calls_made: int = 0
    """Calls of other peers by this one."""
    calls_failed: int = 0
    """Of those, the ones that ended with an error."""
    calls_served: int = 0
    """Calls of this peer by others that its handlers answered."""
    refused: int = 0
    """Requests that a handler refused."""
    refusals: dict[str, int] = {}
    """The same by their codes; those beyond 64 codes together as `other`."""
    internal_errors: int = 0
    """Requests on which a handler broke, or whose answer couldn't be sent."""
    overloaded: int = 0
    """Requests that were turned away because their sender had too many under way."""
    malformed: int = 0
    """Links that were reset because the peer broke the protocol, and bodies that weren't CBOR."""
    stalled: int = 0
    """Links that were reset because the peer took nothing or said nothing for too long."""
    closed: int = 0
    """Links that were closed because neither side kept them."""
    turned_away: int = 0
    """Links that were refused because all places were taken."""
    dial_failures: int = 0
    """Attempts to link to a peer that failed."""

    def note_refusal(self, code: str) -> None:
        """A handler refused a request."""
        self.refused += 1
        counted = code if code in self.refusals or len(self.refusals) < MOST_CODES else OTHER_CODES
        self.refusals[counted] = self.refusals.get(counted, 0) + 1


class LinkStatistics(Counters, kw_only=True):
    """Links now, and what went over all of them since the start."""

    links: int
    """Open links, to members and light clients."""
    members: int
    """Links to members."""
