"""Looking a database through: what is whole is found whole, and what rotted is found where it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from registry.errors import StorageError
from registry.model.owner_index import IndexEntry
from registry.storage import open_store
from registry.storage.database_check import Examination, examine
from registry.trust.graph import StatementChange
from tests.unit.registry.builders import (
    HOST,
    NOW,
    a_key,
    a_key_tombstone,
    a_record,
    a_tombstone,
    a_trust,
    identity,
)
from tests.unit.registry.storage.test_storage import ROTS, damage_all_but_the_schemas_pages, puts, rot

KEY = a_key()
WHOLE = Examination(keys=1, records=2, tombstones=1, key_tombstones=1)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    found = tmp_path / "registry ?#.sqlite"  # as a folder's name may be
    async with open_store(found) as store:
        await store.write(puts(a_record(KEY.id), a_record(KEY.id, issuer=identity(50))))
        await store.write(lambda transaction: transaction.put_state(a_tombstone(KEY.id, issuer=identity(51)), 0))
        await store.write(lambda transaction: transaction.put_key_tombstones((a_key_tombstone("other", issued=NOW),)))
    return found


async def test_a_whole_database_is_found_whole_also_while_it_is_open(path: Path) -> None:
    assert examine(path) == WHOLE
    async with open_store(path):
        assert examine(path).is_whole


@pytest.mark.parametrize("statement", ROTS.values(), ids=ROTS.keys())
async def test_what_rotted_is_found_and_left(path: Path, statement: str) -> None:
    rot(path, statement)
    found = examine(path)
    assert not found.is_whole
    assert found.damaged == len(found.rows) > 0
    assert KEY.id in found.rows[0]
    assert examine(path) == found


async def test_a_forged_row_whose_checksum_is_right_is_found(path: Path) -> None:
    forged = msgspec.structs.replace(a_record(KEY.id), signature=bytes(64))
    async with open_store(path) as store:
        await store.write(lambda transaction: transaction.put_state(forged, 0))
    found = examine(path)
    assert found.damaged == 1
    assert HOST.peer_id in found.rows[0]
    assert "signature" in found.rows[0]


async def test_statements_of_the_trust_graph_are_verified(path: Path) -> None:
    async with open_store(path) as store:
        given = StatementChange(None, a_trust(identity(60), HOST))
        await store.write(lambda transaction: transaction.trust.apply([given]))
    assert examine(path) == msgspec.structs.replace(WHOLE, statements=1)
    rot(path, "UPDATE trust_statements SET body = zeroblob(length(body))")
    found = examine(path)
    assert found.damaged == 1
    assert HOST.peer_id in found.rows[0]


async def test_entries_of_indexes_are_verified(path: Path) -> None:
    entry = IndexEntry.of(a_key("listed"), a_key_tombstone("listed", issued=NOW - 9))
    forged = IndexEntry.of(msgspec.structs.replace(a_key("forged"), signature=bytes(64)))
    async with open_store(path) as store:
        await store.write(lambda transaction: transaction.index.put(entry, 0))
    assert examine(path) == msgspec.structs.replace(WHOLE, listed=1)
    async with open_store(path) as store:
        await store.write(lambda transaction: transaction.index.put(forged, 0))
    assert "signature" in examine(path).rows[0]
    rot(path, "UPDATE listed SET body = zeroblob(length(body))")
    found = examine(path)
    assert (found.damaged, found.listed) == (2, 2)
    assert "listed" in found.rows[1]


async def test_wrong_counts_are_found(path: Path) -> None:
    rot(path, "UPDATE totals SET amount = 7 WHERE name = 'records'")
    rot(path, "UPDATE resources SET tombstones = 9")
    found = examine(path)
    assert found.damaged == 0
    assert found.counts[0] == "records: 7 are counted, 2 are there"
    assert len(found.counts) == 2
    assert not found.is_whole


async def test_damaged_pages_are_found(path: Path) -> None:
    damage_all_but_the_schemas_pages(path)
    found = examine(path)
    assert found.pages
    assert not found.is_whole


async def test_what_is_no_database_of_ours_is_an_error_that_says_so(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no database"):
        examine(tmp_path / "missing.sqlite")
    rot(path, "PRAGMA user_version = 3")
    with pytest.raises(StorageError, match="schema 3"):
        examine(path)
