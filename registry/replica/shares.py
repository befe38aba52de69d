"""Who may take a place under a key, and what has to make room: shares per issuer, so that nobody fills a resource.

A place is a slot, with a record or a tombstone. Rules:
1. An issuer has at most `slots_per_issuer` slots and `records_per_issuer` records; at its share of slots an idle
   tombstone of its own gives way, or else it is refused. The owner's share is all of `slots_per_key`.
2. The last quarter of the slots and of the records is for issuers that would have at most a quarter of their share, so
   that a few that take all they can keep nobody out.
3. Beyond that, idle tombstones give way to records: the issuer's own first, then others'. A tombstone is idle that
   ended nothing here, or nothing that can still be good; one that holds an old record down never gives way.
4. Preferred issuers are never refused for what others have: the resource's owner, this node itself, and whoever has a
   weight. A heavier one's record displaces the lightest, the owner's one of a stranger's. Where those that are lighter
   hold old records down (they followed one that was ended), it gets in beyond the limit, which its own share bounds;
   so does the owner's where none is lighter.
5. Where a policy names issuers or roots, half of all places is for those named, or certified; they don't leave the last
   quarter to others. Others may still end records there, which no policy refuses.
6. A record that this node hosts for a stranger takes no place among the records of other hosts, and slots up to twice
   their number: the host has let it in by its own quotas.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from registry.settings import RegistrySettings

_PARTS: Final = 4  # the last one of the places, and of a share what still is a little


class Rank(Enum):
    """Who asks for a place."""

    STRANGER = "stranger"
    HOSTED = "hosted"
    """A stranger whose record this node hosts."""
    UNNAMED = "unnamed"
    """A stranger where the resource's policy names others."""
    NAMED = "named"
    """An issuer that the resource's policy names, or that is certified."""
    HEAVIER = "heavier"
    """Somebody with a weight."""
    OWNER = "owner"
    HOST = "host"
    """This node itself."""

    @property
    def is_preferred(self) -> bool:
        """Whether others' places don't count against it."""
        return self in (Rank.HEAVIER, Rank.OWNER, Rank.HOST)


class Taken(msgspec.Struct, frozen=True):
    """What is under a key: slots and records of other hosts, of all and of the issuer who asks; tombstones of all."""

    slots: int
    slots_by_issuer: int
    records: int
    records_by_issuer: int
    tombstones: int


class Room(Enum):
    """What a newcomer needs."""

    FREE = "free"
    OWN_TOMBSTONE = "own tombstone"
    """An idle tombstone of the issuer's own must go."""
    TOMBSTONE = "tombstone"
    """An idle tombstone must go, the issuer's own or another's."""
    TOMBSTONE_IF_ANY = "tombstone if any"
    """The same, but it gets in if there is none."""
    RECORD = "record"
    """A lighter record must go."""
    RECORD_IF_ANY = "record if any"
    """A stranger's record must go, but it gets in if there is none."""
    NONE = "none"


def room_for_slot(taken: Taken, rank: Rank, settings: RegistrySettings, *, is_record: bool) -> Room:
    """What a state in a slot of which nothing is known needs, records and tombstones alike."""
    if rank is Rank.HOST:
        return Room.FREE
    share = settings.slots_per_key if rank is Rank.OWNER else settings.slots_per_issuer
    if taken.slots_by_issuer >= share:
        return Room.OWN_TOMBSTONE
    tombstones = settings.tombstones_per_key // (2 if rank is Rank.UNNAMED else 1)
    if not is_record and not rank.is_preferred and taken.tombstones >= tombstones:
        return Room.OWN_TOMBSTONE
    if rank.is_preferred:
        return Room.FREE if taken.slots < settings.slots_per_key else Room.TOMBSTONE_IF_ANY
    places = _places_of(rank, settings.slots_per_key, taken.slots_by_issuer, share)
    if taken.slots < places:
        return Room.FREE
    return Room.TOMBSTONE if is_record else Room.OWN_TOMBSTONE


def room_for_record(taken: Taken, rank: Rank, settings: RegistrySettings, *, is_hosted_here: bool) -> Room:
    """What a record needs whose slot holds none, beside the slot."""
    if is_hosted_here:
        return Room.FREE
    if settings.records_per_key == 0 or taken.records_by_issuer >= settings.records_per_issuer:
        return Room.NONE
    if rank in (Rank.STRANGER, Rank.UNNAMED, Rank.NAMED):
        share = settings.records_per_issuer
        places = _places_of(rank, settings.records_per_key, taken.records_by_issuer, share)
        return Room.FREE if taken.records < places else Room.NONE
    if taken.records < settings.records_per_key:
        return Room.FREE
    return Room.RECORD if rank is Rank.HEAVIER else Room.RECORD_IF_ANY


def _places_of(rank: Rank, places: int, taken_by_issuer: int, share: int) -> int:
    """How many of all places count for somebody of this rank, who isn't preferred."""
    match rank:
        case Rank.STRANGER:
            return _places(places, taken_by_issuer, share)
        case Rank.UNNAMED:
            return places // 2
        case Rank.NAMED:
            return places
        case _:
            return 2 * places


def _places(places: int, taken_by_issuer: int, share: int) -> int:
    """How many of all places somebody may make use of who has some already."""
    is_little = taken_by_issuer < max(share // _PARTS, 1)
    return places if is_little else max(places - places // _PARTS, 1)
