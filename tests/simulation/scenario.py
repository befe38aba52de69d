"""One run: users write and watch while everything goes wrong; afterwards what must always hold is checked.

Nodes are whole ones, the peers of the overlay under them too: they join, find each other, keep links within their
budget and announce to each other as on the network, over connections that are late, lose packets and break. The seed
decides everything: the users' writes, crashes, lost disks, partitions, what liars do, and the order in which Trio runs
its tasks. `run(seed)` gives the same trace each time.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import trio
from trio._core import _run as trio_scheduler

from overlay.discovery.keyspace import POSITION_BITS, nearest, resource_position
from overlay.identity import Identity
from overlay.peer import OverlayPeer
from overlay.presence.timings import HOLD
from overlay.settings import CallLimits, LinkLimits, OverlaySettings
from registry.errors import RegistryError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState
from registry.model.values import Record
from registry.model.verification import (
    key_is_genuine,
    key_tombstone_is_genuine,
    record_is_genuine,
    tombstone_is_genuine,
)
from registry.settings import NodeSettings, RegistrySettings, UpkeepSettings
from tests.simulation.audit import Audit, lets_in_anybody
from tests.simulation.clock import VirtualClock
from tests.simulation.deaths import Deaths, Outcome
from tests.simulation.forged_policies import Targets
from tests.simulation.guarded import ISSUERS, Guarded, rounds_that_send_nothing, target_of
from tests.simulation.liars import Kind, open_liar
from tests.simulation.peers import PeerNetwork
from tests.simulation.watcher import Told, Watcher
from tests.simulation.world import START, World, WorldNode, identity_of

FAULTS: Final = 300.0  # seconds in which things go wrong, unless told otherwise
REPAIR: Final = 120.0  # the period of `replicate_3600` here, unless told otherwise
USERS: Final = 6
REPLICAS: Final = 5
BOOTSTRAP: Final = 3  # nodes through which all join
COLLECTED: Final = 60.0  # seconds between two looks for garbage
READERS: Final = 6  # at once, in the end; replicas have few places for links
NEAREST: Final = 20  # members that lookups are checked for
WATCHED: Final = 4  # resources
WATCHERS: Final = 3  # of each
GUARDED: Final = 3  # resources with policies
FEW: Final = 20
"""Nodes, all of whose comparisons are looked at in the end: of more they take as long as all the rest. So many follow
presence, too: more than that need more links for it than `LINKS` lets them have."""
LEAVING: Final = 0.15
"""Part of the writes whose caller leaves before it has the answer."""
ELSEWHERE: Final = 0.25
"""Part of the writes of services that another user's node hosts."""
TIGHT: Final = 8192
"""Bytes that a node with a tight budget has left."""
RIGHT: Final = 5.0  # seconds that a clock may be off without being wrong
RECOVERED: Final = 10  # seconds until a node has again what its disk lost
WRONG_CLOCKS: Final = (-86_400.0, -600.0, -29.0, 29.0, 45.0, 172_800.0)
LINKS_SETTLE: Final = 12  # times five seconds
FAR: Final = 16  # links to members beyond the homes that may be kept
LINKS: Final = LinkLimits(idle_timeout=20, low_water=40, high_water=48, max_members=56)
"""So few that of 60 nodes those are closed that neither side needs."""


def settings_with(replicas: int, repair: float = REPAIR) -> NodeSettings:
    """Settings under which so many replicas keep a resource, and all happens fast."""
    return NodeSettings(
        overlay=OverlaySettings(links=LINKS, calls=CallLimits(ping_interval=30)),
        registry=RegistrySettings(
            neighbourhood_size=replicas,
            responsibility_margin=3,
            expired_age=600,
            record_lifetime=4_000,
            key_lifetime=8_000,
            clock_skew=10,
        ),
        upkeep=UpkeepSettings(clear_expired=200.0, replicate=repair, renew=150.0, join_delay=0.5),
    )


