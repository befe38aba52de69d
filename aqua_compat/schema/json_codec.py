"""The data types as JSON: objects with the original's field names in its order, bytes as arrays of numbers.

An absent option (`?T`) is null; `relay_id` and `service_id` are arrays of no or one string, as in the original.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from aqua_compat.schema.arguments import (
    bytes_of_numbers,
    check_ack,
    check_bool,
    check_optional_string,
    check_string,
    check_strings,
    check_u32,
    check_u64,
)
from aqua_compat.schema.interface import ALIASES, DATA, Fields
from registry.model.service_results import GetKeyMetadataResult, MergeKeysResult, WeightResult
from registry.model.values import Key, Record, RecordMetadata, Tombstone

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

FIELDS: dict[type[msgspec.Struct], Fields] = {
    form: DATA[form.__name__] for form in (Key, RecordMetadata, Record, Tombstone, WeightResult)
}
"""The data types that arguments can be, with the original's fields."""

_EMPTY: dict[str, Json] = {"string": "", "u64": 0, "[]u8": []}


def _empty_key() -> dict[str, Json]:
    """The original has no optional key in a result: where there is none, all its fields are empty."""
    return {name: _EMPTY[aqua_type] for name, aqua_type in FIELDS[Key]}


def to_json(value: object) -> Json:
    """What a function or a command returns, ready for a JSON encoder; several results are one array.

    What CBOR can say and JSON can't, as services of others may answer: a number that is none, or infinite, is null;
    bytes that are a key are hexadecimal, other keys as JSON writes them.

    Raises TypeError for what none returns.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, (bytes, bytearray)):
        return list(value)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {_key_text(name): to_json(item) for name, item in value.items()}
    if isinstance(value, (GetKeyMetadataResult, MergeKeysResult)) and value.key is None:
        return {"success": value.success, "error": value.error, "key": _empty_key()}
    if isinstance(value, msgspec.Struct):
        names = [name for name, _ in FIELDS[type(value)]] if type(value) in FIELDS else value.__struct_fields__
        return {name: to_json(getattr(value, name)) for name in names}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _key_text(name: object) -> str:
    if isinstance(name, str):
        return name
    return name.hex() if isinstance(name, bytes) else json.dumps(to_json(name))


def from_json(aqua_type: str, name: str, value: object) -> object:
    """The argument `name` of an Aqua type out of decoded JSON: exactly the type's fields, each of its type.

    Raises TypeError or ValueError that names the place, such as `metadata.value`.
    """
    aqua_type = ALIASES.get(aqua_type, aqua_type)
    if aqua_type.startswith("[]") and aqua_type not in _PARSERS:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name} must be an array, not {type(value).__name__}")
        return tuple(from_json(aqua_type[2:], f"{name}[{index}]", item) for index, item in enumerate(value))
    parse = _PARSERS.get(aqua_type)
    if parse is None:
        raise TypeError(f"{name} is a {aqua_type}, which JSON can't express")
    return parse(name, value)


def _fields(form: type[msgspec.Struct], name: str, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be an object with the fields of a {form.__name__}, not {type(value).__name__}")
    expected = FIELDS[form]
    if missing := [field for field, _ in expected if field not in value]:
        raise ValueError(f"{name} has no {missing[0]}")
    if unknown := sorted(set(value) - {field for field, _ in expected}):
        raise ValueError(f"{name} has an unknown field {unknown[0]}")
    return {field: from_json(aqua_type, f"{name}.{field}", value[field]) for field, aqua_type in expected}


def _struct(form: type[msgspec.Struct]) -> Callable[[str, object], object]:
    def parse(name: str, value: object) -> object:
        try:
            return form(**cast("dict[str, Any]", _fields(form, name, value)))
        except ValueError as error:  # its text names the field, not always where the value came from
            text = str(error)
            raise ValueError(text if text.startswith(name) else f"{name}: {text}") from error

    return parse


def _key(name: str, value: object) -> Key:
    fields = cast("dict[str, Any]", _fields(Key, name, value))
    claimed = fields.pop("id")
    try:
        key = Key(**fields)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if key.id != claimed:
        raise ValueError(f"{name}.id is not the id of its label and owner_peer_id, which is {key.id}")
    return key


_PARSERS: dict[str, Callable[[str, object], object]] = {
    "string": check_string,
    "?string": check_optional_string,
    "[]string": check_strings,
    "[]u8": bytes_of_numbers,
    "u64": check_u64,
    "u32": check_u32,
    "bool": check_bool,
    "i16": check_ack,
    **{form.__name__: _struct(form) for form in FIELDS},
    "Key": _key,
}
