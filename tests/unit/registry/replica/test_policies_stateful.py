"""Replicas under policies, step by step: puts, replays, comparisons of which anything may get lost, come late, twice or
in another order, absence, collecting, time that goes on. After each step each property that holds of one replica is
checked, in the end those of all together."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import permutations
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.model.merge import ResourceState, merged
from registry.model.policy_withholding import why_withheld
from registry.model.values import Record
from registry.replica import collecting
from registry.storage.transaction import Transaction
from tests.unit.registry.replica.test_under_policies import (
    ID,
    PUTS,
    RULES,
    START,
    Acknowledged,
    Put,
    compared,
    lacking,
    opened,
    put,
    settle,
    shown,
)

REPLICAS = 3
WHICH = st.integers(0, REPLICAS - 1)
UNTOLD = st.just(0) | st.integers(0, 2**6 - 1)
"""Slots that are left out of an answer, by their bits."""


class UnderWay(NamedTuple):
    """What a replica sends another once it has compared with it."""

    to: int
    items: tuple[Put, ...]


class Replicas(RuleBasedStateMachine):
    """Each replica's own acknowledgements bind it, whatever it hears later; it forgets nothing while it is away."""

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.replicas = [Transaction(self.stack.enter_context(opened())) for _ in range(REPLICAS)]
        self.acknowledged = [Acknowledged() for _ in range(REPLICAS)]
        self.sent: list[Put] = []
        self.under_way: list[UnderWay] = []
        self.away: set[int] = set()
        self.now = START
        self.revisions = [0] * REPLICAS

    @rule(which=WHICH, item=PUTS)
    def write(self, which: int, item: Put) -> None:
        self.sent.append(item)
        self._put(which, item)

    @precondition(lambda self: self.sent)
    @rule(which=WHICH, data=st.data())
    def replay(self, which: int, data: st.DataObject) -> None:
        self._put(which, data.draw(st.sampled_from(self.sent)))

    @rule(which=WHICH)
    def leave_or_come_back(self, which: int) -> None:
        self.away ^= {which}

    @rule(one=WHICH, other=WHICH)
    def compare(self, one: int, other: int) -> None:
        """With nothing lost."""
        for item in self._asked(one, other, untold=0):
            self._put(other, item)

    @rule(one=WHICH, other=WHICH, untold=UNTOLD)
    def ask(self, one: int, other: int, untold: int) -> None:
        """A comparison is answered, perhaps in part; what is sent for it is under way."""
        items = self._asked(one, other, untold=untold)
        if items:
            self.under_way.append(UnderWay(other, tuple(items)))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """Some of what is under way, in any order, some of it twice: the rest is lost, unless it is sent again since no
        answer came."""
        sent = data.draw(st.sampled_from(self.under_way))
        items = data.draw(st.lists(st.sampled_from(sent.items), max_size=2 * len(sent.items)))
        if data.draw(st.booleans(), label="answered"):
            self.under_way.remove(sent)
        for item in items:
            self._put(sent.to, item)

    @rule(seconds=st.integers(1, 3))
    def pass_time(self, seconds: int) -> None:
        before = [shown(one.resource(ID), self.now) for one in self.replicas]
        self.now += seconds
        for one, was in zip(self.replicas, before, strict=True):
            assert {*shown(one.resource(ID), self.now)} <= {*was}, "time lets in what wasn't"

    @rule(which=WHICH)
    def collect(self, which: int) -> None:
        before = shown(self.replicas[which].resource(ID), self.now)
        collecting.clear_expired(self.replicas[which], self.now, RULES)
        assert shown(self.replicas[which].resource(ID), self.now) == before

    @invariant()
    def each_shows_only_what_is_permitted_and_not_ended(self) -> None:
        for number, one in enumerate(getattr(self, "replicas", ())):
            resource = one.resource(ID)
            self.acknowledged[number].check(resource, self.now)
            removed = max((each.revision for each in resource.key_tombstones), default=0)
            revision = resource.key.revision if resource.key is not None else 0
            assert revision >= self.revisions[number] or removed > self.revisions[number], "a revision fell"
            self.revisions[number] = revision

    def teardown(self) -> None:
        if not hasattr(self, "replicas"):
            return
        with self.stack:
            settle(self.replicas, self.now)
            resources = [one.resource(ID) for one in self.replicas]
            together = ResourceState()
            for resource in resources:
                together = merged(together, resource)
            everything = Acknowledged()
            for item in [item for each in self.acknowledged for item in each.items]:
                everything.note(item)
            for number, resource in enumerate(resources):
                assert shown(resource, self.now) == shown(together, self.now)
                everything.check(resource, self.now)
                assert resource.key == together.key, number
            for mine, theirs in permutations(self.replicas, 2):
                assert compared(mine, theirs, self.now) == [], "after settling a round sends something"
            for sent in self.under_way:
                for item in sent.items:
                    put(self.replicas[sent.to], item, self.now)
            settle(self.replicas, self.now)
            for one in self.replicas:
                assert shown(one.resource(ID), self.now) == shown(together, self.now), "what comes late is shown"

    def _asked(self, one: int, other: int, *, untold: int) -> list[Put]:
        if one == other or {one, other} & self.away:
            return []
        return lacking(self.replicas[one], self.replicas[other], self.now, untold=untold)

    def _put(self, which: int, item: Put) -> None:
        if which in self.away:
            return
        before = self.replicas[which].resource(ID)
        if put(self.replicas[which], item, self.now) is None:
            self.acknowledged[which].note(item)
        self._check_renewals(before, self.replicas[which].resource(ID))

    def _check_renewals(self, before: ResourceState, after: ResourceState) -> None:
        for slot, state in before.slots.items():
            successor = after.slots.get(slot)
            if not isinstance(state, Record) or not isinstance(successor, Record) or successor == state:
                continue
            was_withheld = why_withheld(after.key, state, self.now) is not None
            is_withheld = why_withheld(after.key, successor, self.now) is not None
            assert not (was_withheld and is_withheld), "a withheld row was renewed"


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
