"""What went over all links since the start, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Running counts, shared by all links of a peer."""

    bytes_received: int = 0
    bytes_sent: int = 0
    calls_made: int = 0
    calls_failed: int = 0
    calls_served: int = 0
    refused: int = 0
    """Requests that a handler refused."""
    internal_errors: int = 0
    """Requests on which a handler broke, or whose answer couldn't be sent."""
    overloaded: int = 0
    """Requests that were turned away because their sender had too many under way."""
    malformed: int = 0
    """Links that were reset because the peer broke the protocol, and requests whose body wasn't CBOR."""
    stalled: int = 0
    """Links that were reset because the peer took nothing or said nothing for too long."""
    dial_failures: int = 0
