"""Every method that a peer serves is told in one of the two pages of the wire protocol, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

import msgspec

from aqua_compat.rpc.errors import CODES
from aqua_compat.rpc.server import CALL_METHOD, STREAM_METHOD, ServiceCall, StreamCall
from registry.client.node_operations import OPERATIONS
from tests.paths import ROOT

PACKAGES: Final = ("overlay", "registry", "aqua_compat")
PAGES: Final = tuple((ROOT / "docs" / name).read_text() for name in ("wire-protocol.md", "wire-protocol-registry.md"))
METHOD: Final = re.compile(r"(?:overlay|service|aqua)/[a-z-]+|(?:registry|node)\.[a-z_]+")


def served_by(path: Path) -> Iterator[str]:
    """The methods that a module serves by a constant, such as `links.serve(METHOD, self._answer)`; a program's services
    are served by `services`."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [
        call.args[0]
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "serve" and call.args
        if not (isinstance(call.func.value, ast.Name) and call.func.value.id == "services")
    ]
    module: ModuleType | None = None
    for argument in named:
        for part in ast.walk(argument):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
            elif isinstance(part, ast.Name) and part.id.strip("_").isupper():
                module = module or import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                value = getattr(module, part.id)
                yield from value.values() if isinstance(value, Mapping) else [value]


def test_the_pages_tell_every_method_and_no_other() -> None:
    sources = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    served = {method for path in sources for method in served_by(path)}
    served |= {operation.name for operation in OPERATIONS}
    assert {"overlay/route", "overlay/relayed", "registry.put", "node.read", "service/results"} <= served
    told = {method for page in PAGES for method in re.findall(r"`([^`\n]+)`", page) if METHOD.fullmatch(method)}
    assert served == told


def test_calls_of_services_are_told_with_their_fields_and_codes() -> None:
    for method, form in ((CALL_METHOD, ServiceCall), (STREAM_METHOD, StreamCall)):
        fields = ", ".join(field.name for field in msgspec.structs.fields(form))
        assert f"| `{method}` | ({fields}) |" in PAGES[0]
    assert [code for code in CODES if f"`{code}`" not in PAGES[0]] == []
