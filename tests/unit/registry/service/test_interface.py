"""The service's functions and results are the original's, name for name."""

from __future__ import annotations

import inspect
import json
from typing import get_type_hints

import msgspec
import pytest

from registry.model import service_results, values
from registry.service import RegistryService
from registry.service.functions import FUNCTIONS
from tests.paths import DATA

INTERFACE = json.loads((DATA / "aqua-interface.json").read_text())
SERVICE = INTERFACE["services"]["registry"]["functions"]
PYTHON_TYPES = {
    "string": "str",
    "u64": "int",
    "u32": "int",
    "bool": "bool",
    "[]u8": "bytes",
}


def shown(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def test_there_are_exactly_the_originals_23_functions() -> None:
    assert len(FUNCTIONS) == 23
    assert set(FUNCTIONS) == set(SERVICE)
    extra = {"on_behalf_of", "settings"}
    assert {name for name in dir(RegistryService) if not name.startswith("_")} == set(FUNCTIONS) | extra


@pytest.mark.parametrize("name", SERVICE)
def test_function_has_the_originals_arguments_in_order(name: str) -> None:
    parameters = list(inspect.signature(getattr(RegistryService, name)).parameters)[1:]
    assert parameters == [argument for argument, _ in SERVICE[name]["args"]]


@pytest.mark.parametrize("name", SERVICE)
def test_function_has_the_originals_argument_and_result_types(name: str) -> None:
    hints = get_type_hints(getattr(RegistryService, name))
    for argument, kind in SERVICE[name]["args"]:
        if kind in PYTHON_TYPES:
            assert shown(hints[argument]) == PYTHON_TYPES[kind], argument
        elif kind.startswith("[]"):
            assert shown(hints[argument]).startswith("collections.abc.Sequence["), argument
        else:
            assert shown(hints[argument]) == kind, argument
    returned = SERVICE[name]["returns"]
    expected = PYTHON_TYPES.get(returned[0], returned[0]) if returned else "NoneType"
    assert shown(hints["return"]) == expected


@pytest.mark.parametrize("name", INTERFACE["data"])
def test_data_type_has_the_originals_fields_in_order(name: str) -> None:
    form = getattr(service_results, name, None) or getattr(values, name)
    expected = [field for field, _ in INTERFACE["data"][name]]
    if name == "Key":  # the id is a function of label and owner, so it can't be wrong
        assert isinstance(form.id, property)
        expected.remove("id")
    assert list(form.__struct_fields__) == expected


@pytest.mark.parametrize("name", INTERFACE["data"])
def test_data_type_is_immutable(name: str) -> None:
    form = getattr(service_results, name, None) or getattr(values, name)
    assert issubclass(form, msgspec.Struct)
    assert form.__struct_config__.frozen
