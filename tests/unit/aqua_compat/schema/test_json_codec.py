"""Data types as JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.api.registry_api import SignatureResult
from aqua_compat.schema.json_codec import from_json, to_json
from registry.model.service_results import GetKeyMetadataResult
from tests.unit.aqua_compat.acting import a_key, a_record


def test_record_has_the_originals_field_names_and_bytes_as_numbers() -> None:
    shape: Any = to_json(a_record())
    assert list(shape) == ["metadata", "timestamp_created", "signature"]
    assert list(shape["metadata"])[:3] == ["key_id", "issued_by", "peer_id"]
    assert shape["metadata"]["solution"] == [1, 255]
    assert shape["metadata"]["relay_id"] == []
    assert shape["metadata"]["service_id"] == ["echo"]


def test_results_are_arrays_and_absent_options_null() -> None:
    assert to_json((None, ["timeout exceeded"])) == [None, ["timeout exceeded"]]
    assert to_json(SignatureResult(True, None, b"\x00\xff")) == {"success": True, "error": None, "signature": [0, 255]}


def test_a_key_result_without_a_key_has_an_empty_one_as_in_the_original() -> None:
    shape: Any = to_json(GetKeyMetadataResult(success=False, error="no"))
    assert shape["key"]["id"] == ""
    assert list(shape["key"]) == list(to_json(a_key()))  # type: ignore[call-overload]


def test_what_only_cbor_can_say_has_a_form_that_every_json_reader_takes() -> None:
    answer = {2: float("nan"), b"\xff\x00": float("-inf"), True: 1.5, None: b"", (1, "a"): "x", "name": "y"}
    shape: Any = json.loads(json.dumps(to_json(answer), allow_nan=False))
    assert shape == {"2": None, "ff00": None, "true": 1.5, "null": [], '[1, "a"]': "x", "name": "y"}


@pytest.mark.parametrize(
    ("aqua_type", "value"), [("Record", a_record()), ("RecordMetadata", a_record().metadata), ("Key", a_key())]
)
def test_data_types_survive_the_way_through_json(aqua_type: str, value: object) -> None:
    assert from_json(aqua_type, "it", json.loads(json.dumps(to_json(value)))) == value


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=50))
def test_any_text_of_a_record_survives(value: str) -> None:
    record = a_record(value)
    assert from_json("Record", "record", json.loads(json.dumps(to_json(record)))) == record


def _changed(**changes: object) -> dict[str, object]:
    shape: Any = to_json(a_record().metadata)
    shape.update(changes)
    return {name: value for name, value in shape.items() if value != "gone"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (_changed(value="gone"), "metadata has no value"),
        (_changed(surplus=1), "metadata has an unknown field surplus"),
        (_changed(value=1), "metadata.value must be a str"),
        (_changed(timestamp_issued=True), "metadata.timestamp_issued must be an int, not bool"),
        (_changed(timestamp_issued=1.0), "metadata.timestamp_issued must be an int, not float"),
        (_changed(solution=[1, 256]), r"metadata.solution\[1\] is 256"),
        (_changed(solution="AQ=="), "metadata.solution must be an array of numbers"),
        (_changed(relay_id=["a", "b"]), "metadata: relay_id holds 2"),
        (_changed(peer_id="nobody"), "metadata: peer id parse error: peer_id"),
        ([], "metadata must be an object"),
    ],
)
def test_what_is_not_the_type_is_refused_with_its_place(value: object, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        from_json("RecordMetadata", "metadata", value)


def test_a_key_whose_id_is_not_of_its_label_and_owner_is_refused() -> None:
    shape: Any = to_json(a_key())
    shape["id"] = a_key("other").id
    with pytest.raises(ValueError, match=f"key.id is not the id of its label and owner_peer_id, which is {a_key().id}"):
        from_json("Key", "key", shape)


def test_a_function_can_not_be_expressed() -> None:
    with pytest.raises(TypeError, match="call is a Record"):
        from_json("Record -> ()", "call", "x")
