"""What of the trust graph outlives a node, and what limits go by."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from overlay.identity import Identity
from overlay.limits.time_slices import TimeSlices, work_for
from registry.codes import Code
from registry.errors import RegistryError, StorageError
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.replica.trust_keeper import TrustKeeper, loaded_trust
from registry.replica.weights import Weights
from registry.settings import NodeSettings, RegistrySettings
from registry.storage import Store, open_store
from registry.trust import graph as graphs
from registry.trust.errors import TrustSignature
from tests.simulation.nodes import simulated_nodes
from tests.unit.registry.builders import NOW, a_key, a_record, a_revocation, a_trust, identity

ROOT, FIRST, SECOND = (identity(number) for number in (60, 61, 62))
CHAIN = (a_trust(ROOT, ROOT), a_trust(ROOT, FIRST), a_trust(FIRST, SECOND))


def clock() -> float:
    return float(NOW)


async def loaded(store: Store, configured: dict[str, int] | None = None) -> TrustKeeper:
    return await loaded_trust(clock, configured or {}, store, 0)


def weights(keeper: TrustKeeper) -> list[int]:
    return [keeper.weight(peer.peer_id) for peer in (ROOT, FIRST, SECOND)]


async def test_what_was_taken_in_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    async with open_store(path) as store:
        keeper = await loaded(store)
        await keeper.set_root(ROOT.peer_id, 3)
        await keeper.set_root(ROOT.peer_id, 4)
        assert await keeper.add(CHAIN) == 4
    async with open_store(path) as store:
        keeper = await loaded(store)
        assert weights(keeper) == [16, 8, 4]
        await keeper.revoke(a_revocation(ROOT, FIRST))
    async with open_store(path) as store:
        keeper = await loaded(store)
        assert weights(keeper) == [16, 0, 0]
        assert await keeper.revocations(FIRST.peer_id) == [a_revocation(ROOT, FIRST)]


async def test_what_gave_way_is_gone_after_a_restart_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "IN_ALL", 3)
    path = tmp_path / "registry.sqlite"
    async with open_store(path) as store:
        keeper = await loaded(store, {ROOT.peer_id: 4})
        await keeper.add(CHAIN)
        await keeper.add((a_trust(ROOT, SECOND),))
        assert weights(keeper) == [16, 8, 8]
    async with open_store(path) as store:
        assert weights(await loaded(store, {ROOT.peer_id: 4})) == [16, 8, 8]
        assert len(await store.read(lambda transaction: list(transaction.trust.statements()))) == 3


async def test_the_operators_roots_come_before_those_that_were_set(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    async with open_store(path) as store:
        keeper = await loaded(store, {ROOT.peer_id: 2})
        await keeper.set_root(ROOT.peer_id, 5)
        assert weights(keeper)[0] == 4
    async with open_store(path) as store:
        assert weights(await loaded(store))[0] == 32


async def test_a_certificate_is_taken_as_a_whole_or_not(tmp_path: Path) -> None:
    async with open_store(tmp_path / "registry.sqlite") as store:
        keeper = await loaded(store, {ROOT.peer_id: 4})
        forged = msgspec.structs.replace(CHAIN[2], issued_at=NOW - 1)
        with pytest.raises(TrustSignature):
            await keeper.add((*CHAIN[:2], forged))
        await keeper.add(CHAIN[:1])
        assert weights(keeper) == [16, 0, 0]


async def test_what_the_disk_refused_was_never_taken(tmp_path: Path) -> None:
    async with open_store(tmp_path / "registry.sqlite") as store:
        keeper = await loaded(store, {ROOT.peer_id: 4})
    for act in (lambda: keeper.add(CHAIN), lambda: keeper.set_root(FIRST.peer_id, 3)):
        with pytest.raises(StorageError):
            await act()
    assert weights(keeper) == [16, 0, 0]


async def test_rows_that_arent_what_was_stored_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    async with open_store(path) as store:
        await (await loaded(store, {ROOT.peer_id: 4})).add(CHAIN)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trust_statements SET body = ? WHERE issued_for = ?", (b"\0" * 81, FIRST.peer_id))
    async with open_store(path) as store:
        assert weights(await loaded(store, {ROOT.peer_id: 4})) == [16, 0, 0]
        assert len(await store.read(lambda transaction: list(transaction.trust.statements()))) == 2


async def test_many_at_once_leave_what_one_after_the_other_would(tmp_path: Path) -> None:
    async with open_store(tmp_path / "registry.sqlite") as store:
        keeper = await loaded(store, {ROOT.peer_id: 4})
        await keeper.add(CHAIN[:1])

        async def take(number: int) -> None:
            try:
                await keeper.add((a_trust(ROOT, FIRST, NOW - number),))
                await keeper.revoke(a_revocation(ROOT, FIRST, NOW - number - 1))
            except RegistryError as error:
                raise AssertionError from error

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(take, number)
        assert weights(keeper) == [16, 8, 0]
        stored = {pair for pair, _ in await store.read(lambda transaction: list(transaction.trust.statements()))}
        assert stored == {(ROOT.peer_id, ROOT.peer_id), (ROOT.peer_id, FIRST.peer_id)}


async def test_the_operators_word_on_a_peer_comes_before_the_graphs() -> None:
    keeper = TrustKeeper(clock, {ROOT.peer_id: 4})
    await keeper.add(CHAIN)
    by = Weights({FIRST.peer_id: 0, identity(9).peer_id: 7}, keeper)
    assert [by.of(peer.peer_id) for peer in (ROOT, FIRST, SECOND, identity(9), identity(10))] == [16, 0, 4, 7, 0]
    assert Weights({}).of(ROOT.peer_id) == 0


async def test_whoever_waits_for_its_turn_keeps_nobody_from_theirs(autojump_clock) -> None:
    keeper = TrustKeeper(clock, {ROOT.peer_id: 4})
    time_slices, waiting = TimeSlices(), trio.Event()

    async def busy() -> None:
        work_for("busy", time_slices)
        time_slices.charge("busy", 60.0)
        waiting.set()
        await keeper.add(CHAIN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(busy)
        await waiting.wait()
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            work_for("other", time_slices)
            assert await keeper.add(CHAIN[:2]) == 8
            await keeper.set_root(FIRST.peer_id, 1)


async def test_a_place_under_the_limit_of_records_goes_by_the_graph(autojump_clock) -> None:
    """Whom a root trusts displaces a stranger, and no stranger displaces it."""
    key, trusted, strangers = a_key(), identity(70), [identity(71), identity(72)]
    rules = NodeSettings(registry=RegistrySettings(records_per_key=1), trust_roots={ROOT.peer_id: 3})
    async with simulated_nodes(1, rules, clock) as (_, [node]):

        async def refusal(issuer: Identity) -> ErrorInfo | None:
            [error] = await node.parts.replica.ingest.store([Item(key, a_record(key.id, issuer))], "somebody")
            return error

        assert await refusal(strangers[0]) is None
        assert await refusal(trusted) is not None
        await node.parts.trust.add((a_trust(ROOT, ROOT), a_trust(ROOT, trusted)))
        assert await refusal(trusted) is None
        found = await refusal(strangers[1])
        assert found is not None
        assert found.known_code is Code.VALUES_LIMIT_EXCEEDED
        stored = await node.store.resource(key.id)
        assert [state.slot.issued_by for state in stored.slots.values()] == [trusted.peer_id]