Values = dict[tuple[str, str], str]
"""Of a resource, by issuer and host."""


class Report(msgspec.Struct):
    """What a run did; `trace` is a digest of everything that happened, in order."""

    seed: int
    nodes: int
    acknowledged: int
    attempted: int
    crashes: int
    left: int
    """Writes whose caller left."""
    sick: int
    """Disks that failed or were full, nodes that had too much to do, or a tight budget."""
    rotten: int
    """Rows that rotted."""
    reads: int
    """Of users, through their own nodes, of what they wrote."""
    messages: int
    events: int
    """That watchers were told."""
    changes: int
    """Of policies, that were acknowledged."""
    begun_anew: int
    """Resources with policies that were removed and created again."""
    refused: int
    """Registrations that a policy kept out, or that failed."""
    forged: int
    """What liars made up about policies, and sent honest members or had them read."""
    audited: int
    """Looks at what members know of resources with policies."""
    downs: int
    """Of these events, how many told that a host is down."""
    deaths: int
    """Hosts that died in the end, when all else was well."""
    gone_after: float
    """Seconds until everybody knew, who follows or watches them."""
    back_after: float
    """Seconds until everybody knew that they are back."""
    closed: int
    """Links that were closed since neither side needed them, between nodes that were up in the end."""
    trace: str


class Attempt(msgspec.Struct):
    """One write of a user's to a slot: a value registered, or None for an unregistration."""

    value: str | None
    acknowledged: bool = False
    life: int = 0
    """Of the node that it was written through: how many times that had crashed."""


class User:
    """Writes one slot per resource, one write after the other, through its own node."""

    def __init__(self, node: WorldNode) -> None:
        self.node = node
        self.slots: dict[tuple[str, str], list[Attempt]] = {}
        """By resource id and host."""
        self.removed: dict[str, bool] = {}
        """Resource id: whether its removal was acknowledged; no more writes follow there."""


