"""JSON Schemas of values, as `aqua_compat.schema.json_codec.to_json` writes them."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import inspect

from aqua_compat.schema.interface import ALIASES, DATA
from aqua_compat.schema.json_codec import FIELDS

Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}
BYTES: Final[Schema] = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}}

_AQUA: Final[dict[str, Schema]] = {
    "string": STRING,
    "[]u8": BYTES,
    "u64": {"type": "integer", "minimum": 0},
    "u32": {"type": "integer", "minimum": 0},
    "bool": {"type": "boolean"},
}


def object_of(properties: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """The schema of an object with these members and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def array_of(items: Schema) -> Schema:
    """The schema of an array."""
    return {"type": "array", "items": items}


def shape_of(form: type[msgspec.Struct]) -> Schema:
    """The schema of a value: the original's fields of its data types, a struct's own of others."""
    if form in FIELDS:
        return _aqua_object(form.__name__)
    return _shape(inspect.type_info(form))


def _aqua_object(name: str) -> Schema:
    return object_of({field: _aqua(aqua_type) for field, aqua_type in DATA[name]})


def _aqua(aqua_type: str) -> Schema:
    aqua_type = ALIASES.get(aqua_type, aqua_type)
    if aqua_type in _AQUA:
        return _AQUA[aqua_type]
    if aqua_type in DATA:
        return _aqua_object(aqua_type)
    if aqua_type.startswith("?"):  # the original's options in data types are arrays of none or one
        return {**array_of(_aqua(aqua_type[1:])), "maxItems": 1}
    return array_of(_aqua(aqua_type[2:]))


def _shape(info: inspect.Type) -> Schema:  # noqa: C901, PLR0911, PLR0912 - one case per type
    match info:
        case inspect.StructType():
            return object_of({field.name: _shape(field.type) for field in info.fields})
        case inspect.UnionType():
            return {"anyOf": [_shape(each) for each in info.types]}
        case inspect.NoneType():
            return {"type": "null"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer"}
        case inspect.FloatType():
            return {"type": ["number", "null"]}  # null where it is infinite, or no number
        case inspect.StrType():
            return STRING
        case inspect.BytesType():
            return BYTES
        case inspect.EnumType():
            return {"enum": [each.value for each in info.cls]}
        case inspect.DictType():
            return {"type": "object", "additionalProperties": _shape(info.value_type)}
        case inspect.VarTupleType() | inspect.ListType() | inspect.SetType() | inspect.FrozenSetType():
            return array_of(_shape(info.item_type))
        case inspect.TupleType():
            return {"type": "array", "prefixItems": [_shape(each) for each in info.item_types]}
        case inspect.Metadata():
            return _shape(info.type)
    return {}
