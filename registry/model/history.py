"""Why something is in a node's storage, and why it went: one event per change, written in the change's transaction."""

from __future__ import annotations

from typing import Final

import msgspec

from registry.model.merge import ResourceState
from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, Record, Slot, State
from registry.permission.errors import why_not_permitted_in_words

MAX_EVENTS: Final = 100_000  # kept per node; the oldest go first
MAX_EVENTS_OF_A_RESOURCE: Final = 500
SHARE_OF_THE_DATABASE: Final = 10  # the history has at most a tenth of it
FEWEST_BYTES: Final = 2**20  # that the history may have in any case, roughly
STORED: Final = "stored"
RENEWED: Final = "renewed"  # signed anew by its host or owner
UPDATED: Final = "updated"  # issued anew
TOMBSTONED: Final = "tombstoned"  # ended by its issuer
PUSHED_OUT: Final = "pushed out"  # by a heavier record
EXPIRED: Final = "expired"
REMOVED: Final = "removed"  # with its resource, by the owner
HANDED_OVER: Final = "handed over"  # evicted by the operator, for others to keep
FORGOTTEN: Final = "forgotten"  # a tombstone that can't kill anything any more
POLICY_CHANGED: Final = "new policy"  # of a resource, by its owner
WITHHELD: Final = "withheld"  # now, by its resource's policy; told beside what happened, and not kept
DOWN: Final = "down"  # as its host's presence says; told as what is withheld, and from memory when it was so before
UP: Final = "up"  # again, of a host
GONE: Final = frozenset({TOMBSTONED, PUSHED_OUT, EXPIRED, REMOVED, HANDED_OVER})


class HistoryEvent(msgspec.Struct, frozen=True, array_like=True):
    """What happened on this node to a key (no `issued_by` and `peer_id`), a slot, or a host of a resource's records (no
    `issued_by`), at `time` (seconds)."""

    time: int
    key_id: str
    issued_by: str
    peer_id: str
    what: str
    detail: str = ""


def of_key(key: Key, what: str, time: int, detail: str = "") -> HistoryEvent:
    """An event of a key."""
    return HistoryEvent(time, key.id, "", "", what, detail)


def of_slot(slot: Slot, what: str, time: int, detail: str = "") -> HistoryEvent:
    """An event of a slot."""
    return HistoryEvent(time, slot.key_id, slot.issued_by, slot.peer_id, what, detail)


def of_host(key_id: str, host: str, what: str, time: int, detail: str = "") -> HistoryEvent:
    """An event of a host, for a resource of which it has records."""
    return HistoryEvent(time, key_id, "", host, what, detail)


def withheld_in(resource: ResourceState, now: int) -> list[HistoryEvent]:
    """Which records of a resource its policy withholds at `now` (seconds), and why."""
    found = (
        (slot, why_withheld(resource.key, state, now))
        for slot, state in sorted(resource.slots.items())
        if isinstance(state, Record)
    )
    return [
        of_slot(slot, WITHHELD, now, f"{why_not_permitted_in_words(why)} ({why})")
        for slot, why in found
        if why is not None
    ]


def change_of_key(known: Key | None, key: Key) -> str:
    """What `key` does to its resource."""
    if known is None:
        return STORED
    is_same = (known.challenge_type, known.challenge) == (key.challenge_type, key.challenge)
    return RENEWED if is_same else POLICY_CHANGED


def change_of(known: State | None, state: State) -> str:
    """What `state` does to its slot."""
    if not isinstance(state, Record):
        return TOMBSTONED
    if isinstance(known, Record):
        return RENEWED if known.metadata == state.metadata else UPDATED
    return STORED
