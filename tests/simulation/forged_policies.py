"""What liars make up about resources with policies, out of what they have seen and of certificates that permit them
nothing there: policies and removals that aren't the owner's, older policies, records under chains that don't count."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from overlay.identity import Identity, public_key_of
from overlay.membership.certificate import Certificate, encode_chain
from registry.model.merge import ResourceState
from registry.model.values import Key, KeyTombstone, Record, encode
from registry.permission.policy import MAX_REVISION, Policy
from registry.permission.scope import Scope, ScopeKind
from registry.protocol.messages import Item, StatePage
from tests.simulation.world import START, identity_of
from tests.unit.registry.builders import a_certificate, a_key, a_key_tombstone, a_record

KEPT: Final = 200  # keys and removals of a resource
LONG_AGO: Final = 400_000  # seconds; further than any clock is set wrong


class Target:
    """A resource with a policy. `root` is among its roots, and certifies others too: what it signed for these, liars
    have. `never_opens`: under none of its owner's keys a liar may register."""

    def __init__(self, resource_id: str, label: str, owner: str, root: Identity, *, never_opens: bool) -> None:
        self.resource_id = resource_id
        self.label = label
        self.owner = owner
        self.root = root
        self.never_opens = never_opens
        self.keys: list[Key] = []
        """All that its owner ever signed, as far as anybody has read them; the last ones left out beyond `KEPT`."""
        self.removals: list[KeyTombstone] = []

    def note(self, resource: ResourceState) -> None:
        """Liars know what anybody knows of it: reading isn't restricted."""
        for key in (resource.key, *resource.siblings):
            if key is not None and key not in self.keys and len(self.keys) < KEPT:
                self.keys.append(key)
        for removal in resource.key_tombstones:
            if removal not in self.removals and len(self.removals) < KEPT:
                self.removals.append(removal)


class Targets:
    """What all liars are after."""

    def __init__(self) -> None:
        self.of: dict[str, Target] = {}
        self.told_by = ""
        """The liar that watchers have among their sources."""
        self.is_over = False
        """What may have opened is left alone then, so that all who know it can be compared."""
        self.forged = 0
        """Values that honest members were sent, or read."""


class Forger:
    """What one liar makes of what is known of the targets."""

    def __init__(self, identity: Identity, targets: Targets, randomness: random.Random) -> None:
        self.targets = targets
        self._identity = identity
        self._random = randomness

    def some(self) -> tuple[list[Item], int]:
        """What to push of one target: first so many items that nobody may ever take, then others: older keys, and
        records under those and under the present one."""
        targets = [each for each in self.targets.of.values() if self._may_tell_of(each)]
        if not targets:
            return [], 0
        target = self._random.choice(targets)
        items = [Item(each) for each in (*self._in_the_owners_name(target), *self._under_anothers_signature(target))]
        never = len(items)
        for key in [self._random.choice(target.keys), max(target.keys, key=Key.order)] if target.keys else ():
            items += [Item(key), Item(key, self._own_record(target))]
        self.targets.forged += len(items)
        return items, never

    def page(self, resource_id: str) -> StatePage | None:
        """An answer to who reads a target, with an older key or one of its own; None for another resource."""
        target = self.targets.of.get(resource_id)
        if target is None or not self._may_tell_of(target):
            return None
        self.targets.forged += 1
        key, removal = self._in_the_owners_name(target)
        if target.keys and self._random.random() < 0.7:
            key = self._random.choice(target.keys)
        removal = self._random.choice([removal, *target.removals])
        return StatePage(
            holds_key=True,
            same=False,
            key=encode(key),
            states=(encode(self._own_record(target)),),
            more=False,
            key_tombstone=encode(removal) if self._random.random() < 0.3 else b"",
            siblings=tuple(map(encode, [*target.keys[:3], *self._under_anothers_signature(target)])),
        )

    def takes_watchers(self, resource_id: str) -> bool:
        """Whether this liar is the one that tells watchers of a target: of their two sources one is honest."""
        return resource_id in self.targets.of and self.targets.told_by == self._identity.peer_id

    def news(self, resource_id: str) -> Item | None:
        """What to announce of a target: signed as it should be, under an older key or the present one."""
        target = self.targets.of.get(resource_id)
        if target is None or not target.keys or not self._may_tell_of(target):
            return None
        self.targets.forged += 1
        return Item(self._random.choice(target.keys), self._own_record(target))

    def _in_the_owners_name(self, target: Target) -> tuple[Key, KeyTombstone]:
        """A key whose policy is open, and a removal, later than any of the owner's, and signed by this liar."""
        now = self._now()
        key = a_key(target.label, self._identity, now, policy=Policy(revision=MAX_REVISION, open=True))
        removal = a_key_tombstone(target.label, self._identity, now, MAX_REVISION)
        return (
            msgspec.structs.replace(key, owner_peer_id=target.owner),
            msgspec.structs.replace(removal, key_id=target.resource_id, owner_peer_id=target.owner),
        )

    def _under_anothers_signature(self, target: Target) -> list[Key]:
        """The latest of the owner's keys, with a policy that it didn't sign."""
        forged = a_key(target.label, self._identity, policy=Policy(revision=MAX_REVISION, open=True))
        return [
            msgspec.structs.replace(key, challenge=forged.challenge, challenge_type=forged.challenge_type)
            for key in sorted(target.keys, key=Key.order)[-1:]
        ]

    def _may_tell_of(self, target: Target) -> bool:
        return target.never_opens or not self.targets.is_over

    def _own_record(self, target: Target) -> Record:
        """Signed as it should be, by this liar as issuer and host; its chain permits nothing."""
        now, liar = self._now(), self._identity
        name, chain_of = self._random.choice(list(chains(target, liar, now).items()))
        chain = chain_of()
        solution = encode_chain(chain) if chain else b""
        return a_record(target.resource_id, liar, liar, now, value=name, solution=solution)

    def _now(self) -> int:
        return int(START + trio.current_time())


def chains(target: Target, liar: Identity, now: int) -> dict[str, Callable[[], Sequence[Certificate]]]:
    """Makes certificates with which `liar` may not register there, each for another reason."""
    root, owner = target.root, public_key_of(target.owner)
    one, two, three, four = (identity_of(9_500, number) for number in range(4))  # whose keys liars have
    of_it = partial(
        a_certificate, scope=Scope(ScopeKind.LABEL, owner, target.label), not_before=now - 60, expires_at=now + 900
    )
    forged = msgspec.structs.replace(of_it(liar, liar), issuer=public_key_of(root.peer_id))
    of_three = [of_it(root, two, depth=2), of_it(two, three, depth=1), of_it(three, four)]
    return {
        "no certificate": list,
        "by a root of its own": lambda: [of_it(one, liar)],
        "not signed by the root": lambda: [forged],
        "for another resource": lambda: [of_it(root, liar, scope=Scope(ScopeKind.LABEL, owner, "another"))],
        "of another owner": lambda: [of_it(root, liar, scope=Scope(ScopeKind.ALL, public_key_of(liar.peer_id)))],
        "handed on by one who mustn't": lambda: [of_it(root, one), of_it(one, liar)],
        "too long": lambda: [*of_three, of_it(four, liar)],
        "without its middle": lambda: [of_it(root, two, depth=2), of_it(three, liar)],
        "for somebody else": lambda: [of_it(root, one)],
        "ended": lambda: [of_it(root, liar, not_before=now - 2 * LONG_AGO, expires_at=now - LONG_AGO)],
        "for other things": lambda: [of_it(root, liar, permits=("admit",))],
    }
