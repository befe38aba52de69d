"""Whether the disk's budget has room for what somebody wants stored, and making room for it.

Everything that makes the database grow is charged, updates too; what shrinks it, such as a tombstone for a record,
always gets in.
Rules:
- A stranger has at most `disk_share` of the budget, as owner and issuer together.
- Where the budget is full, what is expired is collected first; then the greediest give way
  (`registry.replica.eviction`).
- Half of what is stored is reserved for keys with a policy, and for states of issuers that one names or that are
  certified: as long as these have less, strangers' other data gives way to them, however little each stranger has, and
  they don't to strangers' other data. Anyone can name himself on a resource of his own: what they have beyond that half
  is treated as any stranger's.
- A tombstone for something unknown makes nobody give way, unless its issuer is named by the resource's policy, or is
  certified: it may end what a later policy would show.
- What indexes list gives way first: of all owners what only tells of a removal that ended nothing here, or nothing that
  could still be good, then of an owner who has to give. Its resources work without; but what was removed must not be
  listed again because somebody brings the old key.
- Nothing of this node's own, nor what it hosts, gives way; nor anything under the resource that is written, nor other
  data of its owner's. What this node itself stores always gets in.
"""

from __future__ import annotations

from typing import Final

import msgspec

from registry.errors import DiskFull, QuotaExceeded
from registry.model import history
from registry.replica.collecting import clear_expired, old_until
from registry.replica.eviction import Asker, what_gives_way
from registry.settings import RegistrySettings
from registry.storage.accounts import Charged
from registry.storage.transaction import Transaction

MAX_GIVING_WAY: Final = 256  # rows at once
COLLECTIONS: Final = 8  # of some expired rows, at once; who is refused meanwhile comes again
FREED_AT_ONCE: Final = 32  # expired rows, each time
HEAVIEST: Final = 16  # accounts of a weight that are looked at


class Growth(msgspec.Struct, frozen=True):
    """What somebody, an owner or issuer, wants stored under a key, beyond what it replaces (bytes).

    `weight`: its own, or that of whoever needs it stored; `is_own`: this node itself needs it. `is_named`: whether half
    of what is stored is reserved for it and its like. `may_push`: whether others may have to give way to it.
    """

    peer_id: str
    weight: int
    key_id: str
    bytes: int
    is_own: bool = False
    is_named: bool = False
    may_push: bool = True


def take_room(
    transaction: Transaction, growth: Growth, host_peer_id: str, settings: RegistrySettings, now: int
) -> None:
    """Makes sure that there is room. Raises QuotaExceeded, DiskFull."""
    if growth.bytes <= 0:
        return
    budget = settings.max_disk_bytes
    holds = transaction.accounts.bytes_of(growth.peer_id) + growth.bytes
    if not growth.is_own and growth.weight == 0 and holds > budget * settings.disk_share:
        raise QuotaExceeded(f"{growth.peer_id} has its share of this peer's disk already")
    lacking = _lacking(transaction, growth, budget)
    if lacking <= 0:
        return
    for _ in range(COLLECTIONS):
        if lacking <= 0 or not (transaction.may_collect and transaction.space.is_collection_due(now)):
            break
        found = clear_expired(transaction, now, settings, FREED_AT_ONCE, besides=growth.key_id)
        transaction.space.collected(now, found.count_keys + found.count_records + found.count_tombstones)
        lacking = _lacking(transaction, growth, budget)
    # What is freed lies in pages that are used in part: so twice as much as comes, until it shows.
    needed = min(lacking, 2 * growth.bytes)
    going = [] if needed <= 0 else _what_gives_way(transaction, growth, holds, needed, host_peer_id, settings, now)
    if going is None:
        if growth.is_own:
            return
        transaction.space.refuse()
        raise DiskFull(budget)
    for one in going:
        _drop(transaction, one, growth.peer_id, now)
    if going:
        transaction.space.make_room(len(going))


def _lacking(transaction: Transaction, growth: Growth, budget: int) -> int:
    used = transaction.used_bytes()
    transaction.space.measured(used, budget)
    return used + growth.bytes - budget


def _what_gives_way(
    transaction: Transaction,
    growth: Growth,
    holds: int,
    needed: int,
    host_peer_id: str,
    settings: RegistrySettings,
    now: int,
) -> list[Charged] | None:
    if growth.is_own:  # no stranger, and as light as one by the operator's weights
        asker = Asker(growth.peer_id, growth.weight + 1, holds)
        return _of_those(transaction, growth, asker, asker.weight, needed, host_peer_id, settings, now)
    if not growth.may_push:
        return None
    asker = Asker(growth.peer_id, growth.weight, holds)
    is_stranger = growth.weight == 0
    accounts = transaction.accounts
    reserved = accounts.all_bytes() // 2 - accounts.named_bytes() if is_stranger else 0
    if growth.is_named and growth.bytes <= reserved:
        before_others = Asker(growth.peer_id, 1, holds)
        going = _of_those(transaction, growth, before_others, 0, needed, host_peer_id, settings, now, spares_named=True)
        if going is not None:
            return going
    spares_named = not growth.is_named and reserved >= 0 and is_stranger
    return _of_those(
        transaction, growth, asker, asker.weight, needed, host_peer_id, settings, now, spares_named=spares_named
    )


def _of_those(
    transaction: Transaction,
    growth: Growth,
    asker: Asker,
    weight: int,
    needed: int,
    host_peer_id: str,
    settings: RegistrySettings,
    now: int,
    *,
    spares_named: bool = False,
) -> list[Charged] | None:
    """What gives way to `asker` of peers that weigh `weight` at most."""
    owner = transaction.owner_of(growth.key_id)
    until = (
        old_until(transaction, now, max(settings.key_lifetime, settings.record_lifetime)),
        old_until(transaction, now, settings.record_lifetime),
    )
    idle = [
        *transaction.index.removals(weight, until[0], host_peer_id, MAX_GIVING_WAY),
        *transaction.accounts.idle_tombstones(weight, until, host_peer_id, MAX_GIVING_WAY, spares_named=spares_named),
    ]
    accounts = [
        account
        for account in transaction.accounts.heaviest(weight, HEAVIEST)
        if account.peer_id not in (growth.peer_id, host_peer_id, owner)
    ]
    return what_gives_way(
        needed,
        asker,
        (one for one in idle if one.key_id != growth.key_id),
        accounts,
        lambda account: (
            one
            for one in (
                *transaction.index.newest_of(account, MAX_GIVING_WAY),
                *transaction.accounts.newest_of(account, host_peer_id, MAX_GIVING_WAY, spares_named=spares_named),
            )
            if one.key_id != growth.key_id
        ),
        int(settings.max_disk_bytes * settings.assured_share),
    )


def _drop(transaction: Transaction, one: Charged, peer_id: str, now: int) -> None:
    if one.listed is not None:
        transaction.index.remove(*one.listed)
        return
    if one.slot is not None:
        transaction.remove_state(one.slot)
    elif one.is_tombstone:
        transaction.remove_key_tombstones(one.key_id)
    else:
        transaction.remove_key(one.key_id)
    slot = one.slot or ("", "", "")
    detail = f"the disk is full, to make room for {peer_id}"
    transaction.note(history.HistoryEvent(now, one.key_id, slot[1], slot[2], history.PUSHED_OUT, detail))
