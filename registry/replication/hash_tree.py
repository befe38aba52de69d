"""Hash trees over what two replicas share: equal roots mean that they know the same, unequal ones are followed down.

An *entry* is the first 8 bytes of a resource's position and the first 16 of its digest. A node of the tree is a
*prefix* of positions, four bits a step. A prefix with at most `LEAF` entries is a leaf, and its digest is the hash
of its entries; any other has 16 children, and its digest is the hash of theirs. (A xor of digests could be steered by
whoever chooses what is hashed.) So the tree depends on nothing but the entries. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

POSITION_PREFIX: Final = 8  # bytes of a position in an entry
DIGEST: Final = 16  # bytes of a digest in an entry, and of that of a node
ENTRY: Final = POSITION_PREFIX + DIGEST
FAN_OUT: Final = 16
LEAF: Final = 32  # entries
DEEPEST: Final = 2 * POSITION_PREFIX  # steps

Prefix = bytes
"""The steps to a node, a byte of 0 to 15 each; empty for the root."""


class TreeNode(NamedTuple):
    """What is told of a node: `content` is the entries of a leaf, otherwise the digests of its 16 children."""

    is_leaf: bool
    content: bytes


def entry_of(position: bytes, digest: bytes) -> bytes:
    """The entry of a resource, by its position and digest (32 bytes each)."""
    return position[:POSITION_PREFIX] + digest[:DIGEST]


EMPTY: Final = sha256(b"leaf").digest()[:DIGEST]
"""The digest of a prefix without entries."""


class HashTree:
    """The tree over entries; digests are computed when they are asked for."""

    def __init__(self, entries: Iterable[bytes], known: Mapping[Prefix, bytes] | None = None) -> None:
        """`entries` in any order. `known`: digests of some nodes of this very tree."""
        self._entries = sorted(entries)
        self._digests = dict(known or {})
        self._known_below = max(map(len, self._digests), default=0)  # steps, above which none was known

    def __len__(self) -> int:
        return len(self._entries)

    def digest(self, prefix: Prefix = b"") -> bytes:
        """Equal for equal entries under a prefix. 16 bytes."""
        start, end = self._span(prefix)
        return self._digest(prefix, start, end)

    def node(self, prefix: Prefix) -> TreeNode:
        """What is told of a node."""
        start, end = self._span(prefix)
        if _is_leaf(prefix, end - start):
            return TreeNode(True, b"".join(self._entries[start:end]))
        return TreeNode(False, b"".join(self.digest(child) for child in children(prefix)))

    def entries(self, prefix: Prefix = b"") -> Sequence[bytes]:
        """The entries under a prefix, in order of their positions."""
        start, end = self._span(prefix)
        return self._entries[start:end]

    def _digest(self, prefix: Prefix, start: int, end: int) -> bytes:
        if start == end:
            return EMPTY
        known = self._digests.get(prefix)
        if known is not None:
            return known
        if _is_leaf(prefix, end - start):
            return sha256(b"leaf" + b"".join(self._entries[start:end])).digest()[:DIGEST]
        summary = sha256(b"node")
        below = [self._digests.get(child, b"") for child in children(prefix)] if len(prefix) < self._known_below else []
        if below and all(below):  # no need to look for where each begins
            summary.update(b"".join(below))
            digest = self._digests[prefix] = summary.digest()[:DIGEST]
            return digest
        for child in children(prefix):
            after = bisect_left(self._entries, _end_of(child), start, end) if child[-1] < FAN_OUT - 1 else end
            summary.update(self._digest(child, start, after))
            start = after
        digest = self._digests[prefix] = summary.digest()[:DIGEST]
        return digest

    def _span(self, prefix: Prefix) -> tuple[int, int]:
        start = bisect_left(self._entries, _packed(prefix))
        if all(step == FAN_OUT - 1 for step in prefix):
            return start, len(self._entries)
        return start, bisect_left(self._entries, _end_of(prefix), start)


def children(prefix: Prefix) -> Iterator[Prefix]:
    """The prefixes one step further."""
    return (prefix + bytes([step]) for step in range(FAN_OUT))


def is_prefix(prefix: bytes) -> bool:
    """Whether these bytes are steps to a node."""
    return len(prefix) <= DEEPEST and all(step < FAN_OUT for step in prefix)


class Descent:
    """Finds which of our entries another replica lacks, or has otherwise: `ahead` are the nodes to ask about next.

    What only the other has doesn't count: it finds that itself. What it tells can't lead us beyond our own tree: where
    that ends, what the other has may be taken for lacking if it lies under the same child as something that differs.
    """

    def __init__(self, mine: HashTree) -> None:
        """Begins when the roots are known to differ."""
        self._mine = mine
        self.ahead: list[Prefix] = [b""] if len(mine) else []
        self.differing: list[bytes] = []
        """Our entries that the other hasn't."""

    def told(self, prefix: Prefix, node: TreeNode) -> None:
        """What the other has at a prefix. Raises ValueError when that can't be."""
        mine = self._mine.entries(prefix)
        if node.is_leaf:
            if len(node.content) % ENTRY or len(node.content) > LEAF * ENTRY:
                raise ValueError("a leaf of a hash tree isn't made of entries")
            theirs = {node.content[at : at + ENTRY] for at in range(0, len(node.content), ENTRY)}
            self.differing += [entry for entry in mine if entry not in theirs]
            return
        if len(node.content) != FAN_OUT * DIGEST:
            raise ValueError("a node of a hash tree hasn't sixteen children")
        if len(prefix) >= DEEPEST:
            raise ValueError("a node of a hash tree lies deeper than any position")
        is_leaf = _is_leaf(prefix, len(mine))  # they have more there than we
        for child in children(prefix):
            digest = node.content[child[-1] * DIGEST : (child[-1] + 1) * DIGEST]
            if digest == self._mine.digest(child):
                continue
            if is_leaf or digest == EMPTY:
                self.differing += self._mine.entries(child)
            elif self._mine.entries(child):
                self.ahead.append(child)


def _is_leaf(prefix: Prefix, count: int) -> bool:
    return count <= LEAF or len(prefix) >= DEEPEST


def _packed(prefix: Prefix) -> bytes:
    """The first position under a prefix, without the zeros that may follow."""
    steps = prefix + b"\0" if len(prefix) % 2 else prefix
    return bytes(high << 4 | low for high, low in zip(steps[::2], steps[1::2], strict=True))


def _end_of(prefix: Prefix) -> bytes:
    """The first position after those under a prefix, which isn't the last of its length."""
    steps = bytearray(prefix)
    while steps[-1] == FAN_OUT - 1:
        del steps[-1]
    steps[-1] += 1
    return _packed(bytes(steps))