class Scenario:
    """Use `run`."""

    def __init__(self, seed: int, nodes: int, replicas: int, faults: float, repair: float, pace: float) -> None:
        self.random = random.Random(seed)
        self.nodes = nodes
        self.settings = settings_with(replicas, repair)
        self.repair = repair
        self.replicas = replicas
        self.majority = replicas // 2 + 1
        self.trace = sha256()
        self.faults = faults
        self.pace = pace
        self.crashes = 0
        self.left = 0
        self.sick = 0
        self.rotten = 0
        self.reads = 0
        self.users: list[User] = []
        self.watchers: list[Watcher] = []
        self.deaths = Outcome()
        self.closed = 0
        self.resources: list[str] = []
        self.guarded: list[Guarded] = []
        self.targets = Targets()
        self.liars: frozenset[str] = frozenset()
        self.bad_disks: list[WorldNode] = []
        """So few that one who acknowledged a write keeps it."""
        self.world: World
        self.network: PeerNetwork
        self.seed = seed

    def note(self, event: str) -> None:
        self.trace.update(f"{trio.current_time():.6f} {event}\n".encode())

    async def run(self, folder: Path) -> None:
        async with trio.open_nursery() as nursery:
            first = [identity_of(self.seed, number).peer_id for number in range(1, BOOTSTRAP + 1)]
            self.network = PeerNetwork(self.random, self.settings.overlay, first, self.note)
            self.world = World(nursery, self.random, self.settings, folder, self.note, self.network, self.seed)
            self.world.follows_presence = self.nodes <= FEW
            nursery.start_soon(self.network.run)
            nursery.start_soon(_collect_garbage)
            for _ in range(self.nodes):
                await self.world.add(self.random.uniform(-4, 4))
            liars = [identity_of(self.seed, 1000 + number) for number in range(max(self.nodes // 10, 2))]
            self.liars = frozenset(liar.peer_id for liar in liars)
            self.targets.told_by = liars[0].peer_id
            for number, identity in enumerate(liars):
                kind = list(Kind)[(self.seed + number) % len(Kind)]
                nursery.start_soon(self._lie, identity, kind)
            await self._settle(within=200)
            self.users = [User(node) for node in self.random.sample(self.world.nodes, self._users())]
            writers = {user.node.number for user in self.users}
            others = [node for node in self.world.nodes if node.number not in writers]
            self.bad_disks = self.random.sample(others, self.majority - 1)
            await self._create_resources()
            await self._create_guarded(nursery)
            audits: dict[str, Audit | None] = dict.fromkeys(self.random.sample(self.resources, WATCHED))
            audits |= {each.resource_id: each.audit for each in self.guarded}
            for resource_id, audit in audits.items():
                for node in self.random.sample(self.world.nodes, WATCHERS):
                    watcher = Watcher(node, resource_id, audit)
                    self.watchers.append(watcher)
                    nursery.start_soon(watcher.run)
            self.network.delay = 0.2
            async with trio.open_nursery() as trouble:
                for user in self.users:
                    trouble.start_soon(self._write, user)
                for guarded in self.guarded:
                    trouble.start_soon(guarded.run)
                trouble.start_soon(self._crash)
                trouble.start_soon(self._split)
                trouble.start_soon(self._lose)
                for fault in (self._set_clocks, self._fill_disks, self._rot, self._overload):
                    trouble.start_soon(fault)
                await trio.sleep(self.faults)
                trouble.cancel_scope.cancel()
            await self._heal()
            healed = trio.current_time()
            await trio.sleep(self.repair * 1.2 + 10)  # until all were compared
            await self._check()
            await trio.sleep_until(healed + HOLD[1] + 5)  # nobody is held back any more for having come and gone
            await self._check_presence()
            nursery.cancel_scope.cancel()

    async def _lie(self, identity: Identity, kind: Kind) -> None:
        async with open_liar(self.network, identity, kind, self.liars, self.targets, self.random):
            await trio.sleep_forever()

    async def _settle(self, within: float) -> None:
        """Wait until lookups find all whom brute force finds."""
        missed, until = 1, trio.current_time() + within
        while missed:
            assert trio.current_time() < until, f"lookups go on missing members, {missed} the last time"
            await trio.sleep(2)
            missed = await self._misses()

    async def _misses(self) -> int:
        """How many members lookups of each node miss, of those that are nearest by brute force."""
        missed = 0
        for peer in list(self.network.peers.values()):
            target = self.random.getrandbits(POSITION_BITS)
            expected = nearest(target, self.network.alive(), NEAREST)
            missed += len({*expected} - {*await peer.nearest_to(target, NEAREST)})
        return missed

    # What users do

    def _users(self) -> int:
        """In a small network fewer: the nodes whose disks are bad are others'."""
        return min(USERS, self.nodes - (self.majority - 1))

    async def _create_resources(self) -> None:
        for number, user in enumerate(self.users * 2):
            assert user.node.parts is not None
            created = await user.node.parts.registry.create_resource(f"resource {number}", factor=self.majority)
            assert created.resource_id is not None, created.errors
            self.resources.append(created.resource_id)

    async def _create_guarded(self, nursery: trio.Nursery) -> None:
        """By users, on whose nodes nothing is lost; the issuers are users too, and a stranger. The second never
        lets anybody register. They are audited in `nursery`."""
        strangers = [node for node in self.world.nodes if all(node is not user.node for user in self.users)]
        nodes = [user.node for user in self.users]
        for number in range(GUARDED):
            owner, *others = nodes[number:] + nodes[:number]
            issuers = [*others[:ISSUERS], self.random.choice(strangers)]
            target = target_of(owner, never_opens=number % 2 == 1)
            audit = Audit(target, self.liars, self.settings.registry, self.bad_disks.__contains__)
            guarded = Guarded(self.world, self.random, owner, others[-1], issuers, self.majority, audit, self.note)
            await guarded.create()
            self.guarded.append(guarded)
            self.targets.of[target.resource_id] = target
            nursery.start_soon(audit.run, self.world)

    async def _write(self, user: User) -> None:
        count = 0
        while True:
            await trio.sleep(self.random.uniform(0.1, 5))
            parts = user.node.parts
            if parts is None:
                continue
            count += 1
            own = self.resources.index(self._own(user))
            if count == 20 and own % 2 == 0:
                await self._remove(user, self.resources[own])
                continue
            resource_id = self.random.choice(self.resources[:-2])
            if any(resource_id in other.removed for other in self.users):
                continue
            is_elsewhere = self.random.random() < ELSEWHERE
            host = (self.random.choice(self.users) if is_elsewhere else user).node.peer_id
            attempt = Attempt(None if self.random.random() < 0.3 else f"{user.node.number}-{count}")
            attempt.life = user.node.crashes
            attempts = user.slots.setdefault((resource_id, host), [])
            if attempt.value is None and self._owns(user, resource_id) and host != user.node.peer_id:
                continue  # an owner who has nothing there would deny what others have
            attempts.append(attempt)
            patience = self.random.uniform(0, 0.5) if self.random.random() < LEAVING else math.inf
            with trio.move_on_after(patience) as staying, contextlib.suppress(RegistryError):
                if attempt.value is None:
                    done = await parts.registry.unregister_service(resource_id, host, factor=self.majority)
                else:
                    done = await parts.registry.register_service(
                        resource_id, attempt.value, host, None, factor=self.majority
                    )
                # What a process that has crashed since would have told, nobody heard.
                attempt.acknowledged = done.success and user.node.parts is parts
            self.left += staying.cancelled_caught
            self.note(f"user {user.node.number} {attempt}")
            if self.random.random() < 0.5:
                await self._read(user, resource_id)

    async def _read(self, user: User, resource_id: str) -> None:
        """What was written through a node is read through it at once; of others, what somebody wrote at some time."""
        parts, life = user.node.parts, user.node.crashes
        if parts is None or abs(user.node.skew) > RIGHT:
            return
        try:
            # Of hosts that are down, too, since they may be hidden rightly here.
            resolved = await parts.registry.resolve_resource(resource_id, self.majority, include_down=True)
        except RegistryError:
            return
        is_sound = user.node.parts is parts and abs(user.node.skew) <= RIGHT
        if resolved.records is None or not is_sound or any(resource_id in other.removed for other in self.users):
            return
        self.reads += 1
        found = _values(resolved.records)
        issuers = {other.node.peer_id: other for other in self.users}
        for (issuer, host), value in found.items():
            attempts = issuers[issuer].slots.get((resource_id, host), []) if issuer in issuers else []
            assert value in [attempt.value for attempt in attempts], f"nobody wrote {value} as {issuer} on {host}"
        for (written, host), attempts in user.slots.items():
            last = next((attempt for attempt in reversed(attempts) if attempt.acknowledged), None)
            if written == resource_id and last is not None and last.life == life:
                own = found.get((user.node.peer_id, host))
                assert own in possible(attempts), (
                    f"user {user.node.number} reads {own} of {resource_id} on {host} after {attempts}"
                )

    def _own(self, user: User) -> str:
        return self.resources[self.users.index(user)]

    def _owns(self, user: User, resource_id: str) -> bool:
        return self.users[self.resources.index(resource_id) % len(self.users)] is user

    async def _remove(self, user: User, resource_id: str) -> None:
        parts = user.node.parts
        assert parts is not None
        user.removed[resource_id] = False
        with contextlib.suppress(RegistryError):
            done = await parts.registry.remove_resource(resource_id, factor=self.majority)
            user.removed[resource_id] = done.success and user.node.parts is parts
        self.note(f"user {user.node.number} removed {resource_id} {user.removed[resource_id]}")

    # What goes wrong

    async def _while(self, shortest: float, longest: float) -> None:
        """Wait for so many seconds, or as much less as things go wrong faster than usually."""
        await trio.sleep(self.random.uniform(shortest, longest) / self.pace)

    async def _crash(self) -> None:
        """At most a quarter of the nodes is down at a time, and two may lose their disks, on which nobody depends."""
        wiped = 0
        async with trio.open_nursery() as nursery:
            while True:
                await self._while(1, 15)
                up = self.world.up()
                if len(up) <= self.nodes * 3 // 4:
                    continue
                node = self.random.choice(up)
                self.crashes += 1
                if wiped < len(self.bad_disks) and node in self.bad_disks and self.random.random() < 0.5:
                    wiped += 1
                    await self.world.wipe(node)
                else:
                    await self.world.crash(node)
                nursery.start_soon(self._restart, node)

    async def _restart(self, node: WorldNode) -> None:
        """One node at a time comes back with hardly any room left in its budget, until its next life."""
        await self._while(0.5, 60)
        node.budget = None
        is_tight = self.random.random() < 0.3 and all(other.budget is None for other in self.world.nodes)
        if node.image is not None and is_tight:
            node.budget = len(node.image) + TIGHT
            self.sick += 1
        await self.world.start(node)

    async def _split(self) -> None:
        while True:
            await self._while(20, 60)
            peers = sorted(self.network.alive())
            self.world.split({peer_id: self.random.randrange(2) for peer_id in peers})
            await self._while(2, 30)
            self.world.split({})

    async def _lose(self) -> None:
        while True:
            await self._while(5, 20)
            self.network.loss = self.random.choice((0.0, 0.01, 0.1))
            self.network.delay = self.random.choice((0.01, 0.2, 1.0))
            self.network.break_some()

    async def _set_clocks(self) -> None:
        """One clock at a time is set wrong, and right again."""
        while True:
            await self._while(5, 30)
            node = self.random.choice(self.world.nodes)
            right, wrong = node.skew, self.random.choice(WRONG_CLOCKS)
            node.skew = wrong
            self.note(f"the clock of {node.number} is set to {wrong}")
            try:
                await self._while(5, 60)
            finally:
                node.skew = right

    async def _fill_disks(self) -> None:
        """One disk at a time is full, or takes nothing, for a while."""
        while True:
            await self._while(5, 30)
            node = self.random.choice(self.world.up())
            disk, is_full = node.disk, self.random.random() < 0.5
            assert disk is not None
            self.sick += 1
            self.note(f"the disk of {node.number} {'is full' if is_full else 'fails'}")
            if is_full:
                disk.fill()
            else:
                disk.fail()
            try:
                await self._while(2, 40)
            finally:
                if node.disk is disk:  # else it has crashed
                    disk.mend()

    async def _rot(self) -> None:
        """Rows rot on the same two disks that may be lost."""
        while True:
            await self._while(5, 25)
            disk = self.random.choice(self.bad_disks).disk
            with contextlib.suppress(sqlite3.OperationalError):  # it takes nothing just now
                if disk is not None and (resource_id := disk.rot(self.random)):
                    self.rotten += 1
                    self.note(f"a row of {resource_id} rots")

    async def _overload(self) -> None:
        """Up to two nodes have too much to do for a while."""
        while True:
            await self._while(5, 30)
            busy = self.random.sample(self.world.nodes, self.random.randint(1, 2))
            self.sick += len(busy)
            self.network.busy = {node.peer_id for node in busy}
            self.note(f"{sorted(node.number for node in busy)} have too much to do")
            await self._while(1, 15)
            self.network.busy = set()

    async def _heal(self) -> None:
        self.targets.is_over = True
        self.network.busy = set()
        self.network.loss = 0.0
        self.network.delay = 0.05
        self.world.split({})
        for node in self.world.nodes:
            if node.is_up and node.budget is not None:
                await self.world.crash(node)
            if not node.is_up:
                node.budget = None
                await self.world.start(node)

    # What must always hold

    async def _check(self) -> None:
        """What is stored, read and told, of hosts that may still be held back, too."""
        await self._settle(within=10)
        await self._check_links()
        await self._check_that_nobody_is_behind()
        for guarded in self.guarded:
            await guarded.put_together()
        await self._check_that_replicas_agree()
        await self._check_that_all_is_verified()
        for resource_id in self.resources:
            node = self.random.choice(self.world.up())
            assert node.parts is not None
            resolved = await node.parts.registry.resolve_resource(resource_id, self.majority, include_down=True)
            found = _values(resolved.records or ())
            self._check_watchers(resource_id, found, lambda told: told.visible.values())
            self.note(f"{resource_id} {sorted(found.items())}")
            self._check_resource(resource_id, resolved.records is not None, found, resolved.errors)
        for guarded in self.guarded:
            await self._check_guarded(guarded)
        if len(self.world.nodes) <= FEW:
            await rounds_that_send_nothing(self.world, lambda: self.network.repairs)

    async def _check_presence(self) -> None:
        """All are shown that are there; then hosts die."""
        if not self.world.follows_presence:
            return
        deaths = Deaths(self.world, self.network, self.watchers, self.random, self.note)
        deaths.check_that_nobody_is_down()
        guarded = {each.resource_id: each for each in self.guarded}
        for resource_id in [*self.resources, *guarded]:
            if resource_id in guarded:
                await guarded[resource_id].wait_for_certificates()  # readers, and who watches, have other clocks
            parts = self.random.choice(self.world.up()).parts
            assert parts is not None
            everything = await parts.registry.resolve_resource(resource_id, self.majority, include_down=True)
            working = await parts.registry.resolve_resource(resource_id, self.majority)
            found = _values(working.records or ())
            for read in (everything, working):
                left_out = read.health.keys() - {record.slot for record in read.usable}
                assert not left_out, f"of {resource_id} {left_out} is shown as not working"
            assert found == _values(everything.records or ()), f"of {resource_id} only {found} is shown as working"
            # A liar may tell its record to a watcher alone; for resources without policies that was looked at above.
            ignored = self.liars if resource_id in guarded else frozenset()
            self._check_watchers(resource_id, found, Told.working, ignored)
        self.deaths = await deaths.run()

    async def _check_that_nobody_is_behind(self) -> None:
        """Disks were mended long ago; what rotted is noticed when it is read, perhaps only now."""
        behind: list[str] = []
        for _ in range(RECOVERED):
            behind = [
                f"node {node.number} for {resource_id}"
                for node in self.world.up()
                for resource_id in [*self.resources, *(each.resource_id for each in self.guarded)]
                if node.parts is not None and node.parts.replica.behind.is_behind(resource_id)
            ]
            if not behind:
                return
            await trio.sleep(1)
        raise AssertionError(f"still behind: {behind}")

    async def _check_guarded(self, guarded: Guarded) -> None:
        """Of every node: all readers are shown the same, which is what the policy permits."""
        await guarded.wait_for_certificates()
        known = await guarded.known()
        guarded.check_policy(known.key)
        self.note(f"{guarded.resource_id} {known.digest().hex()}")
        found: Values = {}

        async def read(node: WorldNode) -> None:
            nonlocal found
            assert node.parts is not None
            resolved = await node.parts.registry.resolve_resource(guarded.resource_id, self.majority, include_down=True)
            assert resolved.records is not None, f"node {node.number} can't read: {resolved.errors}"
            found = _values(resolved.records)
            guarded.check_found(known, found, self.settings.registry)

        readers = self.world.up()
        for first in range(0, len(readers), READERS):
            await guarded.wait_for_certificates()  # one may end while others read
            async with trio.open_nursery() as nursery:
                for node in readers[first : first + READERS]:
                    nursery.start_soon(read, node)
        # Where anybody may register, a liar may tell its record to a watcher alone.
        ignored = self.liars if known.key is not None and lets_in_anybody(known.key) else frozenset()
        self._check_watchers(guarded.resource_id, found, lambda told: told.visible.values(), ignored)

    def _check_resource(self, resource_id: str, exists: bool, found: Values, errors: tuple[str, ...]) -> None:
        key_tombstones = [user.removed[resource_id] for user in self.users if resource_id in user.removed]
        if key_tombstones:
            assert not (any(key_tombstones) and (exists or found)), (
                f"{resource_id} was removed, and is found with {found}"
            )
            if not exists:
                return
        assert exists, f"{resource_id} isn't found: {errors}"
        for user in self.users:
            for (written, host), attempts in user.slots.items():
                if written == resource_id:
                    value = found.pop((user.node.peer_id, host), None)
                    assert value in possible(attempts), (
                        f"{resource_id} by {user.node.number} on {host} is {value} after {attempts}"
                    )
        assert not found, f"nobody registered {found}"

    def _check_watchers(
        self,
        resource_id: str,
        found: Values,
        told_of: Callable[[Told], Iterable[Record]],
        ignored: frozenset[str] = frozenset(),
    ) -> None:
        """That all were told the same, as `told_of` takes it, but for what the `ignored` issued."""
        found = {slot: value for slot, value in found.items() if slot[0] not in ignored}
        for watcher in self.watchers:
            if watcher.resource_id == resource_id:
                all_told = _values(told_of(watcher.told))
                told = {slot: value for slot, value in all_told.items() if slot[0] not in ignored}
                assert told == found, f"node {watcher.node.number} was told {told} of {resource_id}, which has {found}"

    async def _check_links(self) -> None:
        """They come to be within the budget, but for those that one side has to keep: its home, and a few far ones.

        Who has just come back keeps more, until it knows what is near it.
        """
        crowded: dict[str, int] = {}
        for _ in range(LINKS_SETTLE):
            self.closed = sum(peer.statistics().closed for peer in self.network.peers.values())
            crowded = {
                peer_id: len(peer.members())
                for peer_id, peer in self.network.peers.items()
                if len(peer.members()) > LINKS.high_water and self._beyond_homes(peer) > FAR
            }
            if not crowded:
                return
            await trio.sleep(5)
        raise AssertionError(f"links beyond the budget: {crowded}")

    def _beyond_homes(self, peer: OverlayPeer) -> int:
        """Links to members that neither side has in its home."""
        others = [self.network.peers[other] for other in peer.members() if other in self.network.peers]
        return sum(not peer.is_neighbour(other.peer_id) and not other.is_neighbour(peer.peer_id) for other in others)

    async def _check_that_replicas_agree(self) -> None:
        disagreements: list[str] = []
        for _ in range(5):  # a renewal may be under way
            disagreements = await self._disagreements()
            if not disagreements:
                return
            await trio.sleep(3)
        raise AssertionError("; ".join(disagreements))

    async def _disagreements(self) -> list[str]:
        latest = START + trio.current_time() + 4
        horizon = ExpiryHorizon.at(int(latest), self.settings.registry)
        honest = {node.peer_id: node for node in self.world.nodes}
        found: list[str] = []
        for resource_id in [*self.resources, *(each.resource_id for each in self.guarded)]:
            keepers = nearest(resource_position(resource_id), self.network.alive(), self.replicas)
            digests = {
                peer_id: horizon.alive(await _known(honest[peer_id], resource_id)).digest()
                for peer_id in keepers
                if peer_id in honest
            }
            if len(set(digests.values())) > 1:
                told = {peer_id: digest.hex()[:8] for peer_id, digest in digests.items()}
                found.append(f"replicas of {resource_id} differ: {told}")
        return found

    async def _check_that_all_is_verified(self) -> None:
        for node in self.world.nodes:
            assert node.store is not None
            for resource_id in await node.store.read(lambda transaction: transaction.positions.key_ids("", 100_000)):
                resource = await _known(node, resource_id)
                assert resource.key is None or key_is_genuine(resource.key)
                assert resource.key_tombstone is None or key_tombstone_is_genuine(resource.key_tombstone)
                for state in resource.slots.values():
                    genuine = record_is_genuine(state) if isinstance(state, Record) else tombstone_is_genuine(state)
                    assert genuine, f"node {node.number} stores {state}, which doesn't verify"


async def _known(node: WorldNode, resource_id: str) -> ResourceState:
    assert node.store is not None
    return await node.store.resource(resource_id)


def _values(records: Iterable[Record]) -> Values:
    return {(record.metadata.issued_by, record.metadata.peer_id): record.metadata.value for record in records}


def possible(attempts: list[Attempt]) -> set[str | None]:
    """The values that may be found: of the last acknowledged write, or of any that was tried after it."""
    last = max((number for number, attempt in enumerate(attempts) if attempt.acknowledged), default=None)
    if last is None:
        return {None, *(attempt.value for attempt in attempts)}
    return {attempt.value for attempt in attempts[last:]}


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Trio shuffles the tasks of each batch by a source of its own; it has no public way to seed it (as Hypothesis'
    plugin does, this sets its two private names). What is random where it doesn't matter has Python's own source."""
    before, state = trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING, trio_scheduler._r.getstate()
    trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_scheduler._r.seed(seed)
    of_python = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        trio_scheduler._r.setstate(state)
        random.setstate(of_python)


@contextlib.contextmanager
def _collected_on_time() -> Iterator[None]:
    """Have Python look for garbage when virtual time says so: finding an unfinished generator starts a task, so a trace
    would depend on what the process did before. And it takes a quarter of the time otherwise."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _collect_garbage() -> None:
    while True:
        await trio.sleep(COLLECTED)
        gc.collect()


def run(
    seed: int,
    nodes: int = 20,
    replicas: int = REPLICAS,
    *,
    faults: float = FAULTS,
    repair: float = REPAIR,
    pace: float = 1.0,
) -> Report:
    """Runs the scenario of a seed. `pace`: how many times as often, and as short, things go wrong as they usually do.
    Raises AssertionError, perhaps in a group, when something didn't hold."""
    scenario = Scenario(seed, nodes, replicas, faults, repair, pace)
    shared_memory = Path("/dev/shm")
    parent = shared_memory if shared_memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=parent) as folder, _seeded(seed), _collected_on_time():
        trio.run(scenario.run, Path(folder), clock=VirtualClock())
    attempts = [attempt for user in scenario.users for slot in user.slots.values() for attempt in slot]
    return Report(
        seed=seed,
        nodes=nodes,
        acknowledged=sum(attempt.acknowledged for attempt in attempts),
        attempted=len(attempts),
        crashes=scenario.crashes,
        left=scenario.left,
        sick=scenario.sick,
        rotten=scenario.rotten,
        reads=scenario.reads,
        messages=scenario.network.messages,
        events=sum(watcher.events for watcher in scenario.watchers),
        downs=sum(watcher.downs for watcher in scenario.watchers),
        deaths=scenario.deaths.victims,
        gone_after=scenario.deaths.gone,
        back_after=scenario.deaths.back,
        begun_anew=sum(removal.ended < math.inf for guarded in scenario.guarded for removal in guarded.removals),
        changes=sum(change.ended < math.inf for guarded in scenario.guarded for change in guarded.changes),
        refused=sum(guarded.refused for guarded in scenario.guarded),
        forged=scenario.targets.forged,
        audited=sum(guarded.audit.looked for guarded in scenario.guarded),
        closed=scenario.closed,
        trace=scenario.trace.hexdigest(),
    )
