"""What a node takes into the indexes of owners, and what it keeps of them."""

from __future__ import annotations

import msgspec

from registry.codes import Code
from registry.model.owner_index import IndexEntry
from registry.protocol.index_messages import ENTER, LIST, EnterBody, IndexPage, ListBody
from registry.protocol.messages import Item, PutAnswer, build, parse
from registry.replica.collecting import clear_expired
from registry.settings import DAY, NodeSettings, RegistrySettings
from registry.storage.accounts import Account
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import NOW, OWNER, STRANGER, a_key, a_key_tombstone, a_record

STRANGER_ID = STRANGER.peer_id


def clock() -> float:
    return NOW + 10


def settings(**rules: int) -> NodeSettings:
    return NodeSettings(registry=RegistrySettings(**rules))


async def entered(node: SimulatedNode, *entries: IndexEntry, source: str = STRANGER_ID) -> list[Code | None]:
    errors = await node.parts.replica.ingest.enter(entries, source)
    return [error.known_code if error else None for error in errors]


async def listing(node: SimulatedNode, owner: str = OWNER.peer_id) -> list[IndexEntry]:
    page = await node.store.read(lambda transaction: transaction.index.page(owner, None, 1000, 10**6, -1, -1))
    assert page.last is None
    return list(page.entries)


async def test_whoever_brings_it_what_the_owner_signed_is_listed_and_nothing_else() -> None:
    forged = msgspec.structs.replace(a_key("forged", STRANGER), owner_peer_id=OWNER.peer_id)
    tampered = msgspec.structs.replace(a_key_tombstone("b"), timestamp_issued=NOW + 1)
    async with simulated_nodes(1, settings(), clock) as (_, [node]):
        assert await entered(node, IndexEntry.of(a_key("a")), IndexEntry.of(a_key_tombstone("b"))) == [None, None]
        assert await entered(node, IndexEntry.of(forged)) == [Code.KEY_SIGNATURE]
        assert await entered(node, IndexEntry.of(a_key("c"), forged_tombstone("c"))) == [Code.KEY_TOMBSTONE_SIGNATURE]
        assert await entered(node, IndexEntry.of(tampered)) == [Code.KEY_TOMBSTONE_SIGNATURE]
        assert await entered(node, IndexEntry.of(a_key("d", created=NOW + 100))) == [Code.KEY_FROM_FUTURE]
        assert [entry.label for entry in await listing(node)] == ["a", "b"]
        assert await listing(node, STRANGER.peer_id) == []


def forged_tombstone(label: str):
    return msgspec.structs.replace(a_key_tombstone(label), signature=bytes(64))


async def test_a_flood_ends_at_the_owners_quota_and_leaves_other_owners_alone() -> None:
    flood = [IndexEntry.of(a_key(f"{number:03}")) for number in range(40)]
    async with simulated_nodes(1, settings(keys_per_owner=16), clock) as (_, [node]):
        assert await entered(node, *flood) == [None] * 16 + [Code.QUOTA_EXCEEDED] * 24
        assert await entered(node, IndexEntry.of(a_key("000", created=NOW + 5))) == [None], "an update is none more"
        assert await entered(node, IndexEntry.of(a_key("mine", STRANGER))) == [None]
        assert len(await listing(node)) == 16


async def test_at_the_quota_what_expired_longest_ago_makes_way_for_what_is_newer() -> None:
    old = [IndexEntry.of(a_key(f"old {number}", created=NOW - DAY - 10 * number)) for number in range(3)]
    async with simulated_nodes(1, settings(keys_per_owner=3), clock) as (_, [node]):
        assert await entered(node, *old) == [None] * 3
        assert await entered(node, IndexEntry.of(a_key("new"))) == [None]
        assert [entry.label for entry in await listing(node)] == ["new", "old 0", "old 1"]
        assert await entered(node, old[2]) == [Code.QUOTA_EXCEEDED], "offered again it stays out"


async def test_a_replica_that_takes_a_key_or_its_removal_lists_it_with_the_same_commit() -> None:
    async with simulated_nodes(1, settings(), clock) as (_, [node]):
        ingest = node.parts.replica.ingest
        key = a_key("a")
        assert await ingest.store([Item(key, a_record(key.id))], STRANGER_ID) == [None]
        commits = node.store.commits
        assert await listing(node) == [IndexEntry.of(key)]
        assert await ingest.store([Item(a_key_tombstone("a", issued=NOW + 1))], STRANGER_ID) == [None]
        assert node.store.commits == commits + 1
        assert [entry.key for entry in await listing(node)] == [None]


async def test_a_resource_whose_owners_index_is_full_is_taken_all_the_same() -> None:
    async with simulated_nodes(1, settings(keys_per_owner=1), clock) as (_, [node]):
        assert await entered(node, IndexEntry.of(a_key("listed"))) == [None]
        assert await node.parts.replica.ingest.store([Item(a_key("other"))], STRANGER_ID) == [None]
        assert [entry.label for entry in await listing(node)] == ["listed"]
        assert (await node.store.resource(a_key("other").id)).key is not None


async def test_who_is_far_from_an_owner_takes_nothing_of_its_index() -> None:
    rules = settings(neighbourhood_size=1, responsibility_margin=1)
    async with simulated_nodes(8, rules, clock) as (_, nodes):
        codes = [(await entered(node, IndexEntry.of(a_key("a"))))[0] for node in nodes]
        assert sorted(map(str, codes)) == ["None"] * 2 + [str(Code.NOT_RESPONSIBLE)] * 6


