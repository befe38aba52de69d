"""What holds of a resource with a policy at every moment, whatever liars say: looked at in all nodes' stores, in what
readers read, and in what watchers are told.

1. Nobody keeps a key or a removal that the owner didn't sign, nor shows a record that its issuer and host didn't.
2. Whoever has known a policy never goes back to an older one, in this life and with this disk.
3. What a liar says is shown by those alone who know no other key than one under which anybody may register; of a
   resource that never had such a key, by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

import trio

from registry.model.merge import ResourceState
from registry.model.values import Key, Record
from registry.model.verification import key_is_genuine, key_tombstone_is_genuine, record_is_genuine
from registry.permission.policy import Policy
from registry.settings import RegistrySettings
from registry.watch.watch_event import EventKind, WatchEvent
from tests.simulation.forged_policies import Target
from tests.simulation.world import World, WorldNode

EVERY: Final = 0.5  # seconds between two looks at all nodes
SHOWING: Final = frozenset({EventKind.SNAPSHOT, EventKind.ADDED, EventKind.UPDATED})


def lets_in_anybody(key: Key) -> bool:
    """Whether anybody may register under a key, of those whom its policy doesn't deny."""
    policy = key.policy
    return policy is None or (isinstance(policy, Policy) and policy.open)


class Audit:
    """Of one resource. `run` looks at nodes; readers and watchers tell `note_read` and `check_told`."""

    def __init__(
        self,
        target: Target,
        liars: frozenset[str],
        settings: RegistrySettings,
        loses_rows: Callable[[WorldNode], bool],
    ) -> None:
        """`loses_rows`: nodes whose disks forget single rows."""
        self.target = target
        self.looked = 0
        """How often what anybody knows was looked at."""
        self._liars = liars
        self._settings = settings
        self._loses_rows = loses_rows
        self._greatest: dict[tuple[str, int, int], int] = {}  # revisions, of stores and readers, by node and its life

    async def run(self, world: World) -> None:
        """Looks at the store of each node that is up, again and again, until cancelled. Where rows are lost, only at
        what is in memory: reading would find them missing before anybody else does."""
        resource_id = self.target.resource_id
        while True:
            for node in world.up():
                if (store := node.store) is None:
                    continue
                in_memory = self._loses_rows(node)
                resource = store.cached_resource(resource_id) if in_memory else await store.resource(resource_id)
                if resource is not None:
                    self._look("keeps", node, resource)
            await trio.sleep(EVERY)

    def note_read(self, node: WorldNode, resource: ResourceState) -> None:
        """What a read through a node found."""
        self._look("reads", node, resource)

    def are_liars(self, issuers: Collection[str]) -> bool:
        """Whether all these are."""
        return self._liars.issuperset(issuers)

    def check_told(self, node: WorldNode, event: WatchEvent) -> None:
        """What a watch at a node told: it doesn't say under which key."""
        if event.kind in SHOWING:
            records = event.records if event.record is None else (event.record,)
            self._check_records(f"node {node.number} is told", records, may_be_anybodys=not self.target.never_opens)

    def _look(self, what: str, node: WorldNode, resource: ResourceState) -> None:
        self.looked += 1
        self.target.note(resource)
        key, who = resource.key, f"node {node.number} {what}"
        for removal in resource.key_tombstones:
            assert key_tombstone_is_genuine(removal), f"{who} a forged removal: {removal}"
        if key is None:
            return
        assert key_is_genuine(key), f"{who} a forged key: {key}"
        life = what, node.number, node.crashes
        may_forget = what == "keeps" and self._loses_rows(node)
        assert may_forget or key.revision >= self._greatest.get(life, 0), f"{who} a policy that is over: {key}"
        self._greatest[life] = key.revision
        is_open = lets_in_anybody(key)
        assert not (is_open and self.target.never_opens), f"{who} a key that its owner never signed: {key}"
        self._check_records(who, resource.records(int(node.clock()), self._settings), may_be_anybodys=is_open)

    def _check_records(self, who: str, records: Iterable[Record], *, may_be_anybodys: bool) -> None:
        for record in records:
            assert record_is_genuine(record), f"{who} a forged record: {record}"
            is_liars = record.metadata.issued_by in self._liars
            assert may_be_anybodys or not is_liars, f"{who} what no key permits: {record}"
