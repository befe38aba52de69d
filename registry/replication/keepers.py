"""Which parts of the keyspace have which replicas: pure arithmetic over members' positions.

The *keepers* of a position are the `size` members nearest to it, and where members crowd around it all others of its
region (`overlay.discovery.density`). The keyspace falls into blocks with keepers each (`block_view`), found by cutting
it in half until everywhere in a block they are the same; what a change of the members changes is told by the blocks,
without looking at a single key (docs/design.md, Replication).

A member looks only at blocks that are near it, and cuts them only as far as that tells (`nearby`). In what is undecided
then all who may be keepers somewhere count as such: a few keys more are compared with a replica, which says what it
doesn't take.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final, NamedTuple, TypeVar

from overlay.discovery.density import Crowding
from registry.replication.block_view import NEVER_DENSE, BlockView, Keepers, Members, block_view_of
from registry.replication.nearby import DEEPEST, Nearby, within_reach
from registry.replication.ranges import WHOLE, Block, Ranges, joined

_A_STEP: Final = 16  # blocks: a millisecond or two
_AS_A_BLOCK: Final = 64  # members that take as long as one more block, where so many may be its keepers

Found = TypeVar("Found")
Steps = Generator[None, None, Found]
"""Something that takes long, in steps of a few milliseconds; what it returns is what was found."""


class KeeperBlock(NamedTuple):
    """A block, everywhere in which the same members are nearest."""

    block: Block
    keepers: Keepers


class BlockChange(NamedTuple):
    """A block, everywhere in which the keepers were `before`, and are `after` now."""

    block: Block
    before: Keepers
    after: Keepers


def keeper_blocks_in_steps(
    members: Members, size: int, nearby: Nearby | None = None, *, crowding: Crowding = NEVER_DENSE
) -> Iterator[KeeperBlock | None]:
    """The blocks of the keyspace in order, each with its keepers, without those that aren't wanted; None after each
    step."""
    waiting, looked_at = [(WHOLE, block_view_of(members, size, crowding), nearby)], 0
    while waiting:
        block, side, near = waiting.pop()
        looked_at += _blocks_worth(side)
        if looked_at >= _A_STEP:
            looked_at = 0
            yield None
        if near is not None and not near.is_wanted(block):
            continue
        if side.is_decided:
            yield KeeperBlock(block, side.keepers())
        elif near is not None and near.is_finest(block):
            yield KeeperBlock(block, side.possible_keepers())
        else:
            for half in reversed(block.halves()):
                waiting.append((half, side.half(half), near and near.half(half)))


def changes_in_steps(
    before: Members,
    after: Members,
    size: int,
    nearby: Nearby | None = None,
    *,
    crowdings: tuple[Crowding, Crowding] = (NEVER_DENSE, NEVER_DENSE),
) -> Iterator[BlockChange | None]:
    """The blocks whose keepers changed when the members did, and what counts as dense, in order; None after each step.

    Fastest when both name those who stayed in the same order.
    """
    waiting = [(WHOLE, block_view_of(before, size, crowdings[0]), block_view_of(after, size, crowdings[1]), nearby)]
    looked_at = 0
    while waiting:
        block, old, new, near = waiting.pop()
        looked_at += _blocks_worth(old)
        if looked_at >= _A_STEP:
            looked_at = 0
            yield None
        if old == new or (near is not None and not near.is_wanted(block)):
            continue
        if old.is_decided and new.is_decided:
            was, now = old.keepers(), new.keepers()
            if was != now:
                yield BlockChange(block, was, now)
        elif near is not None and near.is_finest(block):
            # Whoever may have become a keeper somewhere in it counts as new, unless it was one everywhere.
            yield BlockChange(block, old.keepers(), new.possible_keepers())
        else:
            for half in reversed(block.halves()):
                waiting.append((half, old.half(half), new.half(half), near and near.half(half)))


def _blocks_worth(side: BlockView) -> int:
    """How long it takes to look at a block, in ones of which little is undecided."""
    return 1 + len(side.view.undecided) // _AS_A_BLOCK


def shared_ranges(
    members: Members, own: str, size: int, crowding: Crowding = NEVER_DENSE, *, deepest: int = DEEPEST
) -> Steps[dict[str, Ranges]]:
    """What a member keeps together with each other one, as it sees it; by itself, what it keeps."""
    nearby = within_reach(members[own], members, reach=size, crowdings=[crowding], deepest=deepest)
    shared: dict[str, list[Block]] = {member: [] for member in members}
    for found in keeper_blocks_in_steps(members, size, nearby, crowding=crowding):
        if found is None:
            yield
        elif own in found.keepers:
            for member in found.keepers:
                shared[member].append(found.block)
    ranges: dict[str, Ranges] = {}
    for member, blocks in shared.items():
        ranges[member] = joined(blocks)
        yield
    return ranges


def kept_ranges(
    members: Members,
    own: str,
    peer_id: str,
    size: int,
    reach: int,
    crowding: Crowding = NEVER_DENSE,
    *,
    deepest: int = DEEPEST,
) -> Steps[Ranges]:
    """What a member keeps as `own` sees it, as far as `own` is within `reach` itself, or in its region."""
    nearby = within_reach(members[own], members, reach=reach, crowdings=[crowding], deepest=deepest)
    waiting, looked_at = [(WHOLE, block_view_of(members, size, crowding), nearby)], 0
    blocks: list[Block] = []
    while waiting:
        block, side, near = waiting.pop()
        looked_at += _blocks_worth(side)
        if looked_at >= _A_STEP:
            looked_at = 0
            yield
        is_keeper = side.is_keeper(peer_id)
        if is_keeper is False or not near.is_wanted(block):
            continue
        if is_keeper or near.is_finest(block):  # who the others are makes no difference
            blocks.append(block)
            continue
        for half in reversed(block.halves()):
            waiting.append((half, side.half(half), near.half(half)))
    return joined(blocks)


def nearest_within(block: Block, members: Members, nearby: Nearby | None = None) -> Iterator[tuple[Block, str]]:
    """Cuts a block into smaller ones, in order, each with the member that is nearest everywhere in it. Where nothing is
    to be cut any more, that is one of those that may be nearest there, the same for everybody."""
    waiting = [(block, tuple((position, member) for member, position in members.items()))]
    # Whoever differs from the block in its highest bits is farther from everything in it.
    closest = min(((position ^ block.start) >> block.height for position, _ in waiting[0][1]), default=0)
    waiting = [(block, tuple(m for m in waiting[0][1] if (m[0] ^ block.start) >> block.height == closest))]
    while waiting:
        part, candidates = waiting.pop()
        if not candidates:
            continue
        if len(candidates) == 1 or (nearby is not None and nearby.is_finest(part)):
            yield part, min(candidates)[1]
            continue
        for half in reversed(part.halves()):
            wanted = half.start >> half.height & 1
            near = tuple(member for member in candidates if member[0] >> half.height & 1 == wanted)
            waiting.append((half, near or candidates))
