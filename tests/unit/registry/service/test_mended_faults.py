"""Faults of the original's service that are mended here, by their number in docs/design.md, Faults of the original.

`test_fault_12_...` is about the one with number 12 there, in other modules too: those of replication, renewal, and of
writing and reading over the network are tested with what does that.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from registry.errors import InvalidValue, NotPermitted
from registry.model.fields import U63_MAX
from registry.model.values import Record
from registry.permission.policy import Policy
from registry.service import RegistryService
from registry.settings import RegistrySettings
from registry.storage import Store, Transaction, open_store
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NODE,
    NOW,
    OWNER,
    STRANGER,
    a_key,
    a_metadata,
    a_record,
    a_tombstone,
    bury,
    hosted,
    identity,
    keys_of,
    open_service,
    put,
    register,
    service_over,
    weight_of,
)

RULES = RegistrySettings()
EXACT = RegistrySettings(clock_skew=0)
DAY = 86_400
KEY = a_key()
LIMIT_EXCEEDED = f"Values limit for key_d {KEY.id} is exceeded"


async def registered(service: RegistryService, *records: Record) -> None:
    assert (await register(service, KEY)).success
    for record in records:
        assert (await put(service, record)).success


async def served(service: RegistryService, now: int = NOW) -> set[Record]:
    return set((await service.get_records(KEY.id, now)).result)


async def test_fault_1_a_hosts_signature_covers_the_record_and_its_time(tmp_path: Path) -> None:
    record, other = a_record(KEY.id), a_record(KEY.id, value="other")
    assert record.signed_bytes() not in {sha256(b"").digest(), other.signed_bytes()}
    async with open_service(tmp_path, RULES) as service:
        await registered(service)
        for bad in (
            msgspec.structs.replace(record, timestamp_created=NOW + 1),
            msgspec.structs.replace(record, signature=other.signature),
            msgspec.structs.replace(record, signature=HOST.sign(sha256(b"").digest())),
        ):
            assert "Invalid record signature" in (await put(service, bad)).error
        assert await served(service) == set()


async def test_fault_2_a_field_longer_than_its_length_byte_can_tell_signs_apart(tmp_path: Path) -> None:
    # One byte of length told 256 as 0 and 257 as 1.
    wrapped = a_metadata(KEY.id, value="x" * 257)
    digests = {a_metadata(KEY.id, value=value).signed_bytes() for value in ("x" * 257, "x", "", "x" * 256)}
    assert len(digests) == 4
    async with open_service(tmp_path, RULES) as service:
        await registered(service, hosted(wrapped, HOST, NOW))
        assert [record.metadata for record in await served(service)] == [wrapped]


async def test_fault_3_tombstones_are_collected_by_the_time_they_were_issued(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        await registered(service)
        tombstone = a_tombstone(KEY.id)
        await bury(service, tombstone)
        lifetime = RULES.tombstone_lifetime
        assert lifetime == RULES.record_lifetime + 2 * RULES.clock_skew
        assert (await service.clear_expired(NOW + lifetime - 1)).count_tombstones == 0
        assert (await service.get_tombstones(KEY.id, NOW + lifetime - 1)).result == (tombstone,)
        assert (await service.get_tombstones(KEY.id, NOW + lifetime)).result == ()
        assert (await service.clear_expired(NOW + lifetime)).count_tombstones == 1


async def test_fault_3_a_collected_tombstone_outlives_all_that_it_killed(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        await registered(service)
        killed = a_metadata(KEY.id, issued=NOW)
        await bury(service, a_tombstone(KEY.id, issued=NOW))
        gone = NOW + RULES.tombstone_lifetime
        await service.clear_expired(gone)
        await register(service, a_key(created=gone), now=gone)
        back = await put(service, hosted(killed, HOST, gone), now=gone)
        assert back.error == "Record is already expired"
        late = await bury(service, a_tombstone(KEY.id, issued=NOW), now=gone)
        assert late.error == "Tombstone is already expired"


def limited(records_per_key: int, records_per_issuer: int = 32) -> RegistrySettings:
    return RegistrySettings(records_per_key=records_per_key, records_per_issuer=records_per_issuer)


async def test_fault_4_an_update_of_a_stored_record_is_taken_at_the_limit(tmp_path: Path) -> None:
    async with open_service(tmp_path, limited(2)) as service:
        records = [a_record(KEY.id, issuer=identity(number)) for number in (10, 11)]
        await registered(service, *records)
        updated = a_record(KEY.id, issuer=identity(10), issued=NOW + 1)
        assert (await put(service, updated)).success
        assert await served(service) == {updated, records[1]}


async def test_fault_4_only_a_heavier_record_displaces_the_lightest_at_the_limit(tmp_path: Path) -> None:
    async with open_service(tmp_path, limited(2)) as service:
        heavy, light, equal, heavier = (a_record(KEY.id, issuer=identity(number)) for number in (10, 11, 12, 13))
        await registered(service)
        for record, weight in ((heavy, 5), (light, 3)):
            assert (await put(service, record, weight)).success
        assert (await put(service, equal, 3)).error == LIMIT_EXCEEDED
        assert (await put(service, equal, 0)).error == LIMIT_EXCEEDED
        assert await served(service) == {heavy, light}
        assert (await put(service, heavier, 4)).success
        assert await served(service) == {heavy, heavier}


async def test_fault_4_one_issuer_has_a_limit_of_its_own_that_weight_does_not_lift(tmp_path: Path) -> None:
    async with open_service(tmp_path, limited(256, 2)) as service:
        await registered(service, *(a_record(KEY.id, host=identity(number)) for number in (10, 11)))
        assert (await put(service, a_record(KEY.id, host=identity(12)), 9)).error == LIMIT_EXCEEDED
        assert (await put(service, a_record(KEY.id, issuer=OWNER, host=identity(12)))).success


async def test_fault_4_the_hosts_own_records_are_exempt(tmp_path: Path) -> None:
    async with open_service(tmp_path, limited(1, 1)) as service:
        await registered(service, a_record(KEY.id), a_record(KEY.id, host=NODE), a_record(KEY.id, OWNER, host=NODE))
        assert len(await served(service)) == 3
        assert (await put(service, a_record(KEY.id, issuer=OWNER), 1)).success
        assert len(await served(service)) == 3


async def test_fault_4_a_tombstone_frees_its_place_and_needs_none(tmp_path: Path) -> None:
    async with open_service(tmp_path, limited(1)) as service:
        await registered(service, a_record(KEY.id))
        assert (await bury(service, a_tombstone(KEY.id, issuer=OWNER))).success
        assert (await bury(service, a_tombstone(KEY.id))).success
        assert (await put(service, a_record(KEY.id, issuer=STRANGER))).success
        revived = await put(service, a_record(KEY.id, issued=NOW + 1))
        assert revived.error == LIMIT_EXCEEDED


async def test_fault_4_a_limit_of_none_refuses_every_record_of_other_hosts(tmp_path: Path) -> None:
    async with open_service(tmp_path, limited(0)) as service:
        await registered(service, a_record(KEY.id, host=NODE))
        assert (await put(service, a_record(KEY.id), 9)).error == LIMIT_EXCEEDED


def test_fault_4_defaults_are_256_per_key_and_32_per_issuer() -> None:
    assert (RULES.records_per_key, RULES.records_per_issuer) == (256, 32)


async def weights_in(store: Store) -> tuple[int, int]:
    def query(transaction: Transaction) -> tuple[int, int]:
        key, (state,) = transaction.key(KEY.id), transaction.states(KEY.id)
        assert key is not None
        return key.weight, state.weight

    return await store.read(query)


async def test_fault_5_weights_are_kept(tmp_path: Path) -> None:
    record = a_record(KEY.id)
    async with open_store(tmp_path / "registry.sqlite", inline=True) as store:
        service = service_over(store, RULES)
        await register(service, KEY, weight=7)
        await put(service, record, weight=5)
        await service.republish_key(KEY, weight_of(OWNER), NOW)
        await service.republish_key(a_key(created=NOW - 1), weight_of(OWNER), NOW)
        await service.republish_records((record,), (weight_of(ISSUER),), NOW)
        assert await weights_in(store) == (7, 5)
    async with open_store(tmp_path / "registry.sqlite", inline=True) as store:
        assert await weights_in(store) == (7, 5)


async def test_fault_6_a_record_is_weighed_by_its_issuer_whoever_calls(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        await registered(service)
        record = a_record(KEY.id, issuer=ISSUER, host=HOST)
        by_host = service.on_behalf_of(HOST.peer_id)
        assert (await put(by_host, record)).success
        renewed = hosted(record.metadata, HOST, NOW + 10)
        assert (await put(by_host, renewed, now=NOW + 10)).success
        assert await served(service, NOW + 10) == {renewed}
        fields = (record.metadata, record.timestamp_created, record.signature)
        refused = await by_host.put_record(*fields, weight_of(HOST), NOW)
        assert refused.error == f"Invalid weight peer_id: expected {ISSUER.peer_id}, found {HOST.peer_id}"


@pytest.mark.parametrize("now", [0, 1, 60])
async def test_fault_9_a_clock_near_zero_deletes_nothing(tmp_path: Path, now: int) -> None:
    async with open_service(tmp_path, RULES) as service:
        for issued in (0, now):
            key, record = a_key(str(issued), created=issued), a_record(a_key(str(issued)).id, issued=issued)
            await register(service, key, now=now)
            await put(service, record, now=now)
        before = await service.evict_stale(now)
        cleared = await service.clear_expired(now)
        assert before.results == ()
        assert (cleared.count_keys, cleared.count_records, cleared.count_tombstones) == (0, 0, 0)


async def test_fault_9_the_longest_ages_delete_nothing(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        await registered(service, a_record(KEY.id), a_record(KEY.id, host=NODE))
        await service.set_expired_timeout(U63_MAX)
        await service.set_stale_timeout(U63_MAX)
        cleared = await service.clear_expired(NOW + 1)
        assert (cleared.success, cleared.count_keys, cleared.count_records) == (True, 0, 0)
        assert (await service.evict_stale(NOW + 1)).results == ()
        assert len(await served(service, NOW + 1)) == 2
        assert (await service.get_stale_local_records(NOW + 1)).result == ()


async def test_fault_10_put_get_and_clear_agree_on_the_second_of_expiry(tmp_path: Path) -> None:
    record = a_record(KEY.id)
    last, expired = NOW + DAY - 1, NOW + DAY
    async with open_service(tmp_path, EXACT) as service:
        await register(service, KEY)
        assert (await put(service, record, now=expired)).error == "Record is already expired"
        assert (await put(service, record, now=last)).success
        assert await served(service, last) == {record}
        assert (await service.clear_expired(last)).count_records == 0
        assert await served(service, expired) == set()
        assert (await service.clear_expired(expired)).count_records == 1


async def test_fault_10_a_set_expired_age_holds_everywhere(tmp_path: Path) -> None:
    async with open_service(tmp_path, EXACT) as service:
        await registered(service, a_record(KEY.id))
        await service.set_expired_timeout(100)
        assert len(await served(service, NOW + 99)) == 1
        assert await served(service, NOW + 100) == set()
        late = await put(service, a_record(KEY.id, host=NODE), now=NOW + 100)
        assert late.error == "Record is already expired"
        assert (await service.clear_expired(NOW + 100)).count_records == 1


async def test_fault_11_rows_and_merges_have_the_same_winner_whatever_comes_first(tmp_path: Path) -> None:
    # Issued earlier but signed by the host later: the original's merge preferred it, its table didn't.
    renewed, newer = a_record(KEY.id, issued=NOW, created=NOW + 20), a_record(KEY.id, issued=NOW + 10)
    tie = [a_record(KEY.id, issued=NOW + 10, created=NOW + 10, value=value) for value in ("a", "b")]
    winner = max([newer, *tie], key=Record.order)
    for number, arrivals in enumerate(([renewed, newer, *tie], [*reversed(tie), newer, renewed])):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with open_service(folder, RULES) as service:
            assert (await service.merge([[each] for each in arrivals])).result == (winner,)
            await register(service, KEY)
            for record in arrivals:
                await put(service, record, now=NOW + 20)
            assert await served(service, NOW + 20) == {winner}


async def test_fault_11_the_same_second_does_not_let_the_later_arrival_win(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        lesser, greater = sorted((a_record(KEY.id, value=value) for value in ("a", "b")), key=Record.order)
        await registered(service, greater)
        assert "already exists" in (await put(service, lesser)).error
        assert (await put(service, greater)).success
        assert (await bury(service, a_tombstone(KEY.id))).success
        assert "already exists" in (await put(service, greater)).error


async def test_fault_12_stale_records_are_skipped_and_the_rest_of_the_batch_is_written(tmp_path: Path) -> None:
    hosts = [HOST, NODE, STRANGER]
    async with open_service(tmp_path, RULES) as service:
        current = a_record(KEY.id, host=NODE, issued=NOW + 5)
        await registered(service, current)
        batch = [a_record(KEY.id, host=host) for host in hosts]
        result = await service.republish_records(batch, [weight_of(ISSUER)] * 3, NOW)
        assert (result.success, result.updated) == (True, 2)
        assert await served(service) == {batch[0], current, batch[2]}


async def test_fault_12_stale_tombstones_are_skipped_and_the_rest_of_the_batch_is_written(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        await registered(service, a_record(KEY.id, host=NODE, issued=NOW + 5), a_record(KEY.id))
        stones = [a_tombstone(KEY.id, host=NODE), a_tombstone(KEY.id)]
        assert (await service.republish_tombstones(stones, NOW)).success
        assert (await service.get_tombstones(KEY.id, NOW)).result == (stones[1],)


async def test_fault_12_a_batch_beyond_the_limit_writes_what_there_is_room_for_in_one_transaction(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path / "registry.sqlite", inline=True) as store:
        service = service_over(store, limited(2))
        await register(service, KEY)
        commits = store.commits
        batch = [a_record(KEY.id, issuer=identity(number)) for number in range(10, 14)]
        weights = [weight_of(identity(number)) for number in range(10, 14)]
        assert (await service.republish_records(batch, weights, NOW)).updated == 2
        assert store.commits == commits + 1


async def test_fault_13_merging_drops_what_does_not_verify(tmp_path: Path) -> None:
    genuine = a_record(KEY.id)
    newer = a_record(KEY.id, issued=NOW + 100)
    inventions = [
        msgspec.structs.replace(newer, signature=genuine.signature),
        msgspec.structs.replace(newer, metadata=msgspec.structs.replace(newer.metadata, value="evil")),
        hosted(msgspec.structs.replace(newer.metadata, issuer_signature=STRANGER.sign(b"")), HOST, NOW),
        hosted(newer.metadata, STRANGER, NOW),  # signed by another than the host
    ]
    async with open_service(tmp_path, RULES) as service:
        assert (await service.merge([inventions, [genuine]])).result == (genuine,)
        assert (await service.merge_two(inventions, ())).result == ()
        forged = msgspec.structs.replace(a_key(created=NOW + 100), signature=KEY.signature)
        assert (await service.merge_keys((forged, KEY))).key == KEY
        assert (await service.merge_keys((forged,))).error == "merge_keys: keys argument is empty"


async def test_fault_13_merging_drops_what_this_node_knows_to_be_superseded(tmp_path: Path) -> None:
    # Unmodified scripts merge records only, so their tombstones count here.
    async with open_service(tmp_path, RULES) as service:
        record, elsewhere = a_record(KEY.id), a_record(KEY.id, host=NODE)
        await registered(service, record)
        await bury(service, a_tombstone(KEY.id, issued=NOW))
        assert (await service.merge([[record], [elsewhere]])).result == (elsewhere,)
        again = a_record(KEY.id, issued=NOW + 1)
        assert (await service.merge_two([record], [again])).result == (again,)


async def test_fault_13_merging_drops_what_the_policy_of_the_stored_key_withholds(tmp_path: Path) -> None:
    allowed, unpermitted = a_record(KEY.id), a_record(KEY.id, issuer=STRANGER)
    async with open_service(tmp_path, RULES) as service:
        assert set((await service.merge_two([allowed], [unpermitted])).result) == {allowed, unpermitted}
        assert (await register(service, a_key(policy=Policy(revision=1, allow=keys_of(ISSUER))))).success
        assert (await service.merge([[allowed], [unpermitted]])).result == (allowed,)
        assert (await service.merge_two([unpermitted], [])).result == ()


async def test_fault_15_a_key_lives_as_long_as_anything_under_it(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        await registered(service, a_record(KEY.id))
        await bury(service, a_tombstone(KEY.id, issued=NOW))
        with_tombstone = await service.clear_expired(NOW + DAY)
        assert (with_tombstone.count_keys, with_tombstone.count_tombstones) == (0, 0)
        assert (await service.get_key_metadata(KEY.id)).success
        last = await service.clear_expired(NOW + RULES.tombstone_lifetime)
        assert (last.count_keys, last.count_tombstones) == (1, 1)
        assert not (await service.get_key_metadata(KEY.id)).success


async def test_fault_15_nothing_left_behind_blocks_a_later_registration(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        await registered(service)
        await bury(service, a_tombstone(KEY.id, issued=NOW))
        await service.clear_expired(NOW + DAY)
        assert (await put(service, a_record(KEY.id, issued=NOW + DAY), now=NOW + DAY)).success


@pytest.mark.parametrize("option", [(), ("",), ("\x00",), ("some_relay",)])
async def test_fault_16_options_come_back_as_they_were_signed(tmp_path: Path, option: tuple[str, ...]) -> None:
    record = a_record(KEY.id, relay_id=option, service_id=option)
    async with open_service(tmp_path, RULES) as service:
        await registered(service, record)
    async with open_service(tmp_path, RULES) as service:
        assert await served(service) == {record}
        assert (await put(service, a_record(KEY.id, host=NODE, relay_id=option))).success
        assert (await service.merge_two(tuple(await served(service)), ())).result != ()


async def test_fault_17_the_first_of_several_owners_counts_everywhere(tmp_path: Path) -> None:
    owners = (OWNER.peer_id, STRANGER.peer_id)
    async with open_service(tmp_path, RULES) as service:
        signed = await service.get_key_bytes("sample", owners, NOW, b"", "")
        assert signed == KEY.signed_bytes()
        fields = ("sample", owners, NOW, b"", "", OWNER.sign(signed))
        assert (await service.register_key(*fields, weight_of(OWNER), NOW)).key_id == KEY.id


async def test_fault_18_data_survives_restarts(tmp_path: Path) -> None:
    record, tombstone = a_record(KEY.id), a_tombstone(KEY.id, issuer=OWNER)
    async with open_service(tmp_path, RULES) as service:
        await registered(service, record)
        await bury(service, tombstone)
    for _ in range(2):
        async with open_service(tmp_path, RULES) as service:
            assert (await service.get_key_metadata(KEY.id)).key == KEY
            assert await served(service) == {record}
            assert (await service.get_tombstones(KEY.id, NOW)).result == (tombstone,)


async def test_fault_19_only_the_operator_changes_ages_and_clears(tmp_path: Path) -> None:
    async with open_service(tmp_path, RULES) as service:
        await registered(service, a_record(KEY.id))
        stranger = service.on_behalf_of(STRANGER.peer_id)
        for change in (stranger.set_expired_timeout, stranger.set_stale_timeout):
            with pytest.raises(NotPermitted, match="only the node's operator"):
                await change(0)
        assert "only the node's operator" in (await stranger.clear_expired(NOW + 10 * DAY)).error
        assert "only the node's operator" in (await stranger.evict_stale(NOW + 10 * DAY)).error
        assert service.settings == RULES
        assert len(await served(service)) == 1
        await service.on_behalf_of(NODE.peer_id).set_expired_timeout(7)
        await service.set_stale_timeout(8)
        assert (service.settings.expired_age, stranger.settings.stale_age) == (7, 8)


@pytest.mark.parametrize("age", [-1, U63_MAX + 1, 1.5, "1", None])
async def test_fault_19_the_operator_is_told_of_a_malformed_age(tmp_path: Path, age: object) -> None:
    async with open_service(tmp_path, RULES) as service:
        for change in (service.set_expired_timeout, service.set_stale_timeout):
            with pytest.raises(InvalidValue, match="timeout_sec"):
                await change(age)
        assert service.settings == RULES


@pytest.mark.parametrize("skew", [0, 30])
async def test_fault_21_a_clock_may_be_ahead_by_the_tolerance_and_no_more(tmp_path: Path, skew: int) -> None:
    ahead, beyond = NOW + skew, NOW + skew + 1
    async with open_service(tmp_path, RegistrySettings(clock_skew=skew)) as service:
        assert (await register(service, a_key(created=beyond))).error == "Key can't be registered in the future"
        assert (await register(service, a_key(created=ahead))).success
        early = await put(service, a_record(KEY.id, issued=NOW, created=beyond))
        assert early.error == "Record can't be registered in the future"
        early = await put(service, a_record(KEY.id, issued=beyond, created=NOW))
        assert early.error == "Record metadata can't be issued in the future"
        assert (await put(service, a_record(KEY.id, issued=ahead))).success
        assert len(await served(service)) == 1
        early = await bury(service, a_tombstone(KEY.id, issued=beyond))
        assert early.error == "Tombstone can't be issued in the future"
        assert (await bury(service, a_tombstone(KEY.id, issued=ahead))).success


def test_fault_21_the_default_tolerance_is_30_seconds() -> None:
    assert RULES.clock_skew == 30


# An owner's or issuer's signature is good for a limited time (docs/design.md, State and merging).


async def test_an_issuers_signature_is_good_for_90_days_however_young_the_hosts_is(tmp_path: Path) -> None:
    end = NOW + 90 * DAY
    metadata = a_metadata(KEY.id, issued=NOW)
    async with open_service(tmp_path, EXACT) as service:
        await register(service, a_key(created=end - 10), now=end - 10)
        assert (await put(service, hosted(metadata, HOST, end - 1), now=end - 1)).success
        assert len(await served(service, end - 1)) == 1
        assert await served(service, end) == set()
        assert (await put(service, hosted(metadata, HOST, end), now=end)).error == "Record is already expired"
        assert (await service.clear_expired(end)).count_records == 1


async def test_an_owners_signature_is_good_for_365_days(tmp_path: Path) -> None:
    end = NOW + 365 * DAY
    async with open_service(tmp_path, EXACT) as service:
        assert (await register(service, KEY, now=end)).error == "Key is already expired"
        assert (await service.republish_key(KEY, weight_of(OWNER), end)).error == "Key is already expired"
        assert (await register(service, KEY, now=end - 1)).success


async def test_records_due_for_renewal_are_this_hosts_from_half_of_the_expired_age_on(tmp_path: Path) -> None:
    own = a_record(KEY.id, host=NODE)
    async with open_service(tmp_path, RULES) as service:
        await registered(service, own, a_record(KEY.id, host=HOST))
        assert (await service.get_stale_local_records(NOW + DAY // 2 - 1)).result == ()
        for due in (NOW + DAY // 2, NOW + DAY - 1):
            assert (await service.get_stale_local_records(due)).result == (own,)
        assert (await service.get_stale_local_records(NOW + DAY)).result == ()
