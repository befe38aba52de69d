"""What is wrong or hostile gets its documented error and leaves every node healthy."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from aqua_compat import AquaClient, connect
from overlay.identity import Identity
from registry.model.values import Record
from tests.end_to_end.network import Network, command, first_line, launched, observer

UNKNOWN = "49LTqRPfWT7ykstnr3Ea9jNDGojznA9cA3mK6j1oDZdi"


@pytest.fixture
async def aqua(network: Network) -> AsyncIterator[AquaClient]:
    async with connect(network.nodes[0].address) as client:
        yield client
    async with observer() as observing:
        for node in network.nodes:
            assert node.alive
            status = await observing.status(node)
            assert status.ready
            assert len(status.members) == len(network.nodes) - 1


async def _record(aqua: AquaClient) -> Record:
    """A good record on a key that the node acted through has."""
    now = int(time.time())
    signed = await aqua.getKeySignature("bad input", now)
    assert signed.signature is not None
    registered = await aqua.registerKey("bad input", now, signed.signature)
    assert registered.success, registered.error
    metadata, error = await aqua.getRecordMetadata(registered.key_id, "value", aqua.peer_id, [], [], b"")
    assert metadata is not None, error
    host = await aqua.getRecordSignature(metadata, now)
    assert host.signature is not None
    return Record(metadata, now, host.signature)


async def test_key_signed_by_somebody_else_is_refused(aqua: AquaClient) -> None:
    now = int(time.time())
    stranger = Identity.generate()
    result = await aqua.registerKey("stolen", now, stranger.sign(b"x" * 32))
    key_id = await aqua.getResourceId("stolen", aqua.peer_id)
    assert not result.success
    assert result.error.startswith(f"Invalid signature for key_id {key_id}; label stolen and peer_id {aqua.peer_id}: ")
    assert (await aqua.getKeyMetadata(key_id)).error == f"Requested key {key_id} does not exist"


async def test_good_record_is_stored_once_its_signatures_fit(aqua: AquaClient) -> None:
    record = await _record(aqua)
    result = await aqua.putRecord(record.metadata, record.timestamp_created, record.signature)
    assert result.success, result.error


async def test_tampered_record_is_refused(aqua: AquaClient) -> None:
    record = await _record(aqua)
    forged = msgspec.structs.replace(record.metadata, value="another value")
    result = await aqua.putRecord(forged, record.timestamp_created, record.signature)
    assert not result.success
    where = f"for key_id {forged.key_id} and issued by {aqua.peer_id}: "
    assert result.error.startswith(f"Invalid record metadata signature {where}")
    result = await aqua.putRecord(record.metadata, record.timestamp_created, bytes(64))
    assert result.error.startswith(f"Invalid record signature {where}")
    result = await aqua.putRecord(record.metadata, record.timestamp_created + 3600, record.signature)
    assert result.error == "Record can't be registered in the future"


async def test_tampered_tombstone_is_refused(aqua: AquaClient) -> None:
    record = await _record(aqua)
    now = int(time.time())
    result = await aqua.addTombstone(record.key_id, aqua.peer_id, now, b"", bytes(64))
    assert result.error.startswith(
        f"Invalid tombstone signature for key_id {record.key_id} and issued by {aqua.peer_id}: "
    )


async def test_tampered_key_is_not_republished(aqua: AquaClient) -> None:
    record = await _record(aqua)
    found = await aqua.getKeyMetadata(record.key_id)
    assert found.key is not None
    result = await aqua.republishKey(msgspec.structs.replace(found.key, label="another"))
    assert result.error.startswith("Invalid signature for key_id ")


async def test_oversized_values_are_refused(aqua: AquaClient) -> None:
    resource_id, errors = await aqua.createResource("x" * 5000)
    assert resource_id is None
    assert errors[0] == "label has 5000 bytes, more than 4096"
    resource_id, _ = await aqua.createResource("bad input")
    assert resource_id is not None
    success, errors = await aqua.registerService(resource_id, "x" * 70_000, aqua.peer_id, None)
    assert not success
    assert errors[0] == "value has 70000 bytes, more than 65536"


async def test_huge_argument_is_refused_without_harm(aqua: AquaClient) -> None:
    result = await aqua.registerKey("x" * 2_000_000, 1, b"")
    assert not result.success
    assert result.error
    assert (await aqua.registry.status()).ready


async def test_unknown_ids_are_told(aqua: AquaClient) -> None:
    records, errors = await aqua.resolveResource(UNKNOWN, 1)
    assert records is None
    assert any(error.startswith(f"Requested key {UNKNOWN} does not exist on ") for error in errors)
    assert not any("timeout" in error for error in errors), "the time wasn't up"
    resource, errors = await aqua.getResource(UNKNOWN)
    assert resource is None
    assert errors[0].startswith(f"Requested key {UNKNOWN} does not exist on ")
    success, errors = await aqua.registerService(UNKNOWN, "v", aqua.peer_id, None)
    assert not success
    assert any("does not exist" in error for error in errors)
    success, errors = await aqua.unregisterService(UNKNOWN, aqua.peer_id)
    assert not success


async def test_unreachable_host_is_told_with_its_cause(aqua: AquaClient) -> None:
    resource_id, _ = await aqua.createResource("bad input")
    assert resource_id is not None
    nobody = Identity.generate().peer_id
    success, errors = await aqua.registerService(resource_id, "v", nobody, None)
    assert not success
    assert any(nobody in error for error in errors), errors


async def test_node_whose_bootstrap_peer_is_unreachable_refuses_writes_and_ends_cleanly(
    network: Network, tmp_path: Path
) -> None:
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    flags = ("--data-dir", str(tmp_path / "node"), "--bootstrap", nobody)
    async with launched(
        sys.executable, "-m", "aqua_compat", "node", *flags, home=tmp_path, log=tmp_path / "log"
    ) as process:
        address = await first_line(process)
        async with connect(address) as aqua:
            assert not (await aqua.registry.status()).ready
            resource_id, errors = await aqua.createResource("alone")
            assert resource_id is None
            assert any("not connected" in error for error in errors), errors
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(5):
            assert await process.wait() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_unreachable_relay_is_told_on_one_line(tmp_path: Path) -> None:
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    finished = await command("resolve", UNKNOWN, "--relay", nobody, home=tmp_path)
    assert (finished.code, finished.out) == (1, "")
    assert finished.err.startswith(f"error: can't act through {nobody}: ")
    assert finished.err.count("\n") == 1
