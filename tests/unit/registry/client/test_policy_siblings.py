"""Machines of one owner that change a policy at the same moment, over replicas with real databases: whatever comes
between, no change is lost whose machine was told that it was made."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from aqua_compat.cli.times import Moment
from registry.client.key_cache import KeyCache
from registry.client.node_writer import Written
from registry.client.policies import PolicyEditor
from registry.client.results import Done
from registry.model.merge import MAX_SIBLINGS, ResourceState, kept_keys, merged
from registry.model.values import Key
from registry.permission.edits import Edit, EditKind, edit_text, edited, following, holds, overtaken
from registry.permission.policy import POLICY_TYPE, Policy, encode_policy, policy_digest
from registry.protocol.messages import Item, StatePage, build, parse
from registry.quorum.read_machine import ReadOutcome
from registry.replica import collecting
from registry.settings import RegistrySettings
from registry.storage.transaction import Transaction
from tests.unit.registry.builders import (
    NODE,
    NOW,
    OWNER,
    a_key,
    a_key_tombstone,
    identity,
    keys_of,
    public_key,
)
from tests.unit.registry.replica.test_under_policies import put, replicas

ID = a_key().id
RULES = RegistrySettings()
REPLICAS = 3
MAJORITY = 2
WHO = [identity(number) for number in range(60, 68)]


def digest_of(policy: Policy) -> bytes:
    return policy_digest(POLICY_TYPE, encode_policy(policy))


class Replicas:
    """What a machine acts through: each call reaches a majority, one replica after the other, at random times."""

    def __init__(self, transactions: Sequence[Transaction], randomness: random.Random) -> None:
        self.transactions = transactions
        self.random = randomness
        self.peer_id = NODE.peer_id
        self.clock_guard = self

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()

    def time_to_sign(self) -> int:
        return NOW

    async def keep_key(self, key: Key) -> None:
        assert key.owner_peer_id == OWNER.peer_id
        await trio.lowlevel.checkpoint()

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        assert (resource_id, timeout > 0) == (ID, True)
        await trio.lowlevel.checkpoint()
        return [f"replica {number}" for number in range(REPLICAS)]

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        assert (ack, timeout > 0, key_suffices) == (MAJORITY, True, False)
        outcome = ReadOutcome()
        for one in self.random.sample(self.transactions, MAJORITY):
            await trio.sleep(self.random.random())
            page = parse(build(StatePage.of(one.resource(key_id), None)), StatePage)
            key, key_tombstones, states = page.decoded()
            theirs = ResourceState.of(key, states, *key_tombstones, siblings=page.decoded_siblings())
            outcome.resource, outcome.answered = merged(outcome.resource, theirs), outcome.answered + 1
        return outcome

    async def write(self, item: Item, factor: int, timeout: float, failure: str) -> Written:
        assert (factor, timeout > 0) == (MAJORITY, True)
        codes = []
        for one in self.random.sample(self.transactions, MAJORITY):
            await trio.sleep(self.random.random())
            codes.append(put(one, (item.key_or_tombstone, item.state), NOW))
        stored = codes.count(None)
        done = Done(True, (), stored) if stored == MAJORITY else Done(False, (failure,), stored)
        return Written(done, frozenset(code for code in codes if code is not None))

    async def compare(self) -> None:
        """Replicas tell each other of the key that rules, at any time."""
        while True:
            await trio.sleep(self.random.random())
            mine, theirs = self.random.sample(self.transactions, 2)
            ruling = mine.resource(ID).key
            if ruling is not None:
                put(theirs, (ruling, None), NOW)


def editor_of(replicas: Replicas) -> PolicyEditor:
    return PolicyEditor(OWNER, replicas, replicas, replicas, KeyCache())  # type: ignore[arg-type]


@asynccontextmanager
async def going_on(of: Replicas) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(of.compare)
        yield
        nursery.cancel_scope.cancel()


def ruling(of: Replicas) -> Policy:
    """As a reader of all replicas sees it."""
    resource = ResourceState()
    for one in of.transactions:
        resource = merged(resource, one.resource(ID))
    assert resource.key is not None
    assert isinstance(resource.key.policy, Policy)
    return resource.key.policy


def run(main: object, *arguments: object) -> None:
    trio.run(main, *arguments, clock=trio.testing.MockClock(autojump_threshold=0))  # type: ignore[arg-type]


KINDS = st.sampled_from([EditKind.ALLOW, EditKind.ADD_ROOT, EditKind.DENY, EditKind.DISALLOW])


@given(
    edits=st.lists(st.lists(KINDS, min_size=1, max_size=2), min_size=2, max_size=4),
    closes=st.booleans(),
    shortens=st.booleans(),
    has_policy=st.booleans(),
    seed=st.integers(0, 2**32),
)
@example(
    edits=[[EditKind.ALLOW], [EditKind.ALLOW], [EditKind.ALLOW], [EditKind.ALLOW, EditKind.ALLOW]],
    closes=True,
    shortens=True,
    has_policy=False,
    seed=202,
)
def test_no_change_is_lost_that_was_made_at_the_same_time_as_others(
    edits: list[list[EditKind]], closes: bool, shortens: bool, has_policy: bool, seed: int
) -> None:
    """Each machine has edits of its own keys; one of them may close the resource, another one shorten its chains."""
    wanted = [
        [Edit(kind, public_key(WHO[machine * 2 + number])) for number, kind in enumerate(of)]
        for machine, of in enumerate(edits)
    ]
    if closes:
        wanted[0].append(Edit(EditKind.CLOSE))
    if shortens:
        wanted[1].append(Edit(EditKind.LONGEST_CHAIN, number=1))

    async def main() -> None:
        with replicas(REPLICAS) as transactions:
            of = Replicas(transactions, random.Random(seed))
            for one in transactions:
                put(
                    one,
                    (a_key(policy=Policy(revision=1, allow=keys_of(*WHO[::2]))) if has_policy else a_key(), None),
                    NOW,
                )
            done: dict[int, Done] = {}

            async def change(machine: int) -> None:
                await trio.sleep(of.random.random() * 3)
                done[machine] = await editor_of(of).change(ID, wanted[machine], 300)

            async with going_on(of), trio.open_nursery() as nursery:
                for machine in range(len(wanted)):
                    nursery.start_soon(change, machine)
            assert all(each.success for each in done.values()), done
            policy = ruling(of)
            for machine in done:
                assert all(holds(policy, edit) for edit in wanted[machine]), (machine, policy)

    run(main)


@given(seed=st.integers(0, 2**32), dies_after=st.floats(0, 6), restarts=st.booleans())
def test_what_a_dying_machine_wrote_over_is_put_together_again_by_whoever_runs(
    seed: int, dies_after: float, restarts: bool
) -> None:
    living, dying = (Edit(EditKind.ALLOW, public_key(who)) for who in WHO[:2])

    async def main() -> None:
        with replicas(REPLICAS) as transactions:
            of = Replicas(transactions, random.Random(seed))
            for one in transactions:
                put(one, (a_key(policy=Policy(revision=1)), None), NOW)
            runs, restarted = editor_of(of), editor_of(of)
            async with going_on(of):

                async def die() -> None:
                    with trio.move_on_after(dies_after):
                        await editor_of(of).change(ID, [dying], 300)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(die)
                    assert (await runs.change(ID, [living], 300)).success
                await trio.sleep(10)
                for _ in range(2):
                    found = (await of.read(ID, ack=MAJORITY, timeout=1)).resource
                    assert found.key is not None
                    await (restarted if restarts else runs).look_after(found.key, 300, has_siblings=found.has_siblings)
            assert holds(ruling(of), living)

    run(main)


def test_what_was_written_over_is_made_again_if_it_denies_and_told_if_it_lets_in() -> None:
    """A machine that saw a sibling alone wrote the next revision, as one does that died before it looked again."""
    lets_in, denies = Edit(EditKind.ALLOW, public_key(WHO[0])), Edit(EditKind.DENY, public_key(WHO[1]))
    beside = edited(Policy(revision=1), [Edit(EditKind.ALLOW, public_key(WHO[2]))])
    over = edited(beside, [Edit(EditKind.ALLOW, public_key(WHO[3]))])

    async def main() -> None:
        with replicas(REPLICAS) as transactions:
            of = Replicas(transactions, random.Random(1))
            for one in transactions:
                put(one, (a_key(policy=Policy(revision=1)), None), NOW)
            runs = editor_of(of)
            assert (await runs.change(ID, [lets_in, denies], 300)).success
            for policy in (ruling(of), beside, over):
                assert await editor_of(of).overtaken(ID, 300) == []
                for one in transactions:
                    put(one, (a_key(policy=policy), None), NOW)
            assert ruling(of) == over
            assert {*await editor_of(of).overtaken(ID, 300)} == {lets_in, denies}
            for _ in range(2):
                found = (await of.read(ID, ack=MAJORITY, timeout=1)).resource
                assert found.key is not None
                with capture_logs() as logs:
                    await runs.look_after(found.key, 300, has_siblings=found.has_siblings)
                told = [each["missing"] for each in logs if "missing" in each]
                assert told == ([[f"--allow {WHO[0].peer_id}"]] if found.key.policy == over else [])
            assert ruling(of).allow == keys_of(*WHO[2:4])
            assert holds(ruling(of), denies)
            assert ruling(of).revision == 4

    run(main)


def test_an_edit_is_told_as_the_command_takes_it() -> None:
    who, host = WHO[:2]
    denial = Edit(EditKind.DENY, public_key(who), public_key(host), 1_800_000_000)
    assert edit_text(denial) == f"--deny {who.peer_id}@{host.peer_id} --until 2027-01-15T08:00:00Z"
    assert Moment().convert("2027-01-15T08:00:00Z", None, None) == denial.until
    assert edit_text(Edit(EditKind.ADD_ROOT, public_key(who))) == f"--root {who.peer_id}"
    assert edit_text(Edit(EditKind.CLOSE)) == "--close"


def test_machines_that_contradict_each_other_come_to_an_end() -> None:
    async def main() -> None:
        with replicas(REPLICAS) as transactions:
            of = Replicas(transactions, random.Random(1))
            for one in transactions:
                put(one, (a_key(), None), NOW)
            done: list[Done] = []

            async def change(kind: EditKind) -> None:
                done.append(await editor_of(of).change(ID, [Edit(kind)], 300))

            async with going_on(of), trio.open_nursery() as nursery:
                nursery.start_soon(change, EditKind.OPEN)
                nursery.start_soon(change, EditKind.CLOSE)
            assert len(done) == 2
            assert any(each.success for each in done)

    run(main)


BASE = Policy(revision=1, allow=keys_of(WHO[0]))
BASES = {digest_of(BASE): BASE}


def test_what_a_sibling_changed_is_told_by_the_policy_before() -> None:
    added = edited(BASE, [Edit(EditKind.ALLOW, public_key(WHO[1]))])
    dropped = edited(BASE, [Edit(EditKind.DISALLOW, public_key(WHO[0]))])
    after = following(added, [dropped], BASES, [])
    assert after is not None
    assert (after.allow, after.revision, after.previous) == (keys_of(WHO[1]), 3, digest_of(added))
    assert following(dropped, [added], BASES, []) == Policy(revision=3, allow=after.allow, previous=digest_of(dropped))


def test_where_siblings_contradict_each_other_the_ruling_one_counts_and_a_new_edit_more() -> None:
    opened, closed = edited(None, [Edit(EditKind.OPEN)]), edited(None, [Edit(EditKind.CLOSE)])
    after = following(closed, [opened], {}, [])
    assert after is not None, "or somebody would find the sibling later, and open it"
    assert not after.open
    reopened = following(closed, [opened], {}, [Edit(EditKind.OPEN)])
    assert reopened is not None
    assert reopened.open


def test_nobody_is_let_in_by_guess_where_the_policy_before_isnt_known() -> None:
    sibling = edited(BASE, [Edit(EditKind.ALLOW, public_key(WHO[1])), Edit(EditKind.DENY, public_key(WHO[2]))])
    dropped = edited(BASE, [Edit(EditKind.DISALLOW, public_key(WHO[0]))])
    after = following(dropped, [sibling], {}, [])
    assert after is not None
    assert after.allow == ()
    assert after.deny == sibling.deny
    opened = edited(BASE, [Edit(EditKind.OPEN)])
    again = following(dropped, [opened], {}, [])
    assert again is not None
    assert not again.open


def test_a_sibling_that_was_made_from_the_greater_of_two_has_what_made_that_differ_from_the_lesser() -> None:
    lesser, greater = sorted((edited(BASE, [Edit(EditKind.ALLOW, public_key(who))]) for who in WHO[1:3]), key=digest_of)
    one = edited(lesser, [Edit(EditKind.ALLOW, public_key(WHO[3]))])
    together = following(greater, [lesser], BASES, [Edit(EditKind.DISALLOW, public_key(WHO[0]))])
    assert together is not None
    bases = {digest_of(each): each for each in (lesser, greater)}
    for ruling, sibling in ((one, together), (together, one)):
        after = following(ruling, [sibling], bases, [])
        assert after is not None
        assert after.allow == keys_of(*WHO[1:4]), "that of each, but for whom one of them dropped"


def test_what_a_sibling_changed_of_the_longest_chain_counts_and_by_guess_if_it_shortens_it() -> None:
    shorter, longer = (Edit(EditKind.LONGEST_CHAIN, number=number) for number in (1, 2))
    base = edited(BASE, [longer])
    bases = {**BASES, digest_of(base): base}
    added = edited(base, [Edit(EditKind.ALLOW, public_key(WHO[1]))])
    for number in (0, 1, 3):
        sibling = edited(base, [Edit(EditKind.LONGEST_CHAIN, number=number)])
        for known, is_known in ((bases, True), ({}, False)):
            after = following(added, [sibling], known, [])
            expected = number if is_known or number < 2 else 2
            assert (after.longest_chain if after is not None else added.longest_chain) == expected, (number, is_known)
    contradicting = edited(base, [shorter])
    after = following(contradicting, [edited(base, [Edit(EditKind.LONGEST_CHAIN, number=3)])], bases, [])
    assert after is not None
    assert after.longest_chain == 1, "what the ruling one changed"
    over = edited(added, [Edit(EditKind.ALLOW, public_key(WHO[2]))])
    assert overtaken(over, [added, contradicting]) == [shorter]
    assert edit_text(shorter) == "--longest-chain 1"


def test_siblings_that_say_the_same_need_no_other_revision() -> None:
    edit = Edit(EditKind.ALLOW, public_key(WHO[1]))
    one, other = edited(BASE, [edit]), edited(Policy(revision=1, allow=BASE.allow, open=False, longest_chain=3), [edit])
    twin = Policy(revision=2, allow=other.allow, previous=b"p" * 32)
    assert following(one, [twin], BASES, [edit]) is None
    assert following(None, [], {}, []) is not None, "a resource without a policy gets one"


POLICIES = [a_key()] + [
    a_key(policy=Policy(revision=revision, allow=keys_of(who)), created=NOW + created)
    for revision in (1, 2)
    for who in WHO
    for created in (0, 1)
]


def newest(keys: Sequence[Key], revision: int) -> list[Key]:
    """Those of a revision that are kept, the greatest first: of each policy the one that was signed last."""
    there = {key for key in keys if key.revision == revision}
    last = [key for key in there if key == max((k for k in there if k.challenge == key.challenge), key=Key.order)]
    return sorted(last, key=Key.order, reverse=True)[: MAX_SIBLINGS + 1]


@given(
    keys=st.lists(st.sampled_from(POLICIES), max_size=20), cut=st.integers(0, 20), revision=st.sampled_from((0, 2, 3))
)
def test_siblings_are_the_same_in_whatever_order_keys_come(keys: list[Key], cut: int, revision: int) -> None:
    ended = a_key_tombstone(issued=NOW, revision=revision)
    together = ResourceState.of(None, [], ended, siblings=keys)
    one = ResourceState.of(None, [], siblings=reversed(keys[:cut]))
    other = ResourceState.of(None, [], ended, siblings=keys[cut:])
    assert merged(one, other) == merged(other, one) == together
    assert merged(together, together) == together
    assert together.digest() == ResourceState.of(together.key, [], ended).digest(), "they make no difference"
    if together.key is not None:
        same = [each for each in together.siblings if each.revision == together.key.revision]
        below = [each for each in together.siblings if each.revision < together.key.revision]
        assert [together.key, *same] == newest(keys, together.key.revision)
        assert below == (newest(keys, 1) if together.key.revision == 2 > revision else [])
        assert len(same) <= MAX_SIBLINGS
        assert together.has_siblings is bool(same)
        policies = [(each.challenge_type, each.challenge) for each in (together.key, *together.siblings)]
        assert len(set(policies)) == len(policies), "signing a key anew makes no sibling"


@given(keys=st.lists(st.sampled_from(POLICIES), max_size=20), removed=st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_replica_keeps_siblings_on_disk_and_lets_go_of_them_with_their_revision(
    keys: list[Key], removed: bool
) -> None:
    with replicas(1) as [one]:
        for key in keys:
            put(one, (key, None), NOW)
        resource = one.resource(ID)
        revision = resource.key.revision if resource.key is not None else 0
        if keys:  # of lower revisions what came later was refused
            expected = [key for key in kept_keys(keys) if key.revision == revision]
            found = [key for key in resource.siblings if key.revision == revision]
            assert [resource.key, *found] == expected
        if removed and keys:
            put(one, (a_key_tombstone(issued=NOW + 2, revision=3), None), NOW)
            assert one.siblings(ID) == ()
            assert one.accounts.bytes_of(OWNER.peer_id) < 1500, "they are charged for no more"
        collecting.clear_expired(one, NOW + RULES.key_lifetime + 2, RULES)
        assert one.siblings(ID) == ()
