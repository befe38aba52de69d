"""Whether an address that others told is dialled, and in what form: names are resolved first, and then only their
addresses count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from overlay.discovery.address_group import address_group
from overlay.discovery.address_range import GLOBAL, LOOPBACK, UNUSABLE, address_range, host_of
from overlay.discovery.host_names import numbers_of
from overlay.libp2p.visitors import Visitors
from overlay.limits.dial_budget import DialBudget, Dialled
from overlay.limits.token_bucket import TokenBuckets
from overlay.settings import DialLimits, OverlaySettings


class ToldAddresses:
    """Decides by budgets, and by the ranges in which our own network is."""

    def __init__(self, settings: OverlaySettings, visitors: Visitors, own: Callable[[], Iterable[str]]) -> None:
        """`own()`: the multiaddrs that we tell others. Bootstrap addresses show where the network is, too."""
        self._private = settings.dials.private
        self._visitors = visitors
        self._own = own
        self._budget = dial_budget(settings.dials)
        self._configured = _ranges(settings.bootstrap)

    def note_configured(self, multiaddr: str) -> None:
        """Our user dials this address: the network is in its range."""
        self._configured |= _ranges([multiaddr])

    async def resolved(self, multiaddr: str) -> str | None:
        """The address to dial, with a number for a name; None where it lies in a range that isn't ours."""
        return next((number for number in await numbers_of(multiaddr) if self._is_ours(host_of(number)[1])), None)

    def begin(self, resolved: str, tellers: Sequence[str]) -> Dialled | None:
        """Charge a dial to an address that `resolved` returned; None where it has to wait."""
        host = self._visitors.source(host_of(resolved)[1])
        return self._budget.begin(host, address_group([resolved]) if host else "", tellers, trio.current_time())

    def reached(self, dialled: Dialled) -> None:
        """The dial led to its peer, and costs nothing."""
        self._budget.reached(dialled, trio.current_time())

    def _is_ours(self, address: str) -> bool:
        try:
            where = address_range(address)
        except ValueError:
            return False
        if where == UNUSABLE:
            return False
        if where == GLOBAL or self._private == "always":
            return True
        if self._private == "never":
            return False
        own = _ranges(self._own())
        # A server of everybody's internet listens on its own loopback too, but others of its network never do.
        return where in self._configured or (where in own and not (where == LOOPBACK and GLOBAL in own))


def dial_budget(limits: DialLimits) -> DialBudget:
    """The budgets that settings ask for."""
    return DialBudget(
        hosts=TokenBuckets(limits.host_rate, limits.host_burst),
        groups=TokenBuckets(limits.group_rate, limits.group_burst),
        tellers=TokenBuckets(limits.teller_rate, limits.teller_burst),
    )


def _ranges(multiaddrs: Iterable[str]) -> set[str]:
    ranges: set[str] = set()
    for multiaddr in multiaddrs:
        protocol, host = host_of(multiaddr)
        if protocol in {"ip4", "ip6"}:
            try:
                ranges.add(address_range(host))
            except ValueError:
                continue
    return ranges
