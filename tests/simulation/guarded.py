"""Resources with policies in a scenario: their owner changes them by two machines at once, or removes them and begins
anew, issuers come with certificates that end, strangers try, liars forge; what must hold of it all the time (`Audit`),
and in the end."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import trio

from overlay.identity import Identity, public_key_of
from overlay.membership.certificate import Certificate
from registry.client.key_cache import KeyCache
from registry.client.node_writer import NodeWriter
from registry.client.policies import PolicyEditor
from registry.errors import RegistryError
from registry.model.merge import ResourceState, merged
from registry.model.policy_withholding import ALWAYS, permitted_before
from registry.model.signing import key_id_of
from registry.model.values import Key, Record, Slot
from registry.permission.edits import Edit, EditKind
from registry.permission.permitted import REGISTER, Claim, why_not_permitted
from registry.permission.policy import ANY_HOST, FOR_EVER, LONGEST_CHAIN, Policy
from registry.permission.scope import Scope, ScopeKind
from registry.protocol.messages import Item
from registry.settings import RegistrySettings
from registry.upkeep.schedules import REPLICATE
from tests.simulation.audit import Audit, lets_in_anybody
from tests.simulation.forged_policies import Target
from tests.simulation.world import START, World, WorldNode, identity_of
from tests.unit.registry.builders import a_key

LABEL: Final = "guarded"
ISSUERS: Final = 4
PATIENCE: Final = 20.0  # seconds for a change of a policy
ROUNDS: Final = 4  # of comparisons, of which one at least sends nothing
SETTLING: Final = 5.0  # seconds for the comparisons of one round
BEGUN_ANEW: Final = 0.3  # of the changes of the owner's first machine
MARGIN: Final = 10  # seconds around the end of a certificate, in which clocks that differ don't agree


class Change(NamedTuple):
    """One attempt to change what `subject` names to `value`, from when until when it may have happened."""

    subject: tuple[str, bytes, bytes]
    value: bool | int
    began: float
    ended: float
    """Infinite for one that wasn't acknowledged: it may happen later."""


class Statement(NamedTuple):
    """One attempt of an issuer's: a value registered, or None for an unregistration."""

    value: str | None
    acknowledged: bool
    began: float
    ended: float = math.inf
    """Infinite for one that wasn't acknowledged: it may happen later."""


class Removal(NamedTuple):
    """One attempt of the owner to remove the resource and to create it again."""

    began: float
    ended: float
    """Infinite unless both were acknowledged: the removal may happen later."""


def possible_values(changes: Iterable[Change], before: bool | int) -> set[bool | int]:
    """What may rule after these changes of one subject: none of which began after another was acknowledged. One that
    wasn't acknowledged, a removal too, may happen at any time later, and what it says may rule for good."""
    attempts = [Change(("", b"", b""), before, -math.inf, -math.inf), *changes]
    acknowledged = [each for each in attempts if each.ended < math.inf]
    return {one.value for one in attempts if not any(other.began > one.ended for other in acknowledged)}


def _subject_of(edit: Edit, now: float) -> tuple[tuple[str, bytes, bytes], bool | int]:
    match edit.kind:
        case EditKind.OPEN | EditKind.CLOSE:
            return ("open", b"", b""), edit.kind is EditKind.OPEN
        case EditKind.ALLOW | EditKind.DISALLOW:
            return ("allow", edit.key, b""), edit.kind is EditKind.ALLOW
        case EditKind.ADD_ROOT | EditKind.DROP_ROOT:
            return ("roots", edit.key, b""), edit.kind is EditKind.ADD_ROOT
        case EditKind.LONGEST_CHAIN:
            return ("longest chain", b"", b""), edit.number
        case _:
            assert edit.kind is EditKind.DENY, (edit, now)
            return ("deny", edit.key, edit.host), edit.until


def _value_in(policy: Policy | None, subject: tuple[str, bytes, bytes]) -> bool | int:
    name, key, host = subject
    if name == "open":
        return policy is None or policy.open
    if name == "longest chain":
        return LONGEST_CHAIN if policy is None else policy.longest_chain
    if name == "deny":
        ends = [each.until for each in policy.deny if (each.issuer, each.host) == (key, host)] if policy else []
        return ends[0] if ends else -1
    return policy is not None and key in getattr(policy, name)


