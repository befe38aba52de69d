"""What the original's own unit tests say of the service, its error texts, and which error wins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from registry.model.service_results import RegistryResult, WeightResult
from registry.model.values import Key, Record
from registry.service import RegistryService
from registry.settings import RegistrySettings
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
    identity,
    open_service,
    put,
    register,
    weight_of,
)

RULES = RegistrySettings(clock_skew=0)
KEY = a_key()
FORGED = b"\x01" * 64
REASON = "signature doesn't match"
WRONG_WEIGHT = f"Invalid weight peer_id: expected {{}}, found {STRANGER.peer_id}"
BAD_KEY = f"Invalid signature for key_id {KEY.id}; label sample and peer_id {OWNER.peer_id}: {REASON}"
BAD_METADATA = f"Invalid record metadata signature for key_id {KEY.id} and issued by {ISSUER.peer_id}: {REASON}"
BAD_RECORD = f"Invalid record signature for key_id {KEY.id} and issued by {ISSUER.peer_id}: {REASON}"
BAD_TOMBSTONE = f"Invalid tombstone signature for key_id {KEY.id} and issued by {ISSUER.peer_id}: {REASON}"
NO_KEY = f"Requested key {KEY.id} does not exist"
SLOT = f"key_id: {KEY.id}, issued_by: {ISSUER.peer_id}, peer_id: {HOST.peer_id}"
NEWER = f"Newer record or tombstone for {SLOT} already exists"
NEWER_KEY = f"Key sample for {OWNER.peer_id} peer_id already exists with newer timestamp"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RegistryService]:
    async with open_service(tmp_path, RULES) as opened:
        yield opened


def forged(value: Key) -> Key:
    return msgspec.structs.replace(value, signature=FORGED)


# Keys


async def test_key_with_an_invalid_signature_is_refused(service: RegistryService) -> None:
    assert (await register(service, forged(KEY))).error == BAD_KEY
    assert (await service.get_key_metadata(KEY.id)).error == NO_KEY


async def test_key_with_the_weight_of_another_peer_is_refused(service: RegistryService) -> None:
    arguments = (KEY.label, (OWNER.peer_id,), NOW, b"", "", KEY.signature)
    result = await service.register_key(*arguments, weight_of(STRANGER), NOW)
    assert (result.success, result.error) == (False, WRONG_WEIGHT.format(OWNER.peer_id))


async def test_key_whose_weight_is_unknown_is_refused(service: RegistryService) -> None:
    arguments = (KEY.label, (OWNER.peer_id,), NOW, b"", "", KEY.signature)
    unknown = WeightResult(success=False, weight=0, peer_id=OWNER.peer_id, error="no such peer")
    assert not (await service.register_key(*arguments, unknown, NOW)).success


async def test_correct_key_is_registered(service: RegistryService) -> None:
    result = await register(service, KEY)
    assert (result.success, result.error, result.key_id) == (True, "", KEY.id)


async def test_key_of_the_caller_is_registered_without_naming_the_owner(service: RegistryService) -> None:
    mine = service.on_behalf_of(OWNER.peer_id)
    signed = await mine.get_key_bytes("sample", (), NOW, b"", "")
    result = await mine.register_key("sample", (), NOW, b"", "", OWNER.sign(signed), weight_of(OWNER), NOW)
    assert result.key_id == await mine.get_key_id("sample", KEY.owner_peer_id) == KEY.id


async def test_key_with_an_older_timestamp_is_refused(service: RegistryService) -> None:
    await register(service, a_key(created=NOW))
    result = await register(service, a_key(created=NOW - 1))
    assert (result.success, result.error, result.key_id) == (False, NEWER_KEY, "")
    assert (await service.get_key_metadata(KEY.id)).key == KEY


async def test_key_from_the_future_is_refused(service: RegistryService) -> None:
    result = await register(service, a_key(created=NOW + 1))
    assert result.error == "Key can't be registered in the future"


async def test_republishing_an_older_key_succeeds_and_changes_nothing(service: RegistryService) -> None:
    await register(service, KEY)
    assert await service.republish_key(a_key(created=NOW - 1), weight_of(OWNER), NOW) == RegistryResult(success=True)
    assert (await service.get_key_metadata(KEY.id)).key == KEY


async def test_republishing_a_newer_key_replaces_the_older(service: RegistryService) -> None:
    await register(service, KEY)
    newer = a_key(created=NOW + 1)
    assert (await service.republish_key(newer, weight_of(OWNER), NOW + 1)).success
    assert (await service.get_key_metadata(KEY.id)).key == newer


async def test_registering_and_republishing_the_same_key_succeeds(service: RegistryService) -> None:
    for _ in range(2):
        assert (await register(service, KEY)).success
        assert (await service.republish_key(KEY, weight_of(OWNER), NOW)).success


async def test_key_metadata_is_what_was_registered(service: RegistryService) -> None:
    key = a_key(challenge=b"\x00\x01")
    await register(service, key)
    result = await service.get_key_metadata(key.id)
    assert (result.success, result.error, result.key) == (True, "", key)


async def test_metadata_of_an_unknown_key_is_an_error(service: RegistryService) -> None:
    result = await service.get_key_metadata("unknown")
    assert (result.success, result.error, result.key) == (False, "Requested key unknown does not exist", None)


async def test_merging_no_keys_is_an_error(service: RegistryService) -> None:
    assert (await service.merge_keys(())).error == "merge_keys: keys argument is empty"


async def test_merging_keys_gives_the_newest(service: RegistryService) -> None:
    newer = a_key(created=NOW + 1)
    for keys in ((KEY, newer), (newer, KEY)):
        assert (await service.merge_keys(keys)).key == newer


@pytest.mark.parametrize("registers", [True, False], ids=["register_key", "republish_key"])
@pytest.mark.parametrize(
    ("key", "weighed", "error"),
    [
        (forged(a_key(created=NOW + 1)), STRANGER, WRONG_WEIGHT.format(OWNER.peer_id)),
        (forged(a_key(created=NOW + 1)), OWNER, "Key can't be registered in the future"),
        (forged(a_key(created=NOW - 1)), OWNER, BAD_KEY),
    ],
)
async def test_first_fault_of_a_key_gives_the_error(
    service: RegistryService, registers: bool, key: Key, weighed: object, error: str
) -> None:
    await register(service, KEY)
    if registers:
        fields = (key.label, (key.owner_peer_id,), key.timestamp_created, b"", "", key.signature)
        result = await service.register_key(*fields, weight_of(weighed), NOW)
    else:
        result = await service.republish_key(key, weight_of(weighed), NOW)
    assert (result.success, result.error) == (False, error)


# Records and tombstones


async def test_put_record_is_got(service: RegistryService) -> None:
    await register(service, KEY)
    records = [a_record(KEY.id), a_record(KEY.id, host=NODE, relay_id=("some_relay",), value="value")]
    for record in records:
        assert await put(service, record) == RegistryResult(success=True)
    got = await service.get_records(KEY.id, NOW)
    assert got.success
    assert set(got.result) == set(records)


async def test_bytes_to_sign_are_those_that_are_verified(service: RegistryService) -> None:
    await register(service, KEY)
    fields = (KEY.id, ISSUER.peer_id, NOW, "value", HOST.peer_id, ("relay",), ("service",), b"solution")
    signature = ISSUER.sign(await service.get_record_metadata_bytes(*fields))
    metadata = await service.create_record_metadata(*fields, signature)
    host_signature = HOST.sign(await service.get_record_bytes(metadata, NOW))
    assert (await service.put_record(metadata, NOW, host_signature, weight_of(ISSUER), NOW)).success
    slot = (KEY.id, ISSUER.peer_id, HOST.peer_id)
    buried = ISSUER.sign(await service.get_tombstone_bytes(*slot, NOW, b"solution"))
    assert (await service.add_tombstone(*slot, NOW, b"solution", buried, NOW)).success


async def test_put_tombstone_and_put_again(service: RegistryService) -> None:
    await register(service, KEY)
    assert (await put(service, a_record(KEY.id, issued=NOW))).success
    tombstone = a_tombstone(KEY.id, issued=NOW + 1)
    assert (await bury(service, tombstone, NOW + 1)).success
    assert (await service.get_records(KEY.id, NOW + 1)).result == ()
    assert (await service.get_tombstones(KEY.id, NOW + 1)).result == (tombstone,)
    assert (await put(service, a_record(KEY.id, issued=NOW), now=NOW + 1)).error == NEWER
    again = a_record(KEY.id, issued=NOW + 2)
    assert (await put(service, again, now=NOW + 2)).success
    assert (await service.get_records(KEY.id, NOW + 2)).result == (again,)
    assert (await service.get_tombstones(KEY.id, NOW + 2)).result == ()
    assert (await bury(service, tombstone, NOW + 2)).error == NEWER


async def test_records_and_tombstones_of_an_unknown_key_are_an_error(service: RegistryService) -> None:
    assert (await service.get_records(KEY.id, NOW)).error == NO_KEY
    assert (await service.get_tombstones(KEY.id, NOW)).error == NO_KEY


def record_with(issued: int, created: int, *, issuer_forged: bool, host_forged: bool) -> Record:
    metadata = a_metadata(KEY.id, issued=issued)
    if issuer_forged:
        metadata = msgspec.structs.replace(metadata, issuer_signature=FORGED)
    unsigned = Record(metadata, created, FORGED)
    return unsigned if host_forged else msgspec.structs.replace(unsigned, signature=HOST.sign(unsigned.signed_bytes()))


OLD = NOW - RULES.expired_age
FAULTS = [
    # created in the future, metadata in the future, both forged, no key
    (record_with(NOW + 1, NOW + 1, issuer_forged=True, host_forged=True), "Record can't be registered in the future"),
    (record_with(NOW + 1, OLD, issuer_forged=True, host_forged=True), "Record is already expired"),
    (record_with(NOW + 1, NOW, issuer_forged=True, host_forged=True), "Record metadata can't be issued in the future"),
    (record_with(NOW, NOW, issuer_forged=True, host_forged=True), BAD_METADATA),
    (record_with(NOW, NOW, issuer_forged=False, host_forged=True), BAD_RECORD),
    (record_with(NOW, NOW, issuer_forged=False, host_forged=False), NO_KEY),
]


@pytest.mark.parametrize(("record", "error"), FAULTS, ids=[error[:30] for _, error in FAULTS])
async def test_first_fault_of_a_record_gives_the_error(service: RegistryService, record: Record, error: str) -> None:
    fields = (record.metadata, record.timestamp_created, record.signature)
    weighed_wrong = await service.put_record(*fields, weight_of(STRANGER), NOW)
    assert weighed_wrong.error == WRONG_WEIGHT.format(ISSUER.peer_id)
    assert (await put(service, record)).error == error
    batch = await service.republish_records((record,), (weight_of(ISSUER),), NOW)
    assert (batch.success, batch.error, batch.updated) == (False, error, 0)


async def test_limit_is_told_before_a_newer_state(tmp_path: Path) -> None:
    async with open_service(tmp_path, msgspec.structs.replace(RULES, records_per_key=1)) as service:
        await register(service, KEY)
        await bury(service, a_tombstone(KEY.id))
        assert (await put(service, a_record(KEY.id, issuer=identity(9)))).success
        result = await put(service, a_record(KEY.id, issued=NOW - 1, created=NOW))
        assert result.error == f"Values limit for key_d {KEY.id} is exceeded"


async def test_newer_record_is_told(service: RegistryService) -> None:
    await register(service, KEY)
    await put(service, a_record(KEY.id, issued=NOW))
    assert (await put(service, a_record(KEY.id, issued=NOW - 1))).error == NEWER
    assert (await bury(service, a_tombstone(KEY.id, issued=NOW - 1))).error == NEWER


async def test_first_fault_of_a_tombstone_gives_the_error(service: RegistryService) -> None:
    forged = [
        msgspec.structs.replace(a_tombstone(KEY.id, issued=issued), issuer_signature=FORGED)
        for issued in (NOW, NOW + 1)
    ]
    for tombstone, error in (
        (forged[1], "Tombstone can't be issued in the future"),
        (forged[0], BAD_TOMBSTONE),
        (a_tombstone(KEY.id), NO_KEY),
    ):
        assert (await bury(service, tombstone)).error == error
        assert (await service.republish_tombstones((tombstone,), NOW)).error == error


# Batches


async def test_republishing_nothing_succeeds(service: RegistryService) -> None:
    result = await service.republish_records((), (), NOW)
    assert (result.success, result.updated) == (True, 0)
    assert (await service.republish_tombstones((), NOW)).success


async def test_republished_records_are_counted_when_they_change_something(service: RegistryService) -> None:
    await register(service, KEY)
    records = [a_record(KEY.id), a_record(KEY.id, host=NODE)]
    weights = (weight_of(ISSUER), weight_of(ISSUER))
    assert (await service.republish_records(records, weights, NOW)).updated == 2
    assert (await service.republish_records(records, weights, NOW)).updated == 0


async def test_first_fault_in_a_batch_of_records_gives_the_error(service: RegistryService) -> None:
    record, elsewhere = a_record(KEY.id), a_record("other")
    bad = record_with(NOW, NOW, issuer_forged=True, host_forged=True)
    missing = f"Weight for record with peer_id {HOST.peer_id} and set_by {ISSUER.peer_id} is missing "
    good, wrong = weight_of(ISSUER), weight_of(STRANGER)
    for records, weights, error in (
        ((record, bad), (good,), BAD_METADATA),
        ((record, elsewhere), (good,), missing),
        ((record, elsewhere), (good, wrong), WRONG_WEIGHT.format(ISSUER.peer_id)),
        ((record, elsewhere), (good, good), "Records to publish should belong to one key id"),
        ((record, record), (good, good), NO_KEY),
    ):
        assert (await service.republish_records(records, weights, NOW)).error == error
    await register(service, KEY)
    await service.republish_records((record, bad), (good, good), NOW)
    assert (await service.get_records(KEY.id, NOW)).result == ()


async def test_batch_of_tombstones_belongs_to_one_key(service: RegistryService) -> None:
    await register(service, KEY)
    result = await service.republish_tombstones((a_tombstone(KEY.id), a_tombstone("other")), NOW)
    assert result.error == "Tombstones to publish should belong to one key id"
    assert (await service.get_tombstones(KEY.id, NOW)).result == ()
    stones = (a_tombstone(KEY.id), a_tombstone(KEY.id, host=NODE))
    assert (await service.republish_tombstones(stones, NOW)).success
    assert set((await service.get_tombstones(KEY.id, NOW)).result) == set(stones)


async def test_merging_gives_the_newest_of_each_slot(service: RegistryService) -> None:
    old, new, other = a_record(KEY.id), a_record(KEY.id, issued=NOW + 1), a_record(KEY.id, host=NODE)
    for groups in (((old,), (new, other)), ((other, new), (old,)), ((new,), (old, other), (new,))):
        assert set((await service.merge(groups)).result) == {new, other}
    assert set((await service.merge_two((old, other), (new,))).result) == {new, other}
    assert (await service.merge(())).result == ()


# Upkeep


async def test_expired_empty_key_is_collected(service: RegistryService) -> None:
    await register(service, KEY)
    kept = await service.clear_expired(NOW + RULES.expired_age - 1)
    assert (kept.success, kept.count_keys, kept.count_records, kept.count_tombstones) == (True, 0, 0, 0)
    cleared = await service.clear_expired(NOW + RULES.expired_age)
    assert (cleared.success, cleared.count_keys, cleared.count_records, cleared.count_tombstones) == (True, 1, 0, 0)
    assert (await service.get_key_metadata(KEY.id)).error == NO_KEY


async def test_expired_records_and_then_their_key_are_collected(service: RegistryService) -> None:
    await register(service, KEY)
    await put(service, a_record(KEY.id))
    await put(service, a_record(KEY.id, host=NODE, issued=NOW + 10), now=NOW + 10)
    first = await service.clear_expired(NOW + RULES.expired_age)
    assert (first.count_keys, first.count_records) == (0, 1)
    second = await service.clear_expired(NOW + 10 + RULES.expired_age)
    assert (second.count_keys, second.count_records) == (1, 1)


async def test_stale_keys_are_evicted_with_all_under_them(service: RegistryService) -> None:
    await register(service, KEY)
    record, tombstone = a_record(KEY.id), a_tombstone(KEY.id, issuer=OWNER)
    await put(service, record)
    await bury(service, tombstone)
    assert (await service.evict_stale(NOW + RULES.stale_age - 1)).results == ()
    result = await service.evict_stale(NOW + RULES.stale_age)
    assert result.success
    assert [(item.key, item.records, item.tombstones) for item in result.results] == [(KEY, (record,), (tombstone,))]
    assert (await service.get_key_metadata(KEY.id)).error == NO_KEY
    assert (await service.evict_stale(NOW + RULES.stale_age)).results == ()


async def test_stale_keys_that_this_host_has_a_part_in_are_handed_out_and_kept(service: RegistryService) -> None:
    own = a_key("own", owner=NODE)
    await register(service, own)
    await register(service, KEY)
    await put(service, a_record(KEY.id, host=NODE))
    result = await service.evict_stale(NOW + RULES.stale_age)
    assert {item.key for item in result.results} == {own, KEY}
    for key in (own, KEY):
        assert (await service.get_key_metadata(key.id)).key == key


# What is malformed


@pytest.mark.parametrize("now", [-1, 2**63, 2**64, 1.5, "1", None, True])
async def test_malformed_time_is_an_error_result(service: RegistryService, now: object) -> None:
    await register(service, KEY)
    record = a_record(KEY.id)
    results = [
        await register(service, KEY, now=now),
        await service.republish_key(KEY, weight_of(OWNER), now),
        await put(service, record, now=now),
        await bury(service, a_tombstone(KEY.id), now),
        await service.get_records(KEY.id, now),
        await service.get_tombstones(KEY.id, now),
        await service.republish_records((record,), (weight_of(ISSUER),), now),
        await service.republish_tombstones((a_tombstone(KEY.id),), now),
        await service.get_stale_local_records(now),
        await service.clear_expired(now),
        await service.evict_stale(now),
    ]
    assert [result.success for result in results] == [False] * len(results)
    assert all("current_timestamp_sec" in result.error for result in results)
    assert (await service.get_key_metadata(KEY.id)).success


async def test_malformed_fields_are_error_results(service: RegistryService) -> None:
    good = ("sample", (OWNER.peer_id,), NOW, b"", "", KEY.signature)
    for place, bad in (
        (0, 5),
        (0, "x" * 5000),
        (1, ("nobody",)),
        (2, -1),
        (2, 2**63),
        (3, "text"),
        (4, b""),
        (5, None),
    ):
        fields = [*good[:place], bad, *good[place + 1 :]]
        result = await service.register_key(*fields, weight_of(OWNER), NOW)
        assert not result.success
        assert result.error
    result = await service.register_key("sample", ("nobody",), NOW, b"", "", b"", weight_of(OWNER), NOW)
    assert result.error.startswith("peer id parse error: ")
    heavy = WeightResult(success=True, weight=2**32, peer_id=OWNER.peer_id)
    assert not (await service.register_key(*good, heavy, NOW)).success
    assert not (await bury(service, a_tombstone(KEY.id), now=-1)).success
    assert not (await service.add_tombstone(KEY.id, "nobody", HOST.peer_id, NOW, b"", FORGED, NOW)).success
    assert not (await service.put_record({"key_id": KEY.id}, NOW, FORGED, weight_of(ISSUER), NOW)).success
    assert not (await service.put_record(a_metadata(KEY.id), 2**63, FORGED, weight_of(ISSUER), NOW)).success


async def test_operators_limits_bind_put_and_republished_values_alike(tmp_path: Path) -> None:
    tight = msgspec.structs.replace(RULES, max_value=10, max_label=10)
    async with open_service(tmp_path, tight) as service:
        await register(service, KEY)
        record = a_record(KEY.id, value="x" * 11)
        expected = "value has 11 bytes, more than 10"
        assert (await put(service, record)).error == expected
        assert (await service.republish_records((record,), (weight_of(ISSUER),), NOW)).error == expected
        long = a_key("x" * 11)
        assert (await register(service, long)).error == "label has 11 bytes, more than 10"
        assert not (await service.republish_key(long, weight_of(OWNER), NOW)).success
