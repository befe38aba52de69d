"""The API has exactly the original's names, argument names, order and results."""

from __future__ import annotations

import inspect
import json
import types
import typing
from importlib.metadata import version
from importlib.resources import files

import msgspec
import pytest

from aqua_compat import AquaClient, Constants
from aqua_compat.api import resources_api as forms
from aqua_compat.api.registry_api import SignatureResult
from aqua_compat.schema.interface import FUNCTIONS
from aqua_compat.schema.json_codec import FIELDS
from registry.model import service_results
from registry.model.values import Key, Record, RecordMetadata
from tests.paths import DATA

INTERFACE = json.loads((DATA / "aqua-interface.json").read_text())
MIRRORED = {
    name: function
    for module in ("resources-api", "registry-api")
    for name, function in INTERFACE["functions"][module].items()
}
ARGUMENT_FORMS: dict[str, object] = {
    "string": str,
    "ResourceId": str,
    "PeerId": str,
    "?string": str | None,
    "[]string": list[str],
    "[]u8": bytes,
    "u64": int,
    "i16": int,
    "Key": Key,
    "RecordMetadata": RecordMetadata,
    "Record -> ()": forms.RecordCall,
}
RESULT_FORMS: dict[str, object] = {
    "ResourceId": str,
    "?ResourceId": str | None,
    "?Resource": Key | None,
    "*Error": list[str],
    "bool": bool,
    "?[]Record": list[Record] | None,
    "?RecordMetadata": RecordMetadata | None,
    "?string": str | None,
    "SignResult": SignatureResult,
    "RegisterKeyResult": service_results.RegisterKeyResult,
    "RegistryResult": service_results.RegistryResult,
    "GetKeyMetadataResult": service_results.GetKeyMetadataResult,
}


OURS = {
    "removeResource",
    "listResources",
    "resolve",
    "watch",
    "serve",
    "provide",
    "pass_check",
    "set_health",
    "on",
    "call_all",
    "call_any",
    "distance_to",
    "endpoints",
    "reachable",
    "wait_joined",
}
"""What the original promised and never had."""


def test_every_function_of_the_original_is_there_and_no_other_but_ours() -> None:
    public = {name for name, member in inspect.getmembers(AquaClient, inspect.isfunction) if not name.startswith("_")}
    assert public == set(MIRRORED) | OURS


@pytest.mark.parametrize("name", MIRRORED)
def test_function_is_a_coroutine_with_the_originals_arguments_and_results(name: str) -> None:
    function = getattr(AquaClient, name)
    assert inspect.iscoroutinefunction(function)
    hints = typing.get_type_hints(function)
    arguments = [(argument, hints[argument]) for argument in list(inspect.signature(function).parameters)[1:]]
    assert arguments == [(argument, ARGUMENT_FORMS[aqua]) for argument, aqua in MIRRORED[name]["args"]]
    expected = [RESULT_FORMS[aqua] for aqua in MIRRORED[name]["returns"]]
    returned = hints["return"]
    several = typing.get_origin(returned) is tuple
    assert (list(typing.get_args(returned)) if several else [returned]) == expected


def test_the_packages_copy_of_the_interface_is_the_originals() -> None:
    copy = files("aqua_compat.schema").joinpath("aqua-interface.json").read_bytes()
    assert json.loads(copy) == INTERFACE


def test_calls_by_name_reach_the_originals_functions_and_nothing_else() -> None:
    assert set(FUNCTIONS) == set(MIRRORED)


@pytest.mark.parametrize("form", FIELDS)
def test_data_type_can_be_made_of_the_originals_fields(form: type[msgspec.Struct]) -> None:
    names = [name for name, _ in FIELDS[form]]
    assert set(form.__struct_fields__) == set(names) - ({"id"} if form is Key else set())
    assert all(hasattr(form, name) for name in names)


def test_constants_are_the_originals_by_default() -> None:
    assert {name: getattr(Constants(), name) for name in Constants.__struct_fields__} == INTERFACE["constants"]


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), ("1", TypeError), (1.5, TypeError)]
)
def test_constants_refuse_what_can_not_work(value: typing.Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="DEFAULT_TIMEOUT"):
        Constants(DEFAULT_TIMEOUT=value)


def test_the_package_offers_its_public_names() -> None:
    import aqua_compat

    assert isinstance(aqua_compat, types.ModuleType)
    for name in aqua_compat.__all__:
        assert getattr(aqua_compat, name) is not None
    assert aqua_compat.__version__ == version("aqua-registry")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        aqua_compat.nothing  # noqa: B018
