"""What scripts are given of records: those of hosts that are up, and that pass or give a warning, as native reads are.

1. Hosts of records that are stored here are followed, as those of any read are. Of each peer that brings scripts only
   so many new ones in a time are; of others nothing is known, and they are listed.
2. A script's own records, which anybody can make up, have nobody followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import trio

from overlay.limits.time_slices import TimeSlices
from overlay.limits.token_bucket import TokenBuckets
from registry.health.health_of_hosts import FOLLOWED_FOR, HealthOfHosts
from registry.model.values import Record

SETTLES_WITHIN: Final = 0.4  # seconds in which a host may become known, or tell which of many services don't pass
MOST_OF_PEER: Final = 1024  # hosts new here that the scripts of one peer have followed, in `FOLLOWED_FOR`


class UsableRecords:
    """Leaves out what is down or doesn't pass, as the node `host_peer_id` knows it."""

    def __init__(self, health: HealthOfHosts, host_peer_id: str, time_slices: TimeSlices) -> None:
        self._health = health
        self._host_peer_id = host_peer_id
        self._time_slices = time_slices
        self._new = TokenBuckets(MOST_OF_PEER / FOLLOWED_FOR, MOST_OF_PEER)

    async def of_stored(self, source: str, records: Sequence[Record]) -> tuple[Record, ...]:
        """Of records that are stored here, after a moment in which their hosts may become known (rule 1)."""
        if not self._health.is_there:
            return tuple(records)
        hosts = {record.metadata.peer_id for record in records} - {self._host_peer_id}
        now = trio.current_time()
        await self._health.settle(
            [host for host in hosts if self._health.follows(host) or self._new.take(source, now)], SETTLES_WITHIN
        )
        return await self.of_given(source, records)

    async def of_given(self, source: str, records: Sequence[Record]) -> tuple[Record, ...]:
        """Of any records, by what is known already (rule 2)."""
        if not self._health.is_there:
            return tuple(records)
        usable: list[Record] = []

        def look() -> Iterator[None]:
            for record in records:
                if self._is_usable(record):
                    usable.append(record)
                yield

        await self._time_slices.run(source, look())
        return tuple(usable)

    def _is_usable(self, record: Record) -> bool:
        host = record.metadata.peer_id
        is_known = host == self._host_peer_id or self._health.follows(host)
        return not is_known or self._health.health_of_record(record).is_usable
