"""The instances of a resource as DNS tells of them. Pure.

Rules:
1. Told is what is up, and passing or warning: of a record that is, the instances that are.
2. An instance of weight 0 is told only where there is no other: it is to get no load.
3. All are told in an order drawn anew by their weights, so that who takes the first one spreads its load by them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from itertools import count
from typing import Final, NamedTuple

from aqua_compat.dns.zone import UDP, IpAddress, OfService
from registry.health.health_reader import RecordHealth
from registry.model.endpoints import Instance
from registry.model.values import Slot

_OVER_UDP: Final = frozenset({"udp", "quic", "quic-v1", "webtransport", "dns"})
_numbers: Final = count()


class Provider(NamedTuple):
    """An instance that is to be called. `host`: the peer that hosts it; `address`: None where it has a host name, or
    none of its own."""

    instance: Instance
    host: str
    address: IpAddress | None


class Providers:
    """What is known of a resource at one moment: whether it exists, its usable instances, and the tags of all."""

    def __init__(self, *, exists: bool, usable: Sequence[Provider] = (), tags: Iterable[str] = ()) -> None:
        self.exists = exists
        self.usable = tuple(usable)
        self.tags = frozenset(tags)
        """In lower case, also of those that aren't usable: their names exist."""
        self.number = next(_numbers)
        """Tells it from all others."""

    def has(self, asked: OfService) -> bool:
        """Whether the name that is asked for exists."""
        return self.exists and (not asked.tag or asked.tag in self.tags)

    def chosen(self, asked: OfService, randomness: random.Random) -> list[Provider]:
        """The instances that are asked for, in an order of their own for each answer (rules 2 and 3)."""
        found = [each for each in self.usable if _is_asked(each.instance, asked)]
        if any(each.instance.weight for each in found):
            found = [each for each in found if each.instance.weight]
        # Drawn one after the other in proportion to their weights: Efraimidis and Spirakis, 2006.
        return sorted(found, key=lambda each: randomness.random() ** (1 / (each.instance.weight or 1)), reverse=True)


ABSENT: Final = Providers(exists=False)


def usable_in(slot: Slot, instances: Iterable[Instance], health: RecordHealth) -> list[Provider]:
    """The instances of a record that are to be called (rule 1)."""
    if not health.is_usable:
        return []
    return [
        Provider(each, slot.peer_id, _address_of(each))
        for each in instances
        if each.id not in health.instances or health.instances[each.id].state.is_usable
    ]


def providers_of(found: Mapping[Slot, tuple[Sequence[Instance], RecordHealth]]) -> Providers:
    """What is known of a resource that exists: of each live record its instances, and how it and they are."""
    usable = [one for slot in sorted(found) for one in usable_in(slot, *found[slot])]
    tags = (tag.lower() for instances, _ in found.values() for each in instances for tag in each.tags)
    return Providers(exists=True, usable=usable, tags=tags)


def _is_asked(instance: Instance, asked: OfService) -> bool:
    if asked.tag and asked.tag not in map(str.lower, instance.tags):
        return False
    return not asked.transport or (instance.protocol in _OVER_UDP) == (asked.transport == UDP)


def _address_of(instance: Instance) -> IpAddress | None:
    try:
        return ip_address(instance.address)
    except ValueError:
        return None
