"""The places of a server: so many connections, and so many who watch or wait at the same time.

A client on another machine has a part of either at most, so that one who may only read keeps nobody else out. Those on
this machine share an address, and all places.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from aqua_compat.http.problems import Problem
from overlay.tasks import Broadcast

if TYPE_CHECKING:
    from aqua_compat.http.connection import Connection

PARTS: Final = 2  # into which the places are divided: a client elsewhere has one of these
RETRY_AFTER: Final = 10.0  # seconds
_IPV6_BITS: Final = 64  # that a machine is given at least


class ConnectionPlaces:
    """The connections of one listener: those that ask nothing give way to new ones, oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[Connection, str] = {}
        self._emptied = Broadcast()

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, connection: Connection, client: str = "") -> bool:
        """Takes a place; False when there is none. `client`: the address that it comes from."""
        of_client = [each for each, whose in self._taken.items() if whose == client]
        if not is_near(client) and len(of_client) >= _part(self._most):
            rivals = of_client
        elif len(self._taken) >= self._most:
            rivals = list(self._taken)
        else:
            self._taken[connection] = client
            return True
        idle = next((each for each in rivals if each.gives_way), None)
        if idle is None:
            return False
        self.leave(idle)
        idle.close()
        self._taken[connection] = client
        return True

    def leave(self, connection: Connection) -> None:
        """Gives a place back."""
        self._taken.pop(connection, None)
        if not self._taken:
            self._emptied.send()

    async def stop(self) -> None:
        """Ends all connections, each after the answer that is under way."""
        for connection in list(self._taken):
            connection.stop()
        while self._taken:
            await self._emptied.wait()


class WatchPlaces:
    """Those who watch, and the queries of Consul's clients that wait, together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    def check(self, client: str) -> None:
        """Raises Problem where there is none for a client."""
        if len(self) >= self._most:
            raise Problem(
                503, "overloaded", f"{len(self)} watches are open, as many as may be", retry_after=RETRY_AFTER
            )
        own = self._taken[client]
        if not is_near(client) and own >= _part(self._most):
            told = f"{own} watches and waiting queries of yours are open already"
            raise Problem(429, "overloaded", told, retry_after=RETRY_AFTER)

    @contextmanager
    def taken(self, client: str) -> Iterator[None]:
        """Has a place while the block runs. Raises Problem."""
        self.check(client)
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]


def client_of(address: str) -> str:
    """What counts as one client, by the address that it comes from: of IPv6 the /64, of which one machine has as many
    addresses as it likes."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        if not parsed.is_loopback:
            return str(ipaddress.ip_network((parsed, _IPV6_BITS), strict=False))
    return str(parsed)


def _part(most: int) -> int:
    return max(most // PARTS, 1)


def is_near(client: str) -> bool:
    """Whether a client is on this machine."""
    try:
        return not client or ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False