def target_of(owner: WorldNode, *, never_opens: bool) -> Target:
    """The resource of `owner`. With `never_opens` it is closed by its first key, and stays so."""
    resource_id = key_id_of(LABEL, owner.peer_id)
    return Target(resource_id, LABEL, owner.peer_id, identity_of(9_000, owner.number), never_opens=never_opens)


class Guarded:
    """One resource with a policy. `owner` owns it; `other` is where the owner's second machine acts."""

    def __init__(
        self,
        world: World,
        randomness: random.Random,
        owner: WorldNode,
        other: WorldNode,
        issuers: list[WorldNode],
        majority: int,
        audit: Audit,
        note: Callable[[str], None],
    ) -> None:
        """`audit`: of its `target_of`."""
        self.world = world
        self.random = randomness
        self.owner = owner
        self.other = other
        self.issuers = issuers
        self.majority = majority
        self.audit = audit
        self.resource_id = audit.target.resource_id
        self.never_opens = audit.target.never_opens
        self.changes: list[Change] = []
        self.removals: list[Removal] = []
        self.statements: dict[Slot, list[Statement]] = {}
        self.refused = 0
        """Registrations that the policy kept out."""
        self._note = note
        self._root = audit.target.root
        self._delegate = identity_of(9_001, owner.number)

    async def create(self) -> None:
        """Before anything goes wrong: the resource is closed, with one root, and one issuer allowed."""
        parts = self.owner.parts
        assert parts is not None
        if self.never_opens:
            key = a_key(LABEL, self.owner.identity, int(self.owner.clock()), policy=Policy(revision=1))
            written = await parts.node_api.write(Item(key), factor=self.majority, timeout=PATIENCE)
            assert written.stored >= self.majority, written.errors
        else:
            created = await parts.registry.create_resource(LABEL, factor=self.majority)
            assert created.resource_id is not None, created.errors
        edits = [
            Edit(EditKind.ADD_ROOT, _key(self._root)),
            Edit(EditKind.ALLOW, _key(self.issuers[0].identity)),
            Edit(EditKind.CLOSE),
        ]
        await self._change(edits, self.owner)
        assert all(change.ended < math.inf for change in self.changes), "the first change failed"

    async def run(self) -> None:
        """Everybody acts, until cancelled."""
        async with trio.open_nursery() as nursery:
            for machine in (self.owner, self.other):
                nursery.start_soon(self._edit, machine)
            for issuer in self.issuers:
                nursery.start_soon(self._issue, issuer)

    # What the owner does

    async def _edit(self, machine: WorldNode) -> None:
        while True:
            await trio.sleep(self.random.uniform(2, 30))
            if machine.parts is None or abs(machine.skew) > 5:
                continue
            if machine is self.owner and self.random.random() < self._chance_of_anew():
                await self._begin_anew()
                continue
            if machine is self.owner and self.removals and math.isinf(self.removals[-1].ended):
                with contextlib.suppress(RegistryError):  # it may be gone
                    await machine.parts.registry.create_resource(LABEL, factor=self.majority)
            if machine.parts is not None:  # else it crashed meanwhile
                await self._change([self._some_edit(machine) for _ in range(self.random.randint(1, 2))], machine)

    def _chance_of_anew(self) -> float:
        if self.never_opens:
            return 0.0
        if any(removal.ended < math.inf for removal in self.removals):
            return BEGUN_ANEW
        return 0.5 if self.removals else 1.0  # so that a run of a minute sees it

    async def _begin_anew(self) -> None:
        """The owner removes the resource, and creates it: what was on it is over, and its policy is open again."""
        parts, began, done = self.owner.parts, trio.current_time(), False
        assert parts is not None
        try:
            with contextlib.suppress(RegistryError):
                removed = await parts.registry.remove_resource(self.resource_id, factor=self.majority)
                if removed.success:
                    created = await parts.registry.create_resource(LABEL, factor=self.majority)
                    done = created.resource_id is not None and self.owner.parts is parts
        finally:
            self.removals.append(Removal(began, trio.current_time() if done else math.inf))
            self._note(f"{self.owner.number} began {self.resource_id} anew {done}")

    def _some_edit(self, machine: WorldNode) -> Edit:
        issuer = self.random.choice(self.issuers)
        who, host = _key(issuer.identity), _key(self.random.choice((issuer, self.owner)).identity)
        kinds = (
            EditKind.ALLOW,
            EditKind.DISALLOW,
            EditKind.CLOSE if self.never_opens else EditKind.OPEN,
            EditKind.CLOSE,
            EditKind.ADD_ROOT,
            EditKind.DROP_ROOT,
            EditKind.LONGEST_CHAIN,
        )
        if self.random.random() < 0.3:
            until = self.random.choice((FOR_EVER, int(machine.clock())))  # which lifts it
            return Edit(
                EditKind.DENY,
                self.random.choice((who, _key(self._delegate))),
                self.random.choice((host, ANY_HOST)),
                until,
            )
        kind = self.random.choice(kinds)
        if kind is EditKind.LONGEST_CHAIN:
            return Edit(kind, number=self.random.randint(0, LONGEST_CHAIN))
        return Edit(kind, _key(self._root) if kind in (EditKind.ADD_ROOT, EditKind.DROP_ROOT) else who)

    async def _change(self, edits: list[Edit], machine: WorldNode) -> None:
        parts, began, success = machine.parts, trio.current_time(), False
        assert parts is not None
        writer = NodeWriter(parts.node_api, parts.watches, parts.host.signed)
        editor = PolicyEditor(self.owner.identity, parts.node_api, parts.host, writer, KeyCache())
        try:
            with contextlib.suppress(RegistryError):
                done = await editor.change(self.resource_id, edits, PATIENCE, self.majority)
                success = done.success and machine.parts is parts
        finally:  # also when the scenario's troubles end meanwhile
            ended = trio.current_time() if success else math.inf
            made = dict(_subject_of(edit, began) for edit in edits)  # of one subject the last edit counts
            self.changes += [Change(subject, value, began, ended) for subject, value in made.items()]
            self._note(f"{machine.number} changed {self.resource_id} {made} {success}")

    # What issuers do

    def _certificates(self, issuer: WorldNode) -> list[list[Certificate]]:
        """By the root, or by a delegate of it; some for another label, some that soon end."""
        now, scope = int(issuer.clock()), Scope(ScopeKind.LABEL, _key(self.owner.identity), LABEL)
        if self.random.random() < 0.1:
            scope = Scope(ScopeKind.LABEL, _key(self.owner.identity), "another")
        ends = now + self.random.choice((20, 90, 900))

        def certified(by: Identity, subject: Identity, depth: int) -> Certificate:
            return Certificate(_key(by), _key(subject), (REGISTER,), depth, scope.encoded(), now - 60, ends).signed_by(
                by
            )

        if self.random.random() < 0.5:
            return [[certified(self._root, issuer.identity, 0)]]
        return [[certified(self._root, self._delegate, 1), certified(self._delegate, issuer.identity, 0)]]

    async def _issue(self, issuer: WorldNode) -> None:
        count, has_certificates = 0, issuer is not self.issuers[-1]  # the last one is a stranger
        while True:
            await trio.sleep(self.random.uniform(1, 10))
            parts = issuer.parts
            if parts is None:
                continue
            count += 1
            if has_certificates:
                parts.registry.use_certificates(lambda: self._certificates(issuer))
            slot = Slot(self.resource_id, issuer.peer_id, issuer.peer_id)
            value = None if self.random.random() < 0.25 else f"{issuer.number}-{count}"
            statements = self.statements.setdefault(slot, [])
            number, began = len(statements), trio.current_time()
            statements.append(Statement(value, acknowledged=False, began=began))
            with contextlib.suppress(RegistryError):
                if value is None:
                    done = await parts.registry.unregister_service(
                        self.resource_id, issuer.peer_id, factor=self.majority
                    )
                else:
                    done = await parts.registry.register_service(
                        self.resource_id, value, issuer.peer_id, None, factor=self.majority
                    )
                    self.refused += not done.success
                if done.success and issuer.parts is parts:
                    statements[number] = Statement(value, True, began, trio.current_time())
            await self._read(issuer)

    async def _read(self, node: WorldNode) -> None:
        """Who has read a policy never shows what an older one permits, whatever replicas answer."""
        parts, ack = node.parts, self.random.randint(1, self.majority)
        if parts is None:
            return
        with contextlib.suppress(RegistryError):
            read = await parts.node_api.read(
                self.resource_id, ack=ack, timeout=PATIENCE, key_suffices=self.random.random() < 0.5
            )
            if node.parts is parts:
                self.audit.note_read(node, read.resource)

    # What must hold in the end

    async def known(self) -> ResourceState:
        """What all honest nodes together have."""
        together = ResourceState()
        for node in self.world.up():
            assert node.store is not None
            together = merged(together, await node.store.resource(self.resource_id))
        return together

    async def put_together(self) -> None:
        """As the owner's node does when it renews the key: a machine that crashed, or gave up, may have written over
        what the other one changed."""
        parts, store = self.owner.parts, self.owner.store
        assert parts is not None
        assert store is not None
        if (await self.known()).key is None:
            assert self.removals, f"{self.resource_id} has gone"
            created = await parts.registry.create_resource(LABEL, factor=self.majority, timeout=PATIENCE)
            assert created.resource_id is not None, created.errors
        for _ in range(2):
            found = await parts.node_api.read(self.resource_id, ack=self.majority, timeout=PATIENCE)
            await parts.registry.look_after_policy(merged(await store.resource(self.resource_id), found.resource))

    async def wait_for_certificates(self) -> None:
        """Until no certificate ends just now, about which clocks would differ."""
        while True:
            known, now = await self.known(), START + trio.current_time()
            ends = [permitted_before(known.key, each) for each in known.slots.values() if isinstance(each, Record)]
            if not any(abs(end - now) < MARGIN for end in ends if 0 < end < ALWAYS):
                return
            await trio.sleep(MARGIN)

    def check_policy(self, key: Key | None) -> None:
        """No change is lost that was acknowledged."""
        assert key is not None, f"{self.resource_id} has gone"
        policy = key.policy
        assert isinstance(policy, Policy)
        by_subject: dict[tuple[str, bytes, bytes], list[Change]] = {}
        for change in self.changes:
            by_subject.setdefault(change.subject, []).append(change)
        for subject, changes in by_subject.items():
            changes += [Change(subject, _value_in(None, subject), *removal) for removal in self.removals]
            expected = possible_values(changes, _value_in(None, subject))
            found = _value_in(policy, subject)
            assert found in expected, f"{self.resource_id}: {subject} is {found} after {changes}"

    def check_found(
        self, known: ResourceState, found: Mapping[tuple[str, str], str], settings: RegistrySettings
    ) -> None:
        """Shown is what the policy permits, of what was said last, and nothing else."""
        key, now = known.key, int(START + trio.current_time())
        assert key is not None
        left = dict(found)
        for slot, statements in self.statements.items():
            state = known.slots.get(slot)
            value = state.metadata.value if isinstance(state, Record) else None
            last = max((number for number, each in enumerate(statements) if each.acknowledged), default=None)
            left_over = [each for each in statements[last or 0 :] if not self._was_removed(each)]
            may_be_over = last is None or any(removal.ended > statements[last].began for removal in self.removals)
            allowed = {each.value for each in left_over} | ({None} if may_be_over else set())
            is_old = isinstance(state, Record) and now - state.timestamp_created > settings.expired_age - 60
            assert value in allowed or is_old, f"{slot} is {value} after {statements}"
            shown = left.pop((slot.issued_by, slot.peer_id), None)
            if not isinstance(state, Record) or is_old:
                assert shown is None or is_old, f"{slot} is shown, {shown}"
                continue
            claim = Claim(
                key.id,
                key.label,
                key.owner_peer_id,
                slot.issued_by,
                slot.peer_id,
                state.timestamp_issued,
                state.metadata.solution,
            )
            why = why_not_permitted(key.policy, claim, now)
            assert shown == (value if why is None else None), f"{slot} is shown as {shown}, {why}, of {value}"
        are_liars = self.audit.are_liars({issuer for issuer, _ in left})
        assert not left or (lets_in_anybody(key) and are_liars), f"nobody registered {left}"

    def _was_removed(self, statement: Statement) -> bool:
        """Whether it was acknowledged before the resource was removed."""
        return any(statement.ended < removal.began and removal.ended < math.inf for removal in self.removals)


def _key(who: Identity) -> bytes:
    return public_key_of(who.peer_id)


async def rounds_that_send_nothing(world: World, repairs: Callable[[], int]) -> None:
    """After settling, comparing sends nothing: in one of some rounds at least, since renewals go on. `repairs`: how
    many items honest replicas have sent each other."""
    sent = -1
    for _ in range(ROUNDS):
        before = repairs()
        async with trio.open_nursery() as nursery:
            for node in world.up():
                assert node.parts is not None
                nursery.start_soon(node.parts.upkeep.run_now, REPLICATE)
        await trio.sleep(SETTLING)
        sent = repairs() - before
        if sent == 0:
            return
    raise AssertionError(f"comparing goes on sending, {sent} the last time")
