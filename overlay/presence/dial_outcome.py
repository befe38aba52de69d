"""What became of dialling a peer, as far as it tells machines from processes."""

from __future__ import annotations

import enum


class DialOutcome(enum.Enum):
    """What a dial brought."""

    ALIVE = enum.auto()
    """The process proved who it is."""
    REFUSED = enum.auto()
    """The machine answered that nobody listens there: the process is gone."""
    SILENT = enum.auto()
    """Nothing came back."""
    MUTE = enum.auto()
    """The machine took the connection, and the process said nothing: it may have stalled."""
    OWN_FAULT = enum.auto()
    """Nothing could be sent, for want of addresses, routes, or sockets: it says nothing about the peer."""
