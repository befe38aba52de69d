"""One name for one thing: in our packages, and in all that operators, users and programs see of them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import click
import msgspec
import pytest

from aqua_compat.cli.config import leaves
from aqua_compat.cli.main import cli
from aqua_compat.http.metrics import ROWS
from aqua_compat.http.openapi import description
from aqua_compat.settings import Settings
from registry.client.node_status import NodeStatus
from tests.paths import ROOT

PACKAGES = ("overlay", "registry", "aqua_compat")
SOURCES: Final = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

NOT_THE_FIELDS: Final = frozenset(
    {
        "allowance",
        "allowances",
        "anchor",
        "anchors",
        "beyond",
        "bookkeeping",
        "contacts",
        "cutoff",
        "cutoffs",
        "desk",
        "doorway",
        "hopeful",
        "inheritance",
        "intake",
        "joining",
        "judging",
        "ledger",
        "meeting_point",
        "offering",
        "offers",
        "outbox",
        "passage",
        "passages",
        "picking",
        "rationing",
        "reception",
        "sealing",
        "shelf",
        "speaker",
        "surroundings",
        "traffic",
        "vouch",
        "vouches",
        "walker",
        "walkers",
        "ways",
        "wish",
        "wishes",
    }
)
"""What we once called lookups, token buckets, peer records and others: words that nobody else has for them."""
EVERYDAY: Final = frozenset(
    {
        "anchor",
        "beyond",
        "contacts",
        "joining",
        "offers",
        "offering",
        "passage",
        "reception",
        "traffic",
        "vouches",
        "ways",
    }
)
"""Of these, those that sentences have as everybody has them."""
NOT_BOUNDS: Final = ("most", "longest", "shortest", "fewest", "least", "maximum", "minimum")
"""A bound is called `max_...` or `min_...`."""
NOT_OURS: Final = frozenset({"new_swarm", "user_version"})
"""Names of libp2p's and SQLite's that docstrings tell of."""
LOG_FIELDS: Final = {"peer": "peer_id", "resource_id": "key_id", "why": "reason", "reason_text": "error"}
"""Fields that log lines don't have, and what is said in their place. `error` is a text; `reason` is one of few."""
SAME_EVENTS: Final = {
    "a service isn't unregistered",  # by a node for its machine, by a provider in a program: one remedy
    "closing a connection failed",  # ours, and the muxer's, of the same connection
    "an index couldn't be read",
}
"""Lines that two modules log. What is logged too often is left out by its text, so two things need two."""


@pytest.fixture(autouse=True, scope="module")
def _forgotten() -> Iterator[None]:
    """What was read of the modules takes much memory."""
    yield
    nodes.cache_clear()


class Logged(NamedTuple):
    text: str
    fields: tuple[str, ...]
    module: str


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """What is looked at of all modules, each with its module. Reading them takes a second."""
    return [
        (str(path.relative_to(ROOT)), node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Call | ast.Dict | ast.Raise)
    ]


def texts(node: ast.expr | None) -> Iterator[str]:
    """The literal texts of an expression, of both sides of a condition."""
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


@pytest.fixture(scope="module")
def logged() -> list[Logged]:
    found: list[Logged] = []
    for module, node in nodes():
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="log" | "_log"),
                    attr="debug" | "info" | "warning" | "error" | "exception" | "critical",
                ),
                args=[first, *_],
                keywords=fields,
            ):
                named = tuple(field.arg for field in fields if field.arg)
                found += [Logged(text, named, module) for text in texts(first)]
    assert len(found) > 150, "hardly any was found"
    return found


def options(command: click.Command, path: str = "") -> Iterator[tuple[str, str]]:
    """Each command, option and argument with its help, by where it is."""
    yield path, command.help or ""
    for parameter in command.params:
        about = parameter.help or "" if isinstance(parameter, click.Option) else ""
        yield f"{path} {' '.join(parameter.opts)}", about
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options(inner, f"{path} {name}".strip())


def properties(schema: Any) -> Iterator[str]:
    """The names of all properties in a JSON schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from properties(value)


def fields_of(form: Any) -> Iterator[str]:
    """The names of a struct's fields, and of the structs in it."""
    for part in get_args(form):
        yield from fields_of(part)
    if isinstance(form, type) and issubclass(form, msgspec.Struct):
        for name, hint in get_type_hints(form).items():
            yield name
            yield from fields_of(hint)


