"""docs/troubleshooting.md has an entry for each code, and for each line that a node's log has at warning or above."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from aqua_compat.rpc.errors import CODES
from overlay.membership.gatekeeper import LinkFault
from registry.client.node_status import DiskStatus, NodeStatus
from registry.codes import Code
from tests.paths import ROOT

PAGE: Final = (ROOT / "docs" / "troubleshooting.md").read_text()
LOUD: Final = {"warning", "error", "critical", "exception"}
HEALTH: Final = ("ready", "caught_up", "lacking", "replication", "disk", "clock", "network")
"""Fields of a node's status that tell of something wrong."""


def section(title: str) -> dict[str, str]:
    """The entries of a section's table: what stands first in its rows, without marks, and the rest of each."""
    [text] = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| `")]
    return {name: " | ".join(rest) for name, *rest in rows}


def names(title: str) -> set[str]:
    return {name for cell in section(title) for name in re.findall(r"`([^`]+)`", cell)}


def logged() -> Iterator[str]:
    """Texts of all lines that are logged at warning or above."""
    for package in ("overlay", "registry", "aqua_compat"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOUD:
                    match node.args:
                        case [ast.Constant(value=str(text)), *_]:
                            yield text


def test_every_code_of_a_refusal_has_an_entry_and_no_other_has() -> None:
    assert names("Codes") == {code.value for code in Code}


def test_every_code_of_a_call_of_a_service_has_an_entry_and_no_other_has() -> None:
    assert names("Calls of services") == set(CODES)


def test_every_code_of_a_refused_link_has_an_entry_and_no_other_has() -> None:
    assert names("Private networks") == {fault.value for fault in LinkFault}


def test_every_line_that_a_log_has_at_warning_has_an_entry_and_no_other_has() -> None:
    texts = set(logged())
    assert len(texts) > 20, "hardly any was found"
    assert names("Lines of a node's log") == texts


def test_every_field_of_a_status_that_tells_of_something_wrong_has_an_entry() -> None:
    fields = {field.name for field in msgspec.structs.fields(NodeStatus)}
    assert fields >= set(HEALTH)
    entries = {name.partition(".")[0] for name in names("Fields of a node's status")}
    assert entries == set(HEALTH)
    parts = {name.partition(".")[2] for name in names("Fields of a node's status") if name.startswith("disk.")}
    assert parts <= {field.name for field in msgspec.structs.fields(DiskStatus)}


def test_each_entry_tells_a_cause_and_a_remedy() -> None:
    for title in (
        "Codes",
        "Calls of services",
        "Private networks",
        "Lines of a node's log",
        "Fields of a node's status",
    ):
        for name, rest in section(title).items():
            assert all(len(cell.strip()) > 6 for cell in rest.split(" | ")), name
            assert rest.count(" | ") == 1, name
