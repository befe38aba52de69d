"""Wrong arguments raise at once, whatever the network would have said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.aqua_compat.acting import OWNER, ScriptedRegistry, a_key, acting

PEER = OWNER.peer_id


@pytest.mark.parametrize(
    ("function", "arguments", "error", "text"),
    [
        ("createResource", (1,), TypeError, "label must be a str, not int"),
        ("createResource", ("\ud800",), ValueError, "label isn't valid Unicode"),
        ("getResource", (None,), TypeError, "resource_id must be a str, not NoneType"),
        ("getResourceId", ("a", "not a peer"), ValueError, "peer_id: not the peer id"),
        ("registerService", ("id", b"value", PEER, None), TypeError, "value must be a str, not bytes"),
        ("registerService", ("id", "value", "peer", None), ValueError, "peer_id"),
        ("registerService", ("id", "value", PEER, 5), TypeError, "service_id must be a str"),
        ("unregisterService", ("id", None), TypeError, "peer_id must be a str"),
        ("resolveResource", ("id", True), TypeError, "ack must be an int, not bool"),
        ("resolveResource", ("id", "1"), TypeError, "ack must be an int, not str"),
        ("resolveResource", ("id", 1.0), TypeError, "ack must be an int, not float"),
        ("resolveResource", ("id", -1), ValueError, "ack is -1, not within 0 and 32767"),
        ("resolveResource", ("id", 32768), ValueError, "ack is 32768"),
        ("executeOnResource", ("id", 1, "call"), TypeError, "call must be a function"),
        ("getKeySignature", ("a", -1), ValueError, "timestamp_created is -1"),
        ("getKeySignature", ("a", 2**64), ValueError, "timestamp_created"),
        ("getRecordMetadata", ("k", "v", PEER, "relay", [], b""), TypeError, "relay_id must be a list of str"),
        ("getRecordMetadata", ("k", "v", PEER, [], [1], b""), TypeError, r"service_id\[0\] must be a str"),
        ("getRecordMetadata", ("k", "v", PEER, [], ["a", "b"], b""), ValueError, "service_id"),
        ("getRecordMetadata", ("k", "v" * 70_000, PEER, [], [], b""), ValueError, "value has 70000 bytes"),
        ("getRecordMetadata", ("k", "v", PEER, [], [], [1]), TypeError, "solution must be bytes"),
        ("getRecordSignature", (a_key(), 1), TypeError, "metadata must be a RecordMetadata, not Key"),
        ("getTombstoneSignature", ("k", PEER, "1", b""), TypeError, "timestamp_issued must be an int"),
        ("registerKey", ("a", 1, "signature"), TypeError, "signature must be bytes, not str"),
        ("putRecord", ({}, 1, b""), TypeError, "metadata must be a RecordMetadata, not dict"),
        ("addTombstone", ("k", "p", 1, b"", b""), ValueError, "peer_id"),
        ("getKeyMetadata", (1,), TypeError, "key_id must be a str"),
        ("republishKey", (None,), TypeError, "key must be a Key, not NoneType"),
    ],
)
async def test_wrong_argument_raises_before_the_network_is_asked(
    function: str, arguments: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(error, match=text):
        await getattr(acting(registry), function)(*arguments)
    assert registry.asked == []
