"""registry-api: signatures are made here, the rest is the node's; failures are told by the results."""

from __future__ import annotations

from overlay.errors import Unreachable
from overlay.identity import verify
from registry.errors import NodeUnavailable
from registry.model.service_results import RegisterKeyResult, RegistryResult
from registry.model.signing import key_digest, tombstone_digest
from registry.model.verification import metadata_is_genuine
from tests.unit.aqua_compat.acting import HOST, OWNER, ScriptedRegistry, a_key, a_record, acting


async def test_key_signature_is_the_owners_over_the_original_digest() -> None:
    signed = await acting(ScriptedRegistry()).getKeySignature("echo", 1000)
    assert signed.success
    assert signed.error is None
    assert signed.signature == OWNER.sign(key_digest("echo", OWNER.peer_id, 1000, b"", ""))


async def test_metadata_is_issued_and_signed_by_this_identity() -> None:
    metadata, error = await acting(ScriptedRegistry()).getRecordMetadata("k", "v", HOST.peer_id, [], ["s"], b"")
    assert error is None
    assert metadata is not None
    assert (metadata.issued_by, metadata.peer_id, metadata.service_id) == (OWNER.peer_id, HOST.peer_id, ("s",))
    assert metadata_is_genuine(metadata)


async def test_tombstone_signature_is_the_issuers() -> None:
    signed = await acting(ScriptedRegistry()).getTombstoneSignature("k", HOST.peer_id, 7, b"")
    assert signed.signature is not None
    assert verify(OWNER.peer_id, tombstone_digest("k", OWNER.peer_id, HOST.peer_id, 7, b""), signed.signature)


async def test_functions_of_the_node_get_the_originals_arguments_and_leave_clock_and_weight_to_it() -> None:
    registry = ScriptedRegistry(on_host=RegistryResult(success=True))
    client = acting(registry)
    record, key = a_record(), a_key()
    await client.putRecord(record.metadata, 5, b"s")
    await client.addTombstone("k", HOST.peer_id, 5, b"", b"s")
    await client.republishKey(key)
    await client.registerKey("echo", 5, b"s")
    await client.getKeyMetadata("k")
    assert [arguments for _, arguments, _ in registry.asked] == [
        ("put_record", record.metadata, 5, b"s", None, None),
        ("add_tombstone", "k", OWNER.peer_id, HOST.peer_id, 5, b"", b"s", None),
        ("republish_key", key, None, None),
        ("register_key", "echo", (), 5, b"", "", b"s", None, None),
        ("get_key_metadata", "k"),
    ]


async def test_an_unreachable_node_is_told_by_the_result() -> None:
    client = acting(ScriptedRegistry(on_host=Unreachable(HOST.peer_id, "node.service")))
    assert await client.registerKey("echo", 5, b"s") == RegisterKeyResult(
        success=False, error=f"node.service on {HOST.peer_id}: unreachable"
    )
    client = acting(ScriptedRegistry(on_host=NodeUnavailable("not connected")))
    assert await client.getKeyMetadata("k") == await client.getKeyMetadata("k")
    assert (await client.getKeyMetadata("k")).error == "not connected"
