"""How often addresses that others told are dialled in vain: so that nobody makes us a tool against a third party.

Rules:
1. A dial costs a token of the address's host (an IPv4 address, or the /64 of an IPv6 one), of its group (the /16, or
   the /32), and of whoever told the address; one that reaches its peer gives them back. So what can be dialled costs
   nothing, and the budgets are for what can't.
2. Where several told an address, one with tokens suffices.
3. Hosts of `unlimited_networks`, on which whole networks of nodes run, have no budgets; who tells of them has.

Pure: the time comes in, in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from overlay.limits.token_bucket import TokenBuckets


class Dialled(Struct, frozen=True):
    """What a dial was charged to."""

    host: str
    group: str
    teller: str


class DialBudget:
    """The budgets of one peer; each kind remembers the 4,096 that were charged last."""

    def __init__(self, *, hosts: TokenBuckets, groups: TokenBuckets, tellers: TokenBuckets) -> None:
        self._hosts = hosts
        self._groups = groups
        self._tellers = tellers

    def begin(self, host: str, group: str, tellers: Sequence[str], now: float) -> Dialled | None:
        """Charges a dial to its budgets; None where they are used up, so that it isn't made. An empty `host` or `group`
        has no budget."""
        teller = next((teller for teller in tellers if self._tellers.has(teller, now)), None)
        if teller is None or (host and not self._hosts.has(host, now)) or (group and not self._groups.has(group, now)):
            return None
        self._tellers.take(teller, now)
        if host:
            self._hosts.take(host, now)
        if group:
            self._groups.take(group, now)
        return Dialled(host, group, teller)

    def reached(self, dialled: Dialled, now: float) -> None:
        """The dial led to its peer."""
        self._tellers.give_back(dialled.teller, now)
        if dialled.host:
            self._hosts.give_back(dialled.host, now)
        if dialled.group:
            self._groups.give_back(dialled.group, now)
