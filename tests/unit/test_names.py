"""One name for one thing: no two public classes of one name in our packages."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.paths import ROOT

PACKAGES = ("overlay", "registry", "aqua_compat")

SAME_NAMES = {
    "Step",  # of the interpreter's run, in the engine; of the tour that `demo` shows, which nothing else imports
}
"""Names that two classes have for a reason; each tells it."""


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for definition in ast.parse(path.read_text()).body:
                if isinstance(definition, ast.ClassDef) and not definition.name.startswith("_"):
                    places[definition.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1 and name not in SAME_NAMES} == {}