def printed() -> Iterator[str]:
    """The keys of objects that the command's modules and those of JSON make."""
    for module, node in nodes():
        if module.startswith(("aqua_compat/cli/", "aqua_compat/schema/")) and isinstance(node, ast.Dict):
            for key in node.keys:
                yield from texts(key) if isinstance(key, ast.Constant) else ()


def tokens(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def private(name: str) -> frozenset[str]:
    """The words of a name that are only ours."""
    return NOT_THE_FIELDS.intersection(tokens(name))


def told(text: str) -> frozenset[str]:
    """The words of a sentence that are only ours."""
    return private(text) - EVERYDAY


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, node in nodes():
        if isinstance(node, ast.ClassDef) and node.col_offset == 0:
            places[node.name].append(module)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_module_or_class_has_a_private_word_for_what_the_field_has_one_for() -> None:
    names = [path.stem for path in SOURCES]
    assert [name for name in names if private(name)] == []
    classes = [node.name for _, node in nodes() if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if private(re.sub(r"(?<!^)(?=[A-Z])", "_", name))] == []


def test_no_function_has_a_private_word_for_what_the_field_has_one_for() -> None:
    functions = [node.name for _, node in nodes() if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(functions) > 3000, "hardly any was found"
    assert [name for name in functions if told(name)] == []


def identifiers(tree: ast.Module) -> Iterator[str]:
    """All names that a module's code has."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name


def test_modules_tell_of_settings_and_bounds_by_the_names_that_they_have() -> None:
    """In their own docstrings, where the rules are: one that is renamed is easily forgotten there."""
    named: dict[str, tuple[set[str], set[str]]] = {}
    everywhere = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        told_of = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)*)`", ast.get_docstring(tree) or ""))
        own = {*identifiers(tree)}
        everywhere |= own
        named[path.relative_to(ROOT).as_posix()] = {name for name in told_of if "_" in name or name in NOT_BOUNDS}, own
    assert {
        module: missing
        for module, (names, own) in named.items()
        if (missing := {name for name in names - own - NOT_OURS if name in NOT_BOUNDS or name not in everywhere})
    } == {}


def test_settings_have_the_fields_words_and_bounds_one_name() -> None:
    names = [".".join(path) for path, _ in leaves(Settings)]
    assert len(names) > 100, "hardly any was found"
    assert [name for name in names if private(name)] == []
    assert [name for name in names if tokens(name.rpartition(".")[2])[0] in NOT_BOUNDS] == []


def test_options_and_their_help_have_the_fields_words() -> None:
    found = dict(options(cli))
    assert len(found) > 100, "hardly any was found"
    assert {name: about for name, about in found.items() if private(name) or told(about)} == {}


def test_log_lines_have_the_fields_words_and_one_name_for_each_field(logged: list[Logged]) -> None:
    assert [each for each in logged if told(each.text) or any(map(private, each.fields))] == []
    wrong = [(each.module, field, LOG_FIELDS[field]) for each in logged for field in each.fields if field in LOG_FIELDS]
    assert wrong == []


def test_no_two_modules_log_the_same_line(logged: list[Logged]) -> None:
    modules: dict[str, set[str]] = defaultdict(set)
    for each in logged:
        modules[each.text].add(each.module)
    assert {text: where for text, where in modules.items() if len(where) > 1 and text not in SAME_EVENTS} == {}


def test_json_has_the_fields_words() -> None:
    described = msgspec.json.decode(description())
    keys = {*properties(described), *fields_of(NodeStatus), *printed()}
    keys |= {one["name"] for path in described["paths"].values() for how in path.values() for one in how["parameters"]}
    assert {"resource_id", "caught_up", "permits"} <= keys, "hardly any was found"
    assert sorted(key for key in keys if private(key)) == []


def test_metrics_have_the_fields_words() -> None:
    assert [row.name for row in ROWS if private(row.name) or told(row.about)] == []


def test_errors_and_docs_have_the_fields_words() -> None:
    raised = [
        (module, text)
        for module, node in nodes()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        for argument in node.exc.args
        for text in texts(argument)
    ]
    assert len(raised) > 500, "hardly any was found"
    assert [each for each in raised if told(each[1])] == []
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
    assert {page.name: words for page in pages if (words := told(page.read_text()))} == {}
