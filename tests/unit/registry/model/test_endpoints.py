"""What the value of a record says of a service: strict writing, lenient reading, filters and order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidValue
from registry.model.endpoints import (
    MAX_INSTANCES,
    MAX_ITEM,
    MAX_METADATA_VALUE,
    SCHEMA,
    Instance,
    Selection,
    by_distance,
    by_weight,
    endpoints_in,
    instances_in,
    write_instances,
)
from registry.model.values import MAX_VALUE
from tests.unit.registry.builders import a_key, a_record, identity

NAMES = st.text('aZ0 _.é漢"\\/', min_size=1, max_size=8)
ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.just(""),
    st.sampled_from(["localhost", "db-1.example.", "a_b.c"]),
)
INSTANCES = st.builds(
    Instance,
    id=NAMES,
    address=ADDRESSES,
    port=st.integers(0, 65_535),
    protocol=st.sampled_from(["", "http", "h2c", "quic-v1"]),
    tags=st.lists(NAMES, max_size=5).map(tuple),
    metadata=st.dictionaries(NAMES, st.text(st.characters(codec="utf-8"), max_size=50), max_size=5),
    weight=st.integers(0, 65_535),
    checks=st.lists(NAMES, max_size=5).map(tuple),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(INSTANCES, min_size=1, max_size=3, unique_by=lambda instance: instance.id))
def test_what_is_written_is_read(instances: list[Instance]) -> None:
    value = write_instances(instances)
    assert instances_in(value) == tuple(instances)
    assert write_instances(instances_in(value)) == value, "one form only"
    assert json.loads(value)["schema"] == SCHEMA


@given(
    st.one_of(
        st.text(), st.text().map("{".__add__), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(repr)
    )
)
def test_no_text_raises(text: str) -> None:
    for instance in instances_in(text):
        assert write_instances([instance])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["id", "address", "port", "protocol", "tags", "metadata", "weight", "checks", "later"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(FIELDS, JSON) | JSON, max_size=5))
def test_of_hostile_instances_only_what_could_be_written_is_read(instances: list[Any]) -> None:
    found = instances_in(json.dumps({"schema": SCHEMA, "instances": instances}))
    assert len({instance.id for instance in found}) == len(found)
    if found:
        assert instances_in(write_instances(found)) == found


@pytest.mark.parametrize(
    "value",
    [
        "",
        "2",
        "a text of the issuer's",
        '{"schema":"aqua-registry.endpoints/2","instances":[{"id":"a"}]}',
        '{"schema":"aqua-registry.endpoints/1","instances":' + "[" * 30_000,
        '{"schema":"aqua-registry.endpoints/1","instances":[' + '{"id":"a","later":' * 5_000 + "1" + "}" * 5_000 + "]}",
        '{"schema":"aqua-registry.endpoints/1","instances":[{"id":"\\ud800"}]}',
        '{"schema":"aqua-registry.endpoints/1","instances":[{"id":"a","port":1e999}]}',
        '{"schema":"aqua-registry.endpoints/1","instances":[{"id":"a\\u001b[2J"}]}',
        '{"schema":"aqua-registry.endpoints/1","instances":[{"id":"a","port":true}]}',
        '{"schema":"aqua-registry.endpoints/1","instances":{}}',
        "http://",
        "http://[::1",
        "http://host:99999/",
        "http://host:-1/",
        "//host:80",
        "host:0",
        "host:٨٠",
        "host name:80",
        "::1:80",
        "/ip4",
        "/ip4/203.0.113.5/tcp/x",
        "/unix/tmp",
        "x" * 10_000 + ":80",
    ],
)
def test_what_says_nothing_of_instances_has_none(value: str) -> None:
    assert instances_in(value) == ()


@pytest.mark.parametrize(
    ("value", "instance"),
    [
        ("http://host", Instance(id="1", address="host", port=80, protocol="http")),
        (
            "https://user:secret@[2001:db8::1]:8443/api?x=1#there",
            Instance(id="1", address="2001:db8::1", port=8443, protocol="https", metadata={"path": "/api?x=1"}),
        ),
        ("tcp://[::1]:7", Instance(id="1", address="::1", port=7, protocol="tcp")),
        (" db.example:5432 ", Instance(id="1", address="db.example", port=5432)),
        ("[::1]:80", Instance(id="1", address="::1", port=80)),
        ("/ip4/203.0.113.5/tcp/7000", Instance(id="1", address="203.0.113.5", port=7000, protocol="tcp")),
        ("/ip6/::1/udp/53/quic-v1", Instance(id="1", address="::1", port=53, protocol="quic-v1")),
        (
            "/dns4/web.example/tcp/443/tls/ws/p2p/12D3KooW",
            Instance(id="1", address="web.example", port=443, protocol="ws"),
        ),
    ],
)
def test_plain_texts_are_one_instance(value: str, instance: Instance) -> None:
    assert instances_in(value) == (instance,)


def test_unknown_fields_are_passed_over_and_only_what_is_wrong_is_left_out() -> None:
    value = json.dumps(
        {
            "schema": SCHEMA,
            "later": 1,
            "instances": [
                {"id": "a", "port": 80, "later": {}},
                {"id": "b", "port": 70_000},
                {"id": "a", "port": 81},
                "c",
                {"id": "d", "address": "no address"},
                {"id": "e"},
            ],
        }
    )
    assert instances_in(value) == (Instance(id="a", port=80), Instance(id="e"))
    many = json.dumps({"schema": SCHEMA, "instances": [{"id": str(number)} for number in range(1000)]})
    assert len(instances_in(many)) == MAX_INSTANCES


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"id": ""}, "id '' is empty"),
        ({"id": "a" * (MAX_ITEM + 1)}, "id has 129 bytes"),
        ({"port": 70_000}, "port isn't within 0 and 65535: 70000"),
        ({"port": True}, "port isn't"),
        ({"port": 10**5000}, "port isn't"),
        ({"weight": -1}, "weight isn't within 0 and 65535: -1"),
        ({"address": "no address"}, "neither an IP address nor a host name"),
        ({"address": "fe80::1%eth0"}, "neither"),
        ({"address": "-a.example"}, "neither"),
        ({"address": "a" * 300}, "address has 300 bytes"),
        ({"protocol": "HTTP"}, "protocol 'HTTP' isn't like http"),
        ({"tags": ("a\nb",)}, "tags 'a\\\\nb' is empty or holds"),
        ({"tags": ["a"]}, "tags isn't a tuple"),
        ({"checks": ("c",) * 65}, "checks isn't a tuple of at most 64"),
        ({"metadata": {"": "x"}}, "metadata '' is empty"),
        ({"metadata": {"a": "x" * (MAX_METADATA_VALUE + 1)}}, "metadata a has 513 bytes"),
        ({"metadata": {"a": 1}}, "metadata a is int, not text"),
        ({"metadata": {"a": "\ud800"}}, "UTF-8"),
    ],
)
def test_writing_is_strict(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidValue, match=error):
        Instance(**({"id": "a"} | fields))


def test_a_record_has_a_few_instances_of_different_ids() -> None:
    with pytest.raises(InvalidValue, match="1 to 64 instances, not 0"):
        write_instances([])
    with pytest.raises(InvalidValue, match="1 to 64 instances, not 65"):
        write_instances([Instance(id=str(number)) for number in range(65)])
    with pytest.raises(InvalidValue, match="two instances have the id 'a'"):
        write_instances([Instance(id="a"), Instance(id="b"), Instance(id="a", port=1)])
    large = {f"key{number}": "x" * MAX_METADATA_VALUE for number in range(40)}
    with pytest.raises(InvalidValue, match=f"more than {MAX_VALUE}"):
        write_instances([Instance(id=str(number), metadata=large) for number in range(4)])


def test_location_is_address_and_port() -> None:
    assert Instance(id="a", address="::1", port=80).location == "[::1]:80"
    assert Instance(id="a", address="host", port=80).location == "host:80"
    assert Instance(id="a", address="host").location == "host"
    assert Instance(id="a", port=80).location == ""


SMALL = st.builds(
    Instance,
    id=st.sampled_from("abc"),
    tags=st.lists(st.sampled_from("xyz"), max_size=2).map(tuple),
    metadata=st.dictionaries(st.sampled_from("kl"), st.sampled_from("01"), max_size=2),
    weight=st.integers(0, 2),
)
GROUPS = st.lists(st.lists(SMALL, min_size=1, max_size=3, unique_by=lambda one: one.id), max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    GROUPS,
    st.lists(st.sampled_from("xyz"), max_size=2),
    st.dictionaries(st.sampled_from("kl"), st.sampled_from("01"), max_size=2),
)
def test_selection_and_order_are_those_of_brute_force(
    groups: list[list[Instance]], tags: list[str], metadata: dict[str, str]
) -> None:
    key = a_key()
    records = [
        a_record(key.id, host=identity(number), value=write_instances(group)) for number, group in enumerate(groups, 10)
    ]
    hosts = [record.metadata.peer_id for record in records]
    found = endpoints_in(records, Selection(tags=tags, metadata=metadata))
    expected = [
        (record.metadata.peer_id, one.id)
        for record, group in zip(records, groups, strict=True)
        for one in group
        if all(tag in one.tags for tag in tags)
        and all(one.metadata.get(name) == text for name, text in metadata.items())
    ]
    assert sorted((one.record.metadata.peer_id, one.instance.id) for one in found) == sorted(expected)
    assert [one.instance.weight for one in found] == sorted((one.instance.weight for one in found), reverse=True)
    assert found == endpoints_in(reversed(records), Selection(tags=tags, metadata=metadata)), "one order for all"
    near = endpoints_in(records, order=by_distance({one: number % 2 for number, one in enumerate(hosts)}.__getitem__))
    distances = [hosts.index(one.record.metadata.peer_id) % 2 for one in near]
    assert distances == sorted(distances)
    assert sorted(near, key=by_weight) == endpoints_in(records), "and then the heaviest"
    lightest = endpoints_in(records, order=lambda endpoint: endpoint.instance.weight)
    assert [one.instance.weight for one in lightest] == sorted(one.weight for group in groups for one in group)
