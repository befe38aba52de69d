"""docs/wire-protocol-registry.md says what the code does: fields, codes and vectors."""

from __future__ import annotations

import re
from typing import Any, Final

import cbor2
import msgspec
import pytest

from registry.client import node_operations
from registry.codes import Code
from registry.health import messages as health
from registry.health.exceptions import ExceptionList
from registry.health.report import encode_report, signed_report
from registry.health.state import Health, HealthState, HostedService
from registry.model import values
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState
from registry.model.owner_index import IndexEntry, ToldPage
from registry.protocol import error_info, index_messages, messages
from registry.protocol.error_info import ErrorInfo
from registry.protocol.index_messages import IndexPage
from registry.protocol.messages import Item, PutAnswer, PutBody, ReadBody, StatePage, build
from registry.replication import messages as replication
from registry.watch import messages as watching
from registry.watch.announcement import announcement_of
from registry.watch.messages import (
    AnnounceBody,
    Server,
    SubscribeAnswer,
    SubscribeBody,
    SubscriptionReply,
    SubscriptionRequest,
)
from tests.paths import ROOT
from tests.unit.registry.builders import HOST, ISSUER, NODE, NOW, a_key, a_key_tombstone, a_record, a_tombstone

DOCUMENT: Final = (ROOT / "docs" / "wire-protocol-registry.md").read_text()
MODULES: Final = (values, error_info, messages, index_messages, replication, watching, health)

KEY: Final = a_key()
RECORD: Final = a_record(KEY.id, value="tcp://10.0.0.2:7")
TOMBSTONE: Final = a_tombstone(KEY.id, host=NODE)
RESOURCE: Final = ResourceState.of(KEY, [RECORD, TOMBSTONE])
REFUSED: Final = ErrorInfo(Code.OVERLOADED, "too many watch here")


def exceptions() -> bytes:
    told = ExceptionList(HOST.peer_id)
    told.put(HostedService(KEY.id, ISSUER.peer_id, "a"), Health(HealthState.CRITICAL, 1_700_000_000, "no answer"))
    told.put(HostedService(KEY.id, HOST.peer_id), Health(HealthState.WARNING, 1_700_000_000))
    return told.told()


def vectors() -> dict[str, bytes]:
    bodies: dict[str, msgspec.Struct] = {
        "PutBody": PutBody.of([Item(KEY, RECORD), Item(KEY, TOMBSTONE)]),
        "PutAnswer": PutAnswer((None, ErrorInfo(Code.UNKNOWN_KIND, "why"))),
        "ReadBody": ReadBody(KEY.id, RESOURCE.digest(), TOMBSTONE.slot),
        "StatePage": StatePage.of(RESOURCE, None),
        "IndexPage": IndexPage.of(
            ToldPage([IndexEntry.of(KEY, a_key_tombstone(issued=NOW - 1))], KEY.label), caught_up=True
        ),
        "SubscribeBody": SubscribeBody(
            (build(SubscriptionRequest(KEY.id, on_topic=True, serves=True)), build(SubscriptionRequest("x", False)))
        ),
        "SubscribeAnswer": SubscribeAnswer(
            (
                SubscriptionReply(digest=RESOURCE.digest(), depth=1, age=2.5),
                SubscriptionReply(error=REFUSED, servers=(Server(HOST.peer_id, ("/ip4/127.0.0.1/tcp/1",)),)),
            )
        ),
        "AnnounceBody": AnnounceBody(((KEY.id, announcement_of(Item(KEY, TOMBSTONE))),)),
    }
    return {
        "Key": values.encode(KEY),
        "RecordMetadata": values.encode(RECORD.metadata),
        "Record": values.encode(RECORD),
        "Tombstone": values.encode(TOMBSTONE),
        "KeyTombstone": values.encode(a_key_tombstone()),
        "digest of that key's entry": IndexEntry.of(KEY).digest(),
        "digest of that record": values.digest_of(RECORD),
        "digest of a resource with that key, record and tombstone": RESOURCE.digest(),
        "announcement of that record": announcement_of(Item(KEY, RECORD)),
        "announcement of that key tombstone": announcement_of(Item(a_key_tombstone())),
        "exceptions of that host": exceptions(),
        "report of that record's health": encode_report(
            signed_report(ISSUER, RECORD.slot, "a", 1_700_000_000_000, HealthState.CRITICAL, "no answer", 10)
        ),
        **{name: cbor2.dumps(build(body)) for name, body in bodies.items()},
    }


def forms() -> dict[str, type[Any]]:
    """All bodies and values, those of the node API too, by their names."""
    found = {
        name: form
        for module in MODULES
        for name, form in vars(module).items()
        if isinstance(form, type) and issubclass(form, msgspec.Struct) and form.__struct_config__.array_like
    }
    operations = (node_operations.CallBody, *(operation.request for operation in node_operations.OPERATIONS))
    return {**found, **{form.__name__: form for form in operations}, "ExpiryHorizon": ExpiryHorizon}


def test_every_form_is_told_with_its_fields_in_their_order() -> None:
    told = {
        name: tuple(re.findall(r"`(\w+)`", fields))
        for name, fields in re.findall(r"^\| `([A-Z]\w+)` \| ([^|]*) \|", DOCUMENT, flags=re.MULTILINE)
    }
    assert told == {name: form.__struct_fields__ for name, form in forms().items()}


def test_every_code_is_told_with_its_kind() -> None:
    told = {}
    for kind, codes in re.findall(r"^\| (\w+) \| ((?:`[\w-]+`(?:, )?)+) \|", DOCUMENT, flags=re.MULTILINE):
        told.update(dict.fromkeys(re.findall(r"`([\w-]+)`", codes), kind))
    assert told == {code.value: code.kind.value for code in Code}


@pytest.mark.parametrize("name", vectors())
def test_a_vector_is_what_the_code_makes(name: str) -> None:
    told = {
        title: re.sub(r"\s", "", digits)
        for title, digits in re.findall(r"^```\n([^\n]+):\n([0-9a-f\s]+)```$", DOCUMENT, flags=re.MULTILINE)
    }
    assert told.get(name) == vectors()[name].hex()


def test_there_are_no_other_vectors() -> None:
    assert re.findall(r"^```\n([^\n]+):$", DOCUMENT, flags=re.MULTILINE) == list(vectors())
