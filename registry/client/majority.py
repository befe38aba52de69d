"""Reads what a majority of a resource's replicas knows: before this identity signs anything anew that may have been
ended or changed elsewhere.

One replica that hasn't heard of an end yet would have it revived: what is signed anew is later than the end.
"""

from __future__ import annotations

from typing import NamedTuple

import trio

from registry.client.node_api import NodeApi
from registry.client.node_writer import until
from registry.model.merge import ResourceState
from registry.quorum.read_machine import ReadOutcome


class MajorityRead(NamedTuple):
    """What was read, and whether a majority said so."""

    outcome: ReadOutcome
    majority: int

    @property
    def resource(self) -> ResourceState:
        """What those who answered know together."""
        return self.outcome.resource

    @property
    def is_decided(self) -> bool:
        """Whether a majority holds the key, or it is known to be removed."""
        return self.outcome.answered >= self.majority or (
            self.resource.key is None and bool(self.resource.key_tombstones)
        )

    @property
    def why_undecided(self) -> str:
        """For a log."""
        return f"{self.outcome.answered} replicas told of the resource, of the {self.majority} that are a majority"


async def read_majority(node_api: NodeApi, key_id: str, timeout: float) -> MajorityRead:
    """Asks all replicas that are found until more than half of them answered, or `timeout` seconds are over. Raises
    RegistryError."""
    deadline = trio.current_time() + timeout
    majority = len(await node_api.neighbours(key_id, timeout=timeout / 2)) // 2 + 1
    return MajorityRead(await node_api.read(key_id, ack=majority, timeout=until(deadline)), majority)
