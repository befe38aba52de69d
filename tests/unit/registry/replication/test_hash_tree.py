"""Hash trees: equal exactly for equal entries, and what differs is found by following unequal nodes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.replication.hash_tree import (
    DEEPEST,
    EMPTY,
    ENTRY,
    FAN_OUT,
    LEAF,
    POSITION_PREFIX,
    Descent,
    HashTree,
    TreeNode,
    entry_of,
)

ENTRIES = st.tuples(st.binary(min_size=8, max_size=8), st.sampled_from([b"a", b"b"])).map(
    lambda pair: entry_of(pair[0] + bytes(24), pair[1] * 32)
)
CLUSTERED = st.tuples(st.sampled_from([b"\xff\xff", b"\xff\xfe", b"\0\0", b"\x10\0"]), st.integers(0, 60)).map(
    lambda pair: entry_of(pair[0] + pair[1].to_bytes(6, "big") + bytes(24), bytes([pair[1] % 2]) * 32)
)
SETS = st.sets(ENTRIES, max_size=200) | st.sets(CLUSTERED, max_size=200)


def differing(mine: HashTree, theirs: HashTree) -> tuple[list[bytes], int]:
    """What a descent finds, and about how many nodes it asked."""
    descent, asked = Descent(mine), 0
    while descent.ahead:
        prefix = descent.ahead.pop()
        asked += 1
        descent.told(prefix, theirs.node(prefix))
    return sorted(descent.differing), asked


def steps_of(entry: bytes) -> list[int]:
    """The steps down to the position of an entry."""
    return [half for byte in entry[:POSITION_PREFIX] for half in (byte >> 4, byte & 15)]


@given(SETS, SETS, st.randoms())
def test_roots_are_equal_exactly_for_equal_entries(
    some: set[bytes], others: set[bytes], shuffler: random.Random
) -> None:
    shuffled = list(some)
    shuffler.shuffle(shuffled)
    assert HashTree(some).digest() == HashTree(shuffled).digest()
    assert (HashTree(some).digest() == HashTree(others).digest()) == (some == others)
    assert (HashTree(some).digest() == EMPTY) == (not some)


@given(SETS, st.data())
def test_a_descent_finds_what_the_other_lacks(mine: set[bytes], data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, 2 ** len(mine) - 1))
    common = {entry for number, entry in enumerate(sorted(mine)) if chosen >> number & 1}
    theirs = common | data.draw(SETS)
    ours, other = HashTree(mine), HashTree(theirs)
    found, _ = differing(ours, other)
    assert mine - theirs <= set(found), "everything"
    assert len(found) == len(set(found))
    for entry in set(found) - (mine - theirs):
        prefixes = [bytes(steps_of(entry)[:length]) for length in range(DEEPEST)]
        leaf = next(prefix for prefix in prefixes if len(ours.entries(prefix)) <= LEAF)
        child = bytes(steps_of(entry)[: len(leaf) + 1])
        assert len(other.entries(leaf)) > LEAF, "nothing else, but where the other has more than a leaf"
        assert ours.digest(child) != other.digest(child)


@given(SETS)
def test_a_node_has_what_its_children_have(entries: set[bytes]) -> None:
    tree = HashTree(entries)
    waiting = [b""]
    while waiting:
        prefix = waiting.pop()
        node = tree.node(prefix)
        if node.is_leaf:
            assert node.content == b"".join(tree.entries(prefix))
            assert len(tree.entries(prefix)) <= LEAF
        else:
            children = [prefix + bytes([step]) for step in range(FAN_OUT)]
            assert node.content == b"".join(tree.digest(child) for child in children)
            assert [entry for child in children for entry in tree.entries(child)] == list(tree.entries(prefix))
            waiting += children


def test_what_both_have_isnt_sent_because_the_other_has_one_more() -> None:
    randomness = random.Random(2)
    entries = [randomness.randbytes(ENTRY) for _ in range(LEAF)]
    found, _ = differing(HashTree(entries), HashTree([*entries, randomness.randbytes(ENTRY)]))
    assert len(found) <= LEAF // 4, "where the two differ, and not the whole leaf"


def test_few_differences_among_many_entries_take_few_nodes() -> None:
    randomness = random.Random(1)
    entries = [randomness.randbytes(ENTRY) for _ in range(20_000)]
    mine = HashTree(entries)
    theirs = HashTree([*entries[:-1], randomness.randbytes(ENTRY)])
    found, asked = differing(mine, theirs)
    assert found == [entries[-1]]
    assert asked <= 1 + 2 * 3, "the root, and down to what either has alone"


def test_what_is_told_cant_lead_beyond_our_own_tree() -> None:
    mine = HashTree([bytes([number]) * ENTRY for number in range(20)])
    descent = Descent(mine)
    descent.told(b"", TreeNode(False, b"x" * 256))
    assert descent.ahead == [b""], "asked about the root, which was ours to begin with"
    assert descent.differing == list(mine.entries())
    assert Descent(HashTree([])).ahead == []


@pytest.mark.parametrize(
    "node", [TreeNode(True, b"x"), TreeNode(True, b"x" * ENTRY * (LEAF + 1)), TreeNode(False, b"x" * 255)]
)
def test_impossible_nodes_are_refused(node: TreeNode) -> None:
    with pytest.raises(ValueError, match="hash tree"):
        Descent(HashTree([b"x" * ENTRY])).told(b"", node)