async def test_entries_are_charged_to_their_owner_and_collected_with_their_keys() -> None:
    async with simulated_nodes(1, settings(), clock) as (_, [node]):
        rules = RegistrySettings()
        await entered(node, IndexEntry.of(a_key("a", created=NOW - 100)), IndexEntry.of(a_key_tombstone("b")))
        bytes_of = await node.store.read(lambda transaction: transaction.accounts.bytes_of(OWNER.peer_id))
        assert bytes_of > 2 * 600
        entry = IndexEntry.of(a_key("a", created=NOW), a_key_tombstone("a", issued=NOW - 50))
        assert await entered(node, entry) == [None]

        async def collected(now: int) -> list[IndexEntry]:
            await node.store.write(lambda transaction: clear_expired(transaction, now, rules))
            return await listing(node)

        assert len(await collected(NOW + rules.key_lifetime - 1)) == 2
        [alone, _] = await collected(NOW + rules.key_lifetime)
        assert alone == IndexEntry.of(a_key_tombstone("a", issued=NOW - 50))
        assert await collected(NOW + rules.key_tombstone_lifetime) == []
        accounts = await node.store.read(lambda transaction: transaction.accounts.bytes_of(OWNER.peer_id))
        assert accounts == 0
        assert await node.store.read(lambda transaction: transaction.index.count(OWNER.peer_id)) == 0


async def test_a_full_disk_takes_an_owners_listings_first() -> None:
    async with simulated_nodes(1, settings(), clock) as (_, [node]):
        await entered(node, *(IndexEntry.of(a_key(label, created=NOW + number)) for number, label in enumerate("abc")))
        found = await node.store.read(
            lambda transaction: transaction.index.newest_of(Account(OWNER.peer_id, 0, 10**6), 2)
        )
        assert [one.listed for one in found] == [(OWNER.peer_id, "c"), (OWNER.peer_id, "b")]
        assert sum(one.bytes for one in found) > 1200
        await entered(node, IndexEntry.of(a_key_tombstone("b", issued=NOW + 5)), IndexEntry.of(a_key_tombstone("d")))

        async def removals(until: int, host: str = node.peer_id) -> list[tuple[str, str] | None]:
            idle = await node.store.read(lambda transaction: transaction.index.removals(0, until, host, 9))
            return [one.listed for one in idle]

        assert await removals(-1) == [(OWNER.peer_id, "d")], "what ended a key that may come again isn't forgotten"
        assert await removals(NOW + 1) == [(OWNER.peer_id, "b"), (OWNER.peer_id, "d")], "that key can't come any more"
        assert await removals(NOW + 1, OWNER.peer_id) == []


async def test_a_removal_that_ended_a_key_gives_way_to_nothing_however_its_entry_changes() -> None:
    account = Account(OWNER.peer_id, 0, 10**6)
    removed = IndexEntry.of(a_key_tombstone("a", issued=NOW + 5))
    async with simulated_nodes(1, settings(), clock) as (_, [node]):
        await entered(node, IndexEntry.of(a_key("a")), removed, IndexEntry.of(a_key_tombstone("a", issued=NOW + 6)))
        await entered(node, IndexEntry.of(a_key_tombstone("b")))
        idle = await node.store.read(lambda transaction: transaction.index.removals(0, NOW - 1, node.peer_id, 9))
        assert [one.listed for one in idle] == [(OWNER.peer_id, "b")]
        newest = await node.store.read(lambda transaction: transaction.index.newest_of(account, 9))
        assert [one.listed for one in newest] == [(OWNER.peer_id, "b")]


async def test_what_is_no_entry_fails_alone_and_pages_end_at_what_fits() -> None:
    async with simulated_nodes(1, settings(), clock) as (_, [node]):
        body = EnterBody.of([IndexEntry.of(a_key("a")), IndexEntry.of(a_key("b"))])
        entries = (*body.entries, ("text",), (b"x",), (), 5)
        answer = await node.peer.handle(ENTER, STRANGER_ID, [list(entries)])
        errors = parse(answer, PutAnswer).errors
        assert [error is None for error in errors] == [True, True, False, False, False, False]

        async def page(after: str | None, limit: int) -> IndexPage:
            told = await node.peer.handle(LIST, STRANGER_ID, build(ListBody(OWNER.peer_id, after, limit)))
            return parse(told, IndexPage)

        first = await page(None, 1)
        assert ([entry.label for entry in first.decoded()], first.last) == (["a"], "a")
        second = await page(first.last, 10**6)
        assert ([entry.label for entry in second.decoded()], second.last) == (["b"], None)


async def test_pages_stay_within_a_frame_however_long_the_labels_are() -> None:
    long = [IndexEntry.of(a_key(f"{number:03}" + "x" * 4000, challenge=bytes(4000))) for number in range(120)]
    async with simulated_nodes(1, settings(), clock) as (_, [node]):
        assert set(await entered(node, *long)) == {None}
        after, sizes = None, []
        while after is not None or not sizes:
            told = await node.peer.handle(LIST, STRANGER_ID, build(ListBody(OWNER.peer_id, after)))
            page = parse(told, IndexPage)
            assert sum(entry.size() for entry in page.decoded()) <= 512 * 1024
            sizes.append(len(page.entries))
            after = page.last
        assert sum(sizes) == 120
        assert len(sizes) == 2
