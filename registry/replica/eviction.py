"""What gives way where the disk is full: as little as needed, of those who take most.

It is the idea of `overlay.limits.fair_quota`, the heaviest gives way, over what is stored. Rules:
1. Tombstones that ended nothing here, or nothing that can still be good, go first, whoever brought them.
2. Then the newest of those who weigh less than who asks: the lightest first, of equals who has most.
3. Then the newest of those who weigh the same: of who has most, until it has as little as who asks would have, or as
   the share that is assured to everyone. So nobody who stays within that share loses anything to his like, however many
   come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush

import msgspec

from registry.storage.accounts import Account, Charged


class Asker(msgspec.Struct, frozen=True):
    """Who needs room. `holds`: bytes that it would be charged for with what it asks for."""

    peer_id: str
    weight: int
    holds: int


def what_gives_way(
    needed: int,
    asker: Asker,
    idle: Iterable[Charged],
    accounts: Sequence[Account],
    newest_of: Callable[[Account], Iterable[Charged]],
    assured: int,
) -> list[Charged] | None:
    """What frees `needed` bytes, in the order in which it goes; None if all that may go isn't enough.

    `accounts` are others' than the asker's, none heavier; `newest_of` tells what of one may go, the newest first, and
    is asked only for those that have to give something. `assured`: bytes.
    """
    going: list[Charged] = []
    for one in idle:
        if needed <= 0:
            break
        going.append(one)
        needed -= one.bytes
    gone = {(one.slot, one.key_id, one.listed) for one in going}
    queue = [(account.weight, -account.bytes, account.peer_id) for account in accounts]
    heapify(queue)
    rest: dict[tuple[str, int], Iterator[Charged]] = {}
    while needed > 0 and queue:
        weight, negative, peer_id = heappop(queue)
        if weight >= asker.weight and -negative <= max(asker.holds, assured):
            return None  # nor has anyone else that much
        account = Account(peer_id, weight, -negative)
        if (peer_id, weight) not in rest:
            rest[peer_id, weight] = iter(newest_of(account))
        newest = next((one for one in rest[peer_id, weight] if (one.slot, one.key_id, one.listed) not in gone), None)
        if newest is not None:
            going.append(newest)
            needed -= newest.bytes
            heappush(queue, (weight, negative + newest.bytes, peer_id))
    return going if needed <= 0 else None
